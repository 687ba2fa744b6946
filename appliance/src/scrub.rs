//! Verification without keys: every stored byte on every copy, repaired where one
//! copy is good. Works on a stopped appliance's disks, sealed as they are.

use std::sync::Arc;

use hoidla_cli::Output;
use hoidla_store::SegmentRef;
use hoidla_uring::Store;
use serde::Serialize;

use crate::{
    config::State,
    enrol::store_id,
    identify,
    machine::{self, Membership},
    scrubber,
};

/// What verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scrubbed {
    /// Bytes read, all copies.
    pub bytes: u64,
    /// Records checked.
    pub records: u64,
    /// Segments checked.
    pub segments: u64,
    /// Disks that are missing.
    pub missing: usize,
    /// What was bad on one copy and repaired from another.
    pub repaired: Vec<String>,
    /// What no copy holds any more.
    pub damage: Vec<String>,
    /// Why the store only reads, such as disks that were put back.
    pub only_reads: Option<String>,
}

impl Scrubbed {
    /// Whether everything that was ever acknowledged is there.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.only_reads.is_none()
    }
}

/// Reads and checks everything on the disks.
pub async fn scrub(state: &State, output: &Output) -> anyhow::Result<Scrubbed> {
    let config = state.config()?;
    let identity = identify::known(state)?;
    let tpm = Arc::new(machine::pinned(&config, &identity)?);
    let name = store_id(state, &identity)?;
    let open = move || Store::open(&config.disks, name, Box::new(Membership::of(tpm)), hoidla_uring::Settings::default());
    let (store, report) = tokio::task::spawn_blocking(open).await??;
    let (free, all) = store.room().await?;
    let copies = 1.max(state.config()?.disks.len() - report.absent.len()) as u64;
    let progress = output.bytes("verifying", Some(all.saturating_sub(free) * copies));
    let mut found = Scrubbed {
        missing: report.absent.len().max(report.opened.missing.len()),
        repaired: report.opened.repaired,
        damage: report.opened.damage,
        only_reads: report.opened.only_reads,
        ..Scrubbed::default()
    };
    let tell = |segment: &SegmentRef, checked| {
        let checked = scrubber::named(segment, checked);
        progress.add(checked.bytes);
        found.segments += 1;
        found.bytes += checked.bytes;
        found.records += checked.records;
        found.repaired.extend(checked.repaired);
        found.damage.extend(checked.damage);
    };
    store.see_all(tell).await?;
    progress.done();
    store.note_powered().await?; // and with it, what was seen
    tokio::task::spawn_blocking(move || store.close()).await?;
    Ok(found)
}
