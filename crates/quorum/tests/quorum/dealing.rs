//! What a dealing gives out, and what it refuses to begin with.

use hoidla_crypto::envelope;
use hoidla_format::{
    Bytes, Moment,
    statement::{self, write},
    statements::Door,
};
use hoidla_quorum::{
    dealing::{DealError, DealingInput, deal},
    opening::check_share,
    roster::RosterError,
    share::VaultId,
};
use hoidla_verify::{Public, import};

use crate::world::*;

#[test]
fn every_custodian_of_both_doors_gets_the_share_that_the_certificate_commits_to() {
    let w = World::new();
    for (envelopes, names) in [(&w.dealing.quorum, &QUORUM[..]), (&w.dealing.recovery, &RECOVERY[..])] {
        assert_eq!(envelopes.vault, w.dealing.vault_hash);
        assert_eq!(envelopes.shares.len(), names.len());
        for custodian in names {
            let share = open_envelope(envelopes, custodian);
            let id = VaultId::of(w.vault()).share(envelopes.door, &name(custodian), share.index());
            check_share(w.vault(), &id, &share).unwrap();
        }
    }
    assert_eq!(w.vault().commitments.len(), QUORUM.len() + RECOVERY.len());
    assert_eq!(w.dealing.tested, 10 + 21, "every 3 of 5 and every 5 of 7");
}

#[test]
fn nobody_opens_another_s_envelope() {
    let w = World::new();
    for sent in &w.dealing.quorum.shares {
        for other in QUORUM.iter().filter(|o| **o != sent.custodian.as_str()) {
            let id = VaultId::of(w.vault()).share(Door::Quorum, &sent.custodian, sent.index);
            assert!(envelope::open(&keys_of(other), &id, &sent.sealed.0).is_err());
        }
    }
}

#[test]
fn a_half_asks_for_the_release_and_then_the_quorum() {
    let w = World::new();
    let public = Public::parse(&w.half().public.0).unwrap();
    assert!(import::is_half(&public, w.policy()));
}

#[test]
fn all_that_is_put_out_fits_a_statement_and_reads_back() {
    let tpms: Vec<_> = (1..=3).map(|i| PaperTpm::new(i).identity(&format!("lux-{i}"))).collect();
    let dealing = deal_one(&roster(), "land", 1, &tpms);
    assert_eq!(statement::parse::<hoidla_format::statements::Vault>(&write(&dealing.vault)).unwrap(), dealing.vault);
    assert_eq!(statement::parse::<hoidla_format::statements::Envelopes>(&write(&dealing.recovery)).unwrap(), dealing.recovery);
    assert_eq!(statement::parse::<hoidla_format::statements::RecoveryWrap>(&write(&dealing.recovery_wrap)).unwrap(), dealing.recovery_wrap);
    assert_eq!(dealing.halves.len(), 3);
    assert_ne!(dealing.halves[0].1.wrapped_key, dealing.halves[1].1.wrapped_key);
}

fn refused(change: impl FnOnce(&mut hoidla_format::statements::Roster), development: bool) -> DealError {
    let mut roster = roster();
    change(&mut roster);
    let input = DealingInput {
        vault: vault_id("land", 1),
        development,
        roster: &roster,
        release_key: &release_key(),
        appliances: &[],
        dealt: Moment::from_seconds(0),
    };
    deal(&input, &mut rng(1)).err().expect("refused")
}

#[test]
fn insane_rosters_are_refused() {
    use DealError::Roster;
    assert!(matches!(refused(|r| r.quorum = 1, true), Roster(RosterError::Threshold { door: Door::Quorum, .. })));
    assert!(matches!(refused(|r| r.quorum = 0, true), Roster(RosterError::Threshold { .. })));
    assert!(matches!(refused(|r| r.recovery_quorum = 3, true), Roster(RosterError::RecoveryTooEasy { .. })));
    assert!(matches!(refused(|r| r.recovery_quorum = 7, true), Roster(RosterError::Threshold { door: Door::Recovery, .. })));
    assert!(matches!(refused(|r| r.custodians.truncate(3), true), Roster(RosterError::Threshold { .. })));
    assert!(matches!(refused(|r| r.custodians[1] = r.custodians[0].clone(), true), Roster(RosterError::Repeated { .. })));
    assert!(matches!(refused(|r| r.custodians[1].ecdh = r.custodians[0].ecdh.clone(), true), Roster(RosterError::Repeated { .. })));
    assert!(matches!(refused(|r| r.custodians[2].mlkem = Bytes(vec![0xff; 1568]), true), Roster(RosterError::Card(_))));
    assert!(matches!(refused(|r| r.recovery[6].signing.0[1] ^= 1, true), Roster(RosterError::Card(_))));
    assert!(matches!(refused(|r| r.custodians[0].kept_in = "head".into(), true), Roster(RosterError::KeptIn(..))));
}

#[test]
fn production_takes_no_drill_keys() {
    assert!(matches!(refused(|_| (), false), DealError::Roster(RosterError::Drill(who)) if who.as_str() == "alpha"));
}

#[test]
fn a_foreign_or_damaged_appliance_is_refused() {
    let refused = |change: fn(&mut hoidla_format::statements::ApplianceIdentity)| {
        let mut identity = PaperTpm::new(1).identity("lux-1");
        change(&mut identity);
        let (roster, key) = (roster(), release_key());
        let input = DealingInput {
            vault: vault_id("land", 1),
            development: true,
            roster: &roster,
            release_key: &key,
            appliances: &[identity],
            dealt: Moment::from_seconds(0),
        };
        deal(&input, &mut rng(1)).err().expect("refused")
    };
    assert!(matches!(refused(|i| i.site = name("sgp")), DealError::Appliance(_)));
    assert!(matches!(refused(|i| i.srk.0.truncate(20)), DealError::StorageKey(..)));
    assert!(matches!(refused(|i| *i.srk.0.last_mut().unwrap() ^= 1), DealError::StorageKey(..)), "a point off the curve");
}
