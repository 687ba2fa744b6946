//! A custodian at work with real files, and against an appliance that lies.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use hoidla_cli::PassphraseSource;
use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    hpke,
    keys::{AuthorityKeys, ReaderKeys},
    sign::{Signed, read_unverified},
};
use hoidla_custodian::{
    ceremony::{approval, check},
    confirm::confirm,
    grant::{self, Wanted},
    new,
    papers::{Known, Papers, read_grant, read_reader},
    review::{self, Asked},
};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, Statement,
    statement::{hash, write},
    statements::{ApplianceEntry, Challenge, Dataset, Door, Grant, Roster, RosterEntry, Site},
};
use hoidla_quorum::{
    dealing::{Dealing, DealingInput, deal},
    intake::{Covered, Intake},
    opening::open_share,
    share::VaultId,
};
use hoidla_verify::{ReleaseKey, ReleasePublic};

const PEOPLE: [&str; 7] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf"];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn fixed(byte: u8) -> Secret<32> {
    Secret::filled(|b| b.fill(byte))
}

fn keys_of(person: usize) -> CustodianKeys {
    CustodianKeys::from_seed(&fixed(person as u8 + 1))
}

fn release_key() -> ReleasePublic {
    ReleaseKey::from_secret(&fixed(9)).unwrap().public()
}

/// A folder with a signed site, and dealings of it.
struct Stage {
    folder: tempfile::TempDir,
    authority: AuthorityKeys,
    roster: Roster,
    known: Known,
}

impl Stage {
    fn new() -> Self {
        Self::of(77, true)
    }

    fn of(authority: u8, development: bool) -> Self {
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
            appliances: vec![ApplianceEntry { name: name("lux-1"), address: "127.0.0.1:1".into() }],
            rosters: vec![RosterEntry { name: name("main"), hash: hash(&write(&roster)) }],
            datasets: ["land", "court"]
                .map(|d| Dataset { name: name(d), title: format!("The {d} registry"), roster: name("main"), retention_days: 1 })
                .into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.txt");
        fs::write(&path, authority.statements.sign_statement("authority", &site)).unwrap();
        let known = Known::read(&path).unwrap();
        Self { folder, authority, roster, known }
    }

    fn deal(&self, dataset: &str, vault_epoch: u32) -> Dealing {
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

    fn signed<S: Statement>(&self, statement: &S) -> Vec<u8> {
        self.authority.statements.sign_statement("authority", statement).into_bytes()
    }

    fn put(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn papers(&self, dealings: &[&Dealing]) -> Papers {
        let mut papers = Papers::default();
        for d in dealings {
            for note in [self.signed(&d.vault), self.signed(&d.quorum), self.signed(&d.recovery)] {
                papers.add(&self.known, &note).unwrap();
            }
        }
        papers
    }

    fn grant(&self, dealings: &[&Dealing]) -> Signed<Grant> {
        let request = grant::Request {
            appliance: name("lux-1"),
            reader: ReaderKeys::from_seed(&fixed(42)).public(&name("reader-1")),
            wanted: dealings.iter().map(|d| Wanted { dataset: d.vault.dataset.clone(), vault_epoch: Some(d.vault.vault_epoch) }).collect(),
            purpose: "A drill".into(),
            open_for_seconds: 3600,
        };
        let grant = grant::write(&self.known, &self.papers(dealings).vaults, request).unwrap();
        read_unverified(keys_of(0).signing_key().sign_statement("alpha", &grant).as_bytes()).unwrap()
    }
}

fn challenge(grant: &Signed<Grant>, one_time: &hpke::KeyPair, site_hash: Hash32) -> Challenge {
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
        quote: Bytes(vec![]),
    }
}

fn passphrase(stage: &Stage, text: &str) -> PassphraseSource {
    let path = stage.put("passphrase", text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    PassphraseSource { passphrase_file: Some(path) }
}

fn told<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("taken"),
        Err(e) => hoidla_cli::end::told(&e),
    }
}

