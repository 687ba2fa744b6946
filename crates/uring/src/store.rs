//! The store as other threads see it: a cheap handle with futures.
//!
//! Promises: what [`Store::append`] answers with `Kept` is durable on every current copy;
//! appends that were sent one after another are taken in that order; reads are checked
//! against their hashes, and a bad copy is repaired from a good one. The futures need no
//! particular runtime, but reads and comparisons run on tokio's blocking threads.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use hoidla_format::{Hash32, Name, StreamId, disk::SealKey};
use hoidla_store::{
    Acknowledged, Asked, Checked, Counters, Disk, Generation, Layout, Logged, Moved, OpenError, Opened, Options, Pool as _, ReadError,
    Refused, SegmentRef, StreamState,
};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    Buffer, Buffers, DiskError, DiskFile, Engine, Found, Reader, Record, Ring, RingError,
    driver::{Board, Command, Driver, Took, Waker},
    trays::Seen,
};

/// Commands on their way to the engine's thread.
const CHANNEL: usize = 256;
/// Reads at once.
pub(crate) const READERS: usize = 4;
/// How long to wait for memory, or for a commit under way.
pub(crate) const SOON: Duration = Duration::from_millis(2);

/// How a store runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of all buffers together, at most 1 GiB: what is received, written and read at once.
    pub memory: usize,
    /// The engine's own.
    pub options: Options,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory: 128 << 20, options: Options::default() }
    }
}

/// Why a store didn't start.
#[derive(Debug, Error)]
pub enum StartError {
    /// One of its disks.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is on them.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Memory or a thread.
    #[error("the store could not start: {0}")]
    System(#[from] io::Error),
}

/// What starting found.
#[derive(Debug)]
pub struct Report {
    /// Paths with something else than a disk of this store: left alone, and gone on without.
    pub strange: Vec<(PathBuf, Seen)>,
    /// What the engine found and did.
    pub opened: Opened,
    /// Paths that couldn't be opened, and why; the store goes on without them.
    pub absent: Vec<DiskError>,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The engine refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It couldn't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Kept by this append.
    Now(Acknowledged),
    /// The same bytes were kept before.
    Before,
}

/// What was asked of the disks since the start, all copies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Writes.
    pub writes: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

struct Inner {
    // Dropped in this order: the channel first, so that the thread, woken next, finds it closed.
    commands: mpsc::Sender<Command>,
    waker: Waker,
    buffers: Buffers,
    readers: Mutex<Vec<Reader>>,
    turns: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the running store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// An append that was sent; await [`kept`](Self::kept).
pub struct Pending {
    answer: oneshot::Receiver<Result<Took, Refused>>,
    store: Store,
}

/// Lays an empty store on these disks (a copy each). Everything on them is lost.
pub fn format(paths: &[PathBuf], store: [u8; 16], key: SealKey, layout: Layout, counters: &mut dyn Counters) -> Result<(), StartError> {
    let disks = paths.iter().map(|p| Ok(Arc::new(DiskFile::open(p)?) as Arc<dyn Disk>)).collect::<Result<Vec<_>, DiskError>>()?;
    Ok(Engine::format(&disks, store, key, layout, &Buffers::new(8 << 20)?, counters)?)
}

impl Store {
    /// Opens the store on the disks at `paths`, in any order, and starts its thread. A disk that
    /// can't be opened is left out and reported; one that is in use by another program is an error.
    pub fn open(paths: &[PathBuf], store: [u8; 16], counters: Box<dyn Counters>, settings: Settings) -> Result<(Self, Report), StartError> {
        let (files, absent) = open_disks(paths)?;
        let (files, strange) = sort_out(files, store)?;
        let buffers = Buffers::new(settings.memory)?;
        let (commands, inbox) = mpsc::channel(CHANNEL);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let board = Arc::new(Board::default());
        let begin = Begin { files, store, counters, options: settings.options, buffers: buffers.clone(), inbox, board: board.clone() };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || begin.run(&tell))?;
        let started = told.recv().map_err(|_| io::Error::other("its thread ended at once"))??;
        let inner = Inner {
            commands,
            waker: Waker { board, event: started.event },
            buffers,
            readers: Mutex::default(),
            turns: Semaphore::new(READERS),
            thread: Mutex::new(Some(thread)),
        };
        Ok((Self(Arc::new(inner)), Report { strange, opened: started.opened, absent }))
    }

