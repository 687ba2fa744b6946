//! One schedule: what a seed makes happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use hoidla_format::{Hash32, StreamId};
use hoidla_store::{
    Appended, BLOCK, Disk, Engine, Event, Fault, Layout, MOST_BUFFER, Op, OpenError, Opened, Options, Pool, Reader, Record, Refused,
    Request, Ticket,
};

use crate::{
    dice::Dice,
    disk::{Power, SimDisk},
    invariants::{self, Broken},
    memory::{Memory, Nv},
    model::{Model, Sent, Stream},
};

const STORE: [u8; 16] = *b"simulated store.";
const DISKS: usize = 2;
const SLOTS: u64 = 24;
const SEGMENT: u64 = 48 * BLOCK as u64;
const CATALOGUE: u64 = 8 * BLOCK as u64;
const SIZE: u64 = 64 * BLOCK as u64 + 2 * CATALOGUE + SLOTS * SEGMENT;

/// A broken invariant, and where.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The schedule's seed.
    pub seed: u64,
    /// How many steps had been done.
    pub step: u64,
    /// The invariant's name.
    pub invariant: &'static str,
    /// How it was broken.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, step {}: `{}` is broken: {}", self.seed, self.step, self.invariant, self.why)
    }
}

/// What happened, to know that a schedule is worth something.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Power cuts and kills survived.
    pub crashes: u64,
    /// Openings cut short by another crash.
    pub crashes_while_opening: u64,
    /// Commits cut.
    pub cut: u64,
    /// Bad copies repaired.
    pub repaired: u64,
    /// Disks that failed.
    pub disks_stopped: u64,
    /// Disks made whole again.
    pub resynced: u64,
    /// Openings refused since only a stale disk was there.
    pub refused_stale: u64,
    /// Catalogues rebuilt.
    pub rebuilt: u64,
    /// Segments rewritten.
    pub rewritten: u64,
    /// Submissions refused since the store was full.
    pub full: u64,
}

impl Tally {
    /// Adds another schedule's.
    pub fn add(&mut self, o: &Self) {
        let pairs = [
            (&mut self.acknowledged, o.acknowledged),
            (&mut self.crashes, o.crashes),
            (&mut self.crashes_while_opening, o.crashes_while_opening),
            (&mut self.cut, o.cut),
            (&mut self.repaired, o.repaired),
            (&mut self.disks_stopped, o.disks_stopped),
            (&mut self.resynced, o.resynced),
            (&mut self.refused_stale, o.refused_stale),
            (&mut self.rebuilt, o.rebuilt),
            (&mut self.rewritten, o.rewritten),
            (&mut self.full, o.full),
        ];
        pairs.into_iter().for_each(|(a, b)| *a += b);
    }
}

enum Waits {
    Record(StreamId, u64),
    Close(StreamId, u32),
    Other,
}

struct World {
    dice: Dice,
    power: Power,
    disks: Vec<Arc<SimDisk>>,
    nv: Nv,
    memory: Arc<Memory>,
    options: Options,
    engine: Option<Engine<Memory>>,
    outstanding: Vec<Request<Memory>>,
    waits: BTreeMap<Ticket, Waits>,
    tickets: Ticket,
    model: Model,
    /// The only disk that rots and fails; none: either may be away, neither rots.
    weak: Option<usize>,
    rotted: bool,
    /// The places that were current when the engine last ran.
    current: BTreeSet<u8>,
    tally: Tally,
    trace: bool,
}

/// Plays the schedule of a seed.
pub fn run(seed: u64, fault: Option<Fault>, trace: bool) -> Result<Tally, Failure> {
    let mut step = 0;
    let mut world = World::new(seed, fault, trace);
    match world.play(&mut step) {
        Ok(()) => Ok(world.tally),
        Err((invariant, why)) => Err(Failure { seed, step, invariant, why }),
    }
}

