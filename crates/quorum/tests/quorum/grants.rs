//! What a grant may say.

use hoidla_crypto::sign::{Signed, SigningKey, read_unverified};
use hoidla_format::{
    Bytes,
    statements::{Grant, Vault},
};
use hoidla_quorum::grant::{GrantError, LONGEST_OPENING, LONGEST_PURPOSE, check};

use crate::world::*;

fn vaults(w: &World) -> Vec<Signed<Vault>> {
    vec![read_unverified(SigningKey::generate().sign_statement("authority", w.vault()).as_bytes()).unwrap()]
}

fn refused(change: impl FnOnce(&mut Grant)) -> GrantError {
    let w = World::new();
    let mut grant = w.grant();
    change(&mut grant);
    check(&grant, &site(), &vaults(&w)).expect_err("refused")
}

#[test]
fn a_sane_grant_is_taken() {
    let w = World::new();
    check(&w.grant(), &site(), &vaults(&w)).unwrap();
}

#[test]
fn all_others_are_refused_for_their_reason() {
    assert!(matches!(refused(|g| g.site = name("sgp")), GrantError::Site { .. }));
    assert!(matches!(refused(|g| g.appliance = name("lux-2")), GrantError::Appliance(_)));
    for purpose in [String::new(), "  ".into(), "a\nb".into(), "x\u{1b}[2J".into(), "é".repeat(LONGEST_PURPOSE + 1)] {
        assert_eq!(refused(|g| g.purpose = purpose), GrantError::Purpose);
    }
    for seconds in [0, 9, LONGEST_OPENING + 1, u32::MAX] {
        assert_eq!(refused(|g| g.open_for_seconds = seconds), GrantError::Lifetime(seconds));
    }
    assert_eq!(refused(|g| g.nonce.0.truncate(15)), GrantError::Nonce);
    assert_eq!(refused(|g| g.reader.signing = Bytes(vec![2; 49])), GrantError::ReaderKey("signing key"));
    assert_eq!(refused(|g| g.reader.hpke.0.truncate(1664)), GrantError::ReaderKey("HPKE key"));
    assert_eq!(refused(|g| g.covers.clear()), GrantError::Count);
    assert_eq!(refused(|g| g.covers.push(g.covers[0].clone())), GrantError::Count);
    assert!(matches!(refused(|g| g.covers[0].vault_epoch = 2), GrantError::NoVault { .. }));
    assert!(matches!(refused(|g| g.covers[0].dataset = name("court")), GrantError::NoVault { .. }));
    assert!(matches!(refused(|g| g.covers[0].vault.0[0] ^= 1), GrantError::OtherVault { .. }));
}
