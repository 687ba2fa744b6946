//! An agent's papers: what is wrong with them is said before anything is sealed.

mod common;

use std::{fs, path::Path};

use clap::Parser;
use common::{Embassy, folder};
use hoidla_agent::{Arguments, home::Home, reader, run};
use hoidla_cli::PassphraseSource;
use hoidla_crypto::sign;
use hoidla_door::AgentRequest;
use hoidla_format::statements::Reader;
use hoidla_quorum::fingerprint;

fn refusal(home: &Path) -> String {
    format!("{:#}", Home::open(home, &PassphraseSource::default()).err().expect("refused"))
}

#[test]
fn good_papers_are_taken() {
    let e = Embassy::new();
    let home = Home::open(&e.home("home", 3600), &PassphraseSource::default()).unwrap();
    assert_eq!(home.dataset().as_str(), common::DATASET);
}

#[test]
fn an_expired_certificate_is_refused() {
    let e = Embassy::new();
    let refused = refusal(&e.home("home", -1));
    assert!(refused.contains("expired on"), "{refused}");
}

#[test]
fn papers_of_another_authority_are_refused() {
    let (e, other) = (Embassy::new(), Embassy::new());
    for (file, word) in [("vault-population-1.txt", "vault certificate"), ("agent.txt", "agent's certificate")] {
        let home = e.home(file, 3600);
        fs::copy(other.home(file, 3600).join(file), home.join(file)).unwrap();
        let refused = refusal(&home);
        assert!(refused.contains(word) && refused.contains("authority"), "{refused}");
    }
}

#[test]
fn a_foreign_certificate_does_not_enter() {
    let (e, other) = (Embassy::new(), Embassy::new());
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 1);
    let agent = Home::open(&home, &PassphraseSource::default()).unwrap().agent.statement;
    let request = AgentRequest {
        site: &agent.site,
        dataset: &agent.dataset,
        agent: &agent.agent,
        key: &agent.key.0,
        not_before: agent.issued,
        not_after: agent.not_after,
    };
    let door = hoidla_door::software_key(&other.authority.door.to_pkcs8()).unwrap();
    fs::write(home.join("agent.der"), hoidla_door::agent_certificate(&request, &other.site.door_root.0, &*door).unwrap()).unwrap();
    let refused = format!("{:#}", e.push(&home, &root).err().unwrap());
    assert!(refused.contains("refused this certificate"), "{refused}");
    assert!(e.store().streams.is_empty());
}

#[test]
fn missing_doubled_and_changed_papers_are_named() {
    let e = Embassy::new();
    for (n, file) in ["site.txt", "agent.txt", "agent.key", "agent.der", "vault-population-1.txt"].iter().enumerate() {
        let home = e.home(&format!("missing-{n}"), 3600);
        fs::remove_file(home.join(file)).unwrap();
        let refused = refusal(&home);
        assert!(refused.contains("hoidla-provision agent") || refused.contains("no vault certificate"), "{refused}");
    }
    let home = e.home("doubled", 3600);
    fs::copy(home.join("site.txt"), home.join("site-2.txt")).unwrap();
    assert!(refusal(&home).contains("several files"));
    let home = e.home("changed", 3600);
    let text = fs::read_to_string(home.join("site.txt")).unwrap();
    fs::write(home.join("site.txt"), text.replace("serial = 1", "serial = 2")).unwrap();
    assert!(refusal(&home).contains("signature"));
    let home = e.home("another's key", 3600);
    fs::copy(e.home("second", 3600).join("agent.key"), home.join("agent.key")).unwrap();
    assert!(refusal(&home).contains("another agent's"));
    let home = e.home("another's certificate", 3600);
    fs::copy(e.home("third", 3600).join("agent.der"), home.join("agent.der")).unwrap();
    assert!(refusal(&home).contains("another key"));
    let home = e.home("wrong passphrase", 3600);
    fs::write(home.join("passphrase"), "not this one\n").unwrap();
    assert!(refusal(&home).contains("passphrase doesn't open"));
    assert!(refusal(&e.path("nowhere")).contains("no such folder"));
}

