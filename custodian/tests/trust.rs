//! What a custodian has believed once, and the program that remembers it.
#![forbid(unsafe_code)]

mod common;

use std::{fs, path::Path};

use clap::Parser as _;
use common::*;
use hoidla_crypto::keyfile::{Cost, KeyFile, Role};
use hoidla_custodian::{
    cli,
    papers::Known,
    trust::{self, Standing, Trust},
};

/// A site file of this authority with this serial and address.
fn site_file(stage: &Stage, serial: u32, address: &str) -> Known {
    let mut site = stage.known.site.statement.clone();
    (site.serial, site.appliances[0].address) = (serial, address.into());
    Known::read(&stage.put("other-site.txt", &stage.signed(&site))).unwrap()
}

#[test]
fn an_authority_once_believed_is_never_swapped() {
    let (stage, foreign) = (Stage::new(), Stage::of(78, true));
    let (alpha, keys) = (name("alpha"), keys_of(0));
    let key = stage.folder.path().join("alpha.key");
    let check = |known: &Known| trust::check(&key, &alpha, &keys, known);
    assert_eq!(check(&stage.known).unwrap(), Standing::Unknown);
    assert!(!trust::beside(&key).exists(), "looking remembers nothing");
    trust::remember(&key, &alpha, &keys, &stage.known).unwrap();
    assert_eq!(trust::beside(&key), stage.folder.path().join("alpha.key.trust"));
    assert_eq!(check(&stage.known).unwrap(), Standing::Known);

    let e = told(check(&foreign.known));
    assert!(e.contains(&foreign.known.fingerprint()) && e.contains(&stage.known.fingerprint()) && e.contains("next: don't go on"), "{e}");
    let e = told(check(&site_file(&stage, 3, "127.0.0.1:1")));
    assert!(e.contains("serial 3, and you have seen serial 4") && e.contains("next: fetch the newest"), "{e}");
    assert!(told(check(&site_file(&stage, 4, "127.0.0.1:2"))).contains("another site file of serial 4"));
    // A newer one of the same authority is believed, and then its forerunner no more.
    assert_eq!(check(&site_file(&stage, 5, "127.0.0.1:1")).unwrap(), Standing::Known);
    assert!(told(check(&stage.known)).contains("out of date"));
}

#[test]
fn a_trust_file_is_its_custodian_s_own_or_refused() {
    let stage = Stage::new();
    let (alpha, keys) = (name("alpha"), keys_of(0));
    let key = stage.folder.path().join("alpha.key");
    trust::remember(&key, &alpha, &keys, &stage.known).unwrap();
    let good = fs::read_to_string(trust::beside(&key)).unwrap();
    let refused = |text: &str| {
        fs::write(trust::beside(&key), text).unwrap();
        let e = told(trust::check(&key, &alpha, &keys, &stage.known));
        assert!(e.contains("next: this file was damaged or changed"), "{e}");
        assert!(trust::remember(&key, &alpha, &keys, &stage.known).is_err(), "nor is it written over");
    };
    refused(&good.replace("serial = 4", "serial = 1"));
    refused(&good[..good.len() / 2]);
    refused("");
    // Another custodian's, put into this one's place; and another's with this one's name in it.
    let other = stage.folder.path().join("bravo.key");
    trust::remember(&other, &name("bravo"), &keys_of(1), &stage.known).unwrap();
    refused(&fs::read_to_string(trust::beside(&other)).unwrap());
    let forged = Trust { custodian: alpha.clone(), sites: vec![] };
    refused(&keys_of(1).signing_key().sign_statement("alpha", &forged));
}

fn run(args: &[&str]) -> anyhow::Result<hoidla_cli::Outcome> {
    let all = std::iter::once("hoidla-custodian").chain(args.iter().copied()).chain(["--quiet"]);
    cli::run(cli::Args::parse_from(all))
}

/// The program itself: from a key to a refusal, without an appliance (nothing listens at the address).
#[test]
fn the_program_pins_at_the_first_confirm_and_refuses_before_it_connects() {
    let stage = Stage::new();
    let path = |file: &str| stage.folder.path().join(file).display().to_string();
    passphrase(&stage, "drei rote Schiffe");
    let key = KeyFile::protect_at(Cost::LEAST, Role::Custodian, &name("alpha"), &fixed(1), "drei rote Schiffe").unwrap();
    stage.put("alpha.key", &key);
    let land = stage.deal("land", 1);
    stage.put("dealt/vault.txt", &stage.signed(&land.vault));
    stage.put("dealt/envelopes.txt", &stage.signed(&land.quorum));
    stage.put("grant.txt", stage.grant(&[&land]).note.as_bytes());
    let (key, pass, grant, dealt) = (path("alpha.key"), path("passphrase"), path("grant.txt"), path("dealt"));
    let with = |command: &str, site: &str, more: &[&str]| {
        run(&[&[command, "--key", &key, "--passphrase-file", &pass, "--site", site], more].concat())
    };
    let (site, foreign) = (path("site.txt"), Stage::of(78, true));
    let swapped = foreign.folder.path().join("site.txt").display().to_string();
    let approve = |site: &str, more: &[&str]| told(with("approve", site, &[&["--grant", &grant, "--yes"], more].concat()).map(drop));

    // Nothing remembered: a script must say whom it means.
    let e = approve(&site, &[]);
    assert!(e.contains("no trust file") && e.contains("--authority"), "{e}");
    assert!(approve(&site, &["--authority", &foreign.known.fingerprint()]).contains("not those you gave"));
    assert!(!trust::beside(Path::new(&key)).exists());
    // A dealing whose shares don't open is no reason to believe anybody.
    let bad = stage.put("bad/envelopes.txt", &stage.signed(&land.quorum));
    assert_eq!(with("confirm", &site, &[&bad.display().to_string()]).unwrap(), hoidla_cli::Outcome::No);
    assert!(!trust::beside(Path::new(&key)).exists());
    assert_eq!(with("confirm", &site, &[&dealt]).unwrap(), hoidla_cli::Outcome::Done);
    assert!(trust::beside(Path::new(&key)).exists());
    // Remembered: the right one goes on to the door, the other is refused before, whatever digits are given.
    assert!(approve(&site, &[]).contains("cannot enter lux-1"));
    for command in ["approve", "review", "seal"] {
        let e = told(with(command, &swapped, &["--grant", &grant]).map(drop));
        assert!(e.contains("of another authority"), "{command}: {e}");
    }
    assert!(approve(&swapped, &["--authority", &foreign.known.fingerprint()]).contains("of another authority"));
    assert!(told(with("status", &swapped, &[]).map(drop)).contains("of another authority"));
    assert!(told(with("confirm", &swapped, &[&dealt]).map(drop)).contains("authority"));
    // The trust file lost: digits compared by telephone put it back.
    fs::remove_file(trust::beside(Path::new(&key))).unwrap();
    assert!(approve(&site, &["--authority", &stage.known.fingerprint().replace(' ', "")]).contains("cannot enter lux-1"));
    assert!(approve(&site, &[]).contains("cannot enter lux-1"));
}
