//! What was sealed and is not acknowledged yet.
//!
//! Promises: frames are given out as they were sealed, in order, until they are
//! acknowledged; a spool that was cut short or damaged gives what is whole before
//! that, checked against the stream's chain. It holds a bounded number of bytes:
//! whoever seals waits. It isn't synced: a power cut at home may lose its end, and
//! the agent then begins a new epoch where the embassy's acknowledgement ends.

mod part;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use anyhow::{Context, Result};
use hoidla_format::frame::Chain;
use hoidla_protocol::{Faulty, Framed, Outbox};
use tokio::sync::Notify;

use part::{Part, release};

/// Bytes of frames kept in memory besides.
const MEMORY: usize = 32 << 20;
/// How far sealing runs ahead of a line that is up, in bytes: what was sealed last is sent
/// while the processor's cache still has it.
const AHEAD: u64 = 6 << 20;
/// Files, and frames' buffers, kept for their next use.
const SPARES: (usize, usize) = (4, 32);

/// What a frame is to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its epoch.
    pub epoch: u32,
    /// Its offset in the stream.
    pub offset: u64,
    /// Its bytes.
    pub len: u32,
    /// The chain after it.
    pub after: Chain,
    /// What is in it.
    pub what: What,
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An epoch's header.
    Header,
    /// A message of a run.
    Message {
        /// The run.
        run: u32,
        /// The message in it.
        number: u32,
    },
    /// A signed root.
    Root {
        /// Whether a whole snapshot ends here.
        complete: bool,
    },
}

/// A frame that is kept.
pub struct Kept {
    /// What it is.
    pub about: About,
    memory: Option<Arc<Vec<u8>>>,
    file: Arc<Part>,
    at: u64,
}

impl Kept {
    /// Its bytes, from memory or disk.
    pub fn bytes(&self) -> Result<Arc<Vec<u8>>> {
        if let Some(bytes) = &self.memory {
            return Ok(bytes.clone());
        }
        Ok(Arc::new(self.file.read(self.at, self.about.len as usize).context("cannot read the spool")?))
    }

    /// It is needed no more.
    pub fn release(self) {
        release(self.file);
    }
}

impl Framed for Kept {
    fn offset(&self) -> u64 {
        self.about.offset
    }

    fn after(&self) -> Chain {
        self.about.after
    }
}

struct Inner {
    frames: Outbox<Kept>,
    writing: Option<(Arc<Part>, u64)>,
    bytes: u64,
    in_memory: usize,
    parts: u64,
    ended: bool,
    failed: Option<String>,
    /// What the last acknowledgements covered, for the state.
    seen: Vec<About>,
    /// Files that go when the state is written down.
    retired: Vec<Arc<Part>>,
    /// Files to be written over, while all that was ever dropped was acknowledged.
    spares: Option<Vec<Part>>,
    /// Frames' memory to be used again.
    buffers: Vec<Vec<u8>>,
    /// Up to where a line that is up has taken frames.
    taken: Option<u64>,
    /// Somebody waits for room.
    waits: bool,
}

impl Inner {
    fn has_room(&self, limit: u64) -> bool {
        let ahead = self.taken.map_or(0, |taken| self.frames.end().length.saturating_sub(taken));
        self.bytes < limit && ahead < AHEAD
    }
}

/// What stands at an offset.
pub enum Next {
    /// A frame.
    Frame(About, Arc<Vec<u8>>),
    /// Nothing yet.
    Wait,
    /// Nothing, for good.
    End,
}

/// What the embassy's word about a stream means here.
#[derive(Debug, PartialEq, Eq)]
pub enum Stands {
    /// Go on from there.
    GoOn,
    /// The embassy holds more than this spool: its end was lost.
    Lost,
}

/// See the module.
pub struct Spool {
    dir: PathBuf,
    limit: u64,
    inner: Mutex<Inner>,
    room: Condvar,
    /// Told when there is something new to send.
    pub news: Notify,
}

