//! A vault dealt for a real TPM, with its custodians.

use super::{World, dataset, name, site};
use hoidla_crypto::{
    Secret,
    envelope::{self, CustodianKeys},
};
use hoidla_format::{
    Bytes, Moment, Name,
    statements::{ApplianceIdentity, Door, KeyCreated, Roster},
};
use hoidla_quorum::{
    dealing::{Dealing, DealingInput, deal},
    share::{Share, VaultId},
};
use hoidla_tpm::{Blob, identity::NewNode};
use hoidla_verify::identity::qualifying;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const CUSTODIANS: [&str; 3] = ["alpha", "bravo", "charlie"];
const RECOVERY: [&str; 4] = ["delta", "echo", "foxtrot", "golf"];

pub struct Dealt {
    pub w: World,
    pub keys: Vec<(Name, CustodianKeys)>,
    pub dealing: Dealing,
    pub blob: Blob,
}

pub fn dealt() -> Dealt {
    let w = World::new();
    let make = |names: &[&str]| names.iter().map(|n| (name(n), CustodianKeys::from_seed(&Secret::random()))).collect();
    let (keys, recovery): (Vec<_>, Vec<_>) = (make(&CUSTODIANS), make(&RECOVERY));
    let cards = |keys: &[(Name, CustodianKeys)]| keys.iter().map(|(n, k)| k.public_card(n)).collect();
    let roster =
        Roster { site: site(), name: name("main"), quorum: 2, recovery_quorum: 3, custodians: cards(&keys), recovery: cards(&recovery) };
    let vault = VaultId { site: site(), dataset: dataset(), vault_epoch: 1 };
    let public = w.public();
    let appliances = [identity(&w)];
    let dealt = Moment::from_seconds(1_800_000_000);
    let input = DealingInput { vault, development: true, roster: &roster, release_key: &public, appliances: &appliances, dealt };
    let dealing = deal(&input, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    let blob = w.tpm.import_half(&dealing.halves[0].1, &public, &w.vault_ref(1)).unwrap();
    Dealt { w, keys, dealing, blob }
}

impl Dealt {
    pub fn share(&self, at: usize) -> Share {
        let (custodian, keys) = &self.keys[at];
        let sealed = self.dealing.quorum.shares.iter().find(|s| s.custodian == *custodian).unwrap();
        let id = VaultId::of(&self.dealing.vault).share(Door::Quorum, custodian, sealed.index);
        Share::decode(&envelope::open(keys, &id, &sealed.sealed.0).unwrap()).unwrap()
    }
}

fn identity(w: &World) -> ApplianceIdentity {
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap();
    identity_of(w, &node)
}

/// A TPM's identity, with the proof.
pub fn identity_of(w: &World, node: &NewNode) -> ApplianceIdentity {
    let (id, begins) = (w.tpm.keys(&w.public(), &w.node_ref()).unwrap(), w.tpm.begins().unwrap());
    let bytes = |p: &hoidla_verify::Public| Bytes(p.marshal());
    let mut identity = ApplianceIdentity {
        site: site(),
        name: name("lux-1"),
        tpm: "software".into(),
        ek: bytes(&id.ek),
        prover: bytes(&id.prover),
        srk: bytes(&id.srk),
        ak: bytes(&id.ak),
        node: bytes(node.blob.public()),
        release_counter: begins.release,
        site_counter: begins.site,
        hours_counter: begins.hours,
        created: Vec::new(),
    };
    let words = w.tpm.vouch(&w.public(), &w.node_ref(), node, &qualifying(&identity)).unwrap();
    identity.created = words.map(|(attest, signature)| KeyCreated { attest: Bytes(attest), signature: Bytes(signature.to_vec()) }).to_vec();
    identity
}
