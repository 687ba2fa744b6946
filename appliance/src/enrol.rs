//! Enrolment: the authority's papers are checked, halves go into the TPM, disks are formatted.
//!
//! Promises: nothing changes unless every paper fits; an older site file or release
//! than the TPM's counters allow is refused, and the counters follow what was brought; disks that hold this appliance's store
//! keep it, disks that hold anything else are never formatted unless they were new
//! files or the engineer said so.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow, bail, ensure};
use hoidla_format::{
    Moment, StreamId,
    statements::{ApplianceIdentity, Site},
};
use hoidla_store::{Layout, SealKey};
use hoidla_tpm::{Counter, Tpm, TpmError};
use hoidla_uring::DiskFile;
use hoidla_verify::PolicyRef;
use sha2::{Digest, Sha256};

use crate::{
    config::{Config, State, replace},
    identify,
    machine::{self, Stands},
    papers::Papers,
};

/// What the engineer asks for.
#[derive(Clone, Debug, Default)]
pub struct Enrol {
    /// Files and folders with signed statements.
    pub papers: Vec<PathBuf>,
    /// Bytes of a disk file to make where there is none.
    pub disk_size: Option<u64>,
    /// Format disks although something may be on them.
    pub format: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The papers in force.
    pub papers: Papers,
    /// Halves imported into the TPM.
    pub halves: usize,
    /// Whether the disks were formatted.
    pub formatted: bool,
}

/// The name of this appliance's store on its disks: drawn anew whenever they are formatted, so
/// that nothing of a former store on them is ever taken for this one's.
pub fn store_id(state: &State, identity: &ApplianceIdentity) -> anyhow::Result<[u8; 16]> {
    let path = state.store();
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read; run hoidlad enrol", path.display()))?;
    let id: StreamId = text.trim().parse().map_err(|_| anyhow!("{} holds no store's name", path.display()))?;
    ensure!(id.0[..8] == owner(identity), "{} names another appliance's store", path.display());
    Ok(id.0)
}

/// Draws the name of a new store, and keeps it before anything is formatted.
fn fresh_store(state: &State, identity: &ApplianceIdentity) -> anyhow::Result<[u8; 16]> {
    let mut id = [0; 16];
    hoidla_crypto::random(&mut id[8..]);
    id[..8].copy_from_slice(&owner(identity));
    replace(&state.store(), format!("{}\n", StreamId(id)).as_bytes())?;
    Ok(id)
}

/// The part of a store's name that tells whose it is.
fn owner(identity: &ApplianceIdentity) -> [u8; 8] {
    let hash = Sha256::digest(
        [b"hoidla store of ".as_slice(), identity.site.as_str().as_bytes(), b"/", identity.name.as_str().as_bytes(), &identity.srk.0]
            .concat(),
    );
    *hash.first_chunk().expect("a hash has 8 bytes")
}

/// Enrols, or brings newer papers.
pub fn enrol(state: &State, ask: &Enrol) -> anyhow::Result<Enrolled> {
    let config = state.config()?;
    let identity = identify::known(state)?;
    let tpm = Arc::new(machine::pinned(&config, &identity)?);
    let papers = Papers::gather(&ask.papers, &config.authority_key()?, &identity, &tpm)?.under(&tpm)?;
    not_older(state, &config, &identity, &papers)?;
    if let Some(why) = papers.wrong_clock(Moment::now()) {
        bail!(why);
    }
    let stands = Stands::ask(&tpm)?;
    check_counters(stands, &papers)?;
    import(state, &papers, &tpm)?;
    let formatted = prepare_disks(state, &config, &identity, ask, &tpm)?;
    papers.keep(&state.papers())?;
    // Papers first: were the counters first, a power cut between would leave only papers that they refuse.
    if runs(&tpm, state, &papers, stands)? {
        retire_former(&tpm, &papers)?;
    }
    Ok(Enrolled { halves: papers.halves.statement.halves.len(), papers, formatted })
}

/// Refuses a site file older than, or beside, the one that was kept.
pub(crate) fn not_older(state: &State, config: &Config, identity: &ApplianceIdentity, papers: &Papers) -> anyhow::Result<()> {
    let Ok(kept) = Papers::kept(&state.papers(), &config.authority_key()?, identity) else { return Ok(()) };
    let (old, new) = (kept.site.statement.serial, papers.site.statement.serial);
    ensure!(new >= old, "the site file has serial {new}, this appliance knows serial {old}; bring the newest one");
    not_shorter(&kept.site.statement, &papers.site.statement)?;
    ensure!(
        new > old || kept.site.hash == papers.site.hash,
        "two different site files have serial {new}; ask the authority which is right"
    );
    Ok(())
}

/// Refuses a site file that keeps a dataset shorter than the one before.
fn not_shorter(old: &Site, new: &Site) -> anyhow::Result<()> {
    for d in &new.datasets {
        let before = old.datasets.iter().find(|o| o.name == d.name).map_or(0, |o| o.retention_days);
        ensure!(
            d.retention_days >= before,
            "the site file keeps {} for {} days, this appliance has promised {before}: retention only grows; ask the authority for one with {before} or more",
            d.name,
            d.retention_days
        );
    }
    Ok(())
}