impl Spool {
    /// Opens the spool of a stream that is acknowledged so far. `limit`: bytes it may hold.
    pub fn open(dir: &Path, acknowledged: Chain, limit: u64) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut inner = Inner {
            frames: Outbox::new(acknowledged, Faulty::default()),
            writing: None,
            bytes: 0,
            in_memory: 0,
            parts: 0,
            ended: false,
            failed: None,
            seen: vec![],
            retired: vec![],
            spares: Some(vec![]),
            buffers: vec![],
            taken: None,
            waits: false,
        };
        let mut files: Vec<_> = fs::read_dir(dir)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.sort();
        let mut chain = acknowledged;
        for path in files {
            let part = Arc::new(Part::open(path)?);
            // What doesn't go on from the chain is dropped, and its file with it.
            part.frames(&mut chain, |about, at| {
                inner.bytes += u64::from(about.len);
                inner.frames.push(Kept { about, memory: None, file: part.clone(), at });
            });
            inner.parts = inner.parts.max(part.number().map_or(0, |n| n + 1));
            release(part);
        }
        Ok(Self { dir: dir.to_owned(), limit: limit.max(4 << 20), inner: Mutex::new(inner), room: Condvar::new(), news: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The chain at the end of what was sealed.
    pub fn end(&self) -> Chain {
        self.lock().frames.end()
    }

    /// What is acknowledged.
    pub fn acknowledged(&self) -> Chain {
        self.lock().frames.acknowledged()
    }

    /// Frames and bytes that are not.
    pub fn pending(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.frames.frames().len(), inner.bytes)
    }

    /// The last frame's epoch, if there is a frame.
    pub fn last_epoch(&self) -> Option<u32> {
        self.lock().frames.frames().back().map(|k| k.about.epoch)
    }

    /// The messages that it holds: run, and one more than the last number.
    pub fn messages(&self) -> Option<(u32, u32)> {
        self.lock().frames.frames().iter().rev().find_map(|k| match k.about.what {
            What::Message { run, number } => Some((run, number + 1)),
            _ => None,
        })
    }

    /// Waits until there is room; an error if whoever sends has given up.
    pub fn wait_for_room(&self) -> Result<(), String> {
        let mut inner = self.lock();
        while inner.failed.is_none() && !inner.has_room(self.limit) {
            inner.waits = true;
            inner = self.room.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
        inner.failed.clone().map_or(Ok(()), Err)
    }

    /// Tells whoever waits that there is room, if there is.
    fn tell_of_room(&self, inner: &mut Inner) {
        if inner.waits && inner.has_room(self.limit) {
            inner.waits = false;
            self.room.notify_all();
        }
    }

    /// A buffer of `len` bytes, any bytes, for a frame.
    pub fn buffer(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.lock().buffers.pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Adds a frame at the end.
    pub fn add(&self, about: About, bytes: Vec<u8>) -> Result<()> {
        let (part, at) = self.part()?;
        let next = part.write(at, &about, &bytes).with_context(|| format!("cannot write the spool in {}", self.dir.display()))?;
        let mut inner = self.lock();
        if next < part::FULL {
            inner.writing = Some((part.clone(), next));
        }
        inner.bytes += u64::from(about.len);
        let keep = inner.in_memory + bytes.len() <= MEMORY;
        if keep {
            inner.in_memory += bytes.len();
        }
        let at = next - u64::from(about.len);
        inner.frames.push(Kept { about, memory: keep.then(|| Arc::new(bytes)), file: part, at });
        drop(inner);
        self.news.notify_one();
        Ok(())
    }

    fn part(&self) -> Result<(Arc<Part>, u64)> {
        let mut inner = self.lock();
        if let Some((part, at)) = inner.writing.take() {
            return Ok((part, at));
        }
        let path = self.dir.join(format!("{:016x}.part", inner.parts));
        inner.parts += 1;
        let spare = inner.spares.as_mut().and_then(Vec::pop);
        drop(inner);
        let part = match spare {
            Some(spare) => spare.again(path.clone()),
            None => Part::create(path.clone()),
        };
        Ok((Arc::new(part.with_context(|| format!("cannot make {}", path.display()))?), 0))
    }

    /// The frame that begins at `offset`.
    pub fn next(&self, offset: u64) -> Result<Next> {
        let mut inner = self.lock();
        inner.taken = Some(offset);
        self.tell_of_room(&mut inner);
        let Some(kept) = inner.frames.at(offset)? else { return Ok(if inner.ended { Next::End } else { Next::Wait }) };
        let held = Kept { about: kept.about, memory: kept.memory.clone(), file: kept.file.clone(), at: kept.at };
        drop(inner);
        let bytes = held.bytes();
        let about = held.about;
        held.release();
        Ok(Next::Frame(about, bytes?))
    }

    /// All before `offset` is kept in the embassy.
    pub fn acknowledge(&self, offset: u64) -> Result<()> {
        let mut inner = self.lock();
        while let Some(kept) = inner.frames.acknowledge_one(offset) {
            inner.bytes -= u64::from(kept.about.len);
            inner.in_memory -= kept.memory.as_ref().map_or(0, |m| m.len());
            inner.seen.push(kept.about);
            if inner.frames.frames().front().is_none_or(|next| !Arc::ptr_eq(&next.file, &kept.file)) {
                inner.retired.push(kept.file);
            }
            if let (Some(buffer), true) = (kept.memory.and_then(Arc::into_inner), inner.buffers.len() < SPARES.1) {
                inner.buffers.push(buffer);
            }
        }
        inner.frames.stands_at(offset)?;
        self.tell_of_room(&mut inner);
        Ok(())
    }

    /// Takes note of where the embassy says the stream stands.
    pub fn reconcile(&self, stands: Chain) -> Result<Stands> {
        let before = self.lock().frames.reconcile(stands)?;
        match before {
            Some(before) => self.acknowledge(before).map(|()| Stands::GoOn),
            None => Ok(Stands::Lost),
        }
    }

    /// What was acknowledged since this was asked last.
    pub fn take_seen(&self) -> Vec<About> {
        std::mem::take(&mut self.lock().seen)
    }

    /// Whether files wait until what is acknowledged is written down.
    pub fn has_retired(&self) -> bool {
        !self.lock().retired.is_empty()
    }

    /// What is acknowledged was written down: its files are written over, or go.
    pub fn forget(&self) {
        let mut inner = self.lock();
        for part in std::mem::take(&mut inner.retired).into_iter().filter_map(Arc::into_inner) {
            match &mut inner.spares {
                Some(spares) if spares.len() < SPARES.0 => spares.push(part),
                _ => part.remove(),
            }
        }
    }

    /// The line is down: sealing may go on as far as there is room.
    pub fn line_is_down(&self) {
        let mut inner = self.lock();
        inner.taken = None;
        self.tell_of_room(&mut inner);
    }

    /// Empties the spool; the stream stands at `stands`. Gives what it held.
    pub fn reset(&self, stands: Chain) -> VecDeque<Kept> {
        let mut inner = self.lock();
        (inner.bytes, inner.in_memory) = (0, 0);
        let writing = inner.writing.take();
        let frames = inner.frames.reset(stands);
        self.tell_of_room(&mut inner);
        // What isn't acknowledged must not be found again behind other frames: no file is used again.
        let spares = inner.spares.take();
        drop(inner);
        spares.into_iter().flatten().for_each(Part::remove);
        if let Some((part, _)) = writing {
            release(part);
        }
        frames
    }

    /// No more frames will come.
    pub fn finish(&self) {
        self.lock().ended = true;
        self.news.notify_one();
    }

    /// Whoever sends has given up.
    pub fn fail(&self, why: &str) {
        self.lock().failed.get_or_insert_with(|| why.to_owned());
        self.room.notify_all();
    }
}
