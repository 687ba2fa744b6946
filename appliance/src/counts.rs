//! How many streams and epochs there are.
//!
//! Promises: a dataset has at most [`MOST_EPOCHS`] epochs (a few more, if several connections
//! begin one in the same moment), so that an opening can hand all their keys out; being asked
//! costs nothing. Counted anew now and then: what a failed append took is given back.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use hoidla_format::Name;
use hoidla_protocol::{Code, Refused};
use hoidla_uring::Store;

use crate::ceremonies::MOST_EPOCHS;

/// The counts.
#[derive(Debug)]
pub struct Counts {
    streams: AtomicU64,
    epochs: HashMap<Name, AtomicU64>,
}

impl Counts {
    /// Of these datasets; nothing is counted yet.
    pub fn of(datasets: impl Iterator<Item = Name>) -> Self {
        Self { streams: AtomicU64::new(0), epochs: datasets.map(|d| (d, AtomicU64::new(0))).collect() }
    }

    /// Counts what the store has. A dataset that can't be counted now keeps its count.
    pub async fn renew(&self, store: &Store) {
        let mut streams = 0;
        for (dataset, epochs) in &self.epochs {
            if let Ok(all) = store.streams(dataset.clone()).await {
                streams += all.len() as u64;
                epochs.store(all.iter().map(|(_, s)| s.epochs.len() as u64).sum(), Ordering::Relaxed);
            }
        }
        self.streams.store(streams, Ordering::Relaxed);
    }

    /// Streams of all datasets.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether an epoch of this dataset may begin; the first of a stream makes it one stream more.
    pub fn one_more_epoch(&self, dataset: &Name, epoch: u32) -> Result<(), Refused> {
        let Some(epochs) = self.epochs.get(dataset) else { return Ok(()) };
        if epochs.fetch_add(1, Ordering::Relaxed) < MOST_EPOCHS as u64 {
            self.streams.fetch_add(u64::from(epoch == 1), Ordering::Relaxed);
            return Ok(());
        }
        epochs.fetch_sub(1, Ordering::Relaxed);
        let why = format!(
            "{dataset} has {MOST_EPOCHS} epochs, the most that one opening can open; those of generations that end are given back, else ask the authority for another dataset"
        );
        Err(Refused::new(Code::Full, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_epoch_is_taken_and_none_after_it() {
        let (land, people): (Name, Name) = ("land".parse().unwrap(), "people".parse().unwrap());
        let counts = Counts::of([land.clone(), people.clone()].into_iter());
        for epoch in 1..=MOST_EPOCHS as u32 {
            counts.one_more_epoch(&land, epoch).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(counts.one_more_epoch(&land, 1).unwrap_err().code, Code::Full);
        }
        assert_eq!(counts.streams(), 1);
        counts.one_more_epoch(&people, 1).expect("another dataset is not concerned");
        assert_eq!(counts.streams(), 2);
    }
}
