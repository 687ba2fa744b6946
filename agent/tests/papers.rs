//! An agent's papers: what is wrong with them is said before anything is sealed.

mod common;

use std::{fs, path::Path};

use common::{Embassy, folder};
use hoidla_agent::home::Home;
use hoidla_cli::PassphraseSource;
use hoidla_door::AgentRequest;

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
