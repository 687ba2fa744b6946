//! How much room each dataset may take.
//!
//! Promises: no dataset takes what is kept free for another, so that one rogue agent cannot fill
//! the store for all; what is refused is refused before it is acknowledged. What nobody is kept
//! may be used by anybody. Counted anew every few seconds, by whole segments; a generation for
//! which none is open takes a whole one with its first byte.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hoidla_format::{Name, statements::Dataset};
use hoidla_protocol::{Code, Refused};
use hoidla_store::Generation;
use hoidla_uring::Store;

/// Generations of a dataset that are taken for open; a segment is counted for each record of one
/// more, since the store closes what too many others push out.
const MOST_OPEN: usize = 32;

/// One dataset's part.
#[derive(Debug)]
struct Part {
    /// Thousandths of the store that are kept free for it.
    kept: u64,
    used: AtomicU64,
    /// Its generations that have an open segment.
    open: Mutex<HashSet<u32>>,
}

impl Part {
    fn open(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All parts.
#[derive(Debug)]
pub struct Shares {
    parts: HashMap<Name, Part>,
    capacity: AtomicU64,
    /// Bytes of a segment.
    segment: AtomicU64,
}

impl Shares {
    /// By the site file: a dataset's own share, or an equal part of a quarter of what those leave.
    pub fn of(datasets: &[Dataset]) -> Self {
        let said: u64 = datasets.iter().filter_map(|d| d.share).map(u64::from).sum();
        let others = datasets.iter().filter(|d| d.share.is_none()).count().max(1) as u64;
        let equal = 1000_u64.saturating_sub(said * 10) / 4 / others;
        let part =
            |d: &Dataset| Part { kept: d.share.map_or(equal, |s| u64::from(s) * 10), used: AtomicU64::new(0), open: Mutex::default() };
        Self {
            parts: datasets.iter().map(|d| (d.name.clone(), part(d))).collect(),
            capacity: AtomicU64::new(0),
            segment: AtomicU64::new(0),
        }
    }

    /// Counts what the store has. If it can't be counted now, the counts stay.
    pub async fn renew(&self, store: &Store) {
        if let (Ok(used), Ok((_, capacity)), Ok((segment, open))) = (store.used().await, store.room().await, store.open_generations().await)
        {
            self.set(&used, capacity);
            self.set_open(segment, &open);
        }
    }

    fn set(&self, used: &BTreeMap<Name, u64>, capacity: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
        for (dataset, part) in &self.parts {
            part.used.store(used.get(dataset).copied().unwrap_or(0), Ordering::Relaxed);
        }
    }

    fn set_open(&self, segment: u64, open: &[Generation]) {
        self.segment.store(segment, Ordering::Relaxed);
        for (dataset, part) in &self.parts {
            *part.open() = open.iter().filter(|g| g.dataset == *dataset).map(|g| g.number).take(MOST_OPEN).collect();
        }
    }

    /// Takes room for so many bytes of a generation, or says why not.
    pub fn take(&self, dataset: &Name, generation: u32, bytes: u64) -> Result<(), Refused> {
        let Some(part) = self.parts.get(dataset) else { return Ok(()) };
        let capacity = self.capacity.load(Ordering::Relaxed);
        let of = |p: &Part| p.used.load(Ordering::Relaxed).max(capacity / 1000 * p.kept);
        let others: u64 = self.parts.iter().filter(|(name, _)| *name != dataset).map(|(_, p)| of(p)).sum();
        let may = capacity.saturating_sub(others).max(capacity / 1000 * part.kept);
        let mut open = part.open();
        let bytes = if open.contains(&generation) { bytes } else { bytes.max(self.segment.load(Ordering::Relaxed)) };
        // In one step: the counting anew may come between two.
        let with = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= may);
        if part.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok() {
            if open.len() < MOST_OPEN {
                open.insert(generation);
            }
            return Ok(());
        }
        let why = format!(
            "{dataset} has {may} bytes of this store and no more: the rest is kept for other datasets; let generations end, or ask the authority for a larger share in the site file, or for more disks"
        );
        Err(Refused::new(Code::Full, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> Name {
        s.parse().unwrap()
    }

    fn shares(of: &[(&str, Option<u8>)]) -> Shares {
        let dataset = |(n, share): &(&str, Option<u8>)| Dataset {
            name: name(n),
            title: "x".into(),
            roster: name("r"),
            retention_days: 1,
            share: *share,
        };
        let shares = Shares::of(&of.iter().map(dataset).collect::<Vec<_>>());
        shares.set(&BTreeMap::new(), 1_000_000);
        shares
    }

    /// How much a dataset gets, a thousandth at a time.
    fn most(shares: &Shares, dataset: &str) -> u64 {
        (0..2000).take_while(|_| shares.take(&name(dataset), 1, 1000).is_ok()).count() as u64 * 1000
    }

    #[test]
    fn one_dataset_cannot_fill_the_store_for_the_others() {
        let s = shares(&[("land", None), ("people", None)]);
        assert_eq!(most(&s, "land"), 875_000, "an eighth is kept for the other");
        assert_eq!(s.take(&name("land"), 1, 1000).unwrap_err().code, Code::Full);
        assert_eq!(most(&s, "people"), 125_000, "and it gets it");
        assert_eq!(most(&shares(&[("land", None)]), "land"), 1_000_000);
    }

    #[test]
    fn a_byte_of_a_new_generation_counts_as_a_segment() {
        let s = shares(&[("land", None), ("people", None)]);
        let open = Generation { dataset: name("land"), number: 1 };
        s.set_open(100_000, &[open]);
        assert_eq!((1..100).take_while(|n| s.take(&name("land"), *n, 1).is_ok()).count(), 9, "1 is open, and 8 new ones fit into 875,000");
        assert!(s.take(&name("land"), 1, 1000).is_ok(), "what is open goes on");
        s.set_open(1, &[]);
        (1..=MOST_OPEN as u32).for_each(|n| s.take(&name("people"), n, 1).unwrap());
        s.set_open(100_000, &(1..=MOST_OPEN as u32).map(|number| Generation { dataset: name("people"), number }).collect::<Vec<_>>());
        assert!(s.take(&name("people"), 99, 1).is_ok() && s.take(&name("people"), 99, 1).is_err(), "one too many counts each time");
    }

    #[test]
    fn the_site_file_s_shares_count() {
        let s = shares(&[("land", Some(60)), ("people", Some(10)), ("state-gazette", None)]);
        assert_eq!(most(&s, "people"), 325_000, "60 and 7.5 percent are kept for the others");
        assert_eq!(most(&s, "land"), 600_000);
        assert_eq!(most(&s, "state-gazette"), 75_000);
        s.set(&BTreeMap::from([(name("land"), 0), (name("people"), 900_000)]), 1_000_000);
        assert_eq!(most(&s, "land"), 600_000, "what was kept free stays so, whoever has taken too much before");
        s.take(&name("unknown"), 1, 1 << 60).expect("the door refuses unknown datasets");
    }
}
