//! Quotes: by the enrolled key, over the registers as they stand, under the release only; judged by tpm2-tools too.

mod common;

use std::process::Command;

use common::{World, refusal};
use hoidla_format::Hash32;
use hoidla_tpm::{QUOTED, TpmError};
use hoidla_verify::{Attest, Public, ReleaseKey, TpmName, attest::endorsed};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

/// The attestation key's name and its public key.
fn attestation_key(w: &World) -> (TpmName, VerifyingKey) {
    let ak = w.tpm.keys(&w.public(), &w.node_ref()).unwrap().ak;
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

/// What tpm2-tools say of a quote, and what we say.
fn judges(w: &World, ak: &Public, attest: &[u8], signature: &[u8; 64], qualifying: &[u8; 32]) -> (bool, bool) {
    let file = |name: &str| w.state.path().join(name);
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let (r, s) = signature.split_at(32);
    std::fs::write(file("ak.pub"), sized(&ak.marshal())).unwrap();
    std::fs::write(file("quote.msg"), attest).unwrap();
    // TPMT_SIGNATURE: ECDSA, SHA-256, r, s.
    std::fs::write(file("quote.sig"), [&[0, 0x18, 0, 0x0B], &sized(r)[..], &sized(s)].concat()).unwrap();
    let hex: String = qualifying.iter().map(|b| format!("{b:02x}")).collect();
    let arguments = ["-u", "ak.pub", "-m", "quote.msg", "-s", "quote.sig", "-q", &hex, "-g", "sha256"];
    let theirs = Command::new("tpm2_checkquote").args(arguments).current_dir(w.state.path()).output().unwrap().status.success();
    let key = VerifyingKey::from(ak.point().unwrap().key().unwrap());
    let signed = Signature::from_slice(signature).is_ok_and(|s| key.verify(attest, &s).is_ok());
    let ours = Attest::parse(attest).is_ok_and(|a| a.qualifying == *qualifying && a.signer == endorsed(&ak.name()));
    (theirs, signed && ours)
}

#[test]
fn tpm2_checkquote_agrees_on_what_is_whole_and_what_is_not() {
    let w = World::new();
    let ak = w.tpm.keys(&w.public(), &w.node_ref()).unwrap().ak;
    let quote = w.tpm.quote(&w.release(1, &[]), &ak.name(), &[9; 32]).unwrap();
    assert_eq!(judges(&w, &ak, &quote.attest, &quote.signature, &[9; 32]), (true, true));
    assert_eq!(judges(&w, &ak, &quote.attest, &quote.signature, &[8; 32]), (false, false), "another question");
    for at in (0..quote.attest.len()).step_by(12) {
        let mut attest = quote.attest.clone();
        attest[at] ^= 1;
        assert_eq!(judges(&w, &ak, &attest, &quote.signature, &[9; 32]), (false, false), "byte {at} of the quote");
    }
    for at in [0, 31, 32, 63] {
        let mut signature = quote.signature;
        signature[at] ^= 1;
        assert_eq!(judges(&w, &ak, &quote.attest, &signature, &[9; 32]), (false, false), "byte {at} of the signature");
    }
    let attest = Attest::parse(&quote.attest).unwrap();
    assert_eq!(attest.marshal(), quote.attest, "a real quote has the one form");
    assert_eq!(attest.registers().collect::<Vec<_>>(), QUOTED);
}
