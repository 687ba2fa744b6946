//! Which slot takes what: open segments, and slots to open next.
//!
//! Promises: only slots that the last durable checkpoint names as reserve are taken
//! into use, each once, so that recovery finds every new segment by looking at those.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
};

use hoidla_format::disk::batch::IndexEntry;

use crate::draft::Link;

/// A segment that takes batches, ahead of the catalogue.
pub(crate) struct Open {
    pub slot: u32,
    pub incarnation: u64,
    /// Where the next draft begins, if none is there to grow.
    pub next: u32,
    pub index: Vec<IndexEntry>,
    /// Its header is still to be written.
    pub new: bool,
    pub used: u64,
}

#[derive(Default)]
pub(crate) struct Space {
    /// By generation, and whether it is dense.
    pub open: BTreeMap<(u32, bool), Open>,
    /// How each open segment's chain goes on.
    pub links: HashMap<u32, Link>,
    pub reserve: VecDeque<u32>,
    /// Taken since the checkpoint under way began.
    pub taken: HashSet<u32>,
    /// Taken, and not yet in the catalogue.
    pub ahead: HashSet<u32>,
    pub pins: HashMap<u32, Weak<()>>,
    /// The slot that is being written with zeros, and how far.
    pub prewriting: Option<(u32, u32)>,
    /// Slots of the reserve that were.
    pub prewritten: HashSet<u32>,
    /// The last checkpoint didn't fit.
    pub outgrown: bool,
    pub next_incarnation: u64,
    pub tick: u64,
}

/// Holds a slot against recycling while any clone lives.
pub(crate) type Pin = Arc<()>;

impl Space {
    pub fn pin(&mut self, slot: u32) -> Pin {
        if self.pins.len() > 4096 {
            self.pins.retain(|_, w| w.strong_count() > 0);
        }
        if let Some(pin) = self.pins.get(&slot).and_then(Weak::upgrade) {
            return pin;
        }
        let pin = Arc::new(());
        self.pins.insert(slot, Arc::downgrade(&pin));
        pin
    }

    fn pinned(&self, slot: u32) -> bool {
        self.pins.get(&slot).is_some_and(|w| w.strong_count() > 0)
    }

    /// Takes a slot into use, if possible one that is as `good` as a slot can be.
    pub fn take(&mut self, good: impl Fn(u32) -> bool) -> Option<u32> {
        let free = |s: &u32| !self.pinned(*s);
        let best = self.reserve.iter().position(|s| free(s) && good(*s));
        let at = best.or_else(|| self.reserve.iter().position(free))?;
        let slot = self.reserve.remove(at)?;
        self.taken.insert(slot);
        self.ahead.insert(slot);
        Some(slot)
    }

    pub fn can_take(&self) -> bool {
        self.reserve.iter().any(|s| !self.pinned(*s))
    }

    pub fn touch(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// The segment that was used longest ago.
    pub fn coldest(&self) -> Option<(u32, bool)> {
        self.open.iter().min_by_key(|(key, o)| (key.1, o.used)).map(|(key, _)| *key)
    }
}
