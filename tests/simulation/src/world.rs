//! The machine: power, disks, counter and memory, the store that runs on them, and
//! the model that knows what the store owes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use hoidla_format::StreamId;
use hoidla_store::{Disk, Engine, Event, Fault, Layout, Op, OpenError, Opened, Options, Reader, Request, Ticket};

use crate::{
    counter::Counter,
    dice::Dice,
    disk::{Image, Power, SimDisk},
    invariants::{self, Broken},
    memory::Memory,
    model::Model,
    plan::Plan,
    tally::Tally,
    trace::Trace,
};

const BLOCK: u64 = hoidla_store::BLOCK as u64;
/// The name of the simulated store.
pub const STORE: [u8; 16] = *b"simulated store.";
const DISKS: usize = 2;
const SLOTS: u64 = 24;
const SEGMENT: u64 = 48 * BLOCK;
const CATALOGUE: u64 = 8 * BLOCK;
const SIZE: u64 = 64 * BLOCK + 2 * CATALOGUE + SLOTS * SEGMENT;
const LAYOUT: Layout = Layout { segment: SEGMENT, catalogue: CATALOGUE };
/// Where the two catalogue areas lie.
const CATALOGUES: std::ops::Range<u64> = 64..64 + 2 * CATALOGUE / BLOCK;
/// Buffers of the store's pool.
pub const POOL: usize = 64;

/// What an open ticket waits for.
pub enum Waits {
    /// A record: its stream, and where it ends.
    Record(StreamId, u64),
    /// An epoch to be closed.
    Close(StreamId, u32),
    /// Something that the model doesn't follow.
    Other,
}

/// One schedule's world.
pub struct World {
    /// This step's dice.
    pub dice: Dice,
    /// What may happen.
    pub plan: Plan,
    /// The machine's power.
    pub power: Power,
    /// By place.
    pub disks: Vec<Arc<SimDisk>>,
    /// The counter in the TPM.
    pub counter: Counter,
    /// The store's pool.
    pub memory: Arc<Memory>,
    engine: Option<Engine<Memory>>,
    /// Handed out by the store, not yet carried out.
    pub outstanding: Vec<Request<Memory>>,
    waits: BTreeMap<Ticket, Waits>,
    tickets: Ticket,
    /// What the store owes.
    pub model: Model,
    /// The weak disk as it was at some moment, to come back so.
    pub kept_image: Option<Image>,
    /// The disk that comes back otherwise than it left, at the next power cycle.
    pub rewound: Option<(usize, Image)>,
    /// Something was made bad on a disk: copies may differ, and must be repaired.
    pub spoiled: bool,
    /// The places that were current when the store last ran.
    current: BTreeSet<u8>,
    /// What happened.
    pub tally: Tally,
    /// What is told of it.
    pub trace: Trace,
}

