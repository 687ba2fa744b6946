//! What was sealed and is not acknowledged yet.
//!
//! Promises: frames are given out as they were sealed, in order, until they are
//! acknowledged; a spool that was cut short or damaged gives what is whole before
//! that, checked against the stream's chain. It holds a bounded number of bytes:
//! whoever seals waits. It isn't synced: a power cut at home may lose its end, and
//! the agent then begins a new epoch where the embassy's acknowledgement ends.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use anyhow::{Context, Result, anyhow, bail};
use hoidla_format::{Hash32, Kind, Malformed, Reader, Writer, frame, frame::Chain};
use tokio::sync::Notify;

const VERSION: u8 = 1;
/// Bytes of one of the spool's files, after which the next begins.
const FILE: u64 = 64 << 20;
/// Bytes of frames kept in memory besides.
const MEMORY: usize = 32 << 20;
/// Before each frame: header, epoch, offset, length, run, number, flags, chain's root after it.
const HEAD: usize = 8 + 4 + 8 + 4 + 4 + 4 + 1 + 32;

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
        let mut bytes = vec![0; self.about.len as usize];
        self.file.file.read_exact_at(&mut bytes, self.at).context("cannot read the spool")?;
        Ok(Arc::new(bytes))
    }

    /// It is needed no more.
    pub fn release(self) {
        release(self.file);
    }
}

/// One of the spool's files.
struct Part {
    path: PathBuf,
    file: File,
}

/// Gives up a hold on a file; with the last one, the file is removed.
fn release(part: Arc<Part>) {
    if let Some(part) = Arc::into_inner(part) {
        _ = fs::remove_file(part.path);
    }
}

