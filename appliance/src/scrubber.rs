//! The scrub in the background: every stored byte is read and checked again and again, without
//! keys, and repaired where one copy is good.
//!
//! Promises: what was longest not seen comes first, so a restart goes on where it was; it takes
//! a quarter of the disks' time, and a tenth while others write; a segment counts as seen only
//! when a whole read of it found nothing to repair; what no copy holds is said in words for as
//! long as that segment is there and isn't whole again, and looked at again each period; a disk
//! that takes no repair is left alone, if others hold what it holds, and keeps nothing else from
//! being looked at.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hoidla_store::{Checked, DiskNo, JoinError, ReadError, SegmentRef};
use hoidla_uring::{AttachError, Store, StoreError};
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

/// What is scrubbed: segments by the number of their slot.
pub trait Scrubbed {
    /// Powered seconds.
    fn powered(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// Those that weren't seen whole since `before`, the longest unseen first.
    fn unseen(&self, before: u64, most: usize) -> impl Future<Output = Result<Vec<u32>, StoreError>> + Send;
    /// Since when all but those `without` were seen whole.
    fn seen_since(&self, without: Vec<u32>) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;
    /// The incarnation in a slot, if there is one.
    fn incarnation(&self, slot: u32) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;
    /// Reads every byte of the segment in a slot; with its incarnation.
    fn see(&self, slot: u32) -> impl Future<Output = Result<Option<(u64, Checked)>, StoreError>> + Send;
    /// Leaves a disk alone; false if nothing else holds what it holds.
    fn give_up(&self, disk: DiskNo, why: String) -> impl Future<Output = bool> + Send;
    /// Bytes that were written since the start.
    fn written(&self) -> u64;
}

impl Scrubbed for Store {
    async fn powered(&self) -> Result<u64, StoreError> {
        self.powered().await
    }

    async fn unseen(&self, before: u64, most: usize) -> Result<Vec<u32>, StoreError> {
        self.unseen(before, most).await
    }

    async fn seen_since(&self, without: Vec<u32>) -> Result<Option<u64>, StoreError> {
        self.seen_since(without).await
    }

    async fn incarnation(&self, slot: u32) -> Result<Option<u64>, StoreError> {
        Ok(self.segment(slot).await?.filter(|s| s.number() == slot).map(|s| s.incarnation()))
    }

    async fn see(&self, slot: u32) -> Result<Option<(u64, Checked)>, StoreError> {
        let Some(segment) = self.segment(slot).await?.filter(|s| s.number() == slot) else { return Ok(None) };
        let incarnation = segment.incarnation();
        Ok(Some((incarnation, check(self, segment).await?)))
    }

    async fn give_up(&self, disk: DiskNo, why: String) -> bool {
        !matches!(self.leave(disk, why).await, Err(AttachError::Join(JoinError::Needed(_))))
    }

    fn written(&self) -> u64 {
        self.tally().bytes
    }
}

/// The scrub of a running store.
pub struct Scrubber<S = Store> {
    store: S,
    told: Mutex<Told>,
}

/// What of a segment no copy holds.
struct Damaged {
    incarnation: u64,
    /// Powered seconds when it was last looked at.
    looked: u64,
    words: Vec<String>,
}

#[derive(Default)]
struct Told {
    wholeness: Wholeness,
    /// By slot.
    damage: BTreeMap<u32, Damaged>,
}

impl<S: Scrubbed> Scrubber<S> {
    /// Over this store.
    pub fn new(store: S) -> Self {
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
            let powered = self.store.powered().await?;
            let before = powered.saturating_sub(PERIOD);
            self.forget_what_is_gone().await?;
            let bad: BTreeMap<u32, u64> = self.lock().damage.iter().map(|(slot, d)| (*slot, d.looked)).collect();
            let due = self.store.unseen(before, SOME + bad.len()).await?;
            let due: Vec<u32> = due.into_iter().filter(|slot| bad.get(slot).is_none_or(|looked| *looked < before)).collect();
            let since = self.store.seen_since(bad.into_keys().collect()).await?;
            self.lock().wholeness.since = since;
            if due.is_empty() {
                return Ok(());
            }
            for slot in due {
                let (began, wrote) = (Instant::now(), self.store.written());
                self.one(slot, powered).await?;
                let rest = if self.store.written() - wrote > BUSY { 9 } else { 3 };
                tokio::time::sleep(began.elapsed() * rest).await;
            }
        }
    }

