//! The authority's word that time passed while the machine was off.
//!
//! Promises: nothing else moves time forward. A word counts only if the authority signed it for
//! this appliance, its serial is above all known, it goes on from where time stands, and it skips
//! no more than really passed since the last date that the authority signed here, without what was
//! lived through; words that are kept are held to all of that again at each look. It is absolute, so that one that is brought again changes nothing; what was
//! written after the machine came back is none the older for it.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use hoidla_crypto::sign::{self, Signed, VerifyingKey};
use hoidla_format::{Moment, statements::Skip};

use crate::{
    config::{State, replace},
    papers::Papers,
};

/// Who signs.
const AUTHORITY: &str = "authority";
/// The most words that one machine needs in its life.
const MOST: usize = 1000;

/// All words that this machine has taken, by serial.
#[derive(Clone, Debug, Default)]
pub struct Skips(Vec<Signed<Skip>>);

impl Skips {
    /// Those in the state folder. A file that isn't a word of the authority for this appliance
    /// counts nothing, and is said.
    pub fn kept(state: &State, authority: &VerifyingKey, papers: &Papers) -> anyhow::Result<Self> {
        let folder = state.skips();
        let mut all = Self::default();
        if !folder.exists() {
            return Ok(all);
        }
        let entries = fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        let paths = entries.take(MOST).filter_map(Result::ok).map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "txt"));
        let mut found: Vec<Signed<Skip>> = paths.filter_map(|p| read_kept(p, authority)).collect();
        found.sort_by_key(|s| s.statement.serial);
        for skip in found {
            match all.fits(&skip.statement, papers) {
                Ok(()) => all.0.push(skip),
                Err(e) => tracing::warn!("word {} about time counts nothing: {e:#}", skip.statement.serial),
            }
        }
        Ok(all)
    }

    /// Whether a word goes on from all that are known.
    fn follows(&self, skip: &Skip) -> anyhow::Result<()> {
        let (serial, to) = self.0.last().map_or((0, 0), |s| (s.statement.serial, s.statement.to));
        ensure!(skip.serial > serial, "this word has serial {}, the appliance has taken {serial}: bring a newer one", skip.serial);
        ensure!(skip.from >= to, "this word begins at {} s, where time was skipped already up to {to} s", skip.from);
        ensure!(skip.from < skip.to, "this word skips nothing");
        Ok(())
    }

    /// Whether a word follows, and is no longer than time passed since the enrolment and all before it.
    fn fits(&self, skip: &Skip, papers: &Papers) -> anyhow::Result<()> {
        is_for(skip, papers)?;
        self.follows(skip)?;
        ensure!(!skip.reason.trim().is_empty(), "this word gives no reason");
        let known = self.0.iter().map(|s| s.statement.issued).fold(papers.enrolment.statement.issued, Ord::max);
        check_length(skip, known, self.0.last().map(|s| s.statement.to))
    }

    /// Takes a new word: checks it against everything, and keeps it.
    pub fn take(&mut self, note: &[u8], state: &State, authority: &VerifyingKey, papers: &Papers) -> anyhow::Result<Skip> {
        let signed = sign::open::<Skip>(note, Some(AUTHORITY), authority).context("the word about time")?;
        let skip = &signed.statement;
        self.fits(skip, papers)?;
        fs::create_dir_all(state.skips())?;
        replace(&state.skips().join(format!("skip-{}.txt", skip.serial)), note)?;
        let skip = skip.clone();
        self.0.push(signed);
        Ok(skip)
    }

    /// What each of them skips: from, and to.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|s| (s.statement.from, s.statement.to))
    }

    /// Seconds skipped in all, by those whose beginning has been reached.
    pub fn skipped(&self, powered: u64) -> u64 {
        self.0.iter().filter(|s| s.statement.from <= powered).map(|s| s.statement.to - s.statement.from).sum()
    }

    /// The word that moves time on from `powered`, if there is one.
    pub fn next(&self, powered: u64) -> Option<&Skip> {
        self.0.iter().map(|s| &s.statement).find(|s| s.from <= powered && powered < s.to)
    }
}

fn read_kept(path: PathBuf, authority: &VerifyingKey) -> Option<Signed<Skip>> {
    let read = || Ok::<_, anyhow::Error>(sign::open::<Skip>(&fs::read(&path)?, Some(AUTHORITY), authority)?);
    read().inspect_err(|e| tracing::warn!("{} counts nothing: {e:#}", path.display())).ok()
}

fn is_for(skip: &Skip, papers: &Papers) -> anyhow::Result<()> {
    let identity = &papers.identity;
    ensure!(
        skip.site == identity.site && skip.appliance == identity.name,
        "this word is for {} of {}, this is {} of {}",
        skip.appliance,
        skip.site,
        identity.name,
        identity.site
    );
    ensure!(
        skip.identity == papers.enrolment.statement.identity,
        "this word was signed for {} as it was enrolled before, and its time counts from its enrolment: ask home for a new one",
        skip.appliance
    );
    Ok(())
}

/// No more may be skipped than passed between two dates that the authority signed, without what
/// was lived through since the last word `stood` at its end, if there is one.
fn check_length(skip: &Skip, known: Moment, stood: Option<u64>) -> anyhow::Result<()> {
    let lived = stood.map_or(0, |stood| skip.from.saturating_sub(stood));
    let passed = skip.issued.seconds().saturating_sub(known.seconds()).saturating_sub(lived);
    ensure!(
        skip.to - skip.from <= passed,
        "this word skips {} s, but only {passed} s that it did not run lie between {known}, the last date that the authority signed here, and {}",
        skip.to - skip.from,
        skip.issued
    );
    Ok(())
}
