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
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hoidla_format::{Hash32, Name, StreamId};
use hoidla_protocol::{AppendHead, Code, Handle, Opened, Refused, Response, server::OpenStream};
use hoidla_store::{Buffer as _, Generation, Record};
use hoidla_uring::{Buffer, Kept, Pending, StoreError};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
};

use super::{End, Shared};

/// Appends of one connection that may wait for their acknowledgement, besides the window's bound.
const MOST_UNDER_WAY: usize = 4096;
/// How long a new writer waits for the former one's appends.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// One writer's hold on a stream.
#[derive(Debug, Default)]
pub struct Hold {
    under_way: AtomicUsize,
    settled: Notify,
    lost: AtomicBool,
    /// The newest epoch that was written or that the store had.
    epoch: AtomicU32,
    /// Bytes before this offset are acknowledged.
    kept: AtomicU64,
}

impl Hold {
    fn settle(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.settled.notify_waiters();
    }

    async fn wait(&self) {
        loop {
            let settled = self.settled.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            // A notification may slip by between the check and the wait: look again now and then.
            let _ = tokio::time::timeout(Duration::from_millis(100), settled).await;
        }
    }
}

type Holds = HashMap<(Name, StreamId), Arc<Hold>>;

/// Who writes which stream now.
#[derive(Clone, Debug, Default)]
pub struct Writers(Arc<Mutex<Holds>>);

/// A hold that is given up when it is dropped.
#[derive(Debug)]
pub struct Held {
    writers: Writers,
    key: (Name, StreamId),
    hold: Arc<Hold>,
}

impl Writers {
    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream over from whoever holds it, when all of theirs is settled.
    pub async fn take(&self, dataset: &Name, stream: StreamId) -> Result<Held, Refused> {
        let (key, hold) = ((dataset.clone(), stream), Arc::new(Hold::default()));
        let former = self.lock().insert(key.clone(), hold.clone());
        let held = Held { writers: self.clone(), key, hold };
        if let Some(former) = former {
            former.lost.store(true, Ordering::SeqCst);
            if tokio::time::timeout(TAKE_OVER, former.wait()).await.is_err() {
                held.give_back(former);
                return Err(Refused::new(Code::Busy, "another connection's appends to this stream are still under way; try again"));
            }
        }
        Ok(held)
    }

    /// Streams that have a writer.
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}

impl Held {
    /// Whether nobody has taken the stream over yet.
    fn is_current(&self, writers: &Holds) -> bool {
        writers.get(&self.key).is_some_and(|now| Arc::ptr_eq(now, &self.hold))
    }

    fn give_back(&self, former: Arc<Hold>) {
        let mut writers = self.writers.lock();
        if self.is_current(&writers) {
            former.lost.store(false, Ordering::SeqCst);
            writers.insert(self.key.clone(), former);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut writers = self.writers.lock();
        if self.is_current(&writers) {
            writers.remove(&self.key);
        }
    }
}

/// One append on its way.
struct UnderWay {
    handle: Handle,
    end: u64,
    bytes: usize,
    hold: Arc<Hold>,
    outcome: Result<Pending, StoreError>,
}

/// What the acknowledging task is told.
enum Note {
    Sent(UnderWay),
    GiveBack(usize),
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
        held.hold.epoch.store(opened.epoch, Ordering::SeqCst);
        self.holds.retain(|_, h| h.key != held.key);
        self.holds.insert(opened.handle, held);
    }

    /// The stream takes nothing more before it is opened again.
    async fn refuse(&self, handle: Handle, refused: Refused, frame: usize) -> Result<(), End> {
        if self.shared.state(|s| s.refuse(handle)) {
            self.shared.out.refuse(refused.about(handle)).await?;
        }
        self.give_back(frame).await
    }

    async fn note(&self, note: Note) -> Result<(), End> {
        let gone = || std::io::Error::other("the acknowledging task has ended");
        self.notes.as_ref().ok_or_else(gone)?.send(note).await.map_err(|_| gone().into())
    }

    /// Gives window back for a frame that was dropped.
    pub async fn give_back(&self, bytes: usize) -> Result<(), End> {
        self.note(Note::GiveBack(bytes)).await
    }

