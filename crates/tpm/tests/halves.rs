//! A half: imported, unsealed on the right path, refused on every other.

mod common;

use common::{AUTH, SECRET, World, dataset, refusal, secret};
use hoidla_format::{Bytes, Hash32, statements::TpmHalf};
use hoidla_tpm::{Blob, Tpm, TpmError};
use hoidla_verify::{ReleaseKey, import};

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

#[test]
fn a_register_extended_after_the_release_is_refused() {
    for register in common::PCRS {
        let w = World::new();
        let (blob, release) = (w.import(1), w.release(1, &[1]));
        w.tpm.pcr_extend(register, &Hash32([1; 32])).unwrap();
        assert_eq!(refusal(w.unseal(&blob, &release, 1)), TpmError::Pcrs, "PCR {register}");
    }
}

#[test]
fn a_register_outside_the_release_may_change() {
    let w = World::new();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    let before = w.tpm.pcr_read(&[15]).unwrap();
    w.tpm.pcr_extend(15, &Hash32([1; 32])).unwrap();
    assert_ne!(w.tpm.pcr_read(&[15]).unwrap(), before);
    assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET);
}

#[test]
fn a_release_of_another_signer_is_refused() {
    let w = World::new();
    let blob = w.import(1);
    let other = w.release_by(&ReleaseKey::generate().0, true, 1, &[1]);
    assert_eq!(refusal(w.unseal(&blob, &other, 1)), TpmError::Policy);
}

#[test]
fn development_and_production_do_not_mix() {
    let w = World::new();
    let blob = w.import(1);
    let production = w.release_by(&w.key, false, 1, &[1]);
    assert_eq!(refusal(w.unseal(&blob, &production, 1)), TpmError::Policy);
}

#[test]
fn a_half_serves_its_own_vault_epoch_only() {
    let w = World::new();
    let (first, release) = (w.import(1), w.release(1, &[1, 2]));
    assert_eq!(refusal(w.unseal(&first, &release, 2)), TpmError::Policy);
    assert_eq!(refusal(w.tpm.import_half(&w.half(1), &w.public(), &w.vault_ref(2))), not_a_half(1));
}

fn not_a_half(vault_epoch: u32) -> TpmError {
    TpmError::NotAHalf { dataset: dataset(), vault_epoch, why: "it has another policy".into() }
}

#[test]
fn a_half_without_the_quorum_in_its_policy_is_not_imported() {
    let w = World::new();
    let without = w.public().policy(&w.vault_ref(1)).digest();
    let made = import::make(w.tpm.srk(), &secret(SECRET), without, &secret(AUTH)).unwrap();
    let mut half = w.half(1);
    (half.public, half.duplicate, half.seed) = (Bytes(made.public.marshal()), Bytes(made.duplicate), Bytes(made.seed));
    assert_eq!(refusal(w.tpm.import_half(&half, &w.public(), &w.vault_ref(1))), not_a_half(1));
}

#[test]
fn a_half_that_was_changed_is_not_imported() {
    let w = World::new();
    let good = w.half(1);
    let import = |h: &TpmHalf| w.tpm.import_half(h, &w.public(), &w.vault_ref(1));
    for at in [0, 2, 33, 34, 40, 70, good.duplicate.0.len() - 1] {
        let mut bad = good.clone();
        bad.duplicate.0[at] ^= 1;
        assert!(import(&bad).is_err(), "byte {at} of the duplicate");
    }
    for at in [0, 1, 2, 33, 36, 67] {
        let mut bad = good.clone();
        bad.seed.0[at] ^= 1;
        assert!(import(&bad).is_err(), "byte {at} of the seed");
    }
    for at in 0..good.public.0.len() {
        let mut bad = good.clone();
        bad.public.0[at] ^= 1;
        assert!(import(&bad).is_err(), "byte {at} of the public area");
    }
    for cut in [0, 1, 34, good.duplicate.0.len() - 1] {
        let mut bad = good.clone();
        bad.duplicate.0.truncate(cut);
        assert!(import(&bad).is_err(), "duplicate cut at {cut}");
    }
    let mut long = good.clone();
    long.duplicate.0.resize(5000, 0);
    assert_eq!(refusal(import(&long)), TpmError::Integrity);
    import(&good).unwrap();
}

#[test]
fn a_half_for_another_tpm_is_not_imported() {
    let (w, other) = (World::new(), World::new());
    let half = other.half(1);
    let policy_of_ours = w.public().half_policy(&w.vault_ref(1)).digest();
    let made = import::make(other.tpm.srk(), &secret(SECRET), policy_of_ours, &secret(AUTH)).unwrap();
    let half = TpmHalf { public: Bytes(made.public.marshal()), duplicate: Bytes(made.duplicate), seed: Bytes(made.seed), ..half };
    assert_eq!(refusal(w.tpm.import_half(&half, &w.public(), &w.vault_ref(1))), TpmError::Integrity);
}

#[test]
fn a_kept_object_that_was_changed_does_not_load() {
    let w = World::new();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    let bytes = blob.to_bytes();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let Ok(bad) = Blob::from_bytes(&bad) else { continue };
        assert!(w.unseal(&bad, &release, 1).is_err(), "byte {at}");
    }
    for cut in 0..bytes.len() {
        assert!(Blob::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Blob::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn another_tpm_than_the_pinned_one_is_refused() {
    let (w, other) = (World::new(), World::new());
    let name = w.tpm.srk().name();
    Tpm::open_pinned(w.swtpm.tcti(), &name).unwrap();
    assert_eq!(refusal(Tpm::open_pinned(other.swtpm.tcti(), &name)), TpmError::WrongSrk);
}
