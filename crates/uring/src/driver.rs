//! The thread that runs the engine: commands in, requests to the ring, answers out.
//!
//! Promises: commands reach the engine in the order in which they were sent; each is
//! answered once, at the latest when the thread ends; nothing here waits for anything
//! but the ring. It doesn't decide anything that the engine decides.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use hoidla_format::StreamId;
use hoidla_store::{Acknowledged, Appended, Disk, DiskNo, Disks, Event, JoinError, JoinId, Op, Place, Refused, SegmentRef, Ticket};
use nix::sys::eventfd::EventFd;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Buffers, DiskFile, Engine, Record,
    ring::{Done, Ring, RingError},
};

/// Commands taken in one turn, before the ring gets its due.
const TURN: usize = 256;
/// So long must nothing happen before a stretch of a segment is pre-written; it also paces that.
const IDLE: Duration = Duration::from_millis(10);

/// What an append comes to.
pub(crate) enum Took {
    /// Kept by this append.
    Kept(Acknowledged),
    /// It may have been kept before: to be compared.
    Before(Place, Record),
}

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refused>>;

/// Something that the engine is to note durably.
pub(crate) type Noting = Box<dyn FnOnce(&mut Engine, Ticket) -> Result<(), Refused> + Send>;

/// What other threads ask of the engine.
pub(crate) enum Command {
    Append(Record, Answer<Took>),
    CloseEpoch(StreamId, u32, Answer<()>),
    Readmit(StreamId, Answer<()>),
    /// A segment was rewritten; `Busy` goes back to whoever asks.
    Retire(SegmentRef, Answer<()>),
    /// Anything that the engine notes durably; `Busy` goes back to whoever asks.
    Note(Noting, Answer<()>),
    /// A marked disk joins; it is rebuilt by whoever asks.
    Join(DiskNo, Arc<DiskFile>, oneshot::Sender<Result<JoinId, JoinError>>),
    /// The buffers are registered with the kernel; the answer is why not.
    Register(oneshot::Sender<Result<(), String>>),
    /// Anything that is answered at once.
    Ask(Box<dyn FnOnce(&mut Engine) + Send>),
}

/// What the thread tells of itself.
#[derive(Default)]
pub(crate) struct Board {
    /// True while the thread waits, or is about to.
    pub asleep: AtomicBool,
    /// What went wrong with disks since the start, in words.
    pub troubles: Mutex<Vec<String>>,
    /// The disks by place, for readers, and for whoever looks after trays.
    pub disks: RwLock<Vec<Option<Arc<DiskFile>>>>,
    /// Why a disk was given up, by place, until another takes its place.
    pub failed: Mutex<HashMap<DiskNo, String>>,
    /// What was asked of the disks since the start.
    pub writes: AtomicU64,
    pub bytes: AtomicU64,
    pub flushes: AtomicU64,
}

impl Board {
    /// The disks as readers want them.
    pub fn readable(&self) -> Disks {
        let disks = self.disks.read().unwrap_or_else(PoisonError::into_inner);
        disks.iter().map(|d| d.as_ref().map(|d| d.clone() as Arc<dyn Disk>)).collect()
    }

    fn put(&self, place: DiskNo, disk: Option<Arc<DiskFile>>) {
        self.disks.write().unwrap_or_else(PoisonError::into_inner)[usize::from(place)] = disk;
    }

