//! The append path: a frame is read from the connection into a buffer of the
//! store, hashed, handed over, and acknowledged when every current disk has it.
//!
//! Promises: the payload is never copied here; acknowledgements go out in the
//! order of the appends; a stream has one writer at a time, and a second one is
//! let in only when all that the first had sent is settled ([`Writers`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hoidla_format::{Hash32, Name, StreamId};
use hoidla_protocol::{Answers, AppendHead, Code, Handle, Hold, Opened, Refused, Response, server::OpenStream, writers};
use hoidla_store::{Buffer as _, Generation, Record};
use hoidla_uring::{Buffer, Kept, Pending, StoreError};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::{End, Shared};

/// Appends of one connection that may wait for their acknowledgement, besides the window's bound.
const MOST_UNDER_WAY: usize = 4096;
/// How long a new writer waits for the former one's appends.
const TAKE_OVER: Duration = Duration::from_secs(30);

type Key = Arc<(Name, StreamId)>;

/// Who writes which stream now.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    order: Arc<Mutex<writers::Writers<Key>>>,
    settled: Arc<Notify>,
}

/// A hold that is given up when it is dropped.
#[derive(Debug)]
pub struct Held {
    writers: Writers,
    key: Key,
    hold: Hold,
    /// The newest epoch that was written or that the store had.
    epoch: AtomicU32,
}

/// An append that was begun; settled when it is dropped.
struct Begun {
    writers: Writers,
    key: Key,
    hold: Hold,
}

impl Writers {
    fn order(&self) -> MutexGuard<'_, writers::Writers<Key>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream over from whoever holds it, when all of theirs is settled.
    pub async fn take(&self, dataset: &Name, stream: StreamId) -> Result<Held, Refused> {
        let key = Arc::new((dataset.clone(), stream));
        let hold = self.order().take(key.clone());
        let held = Held { writers: self.clone(), key, hold, epoch: AtomicU32::new(0) };
        match timeout(TAKE_OVER, held.is_free()).await {
            Ok(()) => Ok(held),
            Err(_) => Err(Refused::new(Code::Busy, "another connection's appends to this stream are still under way; try again")),
        }
    }

    /// Streams that have a writer.
    pub fn count(&self) -> usize {
        self.order().count()
    }
}

impl Held {
    async fn is_free(&self) {
        loop {
            let settled = self.writers.settled.notified();
            if self.writers.order().is_free(&self.key, self.hold) {
                return;
            }
            // A notification may slip by between the check and the wait: look again now and then.
            let _ = timeout(Duration::from_millis(100), settled).await;
        }
    }

    /// Begins an append, unless the stream was taken over.
    fn begin(&self) -> Option<Begun> {
        let begun = self.writers.order().begin(&self.key, self.hold);
        begun.then(|| Begun { writers: self.writers.clone(), key: self.key.clone(), hold: self.hold })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.writers.order().leave(&self.key, self.hold);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.writers.order().settle(&self.key, self.hold);
        self.writers.settled.notify_waiters();
    }
}

/// What the acknowledging task is told of a frame.
enum Note {
    Sent { handle: Handle, end: u64, frame: u32, begun: Begun, outcome: Result<Pending, StoreError> },
    Refused { handle: Handle, frame: u32, refused: Refused },
    Dropped { frame: u32 },
}

/// The appends of one connection.
pub(crate) struct Appends {
    shared: Arc<Shared>,
    notes: Option<mpsc::Sender<Note>>,
    task: JoinHandle<()>,
    holds: HashMap<Handle, Held>,
}

impl Appends {
    /// Starts the task that acknowledges; it holds the window's memory until its end.
    pub fn start(shared: Arc<Shared>, permit: Option<OwnedSemaphorePermit>) -> Self {
        let (notes, inbox) = mpsc::channel(MOST_UNDER_WAY);
        let task = tokio::spawn(acknowledge(shared.clone(), inbox, permit));
        Self { shared, notes: Some(notes), task, holds: HashMap::new() }
    }

    /// Notes that a stream was opened for writing; its former handle is gone.
    pub fn opened(&mut self, opened: &Opened, held: Held) {
        held.epoch.store(opened.epoch, Ordering::SeqCst);
        self.holds.retain(|_, h| h.key != held.key);
        self.holds.insert(opened.handle, held);
    }

    async fn note(&self, note: Note) -> Result<(), End> {
        let gone = || std::io::Error::other("the acknowledging task has ended");
        self.notes.as_ref().ok_or_else(gone)?.send(note).await.map_err(|_| gone().into())
    }

    /// Gives window back for a frame that was dropped.
    pub async fn give_back(&self, bytes: usize) -> Result<(), End> {
        self.note(Note::Dropped { frame: bytes as u32 }).await
    }