impl World {
    fn new(seed: u64, fault: Option<Fault>, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let power = Power::stays();
        let disks: Vec<_> = (0..DISKS).map(|i| Arc::new(SimDisk::new(&format!("disk {i}"), SIZE, power.clone()))).collect();
        let options = Options {
            commit_bytes: 4096 << dice.below(6),
            depth: 1 + dice.below(3) as usize,
            open_segments: 2 + dice.below(3) as usize,
            checkpoint_commits: 2 << dice.below(6),
            resync: true,
            prewrite: dice.one_in(3),
            fault,
        };
        let weak = (!dice.one_in(3)).then(|| dice.below(DISKS as u64) as usize);
        Self {
            dice,
            power,
            disks,
            nv: Nv::default(),
            memory: Arc::new(Memory::new(64)),
            options,
            engine: None,
            outstanding: Vec::new(),
            waits: BTreeMap::new(),
            tickets: 0,
            model: Model::default(),
            weak,
            rotted: false,
            current: (0..DISKS as u8).collect(),
            tally: Tally::default(),
            trace,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{}", what());
        }
    }

    fn play(&mut self, step: &mut u64) -> Result<(), Broken> {
        let layout = Layout { segment: SEGMENT, catalogue: CATALOGUE };
        let all: Vec<Arc<dyn Disk>> = self.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
        Engine::format(&all, STORE, layout, &*self.memory, &mut self.nv.clone()).map_err(|e| ("format", e.to_string()))?;
        self.reopen(false)?;
        let steps = 20 + self.dice.below(100);
        while *step < steps {
            *step += 1;
            self.act()?;
        }
        self.say(|| "the end: drain, check, cut the power, check again".into());
        self.drain()?;
        self.check_all()?;
        self.crash(true)?;
        self.check_all()?;
        self.check_copies()
    }

    fn act(&mut self) -> Result<(), Broken> {
        match self.dice.below(100) {
            0..40 => self.submit(),
            40..74 => {
                let n = 1 + self.dice.below(16);
                self.pump(n)
            }
            74..78 => self.close_epoch(),
            78..82 => self.submit_again(),
            82..87 => self.crash(true),
            87..90 => self.crash(false),
            90..93 => self.rot(),
            93..94 => self.break_disk(),
            94..95 => self.check_all(),
            95..97 => self.rewrite(),
            97..98 => {
                self.drain()?;
                self.check_copies()
            }
            98..99 => self.present(),
            _ => self.drain(),
        }
    }

    fn engine(&mut self) -> &mut Engine<Memory> {
        self.engine.as_mut().expect("the store runs")
    }

    fn reader(&self) -> Reader<Memory> {
        let disks = self.engine.as_ref().expect("the store runs").disks();
        let memory = Arc::new(Memory::new(64));
        if self.options.fault == Some(Fault::BelieveRot) { Reader::believing(disks, memory) } else { Reader::new(disks, memory) }
    }

    fn ticket(&mut self, waits: Waits) -> Ticket {
        self.tickets += 1;
        self.waits.insert(self.tickets, waits);
        self.tickets
    }

    fn pick_stream(&mut self) -> Option<StreamId> {
        let n = self.model.streams.len() as u64;
        let at = self.dice.below(n) as usize;
        self.model.streams.keys().nth(at).copied()
    }

    fn stream_to_write(&mut self) -> StreamId {
        if self.model.streams.len() < 6 && (self.model.streams.is_empty() || self.dice.one_in(8)) {
            let id = StreamId(self.dice.bytes(16).try_into().expect("16 bytes"));
            let dataset = ["land", "people", "companies"][self.dice.below(3) as usize].parse().expect("a name");
            let generation = hoidla_store::Generation { dataset, number: self.dice.below(2) as u32 };
            let stream = Stream { generation, sent: Vec::new(), acknowledged: 0, epoch: 1, closed: 0, closing: 0 };
            self.model.streams.insert(id, stream);
            return id;
        }
        self.pick_stream().expect("there is one")
    }