    fn count(&self, op: &Op<Buffers>) {
        match op {
            Op::Flush => _ = self.flushes.fetch_add(1, Ordering::Relaxed),
            Op::Write { blocks, .. } => {
                self.writes.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(blocks.as_ref().len() as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Wakes the thread when it sleeps; and when dropped, so that it sees that nobody is left.
pub(crate) struct Waker {
    pub board: Arc<Board>,
    pub event: Arc<EventFd>,
}

impl Waker {
    pub fn wake(&self) {
        fence(Ordering::SeqCst); // what was sent is visible before we look; see `turns`
        if self.board.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.event.write(1);
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        let _ = self.event.write(1);
    }
}

enum Waiting {
    Append(Answer<Took>),
    Note(Answer<()>),
}

/// The engine, its ring and whoever waits for it.
pub(crate) struct Driver {
    pub engine: Engine,
    pub ring: Ring,
    pub commands: mpsc::Receiver<Command>,
    pub board: Arc<Board>,
    waiting: HashMap<Ticket, Waiting>,
    tickets: Ticket,
    /// Refused for now because the engine is busy; first in line.
    held: Option<Command>,
    left_alone: bool,
}

impl Driver {
    pub fn new(engine: Engine, ring: Ring, commands: mpsc::Receiver<Command>, board: Arc<Board>) -> Self {
        Self { engine, ring, commands, board, waiting: HashMap::new(), tickets: 0, held: None, left_alone: false }
    }

    /// Runs until nobody holds the store any more and all that was begun is done.
    pub fn run(mut self) {
        if let Err(e) = self.turns() {
            self.trouble(format!("the store has stopped: {e}"));
        }
    }

    fn turns(&mut self) -> Result<(), RingError> {
        let mut done: Vec<Done> = Vec::new();
        loop {
            let told = self.answer_events(); // before more is begun, a mark above all
            self.take_commands();
            while let Some(request) = self.engine.next_request() {
                self.board.count(&request.op);
                self.ring.push(request);
            }
            if self.answer_events() || told {
                continue; // something became free: what was held may go on
            }
            if self.ring.under_way() == 0 {
                if let Some(command) = self.held.take() {
                    refuse(command, Refused::Busy);
                    continue;
                }
                if self.left_alone {
                    return Ok(());
                }
            }
            self.board.asleep.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst); // that we sleep is visible before we look at the channel a last time
            let more = self.held.is_none() && !self.left_alone && !self.commands.is_empty();
            let idle = self.ring.under_way() == 0 && self.engine.can_prewrite();
            if !more && !self.ring.wait(&mut done, idle.then_some(IDLE))? {
                self.engine.prewrite();
            }
            self.board.asleep.store(false, Ordering::SeqCst);
            for (id, outcome) in done.drain(..) {
                self.engine.complete(id, outcome);
            }
        }
    }

    fn take_commands(&mut self) {
        for _ in 0..TURN {
            let command = match self.held.take() {
                Some(held) => held,
                None => match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(mpsc::error::TryRecvError::Empty) => return,
                    Err(mpsc::error::TryRecvError::Disconnected) => return self.left_alone = true,
                },
            };
            self.obey(command);
            if self.held.is_some() {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.tickets += 1;
        let ticket = self.tickets;
        match command {
            Command::Ask(question) => question(&mut self.engine),
            Command::Register(answer) => _ = answer.send(self.ring.register()),
            Command::Append(record, answer) => match self.engine.append(copy(&record), ticket) {
                Ok(Appended::Pending) => _ = self.waiting.insert(ticket, Waiting::Append(answer)),
                Ok(Appended::Before(place)) => _ = answer.send(Ok(Took::Before(place, record))),
                Err(Refused::Busy) => self.held = Some(Command::Append(record, answer)),
                Err(why) => _ = answer.send(Err(why)),
            },
            Command::CloseEpoch(stream, epoch, answer) => match self.engine.close_epoch(stream, epoch, ticket) {
                Ok(()) => _ = self.waiting.insert(ticket, Waiting::Note(answer)),
                Err(Refused::Busy) => self.held = Some(Command::CloseEpoch(stream, epoch, answer)),
                Err(why) => _ = answer.send(Err(why)),
            },
            Command::Readmit(stream, answer) => match self.engine.readmit(stream, ticket) {
                Ok(()) => _ = self.waiting.insert(ticket, Waiting::Note(answer)),
                Err(Refused::Busy) => self.held = Some(Command::Readmit(stream, answer)),
                Err(why) => _ = answer.send(Err(why)),
            },
            Command::Note(note, answer) => match note(&mut self.engine, ticket) {
                Ok(()) => _ = self.waiting.insert(ticket, Waiting::Note(answer)),
                Err(why) => _ = answer.send(Err(why)),
            },
            Command::Join(place, file, answer) => _ = answer.send(self.join(place, file)),
            Command::Retire(segment, answer) => match self.engine.retire(&segment, ticket) {
                Ok(()) => _ = self.waiting.insert(ticket, Waiting::Note(answer)),
                Err(why) => _ = answer.send(Err(why)),
            },
        }
    }

    fn join(&mut self, place: DiskNo, file: Arc<DiskFile>) -> Result<JoinId, JoinError> {
        let joined = self.engine.join(place, file.clone())?;
        if let Err(why) = self.ring.replace(place, Some(file.clone())) {
            self.engine.leave(place, why.to_string())?;
            return Err(JoinError::Over);
        }
        self.board.put(place, Some(file));
        self.board.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
        Ok(joined)
    }

    /// The engine has given a disk up: whoever put it in may take it out.
    fn let_go(&mut self, place: DiskNo, why: String) {
        self.trouble(format!("disk {place} failed and is left alone: {why}; replace it, the store goes on with the others"));
        self.board.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(place, why);
        self.board.put(place, None);
        if let Err(e) = self.ring.replace(place, None) {
            tracing::warn!("disk {place} is held until the store stops: {e}");
        }
    }

    /// Passes on what the engine tells; whether there was anything.
    fn answer_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.engine.next_event() {
            any = true;
            match event {
                Event::Acknowledged(kept) => match self.waiting.remove(&kept.ticket) {
                    Some(Waiting::Append(answer)) => _ = answer.send(Ok(Took::Kept(kept))),
                    _ => tracing::error!(ticket = kept.ticket, "an acknowledgement that nobody waits for"),
                },
                Event::Noted { ticket } => {
                    if let Some(Waiting::Note(answer)) = self.waiting.remove(&ticket) {
                        let _ = answer.send(Ok(()));
                    }
                }
                Event::DiskStopped { disk, why } => self.let_go(disk, why),
                Event::DiskJoined { disk } => tracing::info!("disk {disk} is rebuilt and counts again"),
                Event::Stopped { why } => self.stopped(why),
            }
        }
        any
    }

    fn stopped(&mut self, why: String) {
        for (_, waiting) in self.waiting.drain() {
            let why = Refused::Stopped(why.clone());
            match waiting {
                Waiting::Append(answer) => _ = answer.send(Err(why)),
                Waiting::Note(answer) => _ = answer.send(Err(why)),
            }
        }
        self.trouble(format!("the store has stopped: {why}"));
    }

    fn trouble(&self, what: String) {
        tracing::error!("{what}");
        self.board.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn refuse(command: Command, why: Refused) {
    match command {
        Command::Append(_, answer) => _ = answer.send(Err(why)),
        Command::CloseEpoch(_, _, answer) | Command::Readmit(_, answer) | Command::Retire(_, answer) | Command::Note(_, answer) => {
            _ = answer.send(Err(why))
        }
        Command::Ask(_) | Command::Join(..) | Command::Register(_) => {}
    }
}

/// The same record again: its bytes are shared, not copied.
pub(crate) fn copy(r: &Record) -> Record {
    Record { generation: r.generation.clone(), blocks: r.blocks.clone(), ..*r }
}