#[test]
fn a_new_key_opens_with_its_passphrase_only_and_is_never_overwritten() {
    let stage = Stage::new();
    let folder = stage.folder.path().join("laptop");
    let made = new::new(&folder, &name("alpha"), &passphrase(&stage, "drei rote Schiffe\n")).unwrap();
    assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
    let (who, keys) = new::open(&made.key, &passphrase(&stage, "drei rote Schiffe\n")).unwrap();
    assert_eq!(who, name("alpha"));
    let card = hoidla_crypto::sign::open_self_signed::<hoidla_format::statements::Custodian>(&fs::read(&made.card).unwrap()).unwrap();
    assert_eq!(card.statement, keys.public_card(&who));

    assert!(told(new::open(&made.key, &passphrase(&stage, "drei blaue Schiffe\n"))).contains("passphrase doesn't open"));
    assert!(told(new::new(&folder, &name("alpha"), &passphrase(&stage, "drei rote Schiffe\n"))).contains("nothing was overwritten"));
    let mut damaged = fs::read(&made.key).unwrap();
    damaged[40] ^= 1;
    let damaged = stage.put("damaged.key", &damaged);
    assert!(told(new::open(&damaged, &passphrase(&stage, "drei rote Schiffe\n"))).contains("damaged"));
    assert!(told(new::open(Path::new("/nonexistent.key"), &PassphraseSource::default())).contains("next: give your key file"));
    // A card where the key belongs.
    assert!(told(new::open(&made.card, &passphrase(&stage, "drei rote Schiffe\n"))).contains("key file cannot be read"));
}

#[test]
fn confirm_opens_one_s_own_and_names_what_doesn_t() {
    let stage = Stage::new();
    let (land, next) = (stage.deal("land", 1), stage.deal("land", 2));
    stage.put("dealt/vault.txt", &stage.signed(&land.vault));
    stage.put("dealt/envelopes.txt", &stage.signed(&land.quorum));
    stage.put("dealt/recovery.txt", &stage.signed(&land.recovery));
    stage.put("dealt/other.txt", b"not a statement\n");
    let papers = Papers::gather(&stage.known, &[stage.folder.path().join("dealt")]).unwrap();
    for (i, door) in [(0, Door::Quorum), (2, Door::Quorum), (3, Door::Recovery), (6, Door::Recovery)] {
        let confirmed = confirm(&name(PEOPLE[i]), &keys_of(i), &papers).unwrap();
        assert_eq!((confirmed.len(), confirmed[0].door, &confirmed[0].error), (1, door, &None));
    }
    // Under another's key; a share of another epoch put into this one's place; without the certificate.
    assert!(confirm(&name("alpha"), &keys_of(1), &papers).unwrap()[0].error.as_ref().unwrap().contains("doesn't open"));
    let mut swapped = land.quorum.clone();
    swapped.shares[0].sealed = next.quorum.shares[0].sealed.clone();
    let mut papers = stage.papers(&[&land]);
    papers.envelopes.clear();
    papers.add(&stage.known, &stage.signed(&swapped)).unwrap();
    assert!(confirm(&name("alpha"), &keys_of(0), &papers).unwrap()[0].error.as_ref().unwrap().contains("another vault epoch"));
    papers.vaults.clear();
    assert!(confirm(&name("alpha"), &keys_of(0), &papers).unwrap()[0].error.as_ref().unwrap().contains("not among the files"));
    assert!(told(confirm(&name("mallory"), &keys_of(0), &papers)).contains("no envelope among these files is for mallory"));
}

#[test]
fn papers_of_another_authority_are_refused() {
    let (stage, foreign) = (Stage::new(), Stage::of(78, true));
    let land = foreign.deal("land", 1);
    let mut papers = Papers::default();
    assert!(papers.add(&stage.known, &foreign.signed(&land.vault)).is_err());
    assert!(papers.add(&stage.known, &foreign.signed(&land.quorum)).is_err());
    assert!(papers.vaults.is_empty() && papers.envelopes.is_empty());
    let path = stage.put("not-a-site.txt", &stage.signed(&land.vault));
    assert!(told(Known::read(&path).map(drop)).contains("a site file belongs here"));
}

