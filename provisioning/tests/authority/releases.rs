//! Releases, and what they retire.

use crate::stage::*;

#[test]
fn what_a_release_has_retired_stays_retired() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours());
    let vaults = |r: &hoidla_format::statements::Release| r.vaults.iter().map(|v| v.vault_epoch).collect::<Vec<_>>();
    let first = sign(&[]).unwrap();
    stage.deal(&["population"], None, false).unwrap();
    let second = sign(&[(name("population"), 1)]).unwrap();
    let third = sign(&[]).unwrap();
    assert_eq!((vaults(&first), vaults(&second), vaults(&third)), (vec![1], vec![2], vec![2]));
    assert_eq!((first.epoch, second.epoch, third.epoch), (7, 8, 9));
    assert!(told(sign(&[(name("population"), 5)])).contains("no vault epoch 5"));
    // Even one that no release has named.
    stage.deal(&["population"], None, false).unwrap();
    assert_eq!(vaults(&sign(&[(name("population"), 3)]).unwrap()), [2]);
    assert_eq!(vaults(&sign(&[]).unwrap()), [2]);
    fs::write(stage.home.retired(), "population\n").unwrap();
    assert!(told(sign(&[])).contains("DATASET:EPOCH"));
}

#[test]
fn halves_of_retired_vault_epochs_are_dropped_for_good() {
    let stage = Stage::signed();
    let population = name("population");
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours()).unwrap();
    let epochs = || {
        let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement.halves;
        halves.iter().map(|h| h.vault_epoch).collect::<Vec<_>>()
    };
    sign(&[]);
    stage.deal(&["population"], None, false).unwrap();
    sign(&[]);
    enrol::enrol(&stage.home, &name("lux-1"), &stage.ours()).unwrap();
    assert_eq!(epochs(), [1, 2], "nothing was retired");
    // Retired: the next enrolment names halves without it, and so does the next dealing.
    sign(&[(population.clone(), 1)]);
    let enrolment = enrol::enrol(&stage.home, &name("lux-1"), &stage.ours()).unwrap();
    assert_eq!(epochs(), [2]);
    assert_eq!(enrolment.halves, stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().hash);
    sign(&[(population, 2)]);
    stage.deal(&["population"], None, false).unwrap();
    assert_eq!(epochs(), [3]);
}