    /// Hands a frame to the store.
    pub async fn submit(&self, head: AppendHead, stream: OpenStream, buffer: Buffer, frame: usize) -> Result<(), End> {
        let Some(Held { hold, .. }) = self.holds.get(&head.handle) else { return self.give_back(frame).await };
        if hold.lost.load(Ordering::SeqCst) {
            let refused = Refused::new(Code::Busy, "another connection has taken this stream over; only one writes at a time");
            return self.refuse(head.handle, refused, frame).await;
        }
        if head.epoch > hold.epoch.load(Ordering::SeqCst) {
            if let Err(refused) = self.shared.daemon.counts.one_more_epoch(&stream.dataset, head.epoch) {
                return self.refuse(head.handle, refused, frame).await;
            }
            hold.epoch.store(head.epoch, Ordering::SeqCst);
        }
        if let Err(refused) = self.shared.daemon.shares.take(&stream.dataset, frame as u64) {
            return self.refuse(head.handle, refused, frame).await;
        }
        let record = Record {
            generation: Generation { dataset: stream.dataset, number: stream.generation },
            stream: stream.stream,
            epoch: head.epoch,
            offset: head.offset,
            len: frame as u32,
            hash: Hash32(blake3::hash(&buffer.as_ref()[..frame]).into()),
            blocks: buffer.freeze(frame),
        };
        hold.under_way.fetch_add(1, Ordering::SeqCst);
        let outcome = self.shared.daemon.store.append(record).await;
        let end = head.offset + frame as u64;
        self.note(Note::Sent(UnderWay { handle: head.handle, end, bytes: frame, hold: hold.clone(), outcome })).await
    }

    /// No more appends come; waits until all are settled.
    pub async fn finish(mut self) {
        self.notes = None;
        let _ = (&mut self.task).await;
    }
}

/// Tells the peer what became of its appends, in their order.
async fn acknowledge(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Note>, _permit: Option<OwnedSemaphorePermit>) {
    let mut listening = true;
    let log_size = AtomicU64::new(0);
    while let Some(note) = inbox.recv().await {
        let (bytes, answer) = match note {
            Note::GiveBack(bytes) => (bytes, None),
            Note::Sent(sent) => {
                let outcome = match sent.outcome {
                    Ok(pending) => pending.kept().await,
                    Err(e) => Err(e),
                };
                sent.hold.settle();
                (sent.bytes, Some(verdict(&shared, &sent.hold, (sent.handle, sent.end), outcome, &log_size)))
            }
        };
        shared.state(|s| s.give_back(bytes as u64));
        let mut answers: Vec<Response> = answer.flatten().into_iter().collect();
        answers.push(Response::Window { bytes: bytes as u32 });
        if listening && shared.out.send_all(&answers).await.is_err() {
            listening = false; // the peer is gone; what it sent is settled all the same
        }
    }
}

fn verdict(
    shared: &Shared,
    hold: &Hold,
    (handle, end): (Handle, u64),
    outcome: Result<Kept, StoreError>,
    log_size: &AtomicU64,
) -> Option<Response> {
    match outcome {
        Ok(outcome) => {
            if let Kept::Now(acknowledged) = outcome {
                log_size.store(acknowledged.log_size, Ordering::Relaxed);
            }
            let before = hold.kept.fetch_max(end, Ordering::SeqCst).max(end);
            Some(Response::Acknowledged { handle, before, log_size: log_size.load(Ordering::Relaxed) })
        }
        Err(e) => {
            let first = shared.state(|s| s.refuse(handle));
            let refused = refusal(&shared.daemon, e).about(handle);
            first.then(|| {
                tracing::warn!(role = %shared.state(|s| s.role().label()), code = ?refused.code, "append refused: {refused}");
                Response::Refused(refused)
            })
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
        R::Alarmed { .. } => Code::Behind,
        R::Unknown => Code::Unknown,
        R::Expired { .. } => Code::Expired,
        R::NotOver => Code::NotAllowed,
        R::OnlyReads(_) | R::Stopped(_) => Code::Failed,
    };
    if matches!(code, Code::Fork | Code::Behind) {
        daemon.alarm(&why.to_string());
    }
    Refused::new(code, why.to_string())
}
