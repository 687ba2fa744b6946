//! A custodian at work with real files, and against an appliance that lies.
#![forbid(unsafe_code)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use common::*;
use hoidla_cli::PassphraseSource;
use hoidla_crypto::{hpke, keys::ReaderKeys, sign::Signed};
use hoidla_custodian::{
    ceremony::{approval, check},
    confirm::confirm,
    grant::{self},
    new,
    papers::{Known, Papers, read_grant, read_reader},
    review::{Asked, Page},
};
use hoidla_format::{
    Bytes, Hash32, Name,
    statement::{hash, write},
    statements::{Challenge, Covers, Dataset, Door, Grant, Release, Site, VaultApproval},
};
use hoidla_papers::SoftAppliance;
use hoidla_quorum::{
    dealing::Dealing,
    intake::{Covered, Intake},
    opening::open_share,
};
use hoidla_verify::{Doubt, Unattested, Vouched};

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
    let all = grant::write(&stage.known, &papers, request("land", "Why not")).unwrap();
    assert_eq!(all.covers.iter().map(|c| c.vault_epoch).collect::<Vec<_>>(), [1, 2]);
    let wrong = |wanted, purpose| told(grant::write(&stage.known, &papers, request(wanted, purpose)));
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

/// What a drill's software TPM says, as far as a page shows it.
fn vouched(stage: &Stage) -> Vouched {
    let soft = SoftAppliance::new(&stage.known.site.statement, "lux-1", 1);
    let doubts = vec![Doubt::Development, Doubt::SoftwareTpm, Doubt::FirstUse, Doubt::Unmeasured, Doubt::SecureBoot];
    Vouched { origin: soft.origin(), attest: soft.attest([0; 32]), release: name("drill"), image: None, doubts }
}

/// A page as [`review`] shows it.
fn page<'a>(stage: &'a Stage, grant: &'a Signed<Grant>, asked: Option<&'a Asked<'a>>) -> Page<'a> {
    Page { site: &stage.known.site.statement, authority: stage.known.fingerprint(), compared: true, grant, asked, decides: true }
}

#[test]
fn the_page_fits_one_screen_and_says_what_weakens_the_promise() {
    let stage = Stage::new();
    let land = stage.deal("land", 2);
    let mut grant = stage.grant(&[&land]);
    grant.statement.purpose = "The first centre has lost power for good, and the land registry must be answered from the \
        second one by Monday; the ministry's letter 17 says so. Call its duty officer."
        .into();
    let one_time = hpke::KeyPair::generate();
    let c = challenge(&grant, &one_time, stage.known.site.hash);
    let attested = Ok(vouched(&stage));
    let asked = |serial, same| Asked {
        challenge: &c,
        challenge_hash: hash(&write(&c)),
        attested: &attested,
        site_serial: serial,
        same_site_file: same,
    };
    let text = page(&stage, &grant, Some(&asked(3, false))).screen().text().to_owned();
    // With the empty line and the question below it: 24.
    assert!(text.lines().count() <= 22 && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    let digits = stage.known.fingerprint();
    let parts =
        ["DRILL", "The land registry (vault epoch 2)", "duty officer", "reader-1", "1 h", "Drill or development", "Reduced assurance"];
    for part in parts.into_iter().chain([digits.as_str(), "OLDER site file (serial 3)"]) {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let forged = Err(Unattested::Papers);
    let unbelieved = Asked { attested: &forged, ..asked(4, true) };
    assert!(page(&stage, &grant, Some(&unbelieved)).warnings()[1].starts_with("NOT BELIEVED: the appliance doesn't run under"));
    let last = |a: Asked<'_>| page(&stage, &grant, Some(&a)).warnings().pop().unwrap();
    assert!(last(asked(5, false)).contains("Fetch the newer one"));
    assert!(last(asked(4, false)).contains("Do not agree"));

    // A production site with a proven TPM and a quote has nothing to mind, but for an authority that nobody compared.
    let production = Stage::of(77, false);
    let mut quiet = page(&production, &grant, None);
    assert!(quiet.warnings().is_empty());
    quiet.compared = false;
    assert!(quiet.warnings()[0].contains("Nothing here says that this authority is yours"));
    let mut hostile = grant.clone();
    hostile.statement.purpose = "A drill\u{202e}\u{1b}[2J".into();
    assert!(!page(&stage, &hostile, None).screen().text().contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn the_page_counts_vault_epochs() {
    let stage = Stage::new();
    let mut grant = stage.grant(&[&stage.deal("land", 1), &stage.deal("land", 2), &stage.deal("court", 1)]);
    let shown = |site: &Site, grant: &Signed<Grant>| {
        let page = Page { site, authority: String::new(), compared: true, grant, asked: None, decides: false };
        page.screen().text().lines().find(|l| l.contains("registries  ")).unwrap().trim().to_owned()
    };
    let mut site = stage.known.site.statement.clone();
    assert!(shown(&site, &grant).ends_with("The land registry (vault epochs 1, 2); The court registry"));
    // Ten registries, one of them with two vault epochs.
    site.datasets = (0..10).map(|i| Dataset { name: name(&format!("d{i}")), ..site.datasets[0].clone() }).collect();
    let covers = |dataset: &Name, vault_epoch| Covers { dataset: dataset.clone(), vault_epoch, vault: Hash32([0; 32]) };
    grant.statement.covers = site.datasets.iter().map(|d| covers(&d.name, 1)).chain([covers(&name("d3"), 2)]).collect();
    assert!(shown(&site, &grant).ends_with("ALL 10 registries of this site, 11 vault epochs"));
    grant.statement.covers.remove(0);
    assert!(!shown(&site, &grant).contains("ALL"));
}

#[test]
fn a_grant_leaves_out_what_the_newest_release_retired() {
    let stage = Stage::new();
    let (one, two) = (stage.deal("land", 1), stage.deal("land", 2));
    let mut papers = stage.papers(&[&one, &two]);
    let release = |epoch, vaults: &[u32]| Release {
        site: name("lux"),
        name: name("drill"),
        development: true,
        epoch,
        pcrs: vec![],
        policy: Hash32([0; 32]),
        signature: Bytes(vec![]),
        vaults: vaults.iter().map(|v| VaultApproval { dataset: name("land"), vault_epoch: *v, signature: Bytes(vec![]) }).collect(),
    };
    let request = |wanted: &str| grant::Request {
        appliance: name("lux-1"),
        reader: ReaderKeys::from_seed(&fixed(42)).public(&name("reader-1")),
        wanted: vec![wanted.parse().unwrap()],
        purpose: "A drill".into(),
        open_for_seconds: 60,
    };
    papers.add(&stage.known, &stage.signed(&release(8, &[2]))).unwrap();
    papers.add(&stage.known, &stage.signed(&release(7, &[1, 2]))).unwrap();
    let all = grant::write(&stage.known, &papers, request("land")).unwrap();
    assert_eq!(all.covers.iter().map(|c| c.vault_epoch).collect::<Vec<_>>(), [2]);
    assert!(told(grant::write(&stage.known, &papers, request("land:1"))).contains("doesn't approve vault epoch 1 of land"));
}
