//! What dealing at home makes, a real TPM imports, and only its quorum opens.

mod common;

use common::{
    dataset,
    dealt::{Dealt, dealt},
    name,
};
use hoidla_crypto::Secret;
use hoidla_quorum::{
    opening::{OpenError, open_with_tpm},
    share::Share,
};
use hoidla_tpm::TpmError;

fn open(d: &Dealt, shares: &[usize], appliance: &str, release_epoch: u64) -> Result<(), OpenError<TpmError>> {
    let shares: Vec<Share> = shares.iter().map(|s| d.share(*s)).collect();
    let release = d.w.release(release_epoch, &[1]);
    let unseal = |_: &_, auth: &Secret<32>| d.w.tpm.unseal_half(&d.blob, &release, &dataset(), 1, auth);
    open_with_tpm(&d.dealing.vault, &name(appliance), &d.dealing.halves[0].1, &shares, unseal).map(drop)
}

#[test]
fn any_quorum_opens_with_the_tpm() {
    let d = dealt();
    for two in [[0, 1], [0, 2], [2, 1]] {
        open(&d, &two, "lux-1", 1).unwrap();
    }
}

#[test]
fn fewer_or_elsewhere_or_later_opens_nothing() {
    let d = dealt();
    assert!(matches!(open(&d, &[0], "lux-1", 1), Err(OpenError::Shares(_))));
    assert_eq!(open(&d, &[0, 1], "lux-2", 1), Err(OpenError::Tpm(TpmError::Auth)), "another appliance's auth value");
    d.w.tpm.retire_releases_below(2).unwrap();
    assert_eq!(open(&d, &[0, 1], "lux-1", 1), Err(OpenError::Tpm(TpmError::Retired)));
    open(&d, &[0, 1], "lux-1", 2).unwrap();
}