struct Inner {
    frames: VecDeque<Kept>,
    acknowledged: Chain,
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
            frames: VecDeque::new(),
            acknowledged,
            writing: None,
            bytes: 0,
            in_memory: 0,
            parts: 0,
            ended: false,
            failed: None,
            seen: vec![],
            retired: vec![],
        };
        let mut files: Vec<_> = fs::read_dir(dir)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.sort();
        let mut chain = acknowledged;
        for path in files {
            let part = Arc::new(Part { file: File::options().read(true).open(&path)?, path });
            // What doesn't go on from the chain is dropped, and its file with it.
            load(&part, &mut chain, &mut inner);
            let number = part.path.file_stem().and_then(|s| s.to_str()).and_then(|s| u64::from_str_radix(s, 16).ok());
            inner.parts = inner.parts.max(number.map_or(0, |n| n + 1));
            release(part);
        }
        Ok(Self { dir: dir.to_owned(), limit: limit.max(4 << 20), inner: Mutex::new(inner), room: Condvar::new(), news: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The chain at the end of what was sealed.
    pub fn end(&self) -> Chain {
        let inner = self.lock();
        inner.frames.back().map_or(inner.acknowledged, |k| k.about.after)
    }

    /// What is acknowledged.
    pub fn acknowledged(&self) -> Chain {
        self.lock().acknowledged
    }

    /// Frames and bytes that are not.
    pub fn pending(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.frames.len(), inner.bytes)
    }

    /// The last frame's epoch, if there is a frame.
    pub fn last_epoch(&self) -> Option<u32> {
        self.lock().frames.back().map(|k| k.about.epoch)
    }

    /// The messages that it holds: run, and one more than the last number.
    pub fn messages(&self) -> Option<(u32, u32)> {
        self.lock().frames.iter().rev().find_map(|k| match k.about.what {
            What::Message { run, number } => Some((run, number + 1)),
            _ => None,
        })
    }

    /// Waits until there is room; an error if whoever sends has given up.
    pub fn wait_for_room(&self) -> Result<(), String> {
        let mut inner = self.lock();
        while inner.failed.is_none() && inner.bytes >= self.limit {
            inner = self.room.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
        inner.failed.clone().map_or(Ok(()), Err)
    }

    /// Adds a frame at the end.
    pub fn add(&self, about: About, bytes: Vec<u8>) -> Result<()> {
        let (part, at) = self.part()?;
        let write = (&part.file).write_all(&head(&about)).and_then(|()| (&part.file).write_all(&bytes));
        write.with_context(|| format!("cannot write the spool in {}", self.dir.display()))?;
        let mut inner = self.lock();
        let next = at + (HEAD + bytes.len()) as u64;
        if next < FILE {
            inner.writing = Some((part.clone(), next));
        }
        inner.bytes += u64::from(about.len);
        let keep = inner.in_memory + bytes.len() <= MEMORY;
        if keep {
            inner.in_memory += bytes.len();
        }
        inner.frames.push_back(Kept { about, memory: keep.then(|| Arc::new(bytes)), file: part, at: at + HEAD as u64 });
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
        drop(inner);
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        Ok((Arc::new(Part { path, file }), 0))
    }

    /// The frame that begins at `offset`.
    pub fn next(&self, offset: u64) -> Result<Next> {
        let inner = self.lock();
        let i = inner.frames.partition_point(|k| k.about.offset < offset);
        let Some(kept) = inner.frames.get(i) else { return Ok(if inner.ended { Next::End } else { Next::Wait }) };
        if kept.about.offset != offset {
            bail!("the spool has no frame at {offset}");
        }
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
        while inner.frames.front().is_some_and(|k| k.about.after.length <= offset) {
            let kept = inner.frames.pop_front().expect("just seen");
            inner.bytes -= u64::from(kept.about.len);
            inner.in_memory -= kept.memory.as_ref().map_or(0, |m| m.len());
            inner.acknowledged = kept.about.after;
            inner.seen.push(kept.about);
            if inner.frames.front().is_none_or(|next| !Arc::ptr_eq(&next.file, &kept.file)) {
                inner.retired.push(kept.file);
            }
        }
        if inner.acknowledged.length != offset {
            bail!("the embassy acknowledged half a frame, which it can't: stop, and tell the authority");
        }
        drop(inner);
        self.room.notify_all();
        Ok(())
    }

    /// Takes note of where the embassy says the stream stands.
    pub fn reconcile(&self, stands: Chain) -> Result<Stands> {
        let inner = self.lock();
        if stands == inner.acknowledged {
            return Ok(Stands::GoOn);
        }
        if let Some(i) = inner.frames.iter().position(|k| k.about.after.length == stands.length) {
            if inner.frames[i].about.after != stands {
                return Err(anyhow!(Malformed::Field("the embassy holds other bytes than this agent sent: stop, and tell the authority")));
            }
            drop(inner);
            self.acknowledge(stands.length)?;
            return Ok(Stands::GoOn);
        }
        let end = inner.frames.back().map_or(inner.acknowledged, |k| k.about.after);
        if stands.length > end.length {
            return Ok(Stands::Lost);
        }
        bail!(
            "the embassy stands at {} bytes of the stream, where no frame of this agent ends: stop, and tell the authority",
            stands.length
        )
    }

    /// What was acknowledged since this was asked last.
    pub fn take_seen(&self) -> Vec<About> {
        std::mem::take(&mut self.lock().seen)
    }

    /// What is acknowledged was written down: its files can go.
    pub fn forget(&self) {
        let retired = std::mem::take(&mut self.lock().retired);
        retired.into_iter().for_each(release);
    }

    /// Empties the spool; the stream stands at `stands`. Gives what it held.
    pub fn reset(&self, stands: Chain) -> VecDeque<Kept> {
        let mut inner = self.lock();
        (inner.bytes, inner.in_memory, inner.acknowledged) = (0, 0, stands);
        let writing = inner.writing.take();
        let frames = std::mem::take(&mut inner.frames);
        drop(inner);
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

fn head(about: &About) -> Vec<u8> {
    let mut w = Writer::with_header(Kind::Spool, VERSION);
    let (run, number, flags) = match about.what {
        What::Header => (0, 0, 0),
        What::Message { run, number } => (run, number, 1),
        What::Root { complete: false } => (0, 0, 2),
        What::Root { complete: true } => (0, 0, 3),
    };
    w.u32(about.epoch).u64(about.offset).u32(about.len).u32(run).u32(number).u8(flags).put(&about.after.root.0);
    w.finish()
}

fn parse_head(bytes: &[u8]) -> Result<About, Malformed> {
    let mut r = Reader::new(bytes);
    r.header(Kind::Spool, VERSION)?;
    let (epoch, offset, len, run, number) = (r.u32()?, r.u64()?, r.u32()?, r.u32()?, r.u32()?);
    let what = match r.u8()? {
        0 => What::Header,
        1 => What::Message { run, number },
        2 => What::Root { complete: false },
        3 => What::Root { complete: true },
        _ => return Err(Malformed::Field("an unknown frame in the spool")),
    };
    if len as usize > frame::MOST || offset > 1 << 62 {
        return Err(Malformed::Field("a frame out of bounds in the spool"));
    }
    let after = Chain { root: Hash32(r.array()?), length: offset + u64::from(len) };
    r.finish()?;
    Ok(About { epoch, offset, len, after, what })
}

/// Takes the frames of one file that go on from `chain`; stops at the first that doesn't.
fn load(part: &Arc<Part>, chain: &mut Chain, inner: &mut Inner) {
    let mut file = BufReader::with_capacity(1 << 20, &part.file);
    let (mut head, mut at) = ([0; HEAD], 0);
    while file.read_exact(&mut head).is_ok() {
        let Ok(about) = parse_head(&head) else { return };
        let mut bytes = vec![0; about.len as usize];
        if file.read_exact(&mut bytes).is_err() {
            return;
        }
        at += HEAD as u64;
        if about.after.length > chain.length {
            let hash = Hash32(blake3::hash(&bytes).into());
            if about.offset != chain.length || chain.then(&hash, about.len) != about.after {
                return;
            }
            *chain = about.after;
            inner.bytes += u64::from(about.len);
            inner.frames.push_back(Kept { about, memory: None, file: part.clone(), at });
        }
        at += u64::from(about.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(spool: &Spool, frames: usize) -> Vec<Vec<u8>> {
        let mut all = vec![];
        for n in 0..frames {
            let (bytes, chain) = (vec![n as u8; 1000 + n], spool.end());
            let after = chain.then(&Hash32(blake3::hash(&bytes).into()), bytes.len() as u32);
            let what = What::Message { run: 1, number: n as u32 };
            spool.add(About { epoch: 1, offset: chain.length, len: bytes.len() as u32, after, what }, bytes.clone()).unwrap();
            all.push(bytes);
        }
        all
    }

    fn read(spool: &Spool) -> Vec<Vec<u8>> {
        let (mut at, mut all) = (spool.acknowledged().length, vec![]);
        while let Next::Frame(about, bytes) = spool.next(at).unwrap() {
            at = about.after.length;
            all.push(bytes.to_vec());
        }
        all
    }

    #[test]
    fn frames_survive_the_process_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
        let all = fill(&spool, 10);
        let (end, second) = (spool.end(), 1000 + 1001);
        spool.acknowledge(second).unwrap();
        let acknowledged = spool.acknowledged();
        drop(spool);
        let spool = Spool::open(dir.path(), acknowledged, 1 << 30).unwrap();
        assert_eq!(read(&spool), all[2..]);
        assert_eq!((spool.end(), spool.messages()), (end, Some((1, 10))));
        assert_eq!(spool.reconcile(end).unwrap(), Stands::GoOn);
        assert_eq!(spool.pending(), (0, 0));
    }

    #[test]
    fn a_torn_or_damaged_end_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
        let all = fill(&spool, 5);
        let path = dir.path().join("0000000000000000.part");
        let bytes = fs::read(&path).unwrap();
        drop(spool);
        for (change, left) in [(bytes.len() - 1, 4), (HEAD + 5, 0), (bytes.len() - 1100, 3)] {
            let mut bad = bytes.clone();
            bad[change] ^= 1;
            fs::write(&path, &bad).unwrap();
            let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
            assert_eq!(read(&spool), all[..left]);
        }
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(read(&Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap()), all[..4]);
    }

    #[test]
    fn another_word_of_the_embassy_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
        fill(&spool, 3);
        let end = spool.end();
        assert!(spool.reconcile(Chain { root: Hash32([9; 32]), ..end }).is_err(), "a fork");
        assert!(spool.reconcile(Chain { length: 17, ..end }).is_err(), "half a frame");
        assert_eq!(spool.reconcile(Chain { length: end.length + 1, ..end }).unwrap(), Stands::Lost);
        assert!(spool.acknowledge(17).is_err());
    }

    #[test]
    fn memory_and_disk_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), Chain::EMPTY, 4 << 20).unwrap();
        let mut chain = Chain::EMPTY;
        for n in 0..50 {
            let bytes = vec![n; 1 << 20];
            let after = chain.then(&Hash32(blake3::hash(&bytes).into()), 1 << 20);
            spool.add(About { epoch: 1, offset: chain.length, len: 1 << 20, after, what: What::Header }, bytes).unwrap();
            chain = after;
        }
        assert!(spool.lock().in_memory <= MEMORY);
        assert_eq!(read(&spool).len(), 50, "the rest comes from disk");
        spool.fail("the line is gone");
        assert_eq!(spool.wait_for_room(), Err("the line is gone".into()));
        spool.acknowledge(50 << 20).unwrap();
        spool.forget();
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 1, "acknowledged files are removed, but the one being written");
    }
}
