//! A half: imported, unsealed on the right path, refused on every other.

mod common;

use common::{AUTH, SECRET, World, dataset, refusal, secret};
use hoidla_tpm::{Blob, TpmError};

#[test]
fn the_right_path_gives_the_half() {
    let w = World::new();
    let blob = w.import(1);
    let release = w.release(1, &[1]);
    assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET);
    let kept = Blob::from_bytes(&blob.to_bytes()).unwrap();
    assert_eq!(w.unseal(&kept, &release, 1).unwrap().expose(), &SECRET);
}

#[test]
fn an_auth_value_that_ends_in_zeros_works_too() {
    let w = World::new();
    for zeros in [1, 2, 32] {
        let mut auth = AUTH;
        auth[32 - zeros..].fill(0);
        let blob = w.tpm.import_half(&w.half_with(1, auth), &w.public(), &w.vault_ref(1)).unwrap();
        let got = w.tpm.unseal_half(&blob, &w.release(1, &[1]), &dataset(), 1, &secret(auth)).unwrap();
        assert_eq!(got.expose(), &SECRET);
    }
}

#[test]
fn a_wrong_auth_value_is_refused_and_locks_nothing() {
    let w = World::new();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    for i in 0..40u8 {
        let mut wrong = AUTH;
        wrong[usize::from(i) % 32] ^= 1;
        assert_eq!(refusal(w.tpm.unseal_half(&blob, &release, &dataset(), 1, &secret(wrong))), TpmError::Auth);
    }
    assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET);
}
