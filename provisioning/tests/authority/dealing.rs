//! Dealing: where it goes on, and what an interrupted one counts.

use crate::stage::*;

#[test]
fn dealing_goes_on_where_it_stood() {
    let stage = Stage::signed();
    assert!(told(stage.deal(&[], None, false)).contains("next: run hoidlad identify"));
    assert!(told(stage.deal(&["nosuch"], Some(1), false)).contains("no dataset nosuch"));
    stage.deal(&["population"], None, false).unwrap();
    stage.deal(&["population"], None, false).unwrap();
    let rest = stage.deal(&[], None, false).unwrap();
    assert_eq!(rest.vaults.len(), 9);
    assert!(told(stage.deal(&[], None, false)).contains("every dataset has a vault"));
    let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    assert_eq!(halves.halves.len(), 11, "ten datasets, one of them twice");

    // Another TPM under the same name.
    assert!(told(stage.deal(&["population"], Some(2), false)).contains("this is another TPM"));
    stage.deal(&["population"], Some(2), true).unwrap();
    let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    assert_eq!(halves.halves.iter().map(|h| h.vault_epoch).collect::<Vec<_>>(), [3], "the old TPM's halves are of no use");
    assert_eq!(halves.identity, hash(&write(&stage.identity(2).1)));
}

#[test]
fn an_interrupted_dealing_counts_for_nothing_and_is_dealt_anew() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let (dataset, appliance) = (name("population"), name("lux-1"));
    let envelopes = fs::read(stage.home.envelopes(&dataset, 1)).unwrap();
    // As after a crash just before the last file.
    fs::remove_file(stage.home.vault(&dataset, 1)).unwrap();
    let dealt = stage.deal(&["population"], None, false).unwrap();
    assert_eq!(dealt.vaults[0].vault_epoch, 1);
    assert_ne!(fs::read(stage.home.envelopes(&dataset, 1)).unwrap(), envelopes);
    let vault = open_signed::<Vault>(&stage.home.vault(&dataset, 1), &stage.authority()).unwrap();
    let halves = stage.home.halves_of(&appliance, &stage.authority()).unwrap().unwrap().statement.halves;
    assert_eq!(halves.iter().map(|h| h.vault).collect::<Vec<_>>(), [vault.hash]);
}

#[test]
fn a_statement_too_long_to_be_read_is_not_written() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let path = stage.home.halves(&name("lux-1"));
    let full = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    let half = full.halves[0].clone();
    let with = |n: usize| Halves { halves: vec![half.clone(); n], ..full.clone() };
    // As many halves of this vault as a statement holds, and one more.
    let fits = (1..).take_while(|n| stage.keys_sign(&with(*n)).is_ok()).last().unwrap();
    fs::write(&path, stage.keys_sign(&with(fits)).unwrap()).unwrap();
    let before = fs::read(&path).unwrap();
    let e = told(stage.deal(&["population"], None, false));
    assert!(e.contains("an appliance's sealed halves would have") && e.contains("retire old vault epochs first"), "{e}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!stage.home.vault(&name("population"), 2).exists() && !stage.home.envelopes(&name("population"), 2).exists());
}
