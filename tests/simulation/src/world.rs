//! The machine: power, disks, counter and memory, the store that runs on them, and
//! the model that knows what the store owes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Disk, Engine, Event, Fault, Op, Reader, Request, SealKey, Ticket};

use crate::{
    clocks::Clocks,
    counter::Counter,
    dice::Dice,
    disk::{Image, Power, SimDisk},
    endings::Past,
    invariants::{self, Broken},
    memory::Memory,
    model::Model,
    plan::{CATALOGUE, Mistake, Plan},
    sessions::Sessions,
    tally::Tally,
    trace::Trace,
};

/// The name of the simulated store.
pub const STORE: [u8; 16] = *b"simulated store.";
/// What the seals of its batches are keyed with.
pub const KEY: SealKey = SealKey(*b"known to no agent that sends it.");
/// Where the two catalogue areas lie.
pub const CATALOGUES: std::ops::Range<u64> = 64..64 + 2 * CATALOGUE / hoidla_store::BLOCK as u64;
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
    /// The store, while the program runs.
    pub engine: Option<Engine<Memory>>,
    /// Handed out by the store, not yet carried out.
    pub outstanding: Vec<Request<Memory>>,
    /// What was submitted and not answered.
    pub waits: BTreeMap<Ticket, Waits>,
    tickets: Ticket,
    /// What the store owes.
    pub model: Model,
    /// The weak disk as it was at some moment, to come back so.
    pub kept_image: Option<Image>,
    /// The disk that comes back otherwise than it left, at the next power cycle.
    pub rewound: Option<(usize, Image)>,
    /// A disk that nobody recognises any more, and that was taken out.
    pub taken_out: Option<usize>,
    /// All disks as they were at the first crash, to be put back together at the end.
    pub past: Option<Past>,
    /// Leaves of what has ended, which are on no disk any more.
    pub ended: BTreeMap<u64, Hash32>,
    /// Something was made bad on a disk: copies may differ, and must be repaired.
    pub spoiled: bool,
    /// The places that were current when the store last ran.
    pub current: BTreeSet<u8>,
    /// The clocks that retention counts by.
    pub clocks: Clocks,
    /// The agents and their connections, where there are any.
    pub sessions: Option<Sessions>,
    /// What happened.
    pub tally: Tally,
    /// What is told of it.
    pub trace: Trace,
}

impl World {
    /// A freshly formatted store, opened.
    pub fn new(seed: u64, mistake: Option<Mistake>, trace: Trace) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed, 0);
        let plan = Plan::of(&mut dice, seed, mistake);
        let power = Power::stays();
        let disks = (0..plan.disks).map(|i| Arc::new(SimDisk::new(&format!("disk {i}"), plan.size(), power.clone()))).collect();
        let sessions = (plan.agents > 0).then(|| Sessions::new(plan.agents, mistake));
        let mut world = Self {
            sessions,
            clocks: Clocks::default(),
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
            taken_out: None,
            past: None,
            ended: BTreeMap::new(),
            spoiled: false,
            current: BTreeSet::new(),
            tally: Tally::default(),
            trace,
        };
        let all: Vec<Arc<dyn Disk>> = world.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
        world.current = (0..world.plan.disks).collect();
        Engine::format(&all, STORE, KEY, world.plan.layout(), &*world.memory, &mut world.counter.clone())
            .map_err(|e| ("opens", e.to_string()))?;
        world.reopen(false)?;
        Ok(world)
    }

    /// Tells one line.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(line);
    }

    /// The running store.
    pub fn store(&mut self) -> &mut Engine<Memory> {
        self.engine.as_mut().expect("the store runs")
    }

    /// The running store, its owed content, and a reader.
    pub fn parts(&mut self) -> (&mut Engine<Memory>, &Model, Reader<Memory>) {
        let engine = self.engine.as_mut().expect("the store runs");
        let (disks, memory) = (engine.disks(), Arc::new(Memory::new(POOL)));
        let reader = match self.plan.options.fault {
            Some(Fault::BelieveRot) => Reader::believing(disks, memory),
            Some(Fault::UncheckedProofs) => Reader::proving_blindly(disks, memory),
            _ => Reader::new(disks, memory),
        };
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
        self.store().prewrite();
        while let Some(request) = self.store().next_request() {
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
            self.store().complete(request.id, outcome);
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
            self.take_events()?;
            if self.outstanding.is_empty() {
                if self.store().is_waiting() {
                    return Err(("progress", "something was taken, and is never written".into()));
                }
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
        while let Some(event) = self.store().next_event() {
            self.say(|| format!("  {event:?}"));
            match event {
                Event::Acknowledged(a) => {
                    self.tally.count("records acknowledged", 1);
                    let waits = self.waits.remove(&a.ticket);
                    invariants::answer(&a, waits.as_ref(), &self.model)?;
                    self.model.log = Some((a.log_size, a.log_root));
                    self.model.acknowledge(a.stream, a.end);
                    self.sessions.iter_mut().for_each(|s| s.acknowledged(a.ticket, a.log_size));
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
                Event::DiskJoined { .. } => self.tally.count("disks made whole", 1),
                Event::Stopped { why } if self.counter.has_failed() => {
                    self.say(|| format!("the store stopped: {why}"));
                    return self.crash(false);
                }
                Event::Stopped { why } => return Err(("progress", format!("the store stopped: {why}"))),
            }
        }
        invariants::state(self.engine.as_ref().expect("the store runs"), &self.model)?;
        self.tend_gates()
    }

    /// Checks everything that holds at any time.
    pub fn check_all(&mut self) -> Result<(), Broken> {
        let ended = self.ended.clone();
        let (engine, model, mut reader) = self.parts();
        invariants::state(engine, model)?;
        let unreadable = invariants::bytes(engine, &mut reader, model)?;
        if model.lost {
            let checked = invariants::copies(engine, &mut reader)?;
            return invariants::loss_is_told(unreadable, model.told, &checked);
        }
        invariants::log(engine, &mut reader, model, ended)
    }

    /// Checks, at rest, that all copies are whole or become so.
    pub fn check_copies(&mut self) -> Result<(), Broken> {
        let (engine, _, mut reader) = self.parts();
        let checked = invariants::copies(engine, &mut reader)?;
        self.tally.count("repairs", checked.repaired.len() as u64);
        self.say(|| format!("verified: repaired {:?}", checked.repaired));
        invariants::whole(&checked, self.spoiled, self.model.lost)
    }
}

/// Does what the store asked for.
pub fn carry_out(disks: &[Arc<SimDisk>], request: &Request<Memory>) -> io::Result<usize> {
    let disk = &disks[usize::from(request.disk)];
    match &request.op {
        Op::Write { at, blocks } => disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len()),
        Op::Flush => disk.flush().map(|()| 0),
    }
}
