//! A small world: a site with custodians, a dealt vault, and a TPM on paper.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use aes::cipher::KeyIvInit;
use hmac::{Hmac, KeyInit, Mac};
use hoidla_crypto::{
    Secret, Zeroizing,
    datakey::{self, Binding, DataKey},
    envelope::{self, CustodianKeys},
    hpke,
    keys::ReaderKeys,
    sign::{Signed, SigningKey, read_unverified},
};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, StreamId,
    statement::{hash, write},
    statements::{ApplianceEntry, ApplianceIdentity, Challenge, Covers, Envelopes, Grant, Roster, Site, TpmHalf, Vault},
};
use hoidla_quorum::{
    dealing::{Dealing, DealingInput, deal},
    share::{Share, VaultId},
};
use hoidla_verify::{
    PolicyRef, Public, ReleaseKey, ReleasePublic, TpmName, import,
    public::{Point, Shape},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Custodians `alpha` to `echo` of the quorum door, `foxtrot` to `lima` of the recovery door.
pub const QUORUM: [&str; 5] = ["alpha", "bravo", "charlie", "delta", "echo"];
pub const RECOVERY: [&str; 7] = ["foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"];

pub fn keys_of(custodian: &str) -> CustodianKeys {
    let seed = Sha256::digest(custodian.as_bytes());
    CustodianKeys::from_seed(&Secret::filled(|b| b.copy_from_slice(&seed)))
}

pub fn roster() -> Roster {
    let cards = |names: &[&str]| names.iter().map(|n| keys_of(n).public_card(&name(n))).collect();
    Roster { site: name("lux"), name: name("main"), quorum: 3, recovery_quorum: 5, custodians: cards(&QUORUM), recovery: cards(&RECOVERY) }
}

/// A TPM's storage key in software: imports a half and unseals it as the standard says.
pub struct PaperTpm {
    key: p256::SecretKey,
    pub unsealed: Cell<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |h, p| h.chain_update(p)).finalize().into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|p| mac.update(p));
    mac.finalize().into_bytes().into()
}

fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> [u8; 32] {
    hmac(key, &[&1u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()])
}

/// Takes `u16 length ‖ bytes` off the front.
fn sized<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (len, rest) = bytes.split_first_chunk::<2>().unwrap();
    let (field, rest) = rest.split_at(u16::from_be_bytes(*len).into());
    *bytes = rest;
    field
}

impl PaperTpm {
    pub fn new(seed: u8) -> Self {
        Self { key: p256::SecretKey::from_slice(&[seed; 32]).unwrap(), unsealed: Cell::new(0) }
    }

    pub fn identity(&self, appliance: &str) -> ApplianceIdentity {
        let srk = Public { shape: Shape::Storage(Point::of(&self.key.public_key())), ..Public::srk_template() };
        ApplianceIdentity {
            site: name("lux"),
            name: name(appliance),
            tpm: "software".into(),
            ek: Bytes(vec![]),
            prover: Bytes(vec![]),
            srk: Bytes(srk.marshal()),
            ak: Bytes(vec![]),
            node: Bytes(vec![]),
            release_counter: 1,
            site_counter: 1,
            hours_counter: 1,
            created: vec![],
        }
    }

    /// `TPM2_Import`, then `TPM2_Unseal` with this auth value.
    pub fn unseal(&self, half: &TpmHalf, auth: &Secret<32>) -> Result<Secret<32>, Refused> {
        let object = TpmName::of(&half.public.0);
        let seed = self.seed(&half.seed.0).ok_or(Refused("a point off the curve"))?;
        let mut rest = &half.duplicate.0[..];
        let integrity = sized(&mut rest);
        if hmac(&kdf_a(&seed, b"INTEGRITY", &[], 256), &[rest, &object.0]) != integrity {
            return Err(Refused("integrity"));
        }
        let mut inner = Zeroizing::new(rest.to_vec());
        let key: [u8; 16] = kdf_a(&seed, b"STORAGE", &object.0, 128)[..16].try_into().unwrap();
        cfb_mode::Decryptor::<aes::Aes128>::new(&key.into(), &[0; 16].into()).decrypt(&mut inner);
        let mut inner = &inner[4..];
        let (theirs, _obfuscation, data) = (sized(&mut inner), sized(&mut inner), sized(&mut inner));
        if theirs != import::auth_bytes(auth) {
            return Err(Refused("auth value"));
        }
        self.unsealed.set(self.unsealed.get() + 1);
        Ok(Secret::filled(|b| b.copy_from_slice(data)))
    }

    fn seed(&self, point: &[u8]) -> Option<[u8; 32]> {
        let mut point = point;
        let (x, y) = (sized(&mut point), sized(&mut point));
        let peer = p256::PublicKey::from_sec1_bytes(&[&[4], x, y].concat()).ok()?;
        let shared = self.key.diffie_hellman(&peer);
        let own = Point::of(&self.key.public_key());
        Some(sha256(&[&1u32.to_be_bytes(), shared.raw_secret_bytes(), b"DUPLICATE", &[0], x, &own.x]))
    }
}

/// A dealt vault with its TPM.
pub struct World {
    pub roster: Roster,
    pub tpm: PaperTpm,
    pub dealing: Dealing,
    /// Shares as opened once, by custodian.
    opened: RefCell<BTreeMap<String, Zeroizing<Vec<u8>>>>,
}