#[test]
fn grants_are_read_exactly_or_not_at_all() {
    let stage = Stage::new();
    let land = stage.deal("land", 1);
    let grant = stage.grant(&[&land]);
    let good = stage.put("grant.txt", grant.note.as_bytes());
    assert_eq!(read_grant(&good, &stage.known).unwrap().hash, grant.hash);
    let refused = |text: &str| told(read_grant(&stage.put("bad.txt", text.as_bytes()), &stage.known));
    let commented = grant.note.replacen("site = ", "# purpose = \"something else\"\nsite = ", 1);
    assert!(refused(&commented).contains("changed after it was written"));
    assert!(refused(&grant.note.replace("\"lux-1\"", "\"lux-9\"")).contains("lux-9"));
    assert!(refused(&grant.note.replace("site = \"lux\"", "site = \"sgp\"")).contains("sgp"));
    assert!(refused(&grant.note.replace("3600", "86401")).contains("one day"));
    assert!(refused(&grant.note.replace("created", "creatid")).contains("creatid"));
    assert!(refused("").contains("not a Hoidla statement"));
    assert!(refused(&"x".repeat(300_000)).contains("too long"));
}

#[test]
fn a_grant_is_written_for_what_is_at_hand_only() {
    let stage = Stage::new();
    let (one, two) = (stage.deal("land", 1), stage.deal("land", 2));
    let papers = stage.papers(&[&one, &two]);
    let request = |wanted: &str, purpose: &str| grant::Request {
        appliance: name("lux-1"),
        reader: ReaderKeys::from_seed(&fixed(42)).public(&name("reader-1")),
        wanted: vec![wanted.parse().unwrap()],
        purpose: purpose.into(),
        open_for_seconds: 60,
    };
    let all = grant::write(&stage.known, &papers.vaults, request("land", "Why not")).unwrap();
    assert_eq!(all.covers.iter().map(|c| c.vault_epoch).collect::<Vec<_>>(), [1, 2]);
    let wrong = |wanted, purpose| told(grant::write(&stage.known, &papers.vaults, request(wanted, purpose)));
    assert!(wrong("land:3", "Why not").contains("no vault certificate of land"));
    assert!(wrong("court", "Why not").contains("no vault certificate of court"));
    assert!(wrong("tax", "Why not").contains("the site has land, court"));
    assert!(wrong("land", " ").contains("who needs what"));
    // A reader's file must be signed by the reader it names.
    let keys = ReaderKeys::from_seed(&fixed(42));
    let file = keys.signing.sign_statement("reader-1", &keys.public(&name("reader-1")));
    read_reader(&stage.put("reader.txt", file.as_bytes())).unwrap();
    let other = ReaderKeys::from_seed(&fixed(43)).public(&name("reader-1"));
    let forged = keys.signing.sign_statement("reader-1", &other);
    assert!(read_reader(&stage.put("forged.txt", forged.as_bytes())).is_err());
}

#[test]
fn two_custodians_approve_and_their_shares_are_taken() {
    let stage = Stage::new();
    let (land, court) = (stage.deal("land", 1), stage.deal("court", 1));
    let grant = stage.grant(&[&land, &court]);
    let one_time = hpke::KeyPair::generate();
    let asked = challenge(&grant, &one_time, stage.known.site.hash);
    let notes = |d: [&Dealing; 2]| (d.map(|d| stage.signed(&d.vault)).to_vec(), d.map(|d| stage.signed(&d.quorum)).to_vec());
    let (vaults, envelopes) = notes([&land, &court]);
    let challenged = check(&stage.known, &grant, &write(&asked), &vaults, &envelopes).unwrap();

    let covered = [&land, &court].map(|d| Covered { vault: d.vault.clone(), roster: stage.roster.clone() }).to_vec();
    let mut intake = Intake::new(1);
    intake.begin(&name("alpha"), grant.clone(), asked, covered, Duration::ZERO).unwrap();
    for (i, who) in PEOPLE[..2].iter().enumerate() {
        let approval = approval(&name(who), &keys_of(i), &grant.statement, &challenged).unwrap();
        assert_eq!(approval.shares.len(), 2);
        let note = keys_of(i).signing_key().sign_statement(who, &approval);
        let progress = intake
            .approve(&grant.hash, &name(who), note.as_bytes(), Duration::ZERO, |v, o, s| {
                Ok(open_share(&one_time, o, v, &name(who), s).map(drop)?)
            })
            .unwrap();
        assert_eq!((usize::from(progress.have), progress.need), (i + 1, 2));
    }
    assert!(intake.take(&grant.hash, Duration::ZERO).is_ok());
    // A recovery custodian guards nothing that an appliance opens.
    assert!(told(approval(&name("golf"), &keys_of(6), &grant.statement, &challenged)).contains("guards no share"));
    // The right name with another's key opens no envelope.
    assert!(approval(&name("alpha"), &keys_of(1), &grant.statement, &challenged).is_err());
}

