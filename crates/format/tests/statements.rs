//! Every statement has one committed text: what is written today can be read for ever.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf};

use hoidla_format::{
    Bytes, Hash32, Moment, Name, Statement, StatementError, StreamId,
    statement::{parse, parse_edited, write},
    statements::*,
};

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

fn hash(seed: u8) -> Hash32 {
    Hash32([seed; 32])
}

fn bytes(seed: u8, len: usize) -> Bytes {
    Bytes((0..len).map(|i| seed.wrapping_add(i as u8)).collect())
}

fn moment() -> Moment {
    Moment::from_seconds(1_800_000_000)
}

fn custodian(who: &str) -> Custodian {
    Custodian { name: name(who), signing: bytes(1, 49), ecdh: bytes(2, 49), mlkem: bytes(3, 8), kept_in: "file".into() }
}

fn reader() -> Reader {
    Reader { name: name("reader-1"), signing: bytes(4, 49), hpke: bytes(5, 8) }
}

/// The statement's text is the committed one, reads back, and refuses what it must.
fn holds<S: Statement + PartialEq + std::fmt::Debug>(statement: S) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../tests/vectors/statements", &format!("{}.txt", S::KIND)].iter().collect();
    let text = write(&statement);
    let committed = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; the text now is\n{text}", path.display()));
    assert_eq!(text, committed, "a change of {} needs a new version", S::KIND);
    assert_eq!(parse::<S>(&committed).unwrap(), statement);

    let with_unknown = committed.replacen('\n', "\nzz_unknown = 1\n", 1);
    assert!(matches!(parse_edited::<S>(&with_unknown), Err(StatementError::Content { line: 2, .. })), "{with_unknown}");
    let second = committed.lines().nth(1).unwrap();
    let without_first_key = committed.replacen(&format!("{second}\n"), "", 1);
    assert!(matches!(parse_edited::<S>(&without_first_key), Err(StatementError::Content { .. })));
    assert_eq!(parse::<S>(&format!("{committed}\n")), Err(StatementError::NotCanonical));
    let newer = committed.replacen("/1\"", "/2\"", 1);
    assert!(matches!(parse::<S>(&newer), Err(StatementError::Version { .. })));
    for cut in 0..committed.len() {
        assert_ne!(parse::<S>(&committed[..cut]).ok().as_ref(), Some(&statement), "cut at {cut}");
    }
}

#[test]
fn what_a_site_is() {
    holds(Site {
        site: name("lux"),
        serial: 7,
        development: true,
        authority: bytes(1, 49),
        release_key: bytes(2, 65),
        door_root: bytes(3, 80),
        appliances: vec![ApplianceEntry { name: name("lux-1"), address: "203.0.113.7:4711".into(), network: None, health: None }],
        rosters: vec![RosterEntry { name: name("state"), hash: hash(1) }],
        datasets: vec![Dataset {
            name: name("land-registry"),
            title: "Land registry".into(),
            roster: name("state"),
            retention_days: 3650,
            share: None,
        }],
        revoked_agents: vec![name("old-agent")],
    });
    holds(Roster {
        site: name("lux"),
        name: name("state"),
        quorum: 1,
        recovery_quorum: 2,
        custodians: vec![custodian("alpha"), custodian("bravo")],
        recovery: vec![custodian("charlie"), custodian("delta")],
    });
    holds(custodian("alpha"));
    holds(Release {
        site: name("lux"),
        name: name("hoidla-1"),
        development: true,
        epoch: 3,
        pcrs: vec![PcrValue { index: 4, value: hash(4) }, PcrValue { index: 11, value: hash(11) }],
        policy: hash(2),
        signature: bytes(5, 64),
        vaults: vec![VaultApproval { dataset: name("land-registry"), vault_epoch: 1, signature: bytes(6, 64) }],
    });
    holds(Endorsement { tpm: "software".into(), ek: bytes(1, 8) });
    holds(ApplianceIdentity {
        site: name("lux"),
        name: name("lux-1"),
        tpm: "software".into(),
        ek: bytes(1, 8),
        prover: bytes(5, 8),
        srk: bytes(2, 8),
        ak: bytes(3, 8),
        node: bytes(4, 8),
        release_counter: 3,
        site_counter: 4,
        hours_counter: 6,
        created: [6, 7, 8].map(|n| KeyCreated { attest: bytes(n, 12), signature: bytes(n, 64) }).to_vec(),
    });
    holds(Enrolment {
        site: name("lux"),
        site_hash: hash(1),
        appliance: name("lux-1"),
        identity: hash(2),
        halves: hash(3),
        proof: Proof::CredentialActivated,
        certificate: bytes(7, 60),
        issued: moment(),
    });
    holds(AgentCertificate {
        site: name("lux"),
        dataset: name("land-registry"),
        agent: name("agent-1"),
        key: bytes(1, 49),
        issued: moment(),
        not_after: moment().plus(86_400),
    });
    holds(DiskWord { site: name("lux"), appliance: name("lux-1"), tray: 3, seen: Hash32([7; 32]), serial: 2, issued: moment() });
    holds(Erased {
        site: name("lux"),
        appliance: name("lux-1"),
        tray: 3,
        serial: "S6Z1NX0T".into(),
        was: "a disk of this store, place 2".into(),
        seen: hash(7),
        bytes: 4 << 40,
        powered: 864_000,
        log_size: 1000,
        log_root: hash(8),
        created: moment(),
    });
    holds(Skip {
        site: name("lux"),
        appliance: name("lux-1"),
        identity: hash(4),
        serial: 2,
        from: 864_000,
        to: 8_640_000,
        reason: "moved to another hall".into(),
        issued: moment(),
    });
}

