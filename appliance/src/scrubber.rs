//! The scrub in the background: every stored byte is read and checked again and again, without
//! keys, and repaired where one copy is good.
//!
//! Promises: what was longest not seen comes first, so a restart goes on where it was; it takes
//! a quarter of the disks' time, and a tenth while others write; a segment counts as seen only
//! when a whole read of it found nothing to repair; what no copy holds is said in words and
//! never forgotten while the program runs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hoidla_store::{Checked, ReadError, SegmentRef};
use hoidla_uring::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// How old a check may be before the segment is checked again, in seconds of running.
pub const PERIOD: u64 = 7 * 86_400;
/// Segments that are asked for at once.
const SOME: usize = 64;
/// Bytes that others write while one segment is checked, for the scrub to give way.
const BUSY: u64 = 4 << 20;
/// Sentences that are kept for the panel.
const MOST_WORDS: usize = 100;

/// What the panel is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wholeness {
    /// The powered seconds since which every byte was written or seen whole, damage apart; none
    /// if nothing is stored.
    pub since: Option<u64>,
    /// Bytes read since the start, all copies.
    pub bytes: u64,
    /// What was repaired from another copy since the start.
    pub repaired: u64,
    /// What no copy holds, in words.
    pub damage: Vec<String>,
}

impl Wholeness {
    /// In a sentence, at so many powered seconds.
    pub fn words(&self, powered: u64) -> String {
        let (repaired, damaged) = (self.repaired, self.damage.len());
        let days = self.since.map(|since| powered.saturating_sub(since).div_ceil(86_400).max(1));
        let seen = days.map_or("nothing is stored".into(), |d| match damaged {
            0 => format!("every byte was seen whole within the last {d} days"),
            _ => format!("every byte but the damaged ones was seen whole within the last {d} days"),
        });
        format!("{seen}; repaired: {repaired}; damaged: {damaged}")
    }
}

/// What a check found, each with whose segment it was.
pub fn in_words(segment: &SegmentRef, found: &[String]) -> Vec<String> {
    let g = segment.generation();
    found.iter().map(|what| format!("{}, generation {}: {what}", g.dataset, g.number)).collect()
}

/// Checks one segment; one that is whole counts as seen.
pub async fn check(store: &Store, segment: SegmentRef) -> Result<Checked, StoreError> {
    let checked = store.see(segment.clone()).await?;
    Ok(named(&segment, checked))
}

/// The same with whose segment it was in each sentence.
pub fn named(segment: &SegmentRef, checked: Checked) -> Checked {
    Checked { repaired: in_words(segment, &checked.repaired), damage: in_words(segment, &checked.damage), ..checked }
}

/// The scrub of a running store.
pub struct Scrubber {
    store: Store,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    wholeness: Wholeness,
    /// By segment: what of it no copy holds.
    damage: BTreeMap<u32, Vec<String>>,
}

impl Scrubber {
    /// Over this store.
    pub fn new(store: Store) -> Self {
        Self { store, told: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the panel is told.
    pub fn wholeness(&self) -> Wholeness {
        self.lock().wholeness.clone()
    }

    /// Scrubs for ever; looks every `tick` whether something is to be checked.
    pub async fn keep(&self, tick: Duration) {
        loop {
            if let Err(e) = self.round().await {
                tracing::warn!("the scrub could not go on: {e}");
            }
            tokio::time::sleep(tick).await;
        }
    }

    /// Checks all that is due, at the scrub's pace.
    pub async fn round(&self) -> Result<(), StoreError> {
        loop {
            let before = self.store.powered().await?.saturating_sub(PERIOD);
            let bad: Vec<u32> = self.lock().damage.keys().copied().collect();
            let due = self.store.unseen(before, SOME + bad.len()).await?;
            let due: Vec<u32> = due.into_iter().filter(|slot| !bad.contains(slot)).collect();
            self.lock().wholeness.since = self.store.seen_since(bad).await?;
            if due.is_empty() {
                return Ok(());
            }
            for slot in due {
                let (began, wrote) = (Instant::now(), self.store.tally().bytes);
                self.one(slot).await?;
                let rest = if self.store.tally().bytes - wrote > BUSY { 9 } else { 3 };
                tokio::time::sleep(began.elapsed() * rest).await;
            }
        }
    }

    async fn one(&self, slot: u32) -> Result<(), StoreError> {
        let Some(segment) = self.store.segment(slot).await?.filter(|s| s.number() == slot) else { return Ok(()) };
        let checked = match check(&self.store, segment).await {
            // One disk that takes no repair must not keep the others' segments from being looked at.
            Err(StoreError::Read(e @ ReadError::Repair { .. })) => Checked { damage: vec![e.to_string()], ..Checked::default() },
            checked => checked?,
        };
        checked.repaired.iter().for_each(|what| tracing::warn!("scrub, repaired: {what}"));
        checked.damage.iter().for_each(|what| tracing::error!("scrub, DAMAGED: {what}"));
        let mut told = self.lock();
        told.wholeness.bytes += checked.bytes;
        told.wholeness.repaired += checked.repaired.len() as u64;
        if !checked.damage.is_empty() {
            told.damage.insert(slot, checked.damage);
            told.wholeness.damage = told.damage.values().flatten().take(MOST_WORDS).cloned().collect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_no_more_than_is_known() {
        let whole = Wholeness { since: Some(10 * 86_400), ..Wholeness::default() };
        assert_eq!(whole.words(16 * 86_400), "every byte was seen whole within the last 6 days; repaired: 0; damaged: 0");
        assert!(whole.words(16 * 86_400 + 1).contains("last 7 days"), "rounded up");
        let damaged = Wholeness { damage: vec!["land".into()], repaired: 2, ..whole };
        assert!(damaged.words(11 * 86_400).starts_with("every byte but the damaged ones"));
        assert!(damaged.words(0).ends_with("repaired: 2; damaged: 1"));
        assert!(Wholeness::default().words(5).starts_with("nothing is stored"));
    }
}
