//! Old blobs and old releases put back by the host open nothing.

mod common;

use common::{SECRET, World, dataset, refusal};
use hoidla_tpm::{Blob, Counter, Tpm, TpmError};

#[test]
fn a_retired_vault_epoch_stays_retired_when_its_blob_is_put_back() {
    let w = World::new();
    let kept_by_host = w.import(1).to_bytes();
    let second = w.import(2);
    let old = w.release(1, &[1, 2]);
    assert_eq!(w.unseal(&Blob::from_bytes(&kept_by_host).unwrap(), &old, 1).unwrap().expose(), &SECRET);

    let next = w.release(2, &[2]);
    w.tpm.retire_releases_below(2).unwrap();

    let put_back = Blob::from_bytes(&kept_by_host).unwrap();
    assert_eq!(refusal(w.unseal(&put_back, &next, 1)), TpmError::NotApproved { dataset: dataset(), vault_epoch: 1 });
    assert_eq!(refusal(w.unseal(&put_back, &old, 1)), TpmError::Retired, "the old release put back too");
    assert_eq!(w.unseal(&second, &next, 2).unwrap().expose(), &SECRET, "the other vault epoch goes on");

    // Importing the dealt half again gives the same object: no way round either.
    let again = w.import(1);
    assert_eq!(refusal(w.unseal(&again, &old, 1)), TpmError::Retired);
}

#[test]
fn a_retired_release_opens_nothing_and_signs_nothing() {
    let w = World::new();
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap().blob;
    let (half, old) = (w.import(1), w.release(1, &[1]));
    w.tpm.sign_with_node(&node, &old, &[7; 32]).unwrap();
    let next = w.release(2, &[1]);
    w.tpm.retire_releases_below(2).unwrap();
    assert_eq!(refusal(w.unseal(&half, &old, 1)), TpmError::Retired);
    assert_eq!(refusal(w.tpm.sign_with_node(&node, &old, &[7; 32])), TpmError::Retired);
    assert_eq!(w.unseal(&half, &next, 1).unwrap().expose(), &SECRET, "a new release needs no new sealing");
    w.tpm.sign_with_node(&node, &next, &[7; 32]).unwrap();
}

#[test]
fn retirement_outlives_a_power_cut() {
    let mut w = World::new();
    let (half, old) = (w.import(1), w.release(1, &[1]));
    w.tpm.retire_releases_below(2).unwrap();
    w.power_cut();
    assert_eq!(refusal(w.unseal(&half, &old, 1)), TpmError::Retired);
}

#[test]
fn a_counter_made_again_does_not_go_back() {
    let w = World::new();
    let (half, old) = (w.import(1), w.release(1, &[1]));
    w.tpm.retire_releases_below(5).unwrap();
    w.tool("tpm2_nvundefine", &["-C", "o", "0x1804801"]);
    assert_eq!(refusal(w.unseal(&half, &old, 1)), TpmError::NoCounter(0x0180_4801));
    assert!(w.tpm.counter(Counter::Release).unwrap() > 5);
    assert_eq!(refusal(w.unseal(&half, &old, 1)), TpmError::Retired);
}

#[test]
fn another_kind_of_index_in_the_counters_place_is_refused() {
    let w = World::new();
    let (half, release) = (w.import(1), w.release(1, &[1]));
    w.tool("tpm2_nvundefine", &["-C", "o", "0x1804801"]);
    w.tool("tpm2_nvdefine", &["-C", "o", "-s", "8", "-a", "ownerwrite|authwrite|ownerread|authread|no_da", "0x1804801"]);
    std::fs::write(w.state.path().join("zero"), [0; 8]).unwrap();
    w.tool("tpm2_nvwrite", &["-C", "o", "-i", "zero", "0x1804801"]);
    assert_eq!(refusal(w.unseal(&half, &release, 1)), TpmError::NoCounter(0x0180_4801));
    assert_eq!(refusal(w.tpm.increment(Counter::Release)), TpmError::NoCounter(0x0180_4801));
}

#[test]
fn counters_only_grow_and_each_for_itself() {
    let mut w = World::new();
    let membership = w.tpm.counter(Counter::Membership).unwrap();
    let release = w.tpm.counter(Counter::Release).unwrap();
    assert_eq!(release, 1, "the first counter of a new TPM");
    assert_eq!(w.tpm.increment(Counter::Membership).unwrap(), membership + 1);
    w.power_cut();
    assert_eq!(w.tpm.counter(Counter::Membership).unwrap(), membership + 1);
    assert_eq!(w.tpm.counter(Counter::Release).unwrap(), release);
    assert_eq!(refusal(w.tpm.increment(Counter::Intent)), TpmError::NoCounter(0x0180_4803));
    let far = release + 5000;
    assert_eq!(w.tpm.retire_releases_below(far), Err(TpmError::TooFar { stands: release, wanted: far }));
    w.tpm.retire_releases_below(0).unwrap();
    assert_eq!(w.tpm.counter(Counter::Release).unwrap(), release, "nothing goes back");
}

#[test]
fn a_half_is_refused_where_no_counter_was_made() {
    let state = tempfile::tempdir().unwrap();
    let swtpm = hoidla_tpm::Swtpm::start(state.path()).unwrap();
    let tpm = Tpm::open(swtpm.tcti()).unwrap();
    let w = World { tpm, swtpm, key: hoidla_verify::ReleaseKey::generate().0, state };
    let (half, release) = (w.import(1), w.release(1, &[1]));
    assert_eq!(refusal(w.unseal(&half, &release, 1)), TpmError::NoCounter(0x0180_4801));
}
