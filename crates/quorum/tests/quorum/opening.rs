//! From shares to the reader's keys, against a TPM on paper.

use hoidla_crypto::{datakey, hpke};
use hoidla_format::{
    Hash32,
    statement::{hash, write},
    statements::Door,
};
use hoidla_quorum::{
    opening::{Occasion, OpenError, RewrapError, open_share, open_with_recovery, open_with_tpm, seal_share},
    share::{Share, ShareError, VaultId},
};

use crate::world::*;

fn open(w: &World, shares: &[Share]) -> Result<hoidla_quorum::opening::VaultKey, OpenError<Refused>> {
    open_with_tpm(w.vault(), &name("lux-1"), w.half(), shares, |half, auth| w.tpm.unseal(half, auth))
}

/// All subsets of `names`, as bit masks.
fn subset<'a>(names: &[&'a str], mask: u32) -> Vec<&'a str> {
    names.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, n)| *n).collect()
}

#[test]
fn fewer_than_m_never_open_and_m_or_more_always_do() {
    let w = World::new();
    for mask in 0..1u32 << QUORUM.len() {
        let names = subset(&QUORUM, mask);
        let opened = open(&w, &w.shares(&names));
        assert_eq!(opened.is_ok(), names.len() >= 3, "{names:?}");
    }
    assert_eq!(w.tpm.unsealed.get(), 16, "without a quorum the TPM isn't even asked");
    for mask in 0..1u32 << RECOVERY.len() {
        let names = subset(&RECOVERY, mask);
        let opened = open_with_recovery(w.vault(), &w.dealing.recovery_wrap, &w.recovery_shares(&names));
        assert_eq!(opened.is_ok(), names.len() >= 5, "{names:?}");
    }
}

/// Even whoever lies about the threshold gets a wrong key, which the TPM refuses.
#[test]
fn a_lowered_threshold_opens_nothing() {
    let w = World::new();
    let mut lying = w.vault().clone();
    lying.quorum = 2;
    for mask in (0..32u32).filter(|m| m.count_ones() == 2) {
        let shares = w.shares(&subset(&QUORUM, mask));
        let opened = open_with_tpm(&lying, &name("lux-1"), w.half(), &shares, |h, a| w.tpm.unseal(h, a));
        assert!(matches!(opened, Err(OpenError::Tpm(Refused("auth value")))));
    }
}

#[test]
fn the_doors_don_t_mix() {
    let w = World::new();
    let recovery = w.recovery_shares(&RECOVERY[..5]);
    assert!(matches!(open(&w, &recovery), Err(OpenError::Tpm(_))));
    assert!(open_with_recovery(w.vault(), &w.dealing.recovery_wrap, &w.shares(&QUORUM)).is_err());
}

#[test]
fn another_tpm_another_appliance_and_another_epoch_open_nothing() {
    let w = World::new();
    let shares = || w.shares(&QUORUM[..3]);
    let other = PaperTpm::new(8);
    let by_other = open_with_tpm(w.vault(), &name("lux-1"), w.half(), &shares(), |h, a| other.unseal(h, a));
    assert!(matches!(by_other, Err(OpenError::Tpm(Refused("integrity")))));
    assert!(open_with_tpm(w.vault(), &name("lux-2"), w.half(), &shares(), |h, a| w.tpm.unseal(h, a)).is_err());
    let next = deal_one(&w.roster, "land", 2, &[w.tpm.identity("lux-1")]);
    assert!(open_with_tpm(&next.vault, &name("lux-1"), &next.halves[0].1, &shares(), |h, a| w.tpm.unseal(h, a)).is_err());
    assert!(open_with_tpm(w.vault(), &name("lux-1"), &next.halves[0].1, &shares(), |h, a| w.tpm.unseal(h, a)).is_err());
}

#[test]
fn a_tpm_that_lies_about_its_half_opens_nothing() {
    let w = World::new();
    let lie = |_: &_, _: &_| Ok::<_, Refused>(hoidla_crypto::Secret::filled(|b| b.fill(1)));
    assert!(matches!(open_with_tpm(w.vault(), &name("lux-1"), w.half(), &w.shares(&QUORUM), lie), Err(OpenError::WontOpen(_))));
}

#[test]
fn one_share_three_times_is_no_quorum() {
    let w = World::new();
    let refused = open(&w, &w.shares(&["alpha", "alpha", "alpha"])).err().unwrap();
    assert_eq!(refused, OpenError::Shares(ShareError::Repeated(1)));
}