    fn submit(&mut self) -> Result<(), Broken> {
        let id = self.stream_to_write();
        for _ in 0..1 + self.dice.below(6) {
            let len = match self.dice.below(20) {
                0..12 => 1 + self.dice.below(2000),
                12..17 => 1 + self.dice.below(20_000),
                17..19 => 32 * 1024 + self.dice.below(9000),
                _ => 1 + self.dice.below(100_000),
            };
            let bytes = self.dice.bytes(len as usize);
            let new_epoch = self.dice.one_in(12);
            let s = self.model.streams.get_mut(&id).expect("it is known");
            s.epoch = (s.epoch + u32::from(new_epoch)).max(s.closing + 1);
            let (epoch, chain) = (s.epoch, s.chain());
            match self.append(id, epoch, chain.length, &bytes)? {
                Ok(Appended::Pending) => {
                    let s = self.model.streams.get_mut(&id).expect("it is known");
                    let after = chain.then(&hash(&bytes), bytes.len() as u32);
                    s.sent.push(Sent { offset: chain.length, epoch, bytes, after });
                }
                Ok(Appended::Before(_)) => return Err(("refusals", "a new record was taken for a stored one".into())),
                Err(Refused::Busy) => return self.pump(8),
                Err(Refused::Full) => {
                    self.tally.full += 1;
                    return self.drain();
                }
                Err(Refused::Stopped(why)) => return Err(("refusals", format!("the store stopped: {why}"))),
                Err(other) => return Err(("refusals", other.to_string())),
            }
        }
        Ok(())
    }

    fn append(&mut self, id: StreamId, epoch: u32, offset: u64, bytes: &[u8]) -> Result<Result<Appended, Refused>, Broken> {
        let generation = self.model.streams[&id].generation.clone();
        // Whoever submits leaves half of the pool to the engine.
        let Some(mut buffer) = (self.memory.out() < 32).then(|| self.memory.take(bytes.len())).flatten() else {
            return Ok(Err(Refused::Busy));
        };
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        let blocks = hoidla_store::Buffer::freeze(buffer, bytes.len());
        let record = Record { generation, stream: id, epoch, offset, len: bytes.len() as u32, hash: hash(bytes), blocks };
        let ticket = self.ticket(Waits::Record(id, offset + bytes.len() as u64));
        let outcome = self.engine().append(record, ticket);
        if !matches!(outcome, Ok(Appended::Pending)) {
            self.waits.remove(&ticket);
        }
        self.say(|| format!("append #{ticket} {id} epoch {epoch} at {offset}, {} bytes: {outcome:?}", bytes.len()));
        Ok(outcome)
    }

    /// An agent that lost its acknowledgement sends the same again; or, forked, other bytes.
    fn submit_again(&mut self) -> Result<(), Broken> {
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let n = self.model.streams[&id].sent.len() as u64;
        let at = self.dice.below(n) as usize;
        let Some(sent) = self.model.streams[&id].sent.get(at).cloned() else { return Ok(()) };
        let forked = self.dice.one_in(2);
        let mut bytes = sent.bytes;
        if forked {
            bytes[0] ^= 1;
        }
        let outcome = self.append(id, sent.epoch, sent.offset, &bytes)?;
        let same = match outcome {
            Ok(Appended::Pending) => true,
            Ok(Appended::Before(place)) => {
                let generation = self.model.streams[&id].generation.clone();
                let mut buffer = Memory::new(1).take(bytes.len()).expect("a fresh pool");
                buffer.as_mut()[..bytes.len()].copy_from_slice(&bytes);
                let blocks = hoidla_store::Buffer::freeze(buffer, bytes.len());
                let record = Record {
                    generation,
                    stream: id,
                    epoch: sent.epoch,
                    offset: sent.offset,
                    len: bytes.len() as u32,
                    hash: hash(&bytes),
                    blocks,
                };
                let compared = self.reader().compare(&place, &record).map_err(|e| ("bytes", e.to_string()))?;
                compared.is_ok()
            }
            Err(Refused::Fork { .. }) => false,
            Err(Refused::Busy) => return Ok(()),
            Err(other) => return Err(("refusals", other.to_string())),
        };
        if same == forked {
            Err(("forks", format!("stream {id} at {}: forked {forked}, taken for the same {same}", sent.offset)))
        } else {
            Ok(())
        }
    }