#[test]
fn what_lets_a_store_go_on() {
    holds(CountWord {
        site: name("lux"),
        appliance: name("lux-1"),
        identity: hash(4),
        stands: 19,
        log_size: 1000,
        log_root: hash(8),
        reason: "somebody tried a tool on the TPM".into(),
        issued: moment(),
    });
}

#[test]
fn what_a_boot_image_is() {
    holds(ImageManifest {
        name: name("hoidla-1"),
        development: true,
        profile: name("qemu-q35"),
        unsigned: hash(1),
        signed: hash(2),
        certificate: bytes(3, 60),
        firmware: vec![hash(9)],
        pcrs: [4, 7, 9, 11, 12, 13].map(|index| PcrValue { index, value: hash(index) }).to_vec(),
        software: vec![Software { name: "hoidlad".into(), version: "0.1.0".into(), hash: hash(5) }],
    });
}

#[test]
fn how_its_vaults_were_dealt() {
    holds(Vault {
        site: name("lux"),
        dataset: name("land-registry"),
        vault_epoch: 1,
        suite: "MLKEM1024-P384, HKDF-SHA384, AES-256-GCM".into(),
        public_key: bytes(1, 16),
        roster: hash(1),
        quorum: 1,
        recovery_quorum: 2,
        dealt: moment(),
        commitments: vec![
            Commitment { door: Door::Quorum, custodian: name("alpha"), index: 1, commitment: hash(2) },
            Commitment { door: Door::Recovery, custodian: name("charlie"), index: 1, commitment: hash(3) },
        ],
    });
    holds(Envelopes {
        vault: hash(1),
        dataset: name("land-registry"),
        vault_epoch: 1,
        door: Door::Quorum,
        shares: vec![ShareEnvelope { custodian: name("alpha"), index: 1, sealed: bytes(1, 32) }],
    });
    holds(Halves {
        site: name("lux"),
        appliance: name("lux-1"),
        identity: hash(1),
        halves: vec![TpmHalf {
            dataset: name("land-registry"),
            vault_epoch: 1,
            vault: hash(2),
            public: bytes(1, 8),
            duplicate: bytes(2, 8),
            seed: bytes(3, 8),
            wrapped_key: bytes(4, 60),
        }],
    });
    holds(RecoveryWrap { vault: hash(1), dataset: name("land-registry"), vault_epoch: 1, wrapped_key: bytes(1, 60) });
}

#[test]
fn what_a_ceremony_says() {
    holds(reader());
    holds(Grant {
        site: name("lux"),
        appliance: name("lux-1"),
        purpose: "A drill: restore after the loss of the first data centre.".into(),
        created: moment(),
        open_for_seconds: 3600,
        nonce: bytes(9, 16),
        reader: reader(),
        covers: vec![Covers { dataset: name("land-registry"), vault_epoch: 1, vault: hash(1) }],
    });
    holds(Challenge {
        grant: hash(1),
        appliance: name("lux-1"),
        site_hash: hash(2),
        nonce: bytes(1, 32),
        one_time_key: bytes(2, 16),
        attestation_key: bytes(3, 34),
        reset_count: 4,
        restart_count: 5,
        release: name("hoidla-1"),
        development: true,
        valid_for_seconds: 86_400,
        measured: vec![hash(6), hash(7)],
        quote: bytes(4, 12),
    });
    holds(Approval {
        grant: hash(1),
        challenge: hash(2),
        custodian: name("alpha"),
        shares: vec![SealedShare { dataset: name("land-registry"), vault_epoch: 1, index: 1, sealed: bytes(1, 32) }],
    });
}

#[test]
fn what_streams_carry() {
    holds(EpochHeader {
        site: name("lux"),
        dataset: name("land-registry"),
        stream: StreamId([0xab; 16]),
        generation: 1,
        epoch: 2,
        start: 4096,
        previous_root: hash(1),
        vault_epoch: 1,
        vault: hash(2),
        wrapped_key: bytes(1, 32),
        agent: name("agent-1"),
        created: moment(),
    });
    holds(StreamRoot {
        dataset: name("land-registry"),
        stream: StreamId([0xab; 16]),
        epoch: 2,
        length: 1 << 40,
        root: hash(1),
        complete: true,
        created: moment(),
    });
}

#[test]
fn no_registry_has_the_logs_name() {
    let with = |dataset: &str| {
        let line = format!("name = \"{dataset}\"\ntitle = \"Land\"\nroster = \"state\"\nretention_days = 1\n");
        toml::from_str::<Dataset>(&line)
    };
    assert!(with("land").is_ok());
    assert!(with("hoidla-log").unwrap_err().to_string().contains("the store's own"));
}

#[test]
fn what_an_audit_found() {
    holds(Completeness {
        site: name("lux"),
        appliance: name("lux-1"),
        dataset: name("land-registry"),
        agent: name("agent-1"),
        checkpoint: hash(1),
        log_size: 100,
        counter: 17,
        sampled_frames: 16,
        sampled_bytes: 1 << 24,
        created: moment(),
        streams: vec![
            KeptStream { generation: 1, stream: StreamId([1; 16]), length: 1 << 40, root: hash(2), copied_here: true },
            KeptStream { generation: 2, stream: StreamId([2; 16]), length: 5, root: hash(3), copied_here: false },
        ],
    });
}