    /// Registers the store's memory with the kernel, so that writing costs less CPU. It takes a
    /// while, in which nothing else is answered: for a store that will serve, once it does.
    ///
    /// # Errors
    /// In words with what to do, if the kernel locks no more memory; the store works all the same.
    pub async fn register(&self) -> Result<(), String> {
        let (tell, answer) = oneshot::channel();
        self.send(Command::Register(tell)).await.map_err(|e| e.to_string())?;
        answer.await.map_err(|_| gone().to_string())?
    }

    /// Memory for one record; waits until there is some.
    pub async fn buffer(&self, len: usize) -> Buffer {
        loop {
            if let Some(buffer) = self.try_buffer(len) {
                return buffer;
            }
            tokio::time::sleep(SOON).await;
        }
    }

    /// Memory for one record, if there is some now.
    pub fn try_buffer(&self, len: usize) -> Option<Buffer> {
        self.0.buffers.take(len)
    }

    /// Sends a record; waits only for room in the line. Await [`Pending::kept`] for the outcome:
    /// several may be under way, and are taken in the order of these calls.
    pub async fn append(&self, record: Record) -> Result<Pending, StoreError> {
        let (tell, answer) = oneshot::channel();
        self.send(Command::Append(record, tell)).await?;
        Ok(Pending { answer, store: self.clone() })
    }

    /// Closes the epochs of a stream up to `epoch`, durably.
    pub async fn close_epoch(&self, stream: StreamId, epoch: u32) -> Result<(), StoreError> {
        let (tell, answer) = oneshot::channel();
        self.send(Command::CloseEpoch(stream, epoch, tell)).await?;
        Ok(answer.await.map_err(|_| gone())??)
    }

    /// Takes a stream again that was refused since an alarm.
    pub async fn readmit(&self, stream: StreamId) -> Result<(), StoreError> {
        let (tell, answer) = oneshot::channel();
        self.send(Command::Readmit(stream, tell)).await?;
        Ok(answer.await.map_err(|_| gone())??)
    }

    /// An agent says up to where it holds acknowledgements; see [`hoidla_store::Engine::present`].
    pub async fn present(&self, generation: Generation, stream: StreamId, offset: u64) -> Result<StreamState, StoreError> {
        loop {
            let generation = generation.clone();
            match self.ask(move |e| e.present(&generation, stream, offset)).await? {
                Err(Refused::Busy) => tokio::time::sleep(SOON).await,
                other => return Ok(other?),
            }
        }
    }

    /// What is acknowledged of a stream.
    pub async fn state(&self, stream: StreamId) -> Result<Option<StreamState>, StoreError> {
        self.ask(move |e| e.state(stream)).await
    }

    /// All streams of a dataset.
    pub async fn streams(&self, dataset: Name) -> Result<Vec<(StreamId, StreamState)>, StoreError> {
        self.ask(move |e| e.streams(&dataset)).await
    }

    /// The log as of the last acknowledgement: size and root.
    pub async fn log_head(&self) -> Result<(u64, Hash32), StoreError> {
        self.ask(|e| e.log_head()).await
    }

    /// Bytes still free for payload, roughly; and all bytes.
    pub async fn room(&self) -> Result<(u64, u64), StoreError> {
        self.ask(|e| e.room()).await
    }

    /// The record that holds `offset` of a stream, checked; none if nothing is kept there.
    pub async fn read(&self, stream: StreamId, offset: u64) -> Result<Option<Found>, StoreError> {
        let Some(place) = self.ask(move |e| e.locate(stream, offset)).await? else { return Ok(None) };
        self.with_reader(move |r| r.read(&place)).await.map(Some)
    }

    /// The hashes that prove leaf `index` to be in the log's first `size` leaves, checked.
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, StoreError> {
        self.prove(Asked::Inclusion { index, size }).await
    }

    /// The hashes that prove the log's first `old` leaves to be the beginning of its first `new`, checked.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, StoreError> {
        self.prove(Asked::Consistency { old, new }).await
    }

    async fn prove(&self, asked: Asked) -> Result<Vec<Hash32>, StoreError> {
        let grounds = self.ask(move |e| e.grounds(asked)).await??;
        self.with_reader(move |r| r.prove(&grounds)).await
    }

    /// What the log says of the part that covers `offset` of a stream: its leaf, and the frames
    /// under it; none if nothing is kept there. The frames' bytes are [`read`](Self::read).
    pub async fn part(&self, stream: StreamId, offset: u64) -> Result<Option<Logged>, StoreError> {
        let Some(place) = self.ask(move |e| e.locate(stream, offset)).await? else { return Ok(None) };
        self.with_reader(move |r| r.logged(&place)).await.map(Some)
    }