    fn close_epoch(&mut self) -> Result<(), Broken> {
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let epoch = self.model.streams[&id].epoch;
        let ticket = self.ticket(Waits::Close(id, epoch));
        let outcome = self.engine().close_epoch(id, epoch, ticket);
        self.say(|| format!("close #{ticket} {id} epoch {epoch}: {outcome:?}"));
        match outcome {
            Ok(()) => {
                let s = self.model.streams.get_mut(&id).expect("it is known");
                s.closing = s.closing.max(epoch);
                self.take_events()
            }
            Err(Refused::Unknown | Refused::Busy | Refused::Full) => {
                self.waits.remove(&ticket);
                Ok(())
            }
            Err(other) => Err(("refusals", other.to_string())),
        }
    }

    fn present(&mut self) -> Result<(), Broken> {
        self.drain()?;
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let (generation, ahead) = (self.model.streams[&id].generation.clone(), self.model.streams[&id].acknowledged + 1);
        match self.engine().present(&generation, id, ahead) {
            Err(Refused::Alarmed { .. } | Refused::Busy | Refused::Full) => {}
            other => return Err(("alarm", format!("an agent that is ahead of the store was answered {other:?}"))),
        }
        let alarmed = self.engine().present(&generation, id, 0).is_err();
        if alarmed && self.engine().state(id).is_some() {
            self.readmit(id)?;
        }
        Ok(())
    }

    fn readmit(&mut self, id: StreamId) -> Result<(), Broken> {
        for _ in 0..100 {
            let ticket = self.ticket(Waits::Other);
            match self.engine().readmit(id, ticket) {
                Ok(()) => return Ok(()),
                Err(Refused::Busy) => {
                    self.waits.remove(&ticket);
                    self.pump(8)?;
                }
                Err(other) => return Err(("alarm", format!("not readmitted: {other}"))),
            }
        }
        Err(("progress", "the store stays busy".into()))
    }

    fn hand_out(&mut self) {
        while let Some(request) = self.engine().next_request() {
            self.say(|| format!("  {request:?}"));
            self.outstanding.push(request);
        }
    }

    /// Carries out some requests, in any order.
    fn pump(&mut self, n: u64) -> Result<(), Broken> {
        for _ in 0..n {
            self.hand_out();
            if self.outstanding.is_empty() {
                break;
            }
            let at = self.dice.below(self.outstanding.len() as u64) as usize;
            let request = self.outstanding.swap_remove(at);
            let outcome = carry_out(&self.disks, &request);
            self.say(|| format!("  done #{}: {outcome:?}", request.id));
            self.engine().complete(request.id, outcome);
            self.take_events()?;
        }
        self.take_events()
    }

    /// Carries out everything; then everyone must have been answered.
    fn drain(&mut self) -> Result<(), Broken> {
        for _ in 0..10_000 {
            self.pump(16)?;
            self.hand_out();
            if self.outstanding.is_empty() {
                return match self.waits.len() {
                    0 => self.check_memory(),
                    n => Err(("progress", format!("{n} submissions are not answered, and nothing is under way"))),
                };
            }
        }
        Err(("progress", "it doesn't come to rest".into()))
    }

    /// `memory`: at rest the engine holds no buffer.
    fn check_memory(&self) -> Result<(), Broken> {
        match self.memory.out() {
            0..=1 => Ok(()),
            n => Err(("memory", format!("{n} buffers are held at rest"))),
        }
    }

    fn take_events(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.engine().next_event() {
            self.say(|| format!("  {event:?}"));
            match event {
                Event::Acknowledged(a) => {
                    self.tally.acknowledged += 1;
                    let Some(Waits::Record(id, end)) = self.waits.remove(&a.ticket) else {
                        return Err(("tickets", format!("ticket {} is answered and was not open", a.ticket)));
                    };
                    if (id, end) != (a.stream, a.end) || self.model.log.is_some_and(|(size, _)| size > a.log_size) || a.leaf >= a.log_size {
                        return Err(("tickets", format!("{a:?} is not what was submitted")));
                    }
                    self.model.log = Some((a.log_size, a.log_root));
                    let s = self.model.streams.get_mut(&id).expect("it was submitted");
                    s.acknowledged = s.acknowledged.max(end);
                }
                Event::Noted { ticket } => match self.waits.remove(&ticket) {
                    Some(Waits::Close(id, epoch)) => {
                        let s = self.model.streams.get_mut(&id).expect("it was submitted");
                        s.closed = s.closed.max(epoch);
                    }
                    Some(Waits::Other) => {}
                    _ => return Err(("tickets", format!("ticket {ticket} is noted and was not open"))),
                },
                Event::DiskStopped { disk, .. } => {
                    self.tally.disks_stopped += 1;
                    self.outstanding.retain(|r| r.disk != disk);
                }
                Event::Stopped { why } => return Err(("progress", format!("the store stopped: {why}"))),
            }
        }
        let model = &self.model;
        invariants::state(self.engine.as_ref().expect("the store runs"), model)
    }

