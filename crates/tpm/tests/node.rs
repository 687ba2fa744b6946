//! The node key, the identity, and what an interposer can't do with either.

mod common;

use common::{World, refusal};
use hoidla_format::Hash32;
use hoidla_tpm::{Counter, TpmError};
use hoidla_verify::{Public, ReleaseKey, TpmName, public::attribute};
use p256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};

#[test]
fn the_node_key_signs_under_its_release_only() {
    let w = World::new();
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap().blob;
    let key = VerifyingKey::from(node.public().point().unwrap().key().unwrap());
    let release = w.release(1, &[]);
    let signature = w.tpm.sign_with_node(&node, &release, &[9; 32]).unwrap();
    key.verify_prehash(&[9; 32], &Signature::from_slice(&signature).unwrap()).unwrap();
    assert!(key.verify_prehash(&[8; 32], &Signature::from_slice(&signature).unwrap()).is_err());

    let other = w.release_by(&ReleaseKey::generate().0, true, 1, &[]);
    assert_eq!(refusal(w.tpm.sign_with_node(&node, &other, &[9; 32])), TpmError::Policy);
    let production = w.release_by(&w.key, false, 1, &[]);
    assert_eq!(refusal(w.tpm.sign_with_node(&node, &production, &[9; 32])), TpmError::Policy);
    w.tpm.pcr_extend(11, &Hash32([1; 32])).unwrap();
    assert_eq!(refusal(w.tpm.sign_with_node(&node, &release, &[9; 32])), TpmError::Pcrs);
}

#[test]
fn identity_is_the_same_after_every_restart() {
    let mut w = World::new();
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap().blob;
    let (before, begins) = (w.tpm.keys(&w.public(), &w.node_ref()).unwrap(), w.tpm.begins().unwrap());
    let resets = w.tpm.read_clock().unwrap().reset_count;
    w.power_cut();
    assert_eq!(w.tpm.keys(&w.public(), &w.node_ref()).unwrap(), before);
    assert_eq!(w.tpm.begins().unwrap(), begins);
    assert_eq!(w.tpm.read_clock().unwrap().reset_count, resets + 1);
    w.tpm.sign_with_node(&node, &w.release(begins.release, &[]), &[1; 32]).unwrap();
}

#[test]
fn identity_has_the_shapes_that_home_expects() {
    let w = World::new();
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap().blob.public().clone();
    let id = w.tpm.keys(&w.public(), &w.node_ref()).unwrap();
    assert!(id.srk.same_template(&Public::srk_template()));
    assert!(id.ek.same_template(&Public::ek_template()));
    let policy = w.public().policy(&w.node_ref()).digest();
    assert!(id.ak.same_template(&Public::signing_template(policy, true)));
    assert!(node.same_template(&Public::signing_template(policy, false)));
    for key in [&id.ak, &node] {
        assert_eq!(key.attributes & attribute::USER_WITH_AUTH, 0, "no key without its policy");
        assert_eq!(Public::parse(&key.marshal()).as_ref(), Ok(key));
    }
    assert!(id.prover.same_template(&Public::prover_template()));
    assert_eq!(w.tpm.begins().unwrap().release, w.tpm.counter(Counter::Release).unwrap());
}

/// An interposer injects commands: a key without a policy of its own would quote for anybody.
#[test]
fn the_attestation_key_quotes_for_nobody_on_the_bus() {
    let w = World::new();
    let ak = w.tpm.keys(&w.public(), &w.node_ref()).unwrap().ak;
    let policy = w.public().policy(&w.node_ref()).digest();
    std::fs::write(w.state.path().join("policy"), policy.0).unwrap();
    // The tool takes libtss2's own structure: two coordinates of 32 bytes, each in a buffer of 128.
    let mut coordinate = [0; 130];
    coordinate[0] = 32;
    std::fs::write(w.state.path().join("unique"), [coordinate, coordinate].concat()).unwrap();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|noda|sign|restricted";
    let primary =
        ["-C", "e", "-g", "sha256", "-G", "ecc256:ecdsa-sha256:null", "-a", attributes, "-L", "policy", "-u", "unique", "-c", "ak.ctx"];
    w.tool("tpm2_createprimary", &primary);
    w.tool("tpm2_readpublic", &["-c", "ak.ctx", "-n", "ak.name"]);
    let name = std::fs::read(w.state.path().join("ak.name")).unwrap();
    assert_eq!(TpmName::from_bytes(&name), Some(ak.name()), "the very attestation key, made by another program");
    w.tool("tpm2_flushcontext", &["-t"]);
    let quote = w.try_tool("tpm2_quote", &["-c", "ak.ctx", "-l", "sha256:4", "-g", "sha256"]);
    assert!(!quote.status.success(), "quoted without the release's policy");
    let why = String::from_utf8_lossy(&quote.stderr).into_owned();
    assert!(why.contains("0x12F") || why.contains("unavailable") || why.contains("auth"), "{why}");
}
