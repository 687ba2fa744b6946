//! What is tried when a schedule is over, once in each: the weak disk rots, a generation ends as time allows, and all
//! disks are put back together to what they were.

use std::sync::Arc;

use hoidla_format::StreamId;
use hoidla_store::{Appended, Disk, Engine, Generation, Pool, Refused};

use crate::{
    disk::Image,
    invariants::{self, Broken},
    model::{Sent, Stream},
    world::{CATALOGUES, STORE, Waits, World},
};

/// Seconds of ten days, of which one is promised.
const TEN_DAYS: u64 = 864_000;
/// A generation above all others.
const LAST: u32 = 7;

/// All disks at one moment, and where the log's counter stood.
pub struct Past {
    disks: Vec<Image>,
    log: u64,
}

impl World {
    /// Remembers the first crash.
    pub fn keep_for_later(&mut self) {
        let now = || Past { disks: self.disks.iter().map(|d| d.image()).collect(), log: self.counter.log() };
        if self.past.is_none() {
            self.past = Some(now());
        }
    }

    /// Many bits of the weak disk flip while nothing is under way.
    pub fn rot_at_rest(&mut self) -> Result<(), Broken> {
        (0..40).try_for_each(|_| self.rot())?;
        self.check_all()
    }

    /// All of a dataset but its newest generation ends, all catalogues are lost with it, and the log
    /// still proves everything.
    pub fn end_a_generation(&mut self) -> Result<(), Broken> {
        let written = self.model.streams.values().find(|s| s.acknowledged > 0).map(|s| s.generation.dataset.clone());
        let Some(dataset) = written.filter(|_| self.sessions.is_none() && !self.model.lost) else { return Ok(()) };
        let newest = Generation { dataset: dataset.clone(), number: LAST };
        if !self.begin(&newest)? {
            return Ok(()); // the store is full
        }
        let (engine, _, mut reader) = self.parts();
        self.ended = invariants::leaves(engine, &mut reader, Default::default())?;
        self.until_taken(|w, ticket| w.store().promise(&newest.dataset, 1, ticket))?;
        self.drain()?;
        let ten_days = self.store().powered() + TEN_DAYS;
        self.clocks.truth += TEN_DAYS;
        self.store().tell_powered(ten_days);
        self.until_taken(|w, ticket| w.store().expire(&newest.dataset, LAST, u64::MAX, ticket))?;
        self.tally.count("generations ended", 1);
        self.say(|| format!("all of {dataset} below generation {LAST} ends"));
        self.model.streams.retain(|_, s| s.generation.dataset != dataset || s.generation.number == LAST);
        self.drain()?;
        if self.plan.fills_up() {
            self.fill()?;
        }
        self.disks.iter().for_each(|d| d.ruin(CATALOGUES));
        self.crash(true)?;
        self.check_all()
    }

    /// A record in a new generation; false if there is no room for it.
    fn begin(&mut self, generation: &Generation) -> Result<bool, Broken> {
        let id = StreamId([LAST as u8; 16]);
        self.model.streams.insert(id, Stream::new(generation.clone()));
        let bytes = b"the last one".to_vec();
        for _ in 0..100 {
            let buffer = self.memory.take(bytes.len()).expect("it rests");
            let record = self.record(id, 1, 0, &bytes, buffer);
            let after = self.model.streams[&id].chain().then(&record.hash, record.len);
            let ticket = self.ticket(Waits::Record(id, bytes.len() as u64));
            match self.store().append(record, ticket) {
                Ok(Appended::Pending) => {
                    let stream = self.model.streams.get_mut(&id).expect("it was put there");
                    stream.sent.push(Sent { offset: 0, epoch: 1, bytes, after });
                    return self.drain().map(|()| true);
                }
                Err(Refused::Busy) => {
                    self.void(ticket);
                    self.drain()?;
                }
                Err(Refused::Full | Refused::TooManyStreams) => {
                    self.void(ticket);
                    self.model.streams.remove(&id);
                    return Ok(false);
                }
                other => return Err(("progress", format!("a new generation: {other:?}"))),
            }
        }
        Err(("progress", "a new generation is never begun".into()))
    }

    /// Records until the store is full, of the generation that is left.
    fn fill(&mut self) -> Result<(), Broken> {
        let id = StreamId([LAST as u8; 16]);
        for n in 0..400_u64 {
            let bytes = vec![n as u8; 60_000];
            let chain = self.model.streams[&id].chain();
            let buffer = self.memory.take(bytes.len()).expect("it rests");
            let record = self.record(id, 1, chain.length, &bytes, buffer);
            let after = chain.then(&record.hash, record.len);
            let ticket = self.ticket(Waits::Record(id, after.length));
            match self.store().append(record, ticket) {
                Ok(_) => {
                    let stream = self.model.streams.get_mut(&id).expect("it has begun");
                    stream.sent.push(Sent { offset: chain.length, epoch: 1, bytes, after });
                    self.drain()?;
                }
                Err(Refused::Busy) => {
                    self.void(ticket);
                    self.drain()?;
                }
                Err(_) => {
                    self.void(ticket);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn until_taken(&mut self, ask: impl Fn(&mut Self, u64) -> Result<(), Refused>) -> Result<(), Broken> {
        for _ in 0..100 {
            let ticket = self.ticket(Waits::Other);
            match ask(self, ticket) {
                Ok(()) => return Ok(()),
                Err(Refused::Busy) => {
                    self.void(ticket);
                    self.pump(8)?;
                }
                Err(other) => return Err(("progress", format!("what is over doesn't end: {other}"))),
            }
        }
        Err(("progress", "the store stays busy".into()))
    }

    /// *rollback alarms*: somebody puts all disks back together as they were. Nothing is taken on them.
    /// The last thing that happens.
    pub fn put_back(&mut self) -> Result<(), Broken> {
        self.engine = None;
        let Some(past) = self.past.take() else { return Ok(()) };
        // From one raise of the counter to the next, and over the raise that was begun, nothing tells.
        if self.counter.log() <= past.log + 1 {
            return Ok(());
        }
        self.disks.iter().zip(past.disks).for_each(|(d, then)| d.restore(then));
        let disks = self.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
        let opened = Engine::open(disks, STORE, self.memory.clone(), Box::new(self.counter.copy()), self.plan.options.clone());
        self.tally.count("stores put back", 1);
        let Ok((mut engine, opened)) = opened else { return Ok(()) };
        let Some(id) = self.model.streams.keys().next().copied() else { return Ok(()) };
        let refused = engine.close_epoch(id, 1, 1);
        match (opened.only_reads, refused) {
            (Some(_), Err(Refused::OnlyReads(_))) => Ok(()),
            (said, taken) => Err(("rollback alarms", format!("all disks were put back, and the store says {said:?}: {taken:?}"))),
        }
    }
}