    fn rot(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.weak else { return Ok(()) };
        let block = self.disks[weak].rot(&mut self.dice);
        self.rotted |= block.is_some();
        self.say(|| format!("rot: disk {weak}, block {block:?}"));
        Ok(())
    }

    /// The weak disk fails a write, writes short, or fails a flush.
    fn break_disk(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.weak.filter(|_| self.engine().current().len() == DISKS) else { return Ok(()) };
        if self.dice.one_in(2) {
            self.say(|| format!("disk {weak}: its next flush will fail"));
            self.disks[weak].break_flush();
            return Ok(());
        }
        let Some(at) = self.outstanding.iter().position(|r| usize::from(r.disk) == weak) else { return Ok(()) };
        let request = self.outstanding.swap_remove(at);
        let short = matches!(request.op, Op::Write { .. }) && self.dice.one_in(2);
        self.say(|| format!("disk {weak}: #{} fails, short {short}", request.id));
        let outcome = if short { Ok(BLOCK / 2) } else { Err(io::Error::other("broken")) };
        self.engine().complete(request.id, outcome);
        self.take_events()
    }

    /// The power goes, or only the program; what was under way may have been done or not.
    fn crash(&mut self, power: bool) -> Result<(), Broken> {
        self.tally.crashes += 1;
        self.say(|| format!("crash: {}", if power { "power" } else { "program" }));
        self.current = self.engine().current().into_iter().collect();
        for request in std::mem::take(&mut self.outstanding) {
            if self.dice.one_in(2) {
                let _ = carry_out(&self.disks, &request);
            }
        }
        self.engine = None;
        self.waits.clear();
        if power && self.dice.one_in(16) {
            // Both catalogues are lost on both disks: they are a cache.
            self.say(|| "the catalogues are lost".into());
            self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            let areas = 64..64 + 2 * CATALOGUE / BLOCK as u64;
            self.disks.iter().for_each(|d| d.ruin(areas.clone()));
        }
        self.reopen(power)
    }