    /// The next segment from number `from` on that holds something, held for [`check`](Self::check).
    pub async fn segment(&self, from: u32) -> Result<Option<SegmentRef>, StoreError> {
        self.ask(move |e| e.segment(from)).await
    }

    /// Checks every byte of a segment on every copy, and repairs.
    pub async fn check(&self, segment: SegmentRef) -> Result<Checked, StoreError> {
        self.with_reader(move |r| r.check(&segment)).await
    }

    /// See [`Reader::last_powered`].
    pub async fn last_powered(&self, segment: SegmentRef) -> Result<Option<u64>, StoreError> {
        self.with_reader(move |r| r.last_powered(&segment)).await
    }

    /// Rewrites one sparse segment densely, if there is one; whether there was. Call it again
    /// and again while there is nothing better to do. One of which no copy is whole stays taken,
    /// so that the next call takes another.
    pub async fn tidy(&self) -> Result<bool, StoreError> {
        let Some(segment) = self.ask(|e| e.sparse()).await? else { return Ok(false) };
        let done = self.tidy_segment(segment.clone()).await;
        if done.is_err() && !matches!(done, Err(StoreError::Read(ReadError::Lost(_)))) {
            self.ask(move |e| e.give_up(&segment)).await?;
        }
        done.map(|()| true)
    }

    async fn tidy_segment(&self, segment: SegmentRef) -> Result<(), StoreError> {
        let (store, gathered) = (self.clone(), segment.clone());
        self.with_reader(move |r| r.gather(&gathered, |moved| store.rewrite(moved))).await??;
        loop {
            let (tell, answer) = oneshot::channel();
            self.send(Command::Retire(segment.clone(), tell)).await?;
            match answer.await.map_err(|_| gone())? {
                Err(Refused::Busy) => tokio::time::sleep(SOON).await,
                other => return Ok(other?),
            }
        }
    }

    /// Hands what was read of a sparse segment to the engine; waits on a blocking thread.
    fn rewrite(&self, moved: Moved<Buffers>) -> Result<(), StoreError> {
        let moved = Arc::new(moved);
        loop {
            let (tell, answer) = oneshot::channel();
            let same = moved.clone();
            let question = Command::Ask(Box::new(move |engine| _ = tell.send(engine.rewrite(&same))));
            self.0.commands.blocking_send(question).map_err(|_| gone())?;
            self.0.waker.wake();
            match answer.blocking_recv().map_err(|_| gone())? {
                Err(Refused::Busy) => std::thread::sleep(SOON),
                other => return Ok(other?),
            }
        }
    }

    /// What went wrong with disks since the start, in words.
    pub fn troubles(&self) -> Vec<String> {
        self.0.waker.board.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was asked of the disks since the start.
    pub fn tally(&self) -> Tally {
        let board = &self.0.waker.board;
        let [writes, bytes, flushes] = [&board.writes, &board.bytes, &board.flushes].map(|n| n.load(Ordering::Relaxed));
        Tally { writes, bytes, flushes }
    }

    /// Gives up this handle; if it was the last, waits until all that was begun is done and
    /// the disks are free for another program.
    pub fn close(self) {
        if let Some(inner) = Arc::into_inner(self.0) {
            let thread = inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(inner);
            let _ = thread.map(JoinHandle::join);
        }
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), StoreError> {
        self.0.commands.send(command).await.map_err(|_| gone())?;
        self.0.waker.wake();
        Ok(())
    }

    pub(crate) async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Engine) -> T + Send + 'static) -> Result<T, StoreError> {
        let (tell, answer) = oneshot::channel();
        self.send(Command::Ask(Box::new(move |engine| _ = tell.send(question(engine))))).await?;
        answer.await.map_err(|_| gone())
    }

    /// Runs `job` on a blocking thread, again while there is no memory for it.
    async fn with_reader<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Reader) -> Result<T, ReadError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let job = Arc::new(job);
        loop {
            let turn = self.0.turns.acquire().await.map_err(|_| gone())?;
            let (store, job) = (self.clone(), job.clone());
            let done = tokio::task::spawn_blocking(move || store.read_now(&*job)).await.map_err(|_| gone())?;
            drop(turn);
            match done {
                Err(ReadError::Busy) => tokio::time::sleep(SOON).await,
                other => return Ok(other?),
            }
        }
    }

    pub(crate) fn board(&self) -> &Board {
        &self.0.waker.board
    }

    pub(crate) fn new_reader(&self) -> Reader {
        Reader::new(self.board().readable(), Arc::new(self.0.buffers.clone()))
    }

    pub(crate) fn memory(&self) -> &Buffers {
        &self.0.buffers
    }

    fn read_now<T>(&self, job: &dyn Fn(&mut Reader) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = || self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = idle().pop();
        let mut reader = spare.unwrap_or_else(|| self.new_reader());
        reader.attach(self.board().readable());
        let done = job(&mut reader);
        idle().push(reader);
        done
    }
}