fn believe(e: &Embassy, home: &Path) -> Result<Home, String> {
    fs::write(home.join("site.txt"), e.sign(&e.site)).unwrap();
    Home::open(home, &PassphraseSource::default()).map_err(|e| format!("{e:#}"))
}

#[test]
fn a_site_has_one_authority_and_its_file_only_grows_newer() {
    let mut e = Embassy::new();
    let home = e.home("home", 3600);
    e.site.serial = 5;
    believe(&e, &home).unwrap();
    believe(&e, &home).unwrap();
    e.site.serial = 4;
    let refused = believe(&e, &home).err().unwrap();
    assert!(refused.contains("has seen serial 5"), "{refused}");
    (e.site.serial, e.site.development) = (5, false);
    let refused = believe(&e, &home).err().unwrap();
    assert!(refused.contains("another site file of serial 5"), "{refused}");
    // A newer one counts at once, even if it revokes this very agent.
    (e.site.serial, e.site.revoked_agents) = (6, vec![common::name("agent-1")]);
    assert!(believe(&e, &home).err().unwrap().contains("revokes the agent"));
    (e.site.serial, e.site.revoked_agents) = (5, vec![]);
    assert!(believe(&e, &home).err().unwrap().contains("has seen serial 6"));

    // A whole folder of good papers, of another authority.
    let (other, e) = (Embassy::new(), Embassy::new());
    let home = e.home("another's", 3600);
    let mine = believe(&e, &home).unwrap().authority();
    for paper in fs::read_dir(other.home("theirs", 3600)).unwrap() {
        let paper = paper.unwrap();
        fs::copy(paper.path(), home.join(paper.file_name())).unwrap();
    }
    let refused = believe(&other, &home).err().unwrap();
    assert!(refused.contains("don't go on") && refused.contains(&mine), "{refused}");
    fs::write(home.join("believed/site.txt"), "damaged").unwrap();
    assert!(believe(&e, &home).err().unwrap().contains("believed last, is damaged"));
}

#[test]
fn a_reader_s_digits_are_those_in_its_grant() {
    let e = Embassy::new();
    let (key, passphrase) = (e.path("reader.key"), e.path("passphrase"));
    fs::write(&passphrase, "a passphrase of words\n").unwrap();
    let source = PassphraseSource { passphrase_file: Some(passphrase) };
    let made = reader::new(&common::name("reader-1"), &key, &source).unwrap();
    let public = sign::read_unverified::<Reader>(&fs::read(&made.public).unwrap()).unwrap().statement;
    assert_eq!(made.digits, fingerprint::of_reader(&public));
    assert!(reader::new(&common::name("reader-1"), &key, &source).is_err(), "nothing is overwritten");
}

#[test]
fn a_site_file_of_other_digits_restores_nothing() {
    let (e, other) = (Embassy::new(), Embassy::new());
    let site = e.home("home", 3600).join("site.txt");
    let (site, to) = (site.to_str().unwrap(), e.path("to"));
    let restore = |digits: &str| {
        let to = to.to_str().unwrap();
        let given = ["hoidla-agent", "restore", "--quiet", "--key", "none", "--grant", "none", "--site", site, "--to", to];
        let arguments = Arguments::try_parse_from(given.into_iter().chain(["--authority", digits])).unwrap();
        format!("{:#}", run(arguments).err().unwrap())
    };
    let refused = restore(&fingerprint::of_key(&other.verifying()));
    assert!(refused.contains("not those you gave"), "{refused}");
    let refused = restore(&fingerprint::of_key(&e.verifying()));
    assert!(refused.contains("cannot open none"), "it goes on to the grant: {refused}");
    let bad = ["hoidla-agent", "restore", "--key", "k", "--grant", "g", "--site", "s", "--to", "t", "--at-least"];
    for chain in ["", "5", "5:", "0:0000", ":00"] {
        assert!(Arguments::try_parse_from(bad.into_iter().chain([chain])).is_err(), "{chain}");
    }
}