#[test]
fn a_lying_appliance_gets_no_share() {
    let (stage, foreign) = (Stage::new(), Stage::of(78, true));
    let (land, next) = (stage.deal("land", 1), stage.deal("land", 2));
    let grant = stage.grant(&[&land]);
    let one_time = hpke::KeyPair::generate();
    let good = challenge(&grant, &one_time, stage.known.site.hash);
    let (vault, envelopes) = (stage.signed(&land.vault), stage.signed(&land.quorum));
    let refused = |change: &dyn Fn(&mut Challenge)| {
        let mut c = good.clone();
        change(&mut c);
        told(check(&stage.known, &grant, &write(&c), std::slice::from_ref(&vault), std::slice::from_ref(&envelopes)))
    };
    assert!(refused(&|c| c.grant.0[0] ^= 1).contains("another grant"));
    assert!(refused(&|c| c.appliance = name("lux-2")).contains("lux-2"));
    assert!(refused(&|c| c.nonce.0.truncate(8)).contains("nonce"));
    assert!(refused(&|c| c.one_time_key.0.truncate(100)).contains("one-time key"));
    assert!(refused(&|c| c.valid_for_seconds = 86_401).contains("more than a day"));

    let text = write(&good);
    let with = |vaults: &[Vec<u8>], envelopes: &[Vec<u8>]| check(&stage.known, &grant, &text, vaults, envelopes);
    assert!(told(with(&[], std::slice::from_ref(&envelopes))).contains("isn't here"));
    assert!(with(&[foreign.signed(&land.vault)], std::slice::from_ref(&envelopes)).is_err(), "another authority's signature");
    assert!(with(&[stage.signed(&next.vault)], &[stage.signed(&next.quorum)]).is_err(), "another epoch than the grant's");
    let (one_vault, one_envelope) = (std::slice::from_ref(&vault), std::slice::from_ref(&envelopes));
    assert!(check(&stage.known, &grant, &text.replace("drill", "dr\\u0069ll"), one_vault, one_envelope).is_err());
    // Envelopes of the other door, or of another dealing, are as good as none.
    for wrong in [stage.signed(&land.recovery), stage.signed(&next.quorum)] {
        let challenged = with(std::slice::from_ref(&vault), &[wrong]).unwrap();
        assert!(told(approval(&name("alpha"), &keys_of(0), &grant.statement, &challenged)).contains("no envelopes of land"));
    }
}

#[test]
fn the_page_fits_one_screen_and_says_what_weakens_the_promise() {
    let stage = Stage::new();
    let land = stage.deal("land", 2);
    let grant = stage.grant(&[&land]);
    let one_time = hpke::KeyPair::generate();
    let c = challenge(&grant, &one_time, stage.known.site.hash);
    let asked = |serial, same| Asked {
        challenge: &c,
        challenge_hash: hash(&write(&c)),
        enrolment: None,
        site_serial: serial,
        same_site_file: same,
    };
    let page = review::page(&stage.known.site.statement, &grant, Some(&asked(4, true)));
    let text = page.text();
    assert!(text.lines().count() <= 22 && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    for part in ["DRILL", "The land registry (vault epoch 2)", "A drill", "reader-1", "1 h", "Drill or development", "Reduced assurance"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let site = &stage.known.site.statement;
    let last = |a: Asked<'_>| review::warnings(site, Some(&a)).pop().unwrap();
    assert!(last(asked(3, false)).contains("OLDER site file (serial 3)"));
    assert!(last(asked(5, false)).contains("Fetch the newer one"));
    assert!(last(asked(4, false)).contains("Do not agree"));

    // A production site with a proven TPM and a quote has nothing to mind.
    let production = Stage::of(77, false);
    assert!(review::warnings(&production.known.site.statement, None).is_empty());
    let mut hostile = grant.clone();
    hostile.statement.purpose = "A drill\u{202e}\u{1b}[2J".into();
    assert!(!review::page(site, &hostile, None).text().contains(['\u{1b}', '\u{202e}']));
}