impl Pending {
    /// Waits until the record is kept, or refused.
    pub async fn kept(self) -> Result<Kept, StoreError> {
        match self.answer.await.map_err(|_| gone())?? {
            Took::Kept(acknowledged) => Ok(Kept::Now(acknowledged)),
            Took::Before(place, record) => {
                self.store.with_reader(move |r| r.compare(&place, &record)).await??;
                Ok(Kept::Before)
            }
        }
    }
}

pub(crate) fn gone() -> StoreError {
    Refused::Stopped("its thread has ended; the log says why".into()).into()
}

fn open_disks(paths: &[PathBuf]) -> Result<(Vec<Arc<DiskFile>>, Vec<DiskError>), DiskError> {
    let (mut files, mut absent) = (Vec::new(), Vec::new());
    for path in paths.iter().map(Path::new) {
        match DiskFile::open(path) {
            Ok(file) => files.push(Arc::new(file)),
            Err(DiskError::Open { path, source }) => absent.push(DiskError::Open { path, source }),
            Err(other) => return Err(other),
        }
    }
    Ok((files, absent))
}

/// Sets aside disks that aren't this store's, unless there is no other.
#[allow(clippy::type_complexity)]
fn sort_out(files: Vec<Arc<DiskFile>>, store: [u8; 16]) -> Result<(Vec<Arc<DiskFile>>, Vec<(PathBuf, Seen)>), StartError> {
    let mut seen = Vec::new();
    for file in files {
        let what = crate::trays::look(&*file, store);
        seen.push((file, what));
    }
    let ours = |s: &Seen| matches!(s, Seen::Ours { .. } | Seen::Unreadable(_));
    if !seen.iter().any(|(_, s)| ours(s)) {
        return Ok((seen.into_iter().map(|(file, _)| file).collect(), Vec::new())); // the engine says what is wrong
    }
    let (good, strange): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(_, s)| ours(s));
    let strange = strange.into_iter().map(|(file, s)| (file.path().to_owned(), s)).collect();
    Ok((good.into_iter().map(|(file, _)| file).collect(), strange))
}

/// All that the thread needs to begin.
struct Begin {
    files: Vec<Arc<DiskFile>>,
    store: [u8; 16],
    counters: Box<dyn Counters>,
    options: Options,
    buffers: Buffers,
    inbox: mpsc::Receiver<Command>,
    board: Arc<Board>,
}

struct Started {
    opened: Opened,
    event: Arc<nix::sys::eventfd::EventFd>,
}

impl Begin {
    fn run(self, tell: &std::sync::mpsc::SyncSender<Result<Started, StartError>>) {
        match self.start() {
            Err(why) => _ = tell.send(Err(why)),
            Ok((started, driver)) => {
                if tell.send(Ok(started)).is_ok() {
                    driver.run();
                }
            }
        }
    }

    fn start(self) -> Result<(Started, Driver), StartError> {
        let disks = self.files.iter().map(|f| f.clone() as Arc<dyn Disk>).collect();
        let (engine, opened) = Engine::open(disks, self.store, Arc::new(self.buffers.clone()), self.counters, self.options)?;
        if let Some(why) = &opened.only_reads {
            let mut troubles = self.board.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.push(format!("the store only reads: {why}; tell the authority"));
        }
        let disks = engine.disks();
        let places: Vec<_> = disks.iter().map(|d| d.as_ref().and_then(|d| self.files.iter().find(|f| same(f, d)).cloned())).collect();
        *self.board.disks.write().unwrap_or_else(PoisonError::into_inner) = places.clone();
        let ring = Ring::new(places, &self.buffers)?;
        Ok((Started { opened, event: ring.waker() }, Driver::new(engine, ring, self.inbox, self.board)))
    }
}

fn same(file: &Arc<DiskFile>, disk: &Arc<dyn Disk>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(file), Arc::as_ptr(disk))
}
