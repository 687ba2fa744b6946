//! Which of an appliance's halves are still of use.
//!
//! Promises: a half stays as long as its vault certificate is there and no release has retired
//! its vault epoch. What was retired never comes back, so that an appliance's halves don't outgrow
//! what a statement may hold.

use anyhow::Result;
use hoidla_cli::NextStep;
use hoidla_crypto::sign::Signed;
use hoidla_format::statements::{Halves, TpmHalf};

use crate::{
    home::{Home, Keys, write_over},
    release::retired,
};

/// Whether a half is still of use. One of a dealing that was interrupted before its vault
/// certificate was written isn't.
pub fn live(home: &Home, keys: &Keys) -> Result<impl Fn(&TpmHalf) -> bool + use<>> {
    let (vaults, releases) = (home.vaults(&keys.verifying())?, home.releases(&keys.verifying())?);
    Ok(move |h: &TpmHalf| vaults.iter().any(|v| v.hash == h.vault) && !retired(&releases, &h.dataset, h.vault_epoch))
}

/// Signs an appliance's halves, or says how to make room for them.
pub fn sign(keys: &Keys, halves: &Halves) -> Result<String> {
    keys.sign(halves).next(format!(
        "{} holds {} halves: retire old vault epochs first, with: hoidla-provision release sign --retire DATASET:EPOCH",
        halves.appliance,
        halves.halves.len()
    ))
}

/// An appliance's halves as they stand now: those of retired vault epochs leave the file.
pub fn pruned(home: &Home, keys: &Keys, old: Signed<Halves>) -> Result<Signed<Halves>> {
    let mut halves = old.statement.clone();
    halves.halves.retain(live(home, keys)?);
    if halves == old.statement {
        return Ok(old);
    }
    let path = home.halves(&halves.appliance);
    write_over(&path, sign(keys, &halves)?.as_bytes())?;
    crate::home::open_signed(&path, &keys.verifying())
}