#[test]
fn the_reader_and_nobody_else_gets_the_data_key() {
    let w = World::new();
    let (key, binding, wrapped) = w.wrapped_key();
    let grant = w.grant();
    let grant_hash = hash(&write(&grant));
    for vault_key in [
        open(&w, &w.shares(&["echo", "bravo", "delta"])).unwrap(),
        open_with_recovery(w.vault(), &w.dealing.recovery_wrap, &w.recovery_shares(&RECOVERY[2..])).unwrap(),
    ] {
        let sent = vault_key.rewrap(&wrapped, &binding, &grant, &grant_hash).unwrap();
        let got = datakey::unwrap_as_reader(&reader_keys().hpke, &binding, &grant_hash, &sent).unwrap();
        assert!(got.secret().ct_eq(key.secret()));
        assert!(datakey::unwrap_as_reader(&hpke::KeyPair::generate(), &binding, &grant_hash, &sent).is_err());
        assert!(datakey::unwrap_as_reader(&reader_keys().hpke, &binding, &Hash32([0; 32]), &sent).is_err());
    }
}

#[test]
fn nothing_outside_the_grant_is_rewrapped() {
    let w = World::new();
    let (_, binding, wrapped) = w.wrapped_key();
    let key = open(&w, &w.shares(&QUORUM)).unwrap();
    let (grant, any) = (w.grant(), Hash32([0; 32]));
    let rewrap = |b: &datakey::Binding, g: &_| key.rewrap(&wrapped, b, g, &any);
    let mut elsewhere = grant.clone();
    elsewhere.covers[0].vault_epoch = 2;
    assert_eq!(rewrap(&binding, &elsewhere), Err(RewrapError::NotCovered));
    let mut foreign = grant.clone();
    foreign.site = name("sgp");
    assert_eq!(rewrap(&binding, &foreign), Err(RewrapError::NotCovered));
    let other = datakey::Binding { dataset: name("court"), ..binding.clone() };
    assert_eq!(rewrap(&other, &grant), Err(RewrapError::NotCovered));
    let moved = datakey::Binding { epoch: 3, ..binding };
    assert!(matches!(rewrap(&moved, &grant), Err(RewrapError::Hpke(_))), "a key moved to another epoch");
}

#[test]
fn a_share_opens_for_its_ceremony_alone_and_a_bad_one_is_blamed() {
    let w = World::new();
    let one_time = hpke::KeyPair::generate();
    let occasion = Occasion { grant: Hash32([1; 32]), challenge: Hash32([2; 32]) };
    let alpha = VaultId::of(w.vault()).share(Door::Quorum, &name("alpha"), 1);
    let sealed = seal_share(one_time.public(), &occasion, &alpha, &w.share("alpha"));
    open_share(&one_time, &occasion, w.vault(), &name("alpha"), &sealed).unwrap();

    let blamed = |occasion: &Occasion, key: &hpke::KeyPair, who: &str, sealed: &_| {
        let bad = open_share(key, occasion, w.vault(), &name(who), sealed).err().expect("refused");
        assert_eq!(bad.custodian.as_str(), who);
        bad.why
    };
    let (other_grant, other_challenge) =
        (Occasion { grant: Hash32([9; 32]), ..occasion }, Occasion { challenge: Hash32([9; 32]), ..occasion });
    assert!(blamed(&other_grant, &one_time, "alpha", &sealed).contains("another ceremony"));
    assert!(blamed(&other_challenge, &one_time, "alpha", &sealed).contains("another ceremony"));
    assert!(blamed(&occasion, &hpke::KeyPair::generate(), "alpha", &sealed).contains("another ceremony"));
    assert!(blamed(&occasion, &one_time, "bravo", &sealed).contains("another ceremony"), "sealed as alpha's");

    // Bravo sends alpha's share as their own; then the right place but another epoch's share.
    let bravo = VaultId::of(w.vault()).share(Door::Quorum, &name("bravo"), 1);
    let stolen = seal_share(one_time.public(), &occasion, &bravo, &w.share("alpha"));
    assert!(blamed(&occasion, &one_time, "bravo", &stolen).contains("never dealt"));
    let next = deal_one(&w.roster, "land", 2, &[]);
    let old = seal_share(one_time.public(), &occasion, &alpha, &open_envelope(&next.quorum, "alpha"));
    assert!(blamed(&occasion, &one_time, "alpha", &old).contains("not the one they were dealt"));
}
