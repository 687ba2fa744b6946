//! Time, retention and the end of generations.
//!
//! Promises: powered time never goes back; a generation ends only when every day that the
//! authority ever promised for its dataset has been lived through since its last record, only
//! together with all lower ones, and never if it is the dataset's newest; its end is one commit, durable before it is told, and before any of its slots is taken
//! again. All of it stands in every batch of the dataset, so a rebuilt catalogue knows it too.

use std::collections::BTreeMap;

use hoidla_format::{Name, disk::batch};

use crate::{
    catalogue::{Catalogue, STREAM_WEIGHT},
    device::Pool,
    draft::{Add, Waiter},
    engine::Engine,
    options::Fault,
    types::{Event, Generation, Refused, Ticket},
};

/// Seconds of a day.
const DAY: u64 = 86_400;
/// What a generation is kept beyond its days, in seconds: time is written down once an hour.
pub const GRACE: u64 = 3600;

/// The powered second from which on a generation may end.
pub fn may_end(last: u64, days: u32) -> u64 {
    last.saturating_add(u64::from(days) * DAY).saturating_add(GRACE)
}

/// Bytes of a generation in a checkpoint.
pub(crate) const GENERATION_WEIGHT: usize = 1 + 66 + 4 + 9;

/// What a store knows of one generation's age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Which.
    pub generation: Generation,
    /// Powered seconds at its last record; where time was skipped to, if that came after it.
    pub last: u64,
    /// Days that it is kept after that.
    pub days: u32,
    /// Bytes of its records, roughly.
    pub bytes: u64,
    /// Whether one of its streams is refused since an alarm, or is being written.
    pub held: bool,
    /// Whether a higher one of its dataset holds something.
    pub newest: bool,
}

/// What is known of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Generations below it are gone.
    pub floor: u32,
    /// The longest promise.
    pub days: u32,
}

impl Kept {
    fn raise(&mut self, floor: u32, days: u32) {
        (self.floor, self.days) = (self.floor.max(floor), self.days.max(days));
    }
}

impl Catalogue {
    pub fn floor(&self, dataset: &Name) -> u32 {
        self.datasets.get(dataset).map_or(0, |k| k.floor)
    }

    /// Takes what a batch says of time. False if its generation is gone.
    pub(crate) fn apply_tenure(&mut self, generation: u32, head: &batch::Head) -> bool {
        let g = self.generations[generation as usize].clone();
        self.powered = self.powered.max(head.tenure.powered);
        let kept = self.datasets.entry(g.dataset.clone()).or_default();
        let before = kept.floor;
        kept.raise(head.tenure.floor, head.tenure.days);
        if kept.floor > before {
            self.drop_below(&g.dataset);
        }
        if g.number < self.floor(&g.dataset) {
            return false;
        }
        if !head.runs.is_empty() {
            let last = self.last.entry(generation).or_default();
            *last = (*last).max(head.tenure.powered);
        }
        true
    }

    /// Lets go of everything below a dataset's floor.
    fn drop_below(&mut self, dataset: &Name) {
        let floor = self.floor(dataset);
        let gone: Vec<bool> = self.generations.iter().map(|g| g.dataset == *dataset && g.number < floor).collect();
        let is_gone = |g: u32| gone.get(g as usize).copied().unwrap_or(false);
        let slots: Vec<u32> = self.segments.iter().filter(|(_, s)| is_gone(s.generation)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.segments.set(slot, None);
            self.tails.remove(&slot);
        }
        let mut less = 0;
        self.streams.retain(|_, s| {
            less += if is_gone(s.generation) { STREAM_WEIGHT + (s.epochs.len() + s.extents.len()) * 12 } else { 0 };
            !is_gone(s.generation)
        });
        self.last.retain(|g, _| !is_gone(*g));
        self.weight = self.weight.saturating_sub(less);
        (0..).zip(gone).filter(|(_, gone)| *gone).for_each(|(g, _)| self.vacate(g));
    }

    /// The highest generation of a dataset that holds something.
    pub(crate) fn newest(&self, dataset: &Name) -> Option<u32> {
        let of = |g: &u32| Some(&self.generations[*g as usize]).filter(|x| x.dataset == *dataset).map(|x| x.number);
        self.last.keys().filter_map(of).max()
    }
}

impl<P: Pool> Engine<P> {
    /// Powered seconds that the store knows of.
    pub fn powered(&self) -> u64 {
        self.powered
    }

    /// Seconds that the machine was powered, since its first start; less than before is ignored.
    pub fn tell_powered(&mut self, seconds: u64) {
        self.powered = self.powered.max(seconds);
    }

    /// Where time went on by the authority's word, each from and to, rising. What was written
    /// between `from` and the moment at which the word counted was written after the machine came
    /// back: none of what was skipped is part of its age.
    pub fn tell_skipped(&mut self, skipped: Vec<(u64, u64)>) {
        self.skipped = skipped;
    }

    /// From when on a generation ages whose last record was written at `last`.
    fn ages_from(&self, last: u64) -> u64 {
        self.skipped.iter().find(|(from, to)| (*from..*to).contains(&last) && *to <= self.powered).map_or(last, |(_, to)| *to)
    }

