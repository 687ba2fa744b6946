//! Quotes: by the enrolled key, over the registers as they stand, under the release only.

mod common;

use common::{World, refusal};
use hoidla_format::Hash32;
use hoidla_tpm::{QUOTED, TpmError};
use hoidla_verify::{ReleaseKey, TpmName};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

/// The attestation key's name and its public key.
fn attestation_key(w: &World) -> (TpmName, VerifyingKey) {
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap();
    let ak = w.tpm.identity(&w.public(), &w.node_ref(), &node).unwrap().ak;
    (ak.name(), VerifyingKey::from(ak.point().unwrap().key().unwrap()))
}

#[test]
fn a_quote_holds_the_question_and_the_registers() {
    let w = World::new();
    let (name, key) = attestation_key(&w);
    w.tpm.pcr_extend(15, &Hash32([3; 32])).unwrap();
    let quote = w.tpm.quote(&w.release(1, &[]), &name, &[9; 32]).unwrap();
    key.verify(&quote.attest, &Signature::from_slice(&quote.signature).unwrap()).unwrap();
    assert!(quote.attest.windows(32).any(|w| w == [9; 32]), "the qualifying data");
    assert_eq!(quote.pcrs, w.tpm.pcr_read(&QUOTED).unwrap().into_iter().map(|p| p.value).collect::<Vec<_>>());
    let other = w.tpm.quote(&w.release(1, &[]), &name, &[8; 32]).unwrap();
    assert!(key.verify(&other.attest, &Signature::from_slice(&quote.signature).unwrap()).is_err());
}

#[test]
fn no_release_no_quote() {
    let w = World::new();
    let (name, _) = attestation_key(&w);
    let release = w.release(1, &[]);
    let other = w.release_by(&ReleaseKey::generate().0, true, 1, &[]);
    assert_eq!(refusal(w.tpm.quote(&other, &name, &[9; 32])), TpmError::WrongAttestationKey);
    assert_eq!(refusal(w.tpm.quote(&release, &w.tpm.srk().name(), &[9; 32])), TpmError::WrongAttestationKey);
    w.tpm.pcr_extend(11, &Hash32([1; 32])).unwrap();
    assert_eq!(refusal(w.tpm.quote(&release, &name, &[9; 32])), TpmError::Pcrs);
    assert_eq!(w.loaded(), "", "nothing is left loaded");
}
