//! What dealing at home makes, a real TPM imports, and only its quorum opens.

mod common;

use common::{World, dataset, name, site};
use hoidla_crypto::{
    Secret,
    envelope::{self, CustodianKeys},
};
use hoidla_format::{
    Bytes, Moment, Name,
    statements::{ApplianceIdentity, Door, Roster},
};
use hoidla_quorum::{
    dealing::{Dealing, DealingInput, deal},
    opening::{OpenError, open_with_tpm},
    share::{Share, VaultId},
};
use hoidla_tpm::{Blob, TpmError};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const CUSTODIANS: [&str; 3] = ["alpha", "bravo", "charlie"];
const RECOVERY: [&str; 4] = ["delta", "echo", "foxtrot", "golf"];

struct Dealt {
    w: World,
    keys: Vec<(Name, CustodianKeys)>,
    dealing: Dealing,
    blob: Blob,
}

fn dealt() -> Dealt {
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
    fn share(&self, at: usize) -> Share {
        let (custodian, keys) = &self.keys[at];
        let sealed = self.dealing.quorum.shares.iter().find(|s| s.custodian == *custodian).unwrap();
        let id = VaultId::of(&self.dealing.vault).share(Door::Quorum, custodian, sealed.index);
        Share::decode(&envelope::open(keys, &id, &sealed.sealed.0).unwrap()).unwrap()
    }

    fn open(&self, shares: &[usize], appliance: &str, release_epoch: u64) -> Result<(), OpenError<TpmError>> {
        let shares: Vec<Share> = shares.iter().map(|s| self.share(*s)).collect();
        let release = self.w.release(release_epoch, &[1]);
        let unseal = |_: &_, auth: &Secret<32>| self.w.tpm.unseal_half(&self.blob, &release, &dataset(), 1, auth);
        open_with_tpm(&self.dealing.vault, &name(appliance), &self.dealing.halves[0].1, &shares, unseal).map(drop)
    }
}

fn identity(w: &World) -> ApplianceIdentity {
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap();
    let id = w.tpm.identity(&w.public(), &w.node_ref(), &node).unwrap();
    let bytes = |p: &hoidla_verify::Public| Bytes(p.marshal());
    ApplianceIdentity {
        site: site(),
        name: name("lux-1"),
        tpm: "software".into(),
        ek: bytes(&id.ek),
        srk: bytes(&id.srk),
        ak: bytes(&id.ak),
        node: bytes(&id.node),
        release_counter: id.release_counter,
    }
}

#[test]
fn any_quorum_opens_with_the_tpm() {
    let d = dealt();
    for two in [[0, 1], [0, 2], [2, 1]] {
        d.open(&two, "lux-1", 1).unwrap();
    }
}

#[test]
fn fewer_or_elsewhere_or_later_opens_nothing() {
    let d = dealt();
    assert!(matches!(d.open(&[0], "lux-1", 1), Err(OpenError::Shares(_))));
    assert_eq!(d.open(&[0, 1], "lux-2", 1), Err(OpenError::Tpm(TpmError::Auth)), "another appliance's auth value");
    d.w.tpm.retire_releases_below(2).unwrap();
    assert_eq!(d.open(&[0, 1], "lux-1", 1), Err(OpenError::Tpm(TpmError::Retired)));
    d.open(&[0, 1], "lux-1", 2).unwrap();
}