    /// Writes powered time down, and soon a checkpoint, though nothing else is to be written.
    pub fn note_powered(&mut self, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        self.since_checkpoint = self.since_checkpoint.max(self.options.checkpoint_commits);
        if self.catalogue.powered < self.powered && self.begin_mark() {
            self.building.waiters.push(Waiter::Note { ticket: Some(ticket), stream: None });
        } else {
            self.events.push_back(Event::Noted { ticket });
        }
        Ok(())
    }

    /// The authority said that a dataset's generations are kept for so many days: it holds for
    /// good, for all there are and all to come.
    pub fn promise(&mut self, dataset: &Name, days: u32, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        let known = self.catalogue.datasets.get(dataset).map_or(0, |k| k.days);
        match self.catalogue.newest(dataset).filter(|_| known < days) {
            Some(newest) => self.say_with(dataset, newest, ticket)?,
            None => self.events.push_back(Event::Noted { ticket }),
        }
        self.promised.entry(dataset.clone()).or_default().raise(0, days);
        Ok(())
    }

    /// The generations that hold something, in order.
    pub fn tenures(&self) -> Vec<Tenure> {
        let mut bytes = BTreeMap::<u32, u64>::new();
        for (_, s) in self.catalogue.segments.iter() {
            *bytes.entry(s.generation).or_default() += u64::from(s.payload) * 1024;
        }
        let mut held: Vec<u32> = self.catalogue.streams.values().filter(|s| s.alarm.is_some()).map(|s| s.generation).collect();
        held.extend(self.ahead.values().map(|a| a.generation));
        let tenure = |(g, last): (&u32, &u64)| {
            let generation = (*self.catalogue.generations[*g as usize]).clone();
            let newest = self.catalogue.newest(&generation.dataset) == Some(generation.number);
            let days = self.kept(&generation.dataset).days;
            Tenure {
                last: self.ages_from(*last),
                days,
                bytes: bytes.get(g).copied().unwrap_or(0),
                held: held.contains(g),
                newest,
                generation,
            }
        };
        let all = self.catalogue.last.iter().filter(|(g, _)| !self.catalogue.generations[**g as usize].is_log());
        let mut all: Vec<_> = all.map(tenure).collect();
        all.sort_unstable_by(|a, b| a.generation.cmp(&b.generation));
        all
    }

    /// Ends all generations of a dataset below `floor`: [`Event::Noted`] tells when that is
    /// durable. `now` is the time that counts, in powered seconds; the store's own counts too, if
    /// it is less. Refused if one of them isn't over, is held, or is the newest.
    pub fn expire(&mut self, dataset: &Name, floor: u32, now: u64, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        let newest = self.catalogue.newest(dataset).filter(|n| *n >= floor).ok_or(Refused::NotOver)?;
        let now = now.min(self.powered);
        let is_over = |t: &Tenure| !t.held && t.days > 0 && may_end(t.last, t.days) <= now;
        let below = |t: &Tenure| t.generation.dataset == *dataset && t.generation.number < floor;
        let over = self.tenures().iter().filter(|t| below(t)).all(is_over);
        if !over && !self.options.faulty(Fault::ExpireEarly) {
            return Err(Refused::NotOver);
        }
        let ends = |g: &Generation| g.dataset == *dataset && g.number < floor;
        let under_way = self.ahead.values().any(|a| ends(&self.catalogue.generations[a.generation as usize]));
        if under_way || self.building.drafts.iter().any(|d| ends(&d.generation)) {
            return Err(Refused::Busy);
        }
        if !self.options.faulty(Fault::TilesTooLate) {
            self.write_tiles(true)?; // the hashes of the leaves that go
        }
        self.say_with(dataset, newest, ticket)?;
        self.promised.entry(dataset.clone()).or_default().raise(floor, 0);
        let gone = |g: u32| Some(&self.catalogue.generations[g as usize]).is_some_and(|x| x.dataset == *dataset && x.number < floor);
        self.space.open.retain(|(g, _), _| !gone(*g));
        Ok(())
    }

    /// A batch in the newest generation that carries the dataset's tenure.
    fn say_with(&mut self, dataset: &Name, newest: u32, ticket: Ticket) -> Result<(), Refused> {
        let generation = self.catalogue.generation(&Generation { dataset: dataset.clone(), number: newest });
        self.draft_for(generation, false, Add::default(), true)?;
        self.building.waiters.push(Waiter::Note { ticket: Some(ticket), stream: None });
        Ok(())
    }

    /// A dataset's floor and promise, as they will be.
    pub(crate) fn kept(&self, dataset: &Name) -> Kept {
        let mut kept = self.catalogue.datasets.get(dataset).copied().unwrap_or_default();
        let Kept { floor, days } = self.promised.get(dataset).copied().unwrap_or_default();
        kept.raise(floor, days);
        kept
    }

    pub(crate) fn tenure_for(&self, dataset: &Name) -> batch::Tenure {
        let Kept { floor, days } = self.kept(dataset);
        batch::Tenure { powered: self.powered, floor, days }
    }

    /// Refuses what belongs to a generation that is gone, or will be.
    pub(crate) fn check_not_gone(&self, generation: &Generation) -> Result<(), Refused> {
        let floor = self.kept(&generation.dataset).floor;
        if generation.number < floor { Err(Refused::Expired { generation: generation.number, floor }) } else { Ok(()) }
    }
}
