//! Going on after somebody raised the log's counter by other means, on the authority's word.
//!
//! Promises: a store that only reads, because the counter in the TPM stands above what its disks
//! say, goes on only if the authority signed a word for this very TPM and this very count, and if
//! the log on the disks extends the head in that word, the newest that home knows. Going on raises
//! the counter, so that the word never counts again. What was copied in after that head and was
//! put back since, the word doesn't tell: agents do.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use hoidla_crypto::sign;
use hoidla_format::statements::CountWord;
use hoidla_log::verify_consistency;
use hoidla_store::Options;
use hoidla_tpm::{Counter, Tpm};
use hoidla_uring::{Report, Settings, Store};

use crate::{
    config::State,
    enrol::store_id,
    identify,
    machine::{self, Membership},
    papers::Papers,
};

/// Bytes of the store's buffers meanwhile.
const MEMORY: usize = 128 << 20;

/// Lets the store go on, if all is as the word says; `hoidlad` must be stopped.
pub async fn recount(state: &State, note: &[u8]) -> anyhow::Result<CountWord> {
    let (config, identity) = (state.config()?, identify::known(state)?);
    let authority = config.authority_key()?;
    let papers = Papers::kept(&state.papers(), &authority, &identity)?;
    let word = sign::open::<CountWord>(note, Some("authority"), &authority).context("the word about the counter")?.statement;
    is_for(&word, &papers)?;
    let tpm = Arc::new(machine::pinned(&config, &identity)?);
    let stands = tpm.counter(Counter::Intent)?;
    ensure!(
        word.stands == stands,
        "this word is for a counter that stands at {}, and it stands at {stands}: a word counts once; ask home for one for that count",
        word.stands
    );
    let name = store_id(state, &identity)?;
    let open = |vouched| open(config.disks.clone(), name, tpm.clone(), vouched);
    let (store, report) = open(None).await?;
    let fits = extends(&store, &word).await;
    close(store).await?;
    ensure!(report.opened.only_reads.is_some(), "this store doesn't only read: there is nothing to go on from");
    fits?;
    let (store, report) = open(Some(stands)).await?;
    let fits = extends(&store, &word).await;
    close(store).await?;
    if let Some(why) = report.opened.only_reads {
        bail!("{why}; this word is not about that");
    }
    fits.context("the disks were changed while the store was opened again: look who is at the machine, and tell the authority")?;
    Ok(word)
}

fn is_for(word: &CountWord, papers: &Papers) -> anyhow::Result<()> {
    let here = &papers.identity;
    ensure!(
        word.site == here.site && word.appliance == here.name && word.identity == papers.enrolment.statement.identity,
        "this word is for {} of {}, with another TPM or another name than this one, {} of {}",
        word.appliance,
        word.site,
        here.name,
        here.site
    );
    Ok(())
}

async fn open(disks: Vec<std::path::PathBuf>, name: [u8; 16], tpm: Arc<Tpm>, vouched: Option<u64>) -> anyhow::Result<(Store, Report)> {
    let settings = Settings { memory: MEMORY, options: Options { rebuild: false, prewrite: false, vouched, ..Options::default() } };
    Ok(tokio::task::spawn_blocking(move || Store::open(&disks, name, Box::new(Membership::of(tpm)), settings)).await??)
}

async fn close(store: Store) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || store.close()).await?)
}

/// Whether the log on the disks has all that the head in the word covers.
async fn extends(store: &Store, word: &CountWord) -> anyhow::Result<()> {
    let (size, root) = store.log_head().await?;
    ensure!(
        size >= word.log_size,
        "the newest head that home knows has {} leaves, and these disks have {size}: they were put back, and don't go on",
        word.log_size
    );
    let proof = store.consistency(word.log_size, size).await?;
    verify_consistency(word.log_size, &word.log_root, size, &root, &proof)
        .with_context(|| format!("the log on these disks does not extend the {} leaves that home knows: they don't go on", word.log_size))
}
