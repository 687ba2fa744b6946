//! Releases: approved, and refused for every part that was changed.
#![forbid(unsafe_code)]

use hoidla_crypto::Secret;
use hoidla_format::{
    Hash32, Name, statement,
    statements::{PcrValue, Release},
};
use hoidla_verify::{
    PolicyRef, ReleaseError, ReleaseKey, ReleasePublic, Terms,
    release::{approve, check},
};

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

fn pcr(index: u8, byte: u8) -> PcrValue {
    PcrValue { index, value: Hash32([byte; 32]) }
}

fn terms() -> Terms {
    Terms {
        site: name("lux"),
        name: name("r1"),
        development: true,
        epoch: 3,
        pcrs: vec![pcr(11, 1), pcr(4, 2), pcr(12, 0), pcr(13, 0)],
        vaults: vec![(name("land"), 2), (name("land"), 1), (name("court"), 1)],
    }
}

fn key() -> ReleaseKey {
    ReleaseKey::from_secret(&Secret::filled(|b| b.fill(9))).unwrap()
}

#[test]
fn a_release_is_put_in_order_and_reads_back() {
    let release = approve(&key(), terms()).unwrap();
    assert_eq!(release.pcrs.iter().map(|p| p.index).collect::<Vec<_>>(), [4, 11, 12, 13]);
    let read: Release = statement::parse(&statement::write(&release)).unwrap();
    assert_eq!(read, release);
    let approved = check(&read, &key().public()).unwrap();
    assert!(approved.vault(&name("land"), 2).is_some() && approved.vault(&name("court"), 1).is_some());
    assert!(approved.vault(&name("land"), 3).is_none() && approved.vault(&name("court"), 2).is_none());
    assert_eq!(approve(&key(), terms()).unwrap(), release, "signatures are deterministic");
}

#[test]
fn whatever_was_changed_is_refused() {
    type Change = fn(&mut Release);
    let changes: [(&str, Change); 14] = [
        ("site", |r| r.site = name("lix")),
        ("mode", |r| r.development = false),
        ("epoch", |r| r.epoch += 1),
        ("value", |r| r.pcrs[0].value = Hash32([9; 32])),
        ("register", |r| r.pcrs[0].index = 5),
        ("register left out", |r| r.pcrs.truncate(3)),
        ("register added", |r| r.pcrs.push(pcr(14, 0))),
        ("policy", |r| r.policy = Hash32([1; 32])),
        ("signature", |r| r.signature.0[5] ^= 1),
        ("signature cut", |r| r.signature.0.truncate(63)),
        ("vault's dataset", |r| r.vaults[0].dataset = name("count")),
        ("vault epoch", |r| r.vaults[2].vault_epoch = 3),
        ("vault's signature", |r| r.vaults[1].signature = r.vaults[0].signature.clone()),
        ("node's signature for a vault", |r| r.vaults[1].signature = r.signature.clone()),
    ];
    for (what, change) in changes {
        let mut release = approve(&key(), terms()).unwrap();
        change(&mut release);
        assert!(check(&release, &key().public()).is_err(), "{what}");
    }
    let other = ReleaseKey::from_secret(&Secret::filled(|b| b.fill(8))).unwrap();
    let release = approve(&other, terms()).unwrap();
    assert_eq!(check(&release, &key().public()).unwrap_err(), ReleaseError::Signature("the node key".into()));
}

#[test]
fn a_vault_may_be_left_out_but_not_twice_or_out_of_order() {
    let mut release = approve(&key(), terms()).unwrap();
    let gone = release.vaults.remove(1);
    check(&release, &key().public()).unwrap();
    release.vaults.push(gone.clone());
    assert_eq!(check(&release, &key().public()).unwrap_err(), ReleaseError::Vaults);
    release.vaults = vec![gone.clone(), gone];
    assert_eq!(check(&release, &key().public()).unwrap_err(), ReleaseError::Vaults);
}

#[test]
fn registers_that_cannot_be_are_refused() {
    for pcrs in [vec![], vec![pcr(24, 0)], vec![pcr(4, 0), pcr(4, 0)]] {
        assert_eq!(approve(&key(), Terms { pcrs, ..terms() }).unwrap_err(), ReleaseError::Pcrs);
    }
}

#[test]
fn references_differ_in_every_part() {
    let base = PolicyRef::vault(&name("lux"), true, &name("land"), 1);
    let others = [
        PolicyRef::node(&name("lux"), true),
        PolicyRef::vault(&name("lux"), false, &name("land"), 1),
        PolicyRef::vault(&name("lix"), true, &name("land"), 1),
        PolicyRef::vault(&name("lux"), true, &name("sand"), 1),
        PolicyRef::vault(&name("lux"), true, &name("land"), 2),
        PolicyRef::node(&name("lux"), false),
    ];
    for (i, other) in others.iter().enumerate() {
        assert_ne!(*other, base);
        others[..i].iter().for_each(|earlier| assert_ne!(other, earlier));
    }
}

#[test]
fn a_release_key_survives_its_forms() {
    let public = key().public();
    assert_eq!(ReleasePublic::from_sec1(&public.to_sec1()), Ok(public.clone()));
    for bad in [&[][..], &[4; 65], &public.to_sec1()[..64]] {
        assert_eq!(ReleasePublic::from_sec1(bad), Err(ReleaseError::Key));
    }
    assert_eq!(ReleaseKey::from_secret(&Secret::filled(|b| b.fill(0))).err(), Some(ReleaseError::Key));
    let (fresh, secret) = ReleaseKey::generate();
    assert_eq!(ReleaseKey::from_secret(&secret).unwrap().public(), fresh.public());
}
