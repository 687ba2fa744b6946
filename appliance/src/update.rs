//! Newer papers that somebody carried to the door.
//!
//! Promises: what is kept was signed by the authority, fits this appliance, and is newer: an
//! older site file, one that keeps a dataset shorter or drops it, and one of another release
//! key, door or mode are refused, and nothing is changed. Who carries them doesn't matter. They
//! come into force when the daemon begins anew, by itself, as soon as no ceremony is backed by
//! more than its proposer and nothing is open; a power cut before that changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::ensure;
use hoidla_format::statements::{ApplianceIdentity, Site};
use hoidla_protocol::{Code, Refused, Response};
use hoidla_tpm::Tpm;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    ceremonies::Ceremonies,
    config::State,
    enrol::{check_counters, import, not_older},
    machine::Stands,
    papers::Papers,
};

/// What comes after the door has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The end.
    Stop,
    /// Another start, under newer papers.
    Again,
}

/// Takes newer papers.
pub(crate) struct Updates {
    state: State,
    tpm: Arc<Tpm>,
    papers: Arc<Papers>,
    room: Semaphore,
    waiting: AtomicBool,
}

impl Updates {
    /// For an appliance that runs under these papers.
    pub fn new(state: State, tpm: Arc<Tpm>, papers: Arc<Papers>) -> Self {
        Self { state, tpm, papers, room: Semaphore::new(1), waiting: AtomicBool::new(false) }
    }

    /// Room for one update; none while another is looked at.
    pub fn room(&self) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire().ok()
    }

    /// Whether newer papers are to come into force now.
    pub fn due(&self, ceremonies: &Ceremonies) -> bool {
        self.waiting.load(Ordering::Acquire) && ceremonies.covered_now().is_empty()
    }

    /// Takes papers, if they are newer; the same again changes nothing.
    pub async fn take(self: Arc<Self>, notes: Vec<Vec<u8>>, ceremonies: &Ceremonies) -> Result<Response, Refused> {
        let me = self.clone();
        let taken = tokio::task::spawn_blocking(move || me.keep(notes)).await.map_err(anyhow::Error::from).flatten();
        let serial = taken.map_err(|e| Refused::new(Code::NotAllowed, format!("the papers were refused: {e:#}")))?;
        let in_force = !self.waiting.load(Ordering::Acquire) || ceremonies.covered_now().is_empty();
        Ok(Response::Updated { serial, in_force })
    }

    fn keep(&self, notes: Vec<Vec<u8>>) -> anyhow::Result<u32> {
        let (papers, new) = with(&self.state, &self.papers.identity, &self.tpm, notes)?;
        let serial = papers.site.statement.serial;
        if new {
            keep(&self.state, &papers, &self.tpm)?;
            tracing::info!(serial, "newer papers were brought; they come into force as soon as nothing is being opened");
            self.waiting.store(true, Ordering::Release);
        }
        Ok(serial)
    }
}

/// The papers that are kept, with those that were brought, if they may be; whether that is new.
/// Nothing is changed yet.
pub(crate) fn with(state: &State, identity: &ApplianceIdentity, tpm: &Tpm, brought: Vec<Vec<u8>>) -> anyhow::Result<(Papers, bool)> {
    let config = state.config()?;
    let authority = config.authority_key()?;
    let kept = Papers::kept(&state.papers(), &authority, identity)?;
    let papers = kept.newer(brought, &authority, tpm)?;
    if papers.same(&kept) {
        return Ok((papers, false));
    }
    not_older(state, &config, identity, &papers)?;
    same_ground(&kept.site.statement, &papers.site.statement)?;
    check_counters(Stands::ask(tpm)?, &papers)?;
    Ok((papers, true))
}

/// Keeps papers that [`with`] gave, and imports the halves that they brought.
pub(crate) fn keep(state: &State, papers: &Papers, tpm: &Tpm) -> anyhow::Result<()> {
    import(state, papers, tpm)?;
    papers.keep(&state.papers())
}

/// What no update through the door changes: without these, this TPM's keys and everybody's
/// certificates would be worth nothing.
fn same_ground(old: &Site, new: &Site) -> anyhow::Result<()> {
    let with = "it must be brought to the rack, and the appliance identified and enrolled anew";
    ensure!(new.development == old.development, "a drill site stays one, and production too: for another {with}");
    ensure!(new.release_key == old.release_key, "it names another release key: {with}");
    ensure!(new.door_root == old.door_root, "it names another door root: {with}");
    let gone = old.datasets.iter().find(|d| !new.datasets.iter().any(|n| n.name == d.name));
    ensure!(gone.is_none(), "it no longer names the dataset {}: what is kept of it must stay named", gone.map_or("", |d| d.name.as_str()));
    Ok(())
}