    /// Hands a frame to the store.
    pub async fn submit(&self, head: AppendHead, stream: OpenStream, buffer: Buffer, frame: usize) -> Result<(), End> {
        let Some(held) = self.holds.get(&head.handle) else { return self.give_back(frame).await };
        let begun = match self.begin(held, &head, (&stream.dataset, stream.generation), frame) {
            Ok(begun) => begun,
            // The stream takes nothing more before it is opened again.
            Err(refused) => return self.note(Note::Refused { handle: head.handle, frame: frame as u32, refused }).await,
        };
        let record = Record {
            generation: Generation { dataset: stream.dataset, number: stream.generation },
            stream: stream.stream,
            epoch: head.epoch,
            offset: head.offset,
            len: frame as u32,
            hash: Hash32(blake3::hash(&buffer.as_ref()[..frame]).into()),
            blocks: buffer.freeze(frame),
        };
        let outcome = self.shared.daemon.store.append(record).await;
        let end = head.offset + frame as u64;
        self.note(Note::Sent { handle: head.handle, end, frame: frame as u32, begun, outcome }).await
    }

    /// Whether the stream is still this connection's, and its dataset may have so much more.
    fn begin(&self, held: &Held, head: &AppendHead, (dataset, generation): (&Name, u32), frame: usize) -> Result<Begun, Refused> {
        let taken = || Refused::new(Code::Busy, "another connection has taken this stream over; only one writes at a time");
        let begun = held.begin().ok_or_else(taken)?;
        if head.epoch > held.epoch.load(Ordering::SeqCst) {
            self.shared.daemon.counts.one_more_epoch(dataset, head.epoch)?;
            held.epoch.store(head.epoch, Ordering::SeqCst);
        }
        self.shared.daemon.shares.take(dataset, generation, frame as u64)?;
        Ok(begun)
    }

    /// No more appends come; waits until all are settled.
    pub async fn finish(mut self) {
        self.notes = None;
        let _ = (&mut self.task).await;
    }
}

/// Tells the peer what became of its appends, in their order.
async fn acknowledge(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Note>, _permit: Option<OwnedSemaphorePermit>) {
    let (mut answers, mut listening) = (Answers::default(), true);
    while let Some(note) = inbox.recv().await {
        match note {
            Note::Dropped { frame } => answers.dropped(frame),
            Note::Refused { handle, frame, refused } => {
                let turn = answers.submitted(handle, 0, frame);
                answers.settled(turn, Err(refused));
            }
            Note::Sent { handle, end, frame, begun, outcome } => {
                let turn = answers.submitted(handle, end, frame);
                let outcome = match outcome {
                    Ok(pending) => pending.kept().await,
                    Err(e) => Err(e),
                };
                drop(begun);
                let log_size = |kept| if let Kept::Now(acknowledged) = kept { Some(acknowledged.log_size) } else { None };
                answers.settled(turn, outcome.map(log_size).map_err(|e| refusal(&shared.daemon, e)));
            }
        }
        while let Some(told) = shared.state(|s| answers.next(s)) {
            for refused in told.iter().filter_map(|r| if let Response::Refused(refused) = r { Some(refused) } else { None }) {
                tracing::warn!(role = %shared.state(|s| s.role().label()), code = ?refused.code, "append refused: {refused}");
            }
            if listening && shared.out.send_all(&told).await.is_err() {
                listening = false; // the peer is gone; what it sent is settled all the same
            }
        }
    }
}

/// A store's refusal as the protocol has it; alarms are counted and logged.
pub(crate) fn refusal(daemon: &crate::daemon::Daemon, e: StoreError) -> Refused {
    use hoidla_store::Refused as R;
    let StoreError::Refused(why) = &e else {
        return Refused::new(Code::Damaged, e.to_string());
    };
    let code = match why {
        R::Busy | R::TooManyStreams => Code::Busy,
        R::Full => Code::Full,
        R::Gap { .. } | R::NotARecord(_) => Code::Order,
        R::Fork { .. } => Code::Fork,
        R::EpochOver { .. } => Code::EpochClosed,
        R::Foreign => Code::NotAllowed,
        R::Alarmed { .. } | R::OnlyReads(_) => Code::Behind,
        R::Unknown => Code::Unknown,
        R::Expired { .. } => Code::Expired,
        R::NotOver => Code::NotAllowed,
        R::Lost { .. } => Code::Damaged,
        R::Stopped(_) => Code::Failed,
    };
    if matches!(code, Code::Fork | Code::Behind) {
        daemon.alarm(&why.to_string());
    }
    Refused::new(code, why.to_string())
}