impl World {
    /// A freshly formatted store, opened.
    pub fn new(seed: u64, fault: Option<Fault>, trace: Trace) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed, 0);
        let plan = Plan::of(&mut dice, DISKS, fault);
        let power = Power::stays();
        let disks = (0..DISKS).map(|i| Arc::new(SimDisk::new(&format!("disk {i}"), SIZE, power.clone()))).collect();
        let mut world = Self {
            dice,
            plan,
            power,
            disks,
            counter: Counter::default(),
            memory: Arc::new(Memory::new(POOL)),
            engine: None,
            outstanding: Vec::new(),
            waits: BTreeMap::new(),
            tickets: 0,
            model: Model::default(),
            kept_image: None,
            rewound: None,
            spoiled: false,
            current: (0..DISKS as u8).collect(),
            tally: Tally::default(),
            trace,
        };
        let all: Vec<Arc<dyn Disk>> = world.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
        Engine::format(&all, STORE, LAYOUT, &*world.memory, &mut world.counter.clone()).map_err(|e| ("opens", e.to_string()))?;
        world.reopen(false)?;
        Ok(world)
    }

    /// Tells one line.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(line);
    }

    /// The running store.
    pub fn engine(&mut self) -> &mut Engine<Memory> {
        self.engine.as_mut().expect("the store runs")
    }

    /// The running store, its owed content, and a reader.
    pub fn parts(&mut self) -> (&mut Engine<Memory>, &Model, Reader<Memory>) {
        let engine = self.engine.as_mut().expect("the store runs");
        let (disks, memory) = (engine.disks(), Arc::new(Memory::new(POOL)));
        let believing = self.plan.options.fault == Some(Fault::BelieveRot);
        let reader = if believing { Reader::believing(disks, memory) } else { Reader::new(disks, memory) };
        (engine, &self.model, reader)
    }

    /// A ticket for a submission.
    pub fn ticket(&mut self, waits: Waits) -> Ticket {
        self.tickets += 1;
        self.waits.insert(self.tickets, waits);
        self.tickets
    }

    /// The submission was refused.
    pub fn void(&mut self, ticket: Ticket) {
        self.waits.remove(&ticket);
    }

    /// Takes what the store wants done.
    fn hand_out(&mut self) {
        while let Some(request) = self.engine().next_request() {
            self.say(|| format!("  {request:?}"));
            self.outstanding.push(request);
        }
    }

    /// Carries out some requests, in any order; those of a slow disk mostly later.
    pub fn pump(&mut self, n: u64) -> Result<(), Broken> {
        for _ in 0..n {
            self.hand_out();
            if self.outstanding.is_empty() {
                break;
            }
            let at = self.pick_request();
            let request = self.outstanding.swap_remove(at);
            let outcome = carry_out(&self.disks, &request);
            self.say(|| format!("  done #{}: {outcome:?}", request.id));
            self.engine().complete(request.id, outcome);
            self.take_events()?;
        }
        self.take_events()
    }

    fn pick_request(&mut self) -> usize {
        let at = self.dice.below(self.outstanding.len() as u64) as usize;
        let slow = self.plan.slow.filter(|slow| usize::from(self.outstanding[at].disk) == *slow && !self.dice.one_in(8));
        let other = slow.and_then(|slow| self.outstanding.iter().position(|r| usize::from(r.disk) != slow));
        other.unwrap_or(at)
    }

    /// Carries out everything; then everyone must have been answered.
    pub fn drain(&mut self) -> Result<(), Broken> {
        for _ in 0..10_000 {
            self.pump(16)?;
            self.hand_out();
            if self.outstanding.is_empty() {
                return match self.waits.len() {
                    0 => invariants::memory(&self.memory),
                    n => Err(("progress", format!("{n} submissions are not answered, and nothing is under way"))),
                };
            }
        }
        Err(("progress", "it doesn't come to rest".into()))
    }

    /// Takes what the store tells, and checks what holds after every event.
    pub fn take_events(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.engine().next_event() {
            self.say(|| format!("  {event:?}"));
            match event {
                Event::Acknowledged(a) => {
                    self.tally.count("records acknowledged", 1);
                    let waits = self.waits.remove(&a.ticket);
                    invariants::answer(&a, waits.as_ref(), &self.model)?;
                    self.model.log = Some((a.log_size, a.log_root));
                    self.model.acknowledge(a.stream, a.end);
                }
                Event::Noted { ticket } => match self.waits.remove(&ticket) {
                    Some(Waits::Close(id, epoch)) => self.model.close(id, epoch),
                    Some(Waits::Other) => {}
                    _ => return Err(("nothing unacknowledged", format!("ticket {ticket} is noted and was not open"))),
                },
                Event::DiskStopped { disk, .. } => {
                    self.tally.count("disks stopped", 1);
                    self.outstanding.retain(|r| r.disk != disk);
                }
                Event::Stopped { why } if self.counter.has_failed() => {
                    self.say(|| format!("the store stopped: {why}"));
                    return self.crash(false);
                }
                Event::Stopped { why } => return Err(("progress", format!("the store stopped: {why}"))),
            }
        }
        invariants::state(self.engine.as_ref().expect("the store runs"), &self.model)
    }

    /// The power goes, or only the program; what was under way may have been done or not.
    pub fn crash(&mut self, power: bool) -> Result<(), Broken> {
        self.tally.count("crashes", 1);
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
            self.say(|| "the catalogues are lost on every disk: they are a cache".into());
            self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            self.disks.iter().for_each(|d| d.ruin(CATALOGUES));
        }
        self.reopen(power)
    }

    fn reopen(&mut self, mut power: bool) -> Result<(), Broken> {
        if let Some((disk, then)) = self.rewound.take() {
            self.disks[disk].restore(then);
        }
        for attempt in 0.. {
            if power {
                self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            }
            let again = attempt < 3 && self.dice.one_in(4);
            self.power.set(if again { 1 + self.dice.below(60) as i64 } else { i64::MAX });
            let attached = self.attached(attempt);
            let disks: Vec<_> = attached.iter().map(|i| self.disks[usize::from(*i)].clone() as Arc<dyn Disk>).collect();
            let options: Options = self.plan.options.clone();
            let opened = Engine::open(disks, STORE, self.memory.clone(), Box::new(self.counter.clone()), options);
            if self.power.is_gone() {
                self.tally.count("crashes while opening", 1);
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
                Err(e) => self.refused(&attached, &e)?,
            }
            power = false;
        }
        unreachable!("the loop ends by returning")
    }

    /// An opening was refused: only for a reason.
    fn refused(&mut self, attached: &BTreeSet<u8>, why: &OpenError) -> Result<(), Broken> {
        let lacking = !self.current.is_subset(attached) || self.spoiled;
        match why {
            OpenError::Stale { .. } if lacking => self.tally.count("stale disks refused", 1),
            OpenError::NotAStore(_) if lacking => {}
            OpenError::Io { .. } if self.counter.has_failed() => {}
            _ => return Err(("opens", format!("with {attached:?}: {why}"))),
        }
        self.say(|| format!("refused with {attached:?}: {why}"));
        Ok(())
    }

    /// Which disks are there at this opening; all of them after a few refusals.
    fn attached(&mut self, attempt: u32) -> BTreeSet<u8> {
        let mut all: BTreeSet<u8> = (0..DISKS as u8).collect();
        if attempt < 4 && self.dice.one_in(4) {
            let away = self.plan.weak().map_or_else(|| self.dice.below(DISKS as u64) as u8, |w| w as u8);
            all.remove(&away);
        }
        all
    }

    /// After an opening: what the model must find, and then believes.
    fn settle(&mut self, opened: &Opened) -> Result<(), Broken> {
        self.tally.count("commits cut", opened.cut);
        self.tally.count("repairs", opened.repaired.len() as u64);
        self.tally.count("disks made whole", opened.resynced.len() as u64);
        self.tally.count("catalogues rebuilt", u64::from(opened.rebuilt));
        invariants::no_damage(opened)?;
        let engine = self.engine.as_mut().expect("it was opened");
        invariants::state(engine, &self.model)?;
        for (id, stream) in &mut self.model.streams {
            stream.cut_to(engine.state(*id).as_ref());
        }
        self.check_all()?;
        self.model.log = Some(self.engine().log_head());
        self.current = self.engine().current().into_iter().collect();
        self.readmit_all()
    }

    /// Checks everything that holds at any time.
    pub fn check_all(&mut self) -> Result<(), Broken> {
        let (engine, model, mut reader) = self.parts();
        invariants::state(engine, model)?;
        invariants::bytes(engine, &mut reader, model)?;
        invariants::log(engine, &mut reader, model)
    }

    /// Checks, at rest, that all copies are whole or become so.
    pub fn check_copies(&mut self) -> Result<(), Broken> {
        let (engine, _, mut reader) = self.parts();
        let repaired = invariants::copies(engine, &mut reader)?;
        self.tally.count("repairs", repaired.len() as u64);
        self.say(|| format!("verified: repaired {repaired:?}"));
        match repaired.first() {
            Some(what) if !self.spoiled => Err(("copies converge", format!("nothing was spoiled, and the copies differ: {what}"))),
            _ => Ok(()),
        }
    }
}

fn carry_out(disks: &[Arc<SimDisk>], request: &Request<Memory>) -> io::Result<usize> {
    let disk = &disks[usize::from(request.disk)];
    match &request.op {
        Op::Write { at, blocks } => disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len()),
        Op::Flush => disk.flush().map(|()| 0),
    }
}