pub fn release_key() -> ReleasePublic {
    ReleaseKey::from_secret(&Secret::filled(|b| b.fill(9))).unwrap().public()
}

pub fn vault_id(dataset: &str, vault_epoch: u32) -> VaultId {
    VaultId { site: name("lux"), dataset: name(dataset), vault_epoch }
}

pub fn deal_one(roster: &Roster, dataset: &str, vault_epoch: u32, appliances: &[ApplianceIdentity]) -> Dealing {
    let input = DealingInput {
        vault: vault_id(dataset, vault_epoch),
        development: true,
        roster,
        release_key: &release_key(),
        appliances,
        dealt: Moment::from_seconds(1_800_000_000),
    };
    deal(&input, &mut rng(u64::from(vault_epoch))).unwrap()
}

impl World {
    pub fn new() -> Self {
        let tpm = PaperTpm::new(7);
        let roster = roster();
        let dealing = deal_one(&roster, "land", 1, &[tpm.identity("lux-1")]);
        Self { roster, tpm, dealing, opened: RefCell::default() }
    }

    pub fn half(&self) -> &TpmHalf {
        &self.dealing.halves[0].1
    }

    pub fn vault(&self) -> &Vault {
        &self.dealing.vault
    }

    fn opened(&self, envelopes: &Envelopes, custodian: &str) -> Share {
        let mut opened = self.opened.borrow_mut();
        let bytes = opened.entry(custodian.to_owned()).or_insert_with(|| open_envelope(envelopes, custodian).encode());
        Share::decode(bytes).unwrap()
    }

    pub fn share(&self, custodian: &str) -> Share {
        self.opened(&self.dealing.quorum, custodian)
    }

    pub fn shares(&self, custodians: &[&str]) -> Vec<Share> {
        custodians.iter().map(|c| self.share(c)).collect()
    }

    pub fn recovery_shares(&self, custodians: &[&str]) -> Vec<Share> {
        custodians.iter().map(|c| self.opened(&self.dealing.recovery, c)).collect()
    }

    /// A data key sealed to the vault, and what it is bound to.
    pub fn wrapped_key(&self) -> (DataKey, Binding, Vec<u8>) {
        let key = DataKey::from_secret(Secret::filled(|b| b.fill(5)));
        let id = VaultId::of(self.vault());
        let binding = Binding { site: id.site, dataset: id.dataset, stream: StreamId([3; 16]), epoch: 2, vault_epoch: id.vault_epoch };
        let wrapped = datakey::wrap(&key, &hpke::PublicKey::from_bytes(&self.vault().public_key.0).unwrap(), &binding);
        (key, binding, wrapped)
    }

    pub fn grant(&self) -> Grant {
        grant_of(&[&self.dealing])
    }

    pub fn policy(&self) -> Hash32 {
        release_key().half_policy(&PolicyRef::vault(&name("lux"), true, &name("land"), 1)).digest()
    }
}

pub fn open_envelope(envelopes: &Envelopes, custodian: &str) -> Share {
    let sent = envelopes.shares.iter().find(|s| s.custodian.as_str() == custodian).unwrap();
    let id = vault_id(envelopes.dataset.as_str(), envelopes.vault_epoch).share(envelopes.door, &name(custodian), sent.index);
    Share::decode(&envelope::open(&keys_of(custodian), &id, &sent.sealed.0).unwrap()).unwrap()
}

pub fn reader_keys() -> ReaderKeys {
    ReaderKeys::from_seed(&Secret::filled(|b| b.fill(42)))
}

pub fn grant_of(dealings: &[&Dealing]) -> Grant {
    let covers = |d: &&Dealing| Covers { dataset: d.vault.dataset.clone(), vault_epoch: d.vault.vault_epoch, vault: d.vault_hash };
    Grant {
        site: name("lux"),
        appliance: name("lux-1"),
        purpose: "Rebuild the land register after the loss of the first data centre".into(),
        created: Moment::from_seconds(1_800_000_000),
        open_for_seconds: 3600,
        nonce: Bytes(vec![1; 16]),
        reader: reader_keys().public(&name("reader")),
        covers: dealings.iter().map(covers).collect(),
    }
}

pub fn signed(grant: &Grant) -> Signed<Grant> {
    read_unverified(SigningKey::from_secret(&Secret::filled(|b| b.fill(8))).sign_statement("reader", grant).as_bytes()).unwrap()
}

pub fn challenge(grant: &Grant, one_time: &hpke::KeyPair) -> Challenge {
    Challenge {
        grant: hash(&write(grant)),
        appliance: grant.appliance.clone(),
        site_hash: Hash32([2; 32]),
        nonce: Bytes(vec![3; 32]),
        one_time_key: Bytes(one_time.public().to_bytes()),
        attestation_key: Bytes(vec![]),
        reset_count: 1,
        restart_count: 0,
        release: name("drill"),
        development: true,
        valid_for_seconds: 3600,
        measured: vec![],
        quote: Bytes(vec![]),
    }
}

pub fn site() -> Site {
    Site {
        site: name("lux"),
        serial: 1,
        development: true,
        authority: Bytes(vec![]),
        release_key: Bytes(vec![]),
        door_root: Bytes(vec![]),
        appliances: vec![ApplianceEntry { name: name("lux-1"), address: "127.0.0.1:4460".into(), network: None, health: None }],
        rosters: vec![],
        datasets: vec![],
        revoked_agents: vec![],
    }
}
