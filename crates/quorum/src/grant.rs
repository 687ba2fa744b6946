//! What a grant may say.
//!
//! Promises: a grant that passes [`check`] has bounded lifetimes, names keys that are keys,
//! and covers only vaults whose certificates are at hand. It says nothing about whether
//! anyone approved it: that is [`crate::intake`].

use std::collections::BTreeSet;

use hoidla_crypto::{
    hpke,
    sign::{Signed, VerifyingKey},
};
use hoidla_format::{
    Name,
    statements::{Covers, Grant, Reader, Site, Vault},
};
use thiserror::Error;

/// The shortest time for which opened keys may be fetched, in seconds.
pub const SHORTEST_OPENING: u32 = 10;
/// The longest time for which opened keys may be fetched, in seconds: a day.
pub const LONGEST_OPENING: u32 = 24 * 60 * 60;
/// The most characters of a purpose, so that it fits a custodian's screen.
pub const LONGEST_PURPOSE: usize = 400;
/// The most vault epochs that one grant covers.
pub const MOST_COVERED: usize = 64;

/// Why a grant was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantError {
    /// A grant for another site.
    #[error("this grant is for site {found}, not {wanted}: use the site file it was written for")]
    Site {
        /// The site of the site file.
        wanted: Name,
        /// The site of the grant.
        found: Name,
    },
    /// A grant for an appliance that the site doesn't have.
    #[error("this grant is for appliance {0}, which this site file doesn't name")]
    Appliance(Name),
    /// A purpose that nobody can read.
    #[error("a grant's purpose is one line of 1 to {LONGEST_PURPOSE} characters: say who needs what, and why")]
    Purpose,
    /// A lifetime outside the bounds.
    #[error("a grant opens for {SHORTEST_OPENING} seconds to one day, not for {0} seconds")]
    Lifetime(u32),
    /// A nonce of another length than 16 bytes.
    #[error("the grant's nonce is damaged: write the grant anew")]
    Nonce,
    /// A reader's key that is none.
    #[error("the reader's {0} is damaged: let the reader make its public key file anew")]
    ReaderKey(&'static str),
    /// Nothing, too much, or something twice.
    #[error("a grant covers 1 to {MOST_COVERED} vault epochs, each once")]
    Count,
    /// A vault whose certificate isn't here.
    #[error("the grant covers {dataset}, vault epoch {vault_epoch}, whose vault certificate isn't here")]
    NoVault {
        /// The dataset.
        dataset: Name,
        /// The vault epoch.
        vault_epoch: u32,
    },
    /// A vault certificate other than the one that the grant names.
    #[error("the grant names another vault certificate of {dataset}, vault epoch {vault_epoch}: it was written for another dealing")]
    OtherVault {
        /// The dataset.
        dataset: Name,
        /// The vault epoch.
        vault_epoch: u32,
    },
}

/// Checks a grant against the site and the vault certificates at hand.
pub fn check(grant: &Grant, site: &Site, vaults: &[Signed<Vault>]) -> Result<(), GrantError> {
    if grant.site != site.site {
        return Err(GrantError::Site { wanted: site.site.clone(), found: grant.site.clone() });
    }
    if !site.appliances.iter().any(|a| a.name == grant.appliance) {
        return Err(GrantError::Appliance(grant.appliance.clone()));
    }
    check_alone(grant)?;
    grant.covers.iter().try_for_each(|c| check_covered(c, &site.site, vaults))
}

/// The rules that need nothing but the grant itself.
pub fn check_alone(grant: &Grant) -> Result<(), GrantError> {
    let length = grant.purpose.chars().count();
    if grant.purpose.trim().is_empty() || length > LONGEST_PURPOSE || grant.purpose.chars().any(char::is_control) {
        return Err(GrantError::Purpose);
    }
    if !(SHORTEST_OPENING..=LONGEST_OPENING).contains(&grant.open_for_seconds) {
        return Err(GrantError::Lifetime(grant.open_for_seconds));
    }
    if grant.nonce.0.len() != 16 {
        return Err(GrantError::Nonce);
    }
    let different: BTreeSet<_> = grant.covers.iter().map(|c| (&c.dataset, c.vault_epoch)).collect();
    if different.len() != grant.covers.len() || !(1..=MOST_COVERED).contains(&different.len()) {
        return Err(GrantError::Count);
    }
    check_reader(&grant.reader)
}

/// Whether a reader's keys are keys.
pub fn check_reader(reader: &Reader) -> Result<(), GrantError> {
    VerifyingKey::from_sec1(&reader.signing.0).map_err(|_| GrantError::ReaderKey("signing key"))?;
    hpke::PublicKey::from_bytes(&reader.hpke.0).map_err(|_| GrantError::ReaderKey("HPKE key"))?;
    Ok(())
}

fn check_covered(covers: &Covers, site: &Name, vaults: &[Signed<Vault>]) -> Result<(), GrantError> {
    let (dataset, vault_epoch) = (covers.dataset.clone(), covers.vault_epoch);
    let of = |v: &&Signed<Vault>| {
        let v = &v.statement;
        v.site == *site && v.dataset == covers.dataset && v.vault_epoch == covers.vault_epoch
    };
    match vaults.iter().find(of) {
        None => Err(GrantError::NoVault { dataset, vault_epoch }),
        Some(v) if v.hash != covers.vault => Err(GrantError::OtherVault { dataset, vault_epoch }),
        Some(_) => Ok(()),
    }
}
