//! Disks that come and go while the store runs, and the copying that rebuilds them.
//!
//! Promises: copying takes turns with what agents send: while they do, at most a quarter
//! of its time; several segments are under way at once. A disk that fails meanwhile is
//! left alone, and the store goes on. What a disk may join, its owner decides: here only
//! its size and place are checked.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hoidla_store::{Checked, DiskNo, JoinError, JoinId, ReadError, Rebuilding, SegmentRef, ToCopy};
use thiserror::Error;
use tokio::task::JoinSet;

use crate::{
    DiskError, DiskFile, Store, StoreError,
    driver::Command,
    store::{StartError, gone},
};

/// Segments copied at the same time.
const COPIERS: usize = 4;
/// How long to wait for commits under way, or for memory.
const SOON: Duration = Duration::from_millis(5);
/// A longer pause serves nobody.
const MOST_PAUSE: Duration = Duration::from_millis(250);

/// A disk by its place, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Its place in the store.
    pub place: DiskNo,
    /// Where it is, if it is there.
    pub path: Option<PathBuf>,
    /// How it is.
    pub state: State,
    /// Nothing else holds what it holds, at the moment.
    pub needed: bool,
}

/// How a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds all that it should.
    Current,
    /// It is being rebuilt: bytes copied, and all (0 while that isn't known).
    Rebuilding(u64, u64),
    /// It failed, or was given up, and why.
    Failed(String),
    /// It is not there.
    Missing,
}

/// Why a disk didn't join.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It couldn't be opened.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The engine doesn't take it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It couldn't be marked.
    #[error(transparent)]
    Mark(#[from] hoidla_store::OpenError),
    /// The store is gone.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AttachError> for StartError {
    fn from(e: AttachError) -> Self {
        Self::System(std::io::Error::other(e.to_string()))
    }
}

impl Store {
    /// Takes the disk at `path` into a place: it is written from now on, and rebuilt by
    /// [`rebuild`](Self::rebuild). What was on it is lost.
    pub async fn join(&self, place: DiskNo, path: &Path) -> Result<JoinId, AttachError> {
        let path = path.to_owned();
        let file = tokio::task::spawn_blocking(move || DiskFile::open(&path)).await.map_err(|_| gone())??;
        self.join_open(place, Arc::new(file)).await
    }

    async fn join_open(&self, place: DiskNo, file: Arc<DiskFile>) -> Result<JoinId, AttachError> {
        let mark = self.ask(move |e| e.mark(place)).await??;
        let (disk, memory) = (file.clone(), self.memory().clone());
        tokio::task::spawn_blocking(move || mark.write(&*disk, &memory)).await.map_err(|_| gone())??;
        let (tell, answer) = tokio::sync::oneshot::channel();
        self.send(Command::Join(place, file, tell)).await?;
        Ok(answer.await.map_err(|_| gone())??)
    }

    /// Leaves a disk alone from now on, so that it can be taken out. Refused if nothing else
    /// holds what it holds.
    pub async fn leave(&self, place: DiskNo, why: String) -> Result<(), AttachError> {
        Ok(self.ask(move |e| e.leave(place, why)).await??)
    }

    /// How each disk is.
    pub async fn disks(&self) -> Result<Vec<DiskState>, StoreError> {
        let (current, rebuilding, needed) = self
            .ask(|e| {
                let needed: Vec<bool> = (0..e.disks().len() as u8).map(|p| e.needs(p)).collect();
                (e.current(), e.rebuilding(), needed)
            })
            .await?;
        let files = self.board().disks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let failed = self.board().failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = |place: DiskNo| match rebuilding.iter().find(|r| r.place == place) {
            _ if current.contains(&place) => State::Current,
            Some(r) => State::Rebuilding(r.bytes.0, r.bytes.1),
            None => failed.get(&place).map_or(State::Missing, |why| State::Failed(why.clone())),
        };
        let path = |d: &Option<Arc<DiskFile>>| d.as_ref().map(|d| d.path().to_owned());
        let one = |(place, file)| DiskState { place, path: path(file), state: state(place), needed: needed[usize::from(place)] };
        Ok((0..).zip(&files).map(one).collect())
    }

    /// The disks that went from their paths: pulled, or something else is there now.
    pub fn pulled(&self) -> Vec<(DiskNo, PathBuf)> {
        let files = self.board().disks.read().unwrap_or_else(PoisonError::into_inner);
        let gone = (0..).zip(&*files).filter_map(|(place, d)| Some((place, d.as_ref()?))).filter(|(_, d)| !d.is_at_its_path());
        gone.map(|(place, d)| (place, d.path().to_owned())).collect()
    }