    fn reopen(&mut self, mut power: bool) -> Result<(), Broken> {
        for attempt in 0.. {
            if power {
                self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            }
            let again = attempt < 3 && self.dice.one_in(4);
            self.power.set(if again { 1 + self.dice.below(60) as i64 } else { i64::MAX });
            let attached = self.attached(attempt);
            let disks: Vec<_> = attached.iter().map(|i| self.disks[usize::from(*i)].clone() as Arc<dyn Disk>).collect();
            let opened = Engine::open(disks, STORE, self.memory.clone(), Box::new(self.nv.clone()), self.options.clone());
            if self.power.is_gone() {
                self.tally.crashes_while_opening += 1;
                self.say(|| "crash while opening".into());
                power = !self.dice.one_in(3);
                continue;
            }
            self.power.set(i64::MAX);
            match opened {
                Ok((engine, opened)) => {
                    self.say(|| format!("opened with {attached:?}: {opened:?}"));
                    self.engine = Some(engine);
                    return self.settle(&opened);
                }
                Err(e @ (OpenError::Stale { .. } | OpenError::NotAStore(_))) if !self.current.is_subset(&attached) || self.rotted => {
                    self.tally.refused_stale += u64::from(matches!(e, OpenError::Stale { .. }));
                    self.say(|| format!("refused with {attached:?}: {e}"));
                    power = false;
                }
                Err(e) => return Err(("open", format!("with {attached:?}: {e}"))),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Which disks are there at this opening; all of them after a few refusals.
    fn attached(&mut self, attempt: u32) -> BTreeSet<u8> {
        let mut all: BTreeSet<u8> = (0..DISKS as u8).collect();
        if attempt < 4 && self.dice.one_in(4) {
            let away = self.weak.map_or_else(|| self.dice.below(DISKS as u64) as u8, |w| w as u8);
            all.remove(&away);
        }
        all
    }

    /// After an opening: what the model must find, and then believes.
    fn settle(&mut self, opened: &Opened) -> Result<(), Broken> {
        self.tally.cut += opened.cut;
        self.tally.repaired += opened.repaired.len() as u64;
        self.tally.resynced += opened.resynced.len() as u64;
        self.tally.rebuilt += u64::from(opened.rebuilt);
        if let Some(what) = opened.damage.first() {
            return Err(("never cut", format!("one disk at most was bad, and this is lost: {what}")));
        }
        let engine = self.engine.as_mut().expect("it was opened");
        invariants::state(engine, &self.model)?;
        for (id, stream) in &mut self.model.streams {
            stream.cut_to(engine.state(*id).as_ref());
        }
        self.check_all()?;
        self.model.log = Some(self.engine().log_head());
        self.current = self.engine().current().into_iter().collect();
        let alarmed: Vec<_> = self
            .model
            .streams
            .keys()
            .copied()
            .filter(|id| self.engine.as_ref().is_some_and(|e| e.state(*id).is_some_and(|s| s.alarm.is_some())))
            .collect();
        alarmed.into_iter().try_for_each(|id| self.readmit(id))
    }

    fn check_all(&mut self) -> Result<(), Broken> {
        let mut reader = self.reader();
        let engine = self.engine.as_mut().expect("the store runs");
        invariants::state(engine, &self.model)?;
        invariants::bytes(engine, &mut reader, &self.model)?;
        invariants::log(engine, &mut reader, &self.model)
    }

    fn check_copies(&mut self) -> Result<(), Broken> {
        let mut reader = self.reader();
        let repaired = invariants::copies(self.engine(), &mut reader)?;
        self.tally.repaired += repaired.len() as u64;
        self.say(|| format!("verified: repaired {repaired:?}"));
        match repaired.first() {
            Some(what) if !self.rotted => Err(("copies", format!("nothing rotted, and the copies differ: {what}"))),
            _ => Ok(()),
        }
    }

    fn rewrite(&mut self) -> Result<(), Broken> {
        self.drain()?;
        let Some(segment) = self.engine().sparse() else { return Ok(()) };
        self.say(|| format!("rewrite segment {}", segment.number()));
        let mut reader = self.reader();
        let mut moved = Vec::new();
        let gathered = reader.gather(&segment, |m| {
            moved.push(m);
            Ok::<_, Refused>(())
        });
        gathered.map_err(|e| ("rewriting", e.to_string()))?.map_err(|e| ("rewriting", e.to_string()))?;
        for m in &moved {
            loop {
                match self.engine().rewrite(m) {
                    Ok(()) => break,
                    Err(Refused::Busy) => self.pump(8)?,
                    Err(Refused::Full) => {
                        self.engine().give_up(&segment);
                        return Ok(());
                    }
                    Err(other) => return Err(("rewriting", other.to_string())),
                }
            }
        }
        drop(moved);
        if self.dice.one_in(4) {
            return Ok(());
        }
        self.drain()?;
        let ticket = self.ticket(Waits::Other);
        match self.engine().retire(&segment, ticket) {
            Ok(()) => self.tally.rewritten += 1,
            Err(Refused::Busy | Refused::Full) => {
                self.waits.remove(&ticket);
                self.engine().give_up(&segment);
            }
            Err(other) => return Err(("rewriting", other.to_string())),
        }
        Ok(())
    }
}

fn carry_out(disks: &[Arc<SimDisk>], request: &Request<Memory>) -> io::Result<usize> {
    let disk = &disks[usize::from(request.disk)];
    match &request.op {
        Op::Write { at, blocks } => {
            let bytes = blocks.as_ref();
            assert!(bytes.len() <= MOST_BUFFER);
            disk.write(*at, bytes).map(|()| bytes.len())
        }
        Op::Flush => disk.flush().map(|()| 0),
    }
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(blake3::hash(bytes).into())
}
