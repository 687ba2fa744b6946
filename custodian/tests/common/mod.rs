//! A signed site with its dealings in a folder, and an appliance that asks for shares.
#![allow(dead_code)] // each test file uses a part of it

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use hoidla_cli::PassphraseSource;
use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    hpke,
    keys::{AuthorityKeys, ReaderKeys},
    sign::{Signed, read_unverified},
};
use hoidla_custodian::{
    grant::{self, Wanted},
    papers::{Known, Papers},
};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, Statement,
    statement::{hash, write},
    statements::{ApplianceEntry, Challenge, Dataset, Grant, Roster, RosterEntry, Site},
};
use hoidla_quorum::{
    dealing::{Dealing, DealingInput, deal},
    share::VaultId,
};
use hoidla_verify::{ReleaseKey, ReleasePublic};

pub const PEOPLE: [&str; 7] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf"];

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn fixed(byte: u8) -> Secret<32> {
    Secret::filled(|b| b.fill(byte))
}

pub fn keys_of(person: usize) -> CustodianKeys {
    CustodianKeys::from_seed(&fixed(person as u8 + 1))
}

pub fn release_key() -> ReleasePublic {
    ReleaseKey::from_secret(&fixed(9)).unwrap().public()
}

/// A folder with a signed site, and dealings of it.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub authority: AuthorityKeys,
    pub roster: Roster,
    pub known: Known,
}

impl Stage {
    pub fn new() -> Self {
        Self::of(77, true)
    }

    pub fn of(authority: u8, development: bool) -> Self {
        let authority = AuthorityKeys::from_seed(&fixed(authority));
        let cards: Vec<_> = (0..PEOPLE.len()).map(|i| keys_of(i).public_card(&name(PEOPLE[i]))).collect();
        let roster = Roster {
            site: name("lux"),
            name: name("main"),
            quorum: 2,
            recovery_quorum: 3,
            custodians: cards[..3].to_vec(),
            recovery: cards[3..].to_vec(),
        };
        let site = Site {
            site: name("lux"),
            serial: 4,
            development,
            authority: Bytes(authority.statements.verifying_key().to_sec1()),
            release_key: Bytes(release_key().to_sec1()),
            door_root: Bytes(vec![1]),
            revoked_agents: vec![],
            appliances: vec![ApplianceEntry { name: name("lux-1"), address: "127.0.0.1:1".into(), network: None, health: None }],
            rosters: vec![RosterEntry { name: name("main"), hash: hash(&write(&roster)) }],
            datasets: ["land", "court"]
                .map(|d| Dataset {
                    name: name(d),
                    title: format!("The {d} registry"),
                    roster: name("main"),
                    retention_days: 1,
                    share: None,
                })
                .into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.txt");
        fs::write(&path, authority.statements.sign_statement("authority", &site)).unwrap();
        let known = Known::read(&path).unwrap();
        Self { folder, authority, roster, known }
    }

    pub fn deal(&self, dataset: &str, vault_epoch: u32) -> Dealing {
        let input = DealingInput {
            vault: VaultId { site: name("lux"), dataset: name(dataset), vault_epoch },
            development: true,
            roster: &self.roster,
            release_key: &release_key(),
            appliances: &[],
            dealt: Moment::from_seconds(1_800_000_000),
        };
        deal(&input, &mut rand_core::UnwrapErr(getrandom::SysRng)).unwrap()
    }

    pub fn signed<S: Statement>(&self, statement: &S) -> Vec<u8> {
        self.authority.statements.sign_statement("authority", statement).into_bytes()
    }

    pub fn put(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn papers(&self, dealings: &[&Dealing]) -> Papers {
        let mut papers = Papers::default();
        for d in dealings {
            for note in [self.signed(&d.vault), self.signed(&d.quorum), self.signed(&d.recovery)] {
                papers.add(&self.known, &note).unwrap();
            }
        }
        papers
    }

    pub fn grant(&self, dealings: &[&Dealing]) -> Signed<Grant> {
        let request = grant::Request {
            appliance: name("lux-1"),
            reader: ReaderKeys::from_seed(&fixed(42)).public(&name("reader-1")),
            wanted: dealings.iter().map(|d| Wanted { dataset: d.vault.dataset.clone(), vault_epoch: Some(d.vault.vault_epoch) }).collect(),
            purpose: "A drill".into(),
            open_for_seconds: 3600,
        };
        let grant = grant::write(&self.known, &self.papers(dealings), request).unwrap();
        read_unverified(keys_of(0).signing_key().sign_statement("alpha", &grant).as_bytes()).unwrap()
    }
}

pub fn challenge(grant: &Signed<Grant>, one_time: &hpke::KeyPair, site_hash: Hash32) -> Challenge {
    Challenge {
        grant: grant.hash,
        appliance: name("lux-1"),
        site_hash,
        nonce: Bytes(vec![3; 32]),
        one_time_key: Bytes(one_time.public().to_bytes()),
        attestation_key: Bytes(vec![]),
        reset_count: 1,
        restart_count: 0,
        release: name("drill"),
        development: true,
        valid_for_seconds: 86_400,
        measured: vec![],
        quote: Bytes(vec![]),
    }
}

pub fn passphrase(stage: &Stage, text: &str) -> PassphraseSource {
    let path = stage.put("passphrase", text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    PassphraseSource { passphrase_file: Some(path) }
}

pub fn told<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("taken"),
        Err(e) => hoidla_cli::end::told(&e),
    }
}