    /// Copies to disks that are being rebuilt until there is nothing to copy; what was lost on
    /// every copy is given back in words. Call it again and again.
    pub async fn rebuild(&self) -> Result<Vec<String>, StoreError> {
        let mut damage = Vec::new();
        for one in self.ask(|e| e.rebuilding()).await? {
            let found = Arc::new(Mutex::new(Vec::new()));
            let mut copiers = JoinSet::new(); // dropped, it ends them
            (0..COPIERS).for_each(|_| _ = copiers.spawn(self.clone().copy_some(one, found.clone())));
            let mut whole = true;
            while let Some(copier) = copiers.join_next().await {
                whole &= copier.map_err(|_| gone())??;
            }
            damage.append(&mut found.lock().unwrap_or_else(PoisonError::into_inner));
            if whole {
                self.finish(one).await?;
            }
        }
        Ok(damage)
    }

    /// Copies segment after segment; false if the disk was given up, or a segment could not be
    /// copied this time.
    async fn copy_some(self, one: Rebuilding, damage: Arc<Mutex<Vec<String>>>) -> Result<bool, StoreError> {
        loop {
            let segment = match self.ask(move |e| e.to_copy(one.id)).await? {
                Err(_) => return Ok(false),
                Ok(ToCopy::Nothing) => return Ok(true),
                Ok(ToCopy::Wait) => {
                    tokio::time::sleep(SOON).await;
                    continue;
                }
                Ok(ToCopy::Segment(segment)) => segment,
            };
            match self.copy_one(one.place, segment.clone()).await? {
                Ok(checked) => {
                    let still_needed = self.give_up(one.place, checked.unrepaired).await?;
                    damage.lock().unwrap_or_else(PoisonError::into_inner).extend(checked.damage.into_iter().chain(still_needed));
                }
                Err(why) => {
                    let disk = if let ReadError::Repair { disk, .. } = &why { *disk } else { one.place };
                    let why = why.to_string();
                    _ = self.ask(move |e| e.leave(disk, why)).await?;
                    // Wherever the trouble was, what stopped half-way is no copy.
                    _ = self.ask(move |e| e.not_copied(one.id, &segment)).await?;
                    return Ok(false);
                }
            }
            _ = self.ask(move |e| e.copied(one.id, &segment)).await?;
        }
    }

    /// Leaves disks alone that take no repair; those that are still needed are said in words.
    async fn give_up(&self, rebuilt: DiskNo, unrepaired: Vec<(DiskNo, String)>) -> Result<Vec<String>, StoreError> {
        let mut needed = Vec::new();
        for (disk, why) in unrepaired {
            let said = why.clone();
            if let Err(JoinError::Needed(_)) = self.ask(move |e| e.leave(disk, said)).await? {
                needed.push(format!(
                    "{why}: it could not be written anew, and nothing else holds all that disk {disk} holds: replace it when disk {rebuilt} is rebuilt"
                ));
            }
        }
        Ok(needed)
    }

    /// Copies a segment on a blocking thread; again while there is no memory for it.
    async fn copy_one(&self, place: DiskNo, segment: SegmentRef) -> Result<Result<Checked, ReadError>, StoreError> {
        let (store, wanted) = (self.clone(), Wanted::default());
        let over = wanted.0.clone();
        let copy = move || {
            let mut reader = store.new_reader();
            loop {
                let mut pace = Pace::new(&store);
                match reader.copy(&segment, place, |_| pace.wait() && !over.load(Ordering::Relaxed)) {
                    Err(ReadError::Busy) if !over.load(Ordering::Relaxed) => std::thread::sleep(SOON),
                    other => return other,
                }
            }
        };
        tokio::task::spawn_blocking(copy).await.map_err(|_| gone())
    }

    async fn finish(&self, one: Rebuilding) -> Result<(), StoreError> {
        let file = self.board().disks.read().unwrap_or_else(PoisonError::into_inner)[usize::from(one.place)].clone();
        let Some(file) = file else { return Ok(()) };
        let flushed = tokio::task::spawn_blocking(move || hoidla_store::Disk::flush(&*file)).await.map_err(|_| gone())?;
        let done = self.ask(move |e| match flushed {
            Ok(()) => e.rebuilt(one.id),
            Err(why) => e.leave(one.place, format!("the flush after rebuilding failed: {why}")),
        });
        _ = done.await?; // over already, if it failed meanwhile
        Ok(())
    }
}

/// Tells a blocking thread, when it is dropped, that nobody waits for it any more.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes copying wait while agents send.
struct Pace<'a> {
    store: &'a Store,
    /// What the engine had written when the last stretch began, and when that was.
    before: (u64, Instant),
}

impl<'a> Pace<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, before: (written(store), Instant::now()) }
    }

    fn wait(&mut self) -> bool {
        let now = written(self.store);
        if now != self.before.0 {
            std::thread::sleep((self.before.1.elapsed() * 3).min(MOST_PAUSE));
        }
        self.before = (written(self.store), Instant::now());
        true
    }
}

fn written(store: &Store) -> u64 {
    store.board().bytes.load(Ordering::Relaxed)
}