/// Refuses a site file or a release below the TPM's counters: whatever was put back on the
/// machine's own disk, they don't go back.
pub fn check_counters(stands: Stands, papers: &Papers) -> anyhow::Result<()> {
    let first = papers.identity.site_counter;
    ensure!(stands.site >= first, "the TPM's site counter is behind its identity; is this the TPM that was recorded?");
    let (serial, known) = (papers.site.statement.serial, stands.site - first);
    ensure!(
        u64::from(serial) >= known,
        "the site file has serial {serial}, the TPM knows serial {known}: bring the newest one; if older boot disks were put in, put the newest back"
    );
    let (epoch, least) = (papers.release.statement.epoch, stands.release);
    ensure!(
        epoch >= least,
        "the release {} has epoch {epoch}, the TPM has retired all below {least}: start the image of the newest release, and bring its papers",
        papers.release.statement.name
    );
    Ok(())
}

/// Raises the TPM's count of site files to these papers, and sees whether the TPM lets the release
/// in force use the node key. It doesn't before the machine is started into that release.
pub fn runs(tpm: &Tpm, state: &State, papers: &Papers, stands: Stands) -> anyhow::Result<bool> {
    let wanted = papers.identity.site_counter + u64::from(papers.site.statement.serial);
    if stands.site < wanted {
        machine::raise(tpm, Counter::Site, wanted)?;
    }
    let node = machine::node(state)?.context(
        "the node key's blob is missing: enrol anew (from the stick: anew; where hoidlad is a program: hoidlad identify, then enrol)",
    )?;
    match tpm.sign_with_node(&node, &papers.approved, &Sha256::digest(b"hoidla: does this release run?").into()) {
        Ok(_) => Ok(true),
        Err(e @ TpmError::Pcrs) => {
            tracing::warn!("no former release is retired before this one runs: {e}");
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Retires releases before the one in force, for good. Only once that one runs, and the machine
/// would be started into it again: until then the former is what it falls back to.
pub fn retire_former(tpm: &Tpm, papers: &Papers) -> anyhow::Result<()> {
    Ok(tpm.retire_releases_below(papers.release.statement.epoch)?)
}

pub(crate) fn import(state: &State, papers: &Papers, tpm: &Tpm) -> anyhow::Result<()> {
    let site = &papers.site.statement;
    for half in &papers.halves.statement.halves {
        let reference = PolicyRef::vault(&site.site, site.development, &half.dataset, half.vault_epoch);
        let blob = tpm.import_half(half, papers.approved.key(), &reference)?;
        machine::keep_half(state, &half.dataset, half.vault_epoch, &blob)?;
    }
    Ok(())
}

/// Opens or makes the disks; formats them if they are new, all of them, or if asked.
fn prepare_disks(state: &State, config: &Config, identity: &ApplianceIdentity, ask: &Enrol, tpm: &Arc<Tpm>) -> anyhow::Result<bool> {
    let missing: Vec<&PathBuf> = config.disks.iter().filter(|d| !d.exists()).collect();
    if missing.is_empty() && !ask.format {
        return is_ours(state, config, identity, tpm).map(|()| false);
    }
    if !missing.is_empty() && missing.len() < config.disks.len() && !ask.format {
        bail!("{} is not there, but other disks are; put it in, or format all anew with --format", missing[0].display());
    }
    for path in missing {
        let size = ask.disk_size.context("a disk file is not there; say how large it shall be with --disk-size")?;
        DiskFile::create(path, size)?;
    }
    forget_checkpoint(state)?; // of a log that ends here
    let mut counters = machine::Membership::of(tpm.clone());
    let copies = config.copies.unwrap_or(2.min(config.disks.len() as u8));
    let layout = Layout { copies, ..Layout::default() };
    let mut key = SealKey([0; 32]);
    hoidla_crypto::random(&mut key.0);
    hoidla_uring::format(&config.disks, fresh_store(state, identity)?, key, layout, &mut counters)?;
    Ok(true)
}

fn forget_checkpoint(state: &State) -> anyhow::Result<()> {
    let path = state.checkpoint();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("{} cannot be removed", path.display())),
        _ => crate::keep::changed(),
    }
}

/// Whether the disks hold this appliance's store.
fn is_ours(state: &State, config: &Config, identity: &ApplianceIdentity, tpm: &Arc<Tpm>) -> anyhow::Result<()> {
    let counters = Box::new(machine::Membership::of(tpm.clone()));
    let (store, _) = hoidla_uring::Store::open(&config.disks, store_id(state, identity)?, counters, hoidla_uring::Settings::default())
        .context("the disks do not hold this appliance's store; to erase them and begin anew, enrol with --format")?;
    store.close();
    Ok(())
}
