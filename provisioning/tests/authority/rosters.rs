//! Rosters: who opens, and when they may go.

use crate::stage::*;

#[test]
fn a_site_isn_t_signed_without_its_roster_as_signed() {
    let stage = Stage::new();
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("isn't signed yet") && e.contains("roster sign --name main"), "{e}");
    roster::sign(&stage.home, &stage.roster(2, 3), &stage.ours()).unwrap();
    let text = fs::read_to_string(stage.home.site_toml()).unwrap();
    let line = text.lines().find(|l| l.starts_with("hash")).unwrap().to_owned();
    stage.edit(&line, &format!("hash = \"{}\"", "ab".repeat(32)));
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("signed anew") && e.contains(line.split('"').nth(1).unwrap()), "{e}");
}

#[test]
fn rosters_are_sane_and_cards_are_whole() {
    let stage = Stage::new();
    let refused = |request: roster::Request| told(roster::sign(&stage.home, &request, &stage.ours()));
    assert!(refused(stage.roster(3, 4)).contains("at least one custodian to spare"));
    assert!(refused(stage.roster(2, 2)).contains("recovery needs no TPM"));
    let mut twice = stage.roster(2, 3);
    twice.custodians[1] = twice.custodians[0].clone();
    assert!(refused(twice).contains("stands twice"));
    let request = stage.roster(2, 3);
    let changed = fs::read_to_string(&request.custodians[0]).unwrap().replace("\"alpha\"", "\"alphb\"");
    fs::write(&request.custodians[0], changed).unwrap();
    assert!(refused(request).contains("next: ask the custodian"));
    let mut unknown = stage.roster(2, 3);
    unknown.name = name("second");
    assert!(refused(unknown).contains("[[roster]]"));
    stage.edit("development = true", "development = false");
    assert!(refused(stage.roster(2, 3)).contains("production rosters take cards only"));
    assert!(!stage.home.roster(&name("main")).exists());
}

#[test]
fn a_roster_with_vaults_is_never_replaced() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let mut other = stage.roster(2, 3);
    other.custodians.push(stage.card("hotel", "file"));
    assert!(told(roster::sign(&stage.home, &other, &stage.ours())).contains("under another name"));
    roster::sign(&stage.home, &stage.roster(2, 3), &stage.ours()).expect("the same roster again");
}

#[test]
fn a_roster_leaves_the_site_only_after_its_vaults() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours()).unwrap();
    sign(&[]);
    // A second roster takes the first one's place.
    let text = fs::read_to_string(stage.home.site_toml()).unwrap();
    let hash = text.lines().find(|l| l.starts_with("hash")).unwrap();
    fs::write(stage.home.site_toml(), text.replace("\"main\"", "\"next\"").replace("serial = 1", "serial = 2")).unwrap();
    let mut next = stage.roster(2, 3);
    next.name = name("next");
    next.custodians.push(stage.card("hotel", "file"));
    roster::sign(&stage.home, &next, &stage.ours()).unwrap();
    assert!(!fs::read_to_string(stage.home.site_toml()).unwrap().contains(hash));
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("the roster of population, vault epoch 1, is missing"), "{e}");
    sign(&[(name("population"), 1)]);
    site::sign(&stage.home, &stage.ours()).unwrap();
}
