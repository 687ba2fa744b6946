//! Rosters: who opens, out of the custodians' own public cards.
//!
//! Promises: every card is signed by the key in it, and the roster is sane
//! ([`hoidla_quorum::roster`]). Whether a card is its custodian's, the witnesses see.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::sign::open_self_signed;
use hoidla_format::{
    Hash32, Name, statement,
    statements::{Custodian, Roster},
};

use crate::{
    home::{Home, open_signed, write_over},
    site,
};

/// What a roster is made of.
pub struct Request {
    /// Its name.
    pub name: Name,
    /// How many of `custodians` open, with the TPM.
    pub quorum: u8,
    /// How many of `recovery` open at home.
    pub recovery_quorum: u8,
    /// Cards of those who open.
    pub custodians: Vec<PathBuf>,
    /// Cards of those who recover.
    pub recovery: Vec<PathBuf>,
}

/// Signs a roster and puts its hash into `site.toml`.
pub fn sign(home: &Home, request: &Request, passphrase: &PassphraseSource) -> Result<(Roster, Hash32)> {
    let (text, site) = site::edited(home)?;
    let roster = Roster {
        site: site.site.clone(),
        name: request.name.clone(),
        quorum: request.quorum,
        recovery_quorum: request.recovery_quorum,
        custodians: cards(&request.custodians)?,
        recovery: cards(&request.recovery)?,
    };
    hoidla_quorum::roster::check(&roster, site.development)?;
    let hash = statement::hash(&statement::write(&roster));
    let filled = site::with_roster_hash(&text, &roster.name, &hash)
        .with_context(|| format!("{} has no [[roster]] with name = \"{}\" and a hash", home.site_toml().display(), roster.name))
        .next(format!("add these lines to it:\n[[roster]]\nname = \"{}\"\nhash = \"{hash}\"", roster.name))?;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    let path = home.roster(&roster.name);
    if path.exists() {
        let old: Roster = open_signed(&path, &keys.verifying())?.statement;
        ensure!(
            old == roster || vaults_of(home, &keys, &old)? == 0,
            "vaults are dealt to the roster {} as it was: sign the new one under another name and deal the next vault epoch to it",
            roster.name
        );
    }
    write_over(&path, keys.sign(&roster)?.as_bytes())?;
    write_over(&home.site_toml(), filled.as_bytes())?;
    Ok((roster, hash))
}

fn vaults_of(home: &Home, keys: &crate::home::Keys, roster: &Roster) -> Result<usize> {
    let hash = statement::hash(&statement::write(roster));
    Ok(home.vaults(&keys.verifying())?.iter().filter(|v| v.statement.roster == hash).count())
}

fn cards(paths: &[PathBuf]) -> Result<Vec<Custodian>> {
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let card = open_self_signed::<Custodian>(&bytes)
            .with_context(|| path.display().to_string())
            .next("ask the custodian for the card that hoidla-custodian new wrote")?;
        Ok(card.statement)
    };
    paths.iter().map(read).collect()
}