    /// A damaged segment that ended, or was rewritten, is no damage of what took its slot.
    async fn forget_what_is_gone(&self) -> Result<(), StoreError> {
        let known: Vec<(u32, u64)> = self.lock().damage.iter().map(|(slot, d)| (*slot, d.incarnation)).collect();
        for (slot, incarnation) in known {
            if self.store.incarnation(slot).await? != Some(incarnation) {
                self.lock().forget(slot);
            }
        }
        Ok(())
    }

    async fn one(&self, slot: u32, powered: u64) -> Result<(), StoreError> {
        let (incarnation, checked) = match self.store.see(slot).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(()),
            Err(StoreError::Read(e @ ReadError::Repair { .. })) => return self.no_repair(slot, powered, e).await,
            Err(other) => return Err(other),
        };
        checked.repaired.iter().for_each(|what| tracing::warn!("scrub, repaired: {what}"));
        checked.damage.iter().for_each(|what| tracing::error!("scrub, DAMAGED: {what}"));
        let mut told = self.lock();
        told.wholeness.bytes += checked.bytes;
        told.wholeness.repaired += checked.repaired.len() as u64;
        match checked.damage.is_empty() {
            true => told.forget(slot),
            false => told.keep(slot, Damaged { incarnation, looked: powered, words: checked.damage }),
        }
        Ok(())
    }

    /// A disk takes no repair: it is left alone, and the segment looked at again without it; or it
    /// is needed, and said.
    async fn no_repair(&self, slot: u32, powered: u64, why: ReadError) -> Result<(), StoreError> {
        let words = why.to_string();
        tracing::error!("scrub: {words}");
        if let ReadError::Repair { disk, .. } = why
            && !self.store.give_up(disk, words.clone()).await
            && let Some(incarnation) = self.store.incarnation(slot).await?
        {
            self.lock().keep(slot, Damaged { incarnation, looked: powered, words: vec![words] });
        }
        Ok(())
    }
}

impl Told {
    fn keep(&mut self, slot: u32, damaged: Damaged) {
        self.damage.insert(slot, damaged);
        self.say();
    }

    fn forget(&mut self, slot: u32) {
        if self.damage.remove(&slot).is_some() {
            self.say();
        }
    }

    fn say(&mut self) {
        self.wholeness.damage = self.damage.values().flat_map(|d| &d.words).take(MOST_WORDS).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments with an incarnation, when they were seen, and what a look finds.
    #[derive(Default)]
    struct Fake {
        powered: Mutex<u64>,
        segments: Mutex<BTreeMap<u32, (u64, u64, Found)>>,
        needed: bool,
        left: Mutex<Vec<DiskNo>>,
        looks: Mutex<Vec<u32>>,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Found {
        Whole,
        Damage,
        NoRepair,
    }

    impl Scrubbed for Fake {
        async fn powered(&self) -> Result<u64, StoreError> {
            Ok(*self.powered.lock().unwrap())
        }

        async fn unseen(&self, before: u64, most: usize) -> Result<Vec<u32>, StoreError> {
            let segments = self.segments.lock().unwrap();
            let mut unseen: Vec<_> = segments.iter().filter(|(_, s)| s.1 < before).map(|(slot, s)| (s.1, *slot)).collect();
            unseen.sort_unstable();
            Ok(unseen.into_iter().take(most).map(|u| u.1).collect())
        }

        async fn seen_since(&self, without: Vec<u32>) -> Result<Option<u64>, StoreError> {
            let segments = self.segments.lock().unwrap();
            Ok(segments.iter().filter(|(slot, _)| !without.contains(slot)).map(|(_, s)| s.1).min())
        }

        async fn incarnation(&self, slot: u32) -> Result<Option<u64>, StoreError> {
            Ok(self.segments.lock().unwrap().get(&slot).map(|s| s.0))
        }

        async fn see(&self, slot: u32) -> Result<Option<(u64, Checked)>, StoreError> {
            self.looks.lock().unwrap().push(slot);
            let mut segments = self.segments.lock().unwrap();
            let Some((incarnation, seen, found)) = segments.get_mut(&slot) else { return Ok(None) };
            match found {
                Found::Whole => *seen = *self.powered.lock().unwrap(),
                Found::NoRepair if self.left.lock().unwrap().is_empty() => {
                    return Err(ReadError::Repair { disk: 1, what: "a block".into(), why: "no".into() }.into());
                }
                Found::NoRepair => *seen = *self.powered.lock().unwrap(),
                Found::Damage => {
                    return Ok(Some((*incarnation, Checked { damage: vec![format!("slot {slot} is bad")], ..Checked::default() })));
                }
            }
            Ok(Some((*incarnation, Checked::default())))
        }

        async fn give_up(&self, disk: DiskNo, _: String) -> bool {
            if !self.needed {
                self.left.lock().unwrap().push(disk);
            }
            !self.needed
        }

        fn written(&self) -> u64 {
            0
        }
    }

    fn scrub_of(segments: &[(u32, Found)], needed: bool) -> Scrubber<Fake> {
        let segments = Mutex::new(segments.iter().map(|(slot, found)| (*slot, (1, u64::from(*slot), *found))).collect());
        Scrubber::new(Fake { powered: Mutex::new(2 * PERIOD), segments, needed, ..Fake::default() })
    }

    fn looks(s: &Scrubber<Fake>) -> Vec<u32> {
        std::mem::take(&mut s.store.looks.lock().unwrap())
    }

    #[tokio::test]
    async fn a_disk_that_takes_no_repair_is_left_alone_and_the_scrub_goes_on() {
        let scrub = scrub_of(&[(1, Found::Whole), (2, Found::NoRepair), (3, Found::Whole)], false);
        scrub.round().await.unwrap();
        assert_eq!((looks(&scrub), scrub.store.left.lock().unwrap().clone()), (vec![1, 2, 3, 2], vec![1]));
        assert_eq!((scrub.wholeness().damage, scrub.wholeness().since), (vec![], Some(2 * PERIOD)));
        let scrub = scrub_of(&[(1, Found::Whole), (2, Found::NoRepair), (3, Found::Whole)], true);
        scrub.round().await.unwrap();
        assert_eq!(looks(&scrub), [1, 2, 3], "one that is needed stays, and is said");
        assert!(scrub.wholeness().damage[0].contains("could not be repaired"), "{:?}", scrub.wholeness());
    }

    #[tokio::test]
    async fn damage_is_said_while_it_lasts_and_of_what_it_was_found_in() {
        let scrub = scrub_of(&[(1, Found::Whole), (2, Found::Damage)], false);
        scrub.round().await.unwrap();
        assert_eq!((looks(&scrub), scrub.wholeness().damage), (vec![1, 2], vec!["slot 2 is bad".to_owned()]));
        scrub.round().await.unwrap();
        assert_eq!((looks(&scrub), scrub.wholeness().damage.len()), (vec![], 1), "not before its time");
        *scrub.store.powered.lock().unwrap() += PERIOD + 1;
        scrub.round().await.unwrap();
        assert_eq!((looks(&scrub), scrub.wholeness().damage.len()), (vec![2, 1], 1), "each period");
        scrub.store.segments.lock().unwrap().insert(2, (7, 0, Found::Whole));
        scrub.round().await.unwrap();
        assert_eq!((looks(&scrub), scrub.wholeness().damage), (vec![2], vec![]), "another segment lies there");
    }

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
