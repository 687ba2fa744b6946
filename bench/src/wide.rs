//! A disk of any size, of which only little lies on a small one.
//!
//! It is made of sparse files, as many as a file system wants for that size. While it is
//! filled, what belongs to a segment is held in memory and dropped when a checkpoint says
//! that it is closed; superblocks, fences and catalogues are written. Afterwards it is read past the
//! page cache, and a read of anything that was dropped fails and is counted, so that
//! nobody can rely on it unseen.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use hoidla_format::{
    Kind,
    disk::{Geometry, batch::Head, superblock::AT},
};
use hoidla_store::{BLOCK, Disk, MOST_BUFFER};
use hoidla_uring::DiskFile;
use serde_json::{Value, json};

/// Bytes of one file: file systems with blocks of 4 KiB take up to twice as many.
const PIECE: u64 = 8 << 40;
/// Slots behind the last one that recovery may look at.
const RESERVE: u32 = 64;
/// As far behind a segment's end as a fence may allow, and a little more.
const FENCED: u64 = 66 << 20;

/// The disk.
pub struct Wide {
    path: PathBuf,
    pieces: Vec<Box<dyn Disk>>,
    size: u64,
    /// Where the first segment begins, and bytes of each.
    first: u64,
    segment: u64,
    filling: bool,
    slots: Mutex<Slots>,
    refused: AtomicU64,
    checkpoints: AtomicU64,
}

/// What is known of slots.
#[derive(Default)]
struct Slots {
    /// Those below were taken into use.
    used: u32,
    /// Of those, the ones of which everything is there, with the end of what was last
    /// written; 0 where that was by another process.
    there: BTreeMap<u32, u64>,
    /// While filling: what isn't on disk yet, by place.
    heads: BTreeMap<u64, Vec<u8>>,
    /// Slots that were closed, and how many checkpoints there were then.
    closed: VecDeque<(u32, u64)>,
}

impl Wide {
    /// Makes one of `size` bytes and opens it for filling.
    pub fn create(path: &Path, size: u64, geometry: &Geometry) -> Result<Self> {
        fs::create_dir_all(path)?;
        let cached = |i: u64| {
            let file = File::options().read(true).write(true).create_new(true).open(piece(path, i))?;
            file.set_len((size - i * PIECE).min(PIECE))?;
            Ok(Box::new(Cached(file)) as Box<dyn Disk>)
        };
        let pieces = (0..size.div_ceil(PIECE)).map(cached).collect::<Result<_>>()?;
        Self::new(path, pieces, geometry, true, Slots::default())
    }

    /// Opens one that was filled, past the page cache.
    pub fn open(path: &Path, geometry: &Geometry) -> Result<Self> {
        let count = (0..).take_while(|i| piece(path, *i).exists()).count() as u64;
        let direct = |i| Ok(Box::new(DiskFile::open(&piece(path, i))?) as Box<dyn Disk>);
        let state: Value = serde_json::from_slice(&fs::read(path.join("slots"))?)?;
        let there = state["there"].as_array().context("no slots")?.iter().filter_map(|s| Some((s.as_u64()? as u32, 0)));
        let used = state["used"].as_u64().context("no slots")? as u32;
        let slots = Slots { used, there: there.collect(), ..Slots::default() };
        Self::new(path, (0..count).map(direct).collect::<Result<_>>()?, geometry, false, slots)
    }

    fn new(path: &Path, pieces: Vec<Box<dyn Disk>>, geometry: &Geometry, filling: bool, slots: Slots) -> Result<Self> {
        let size = pieces.iter().map(|p| p.size()).sum();
        let first = geometry.segment_at(0, 0).context("the first disk holds the first slot")? * BLOCK as u64;
        let segment = u64::from(geometry.segment_blocks) * BLOCK as u64;
        let (path, slots) = (path.to_owned(), Mutex::new(slots));
        Ok(Self { path, pieces, size, first, segment, filling, slots, refused: AtomicU64::new(0), checkpoints: AtomicU64::new(0) })
    }

    /// Puts down what was held in memory, and which slots are there, for whoever opens it next.
    pub fn put_down(&self) -> Result<()> {
        let mut slots = self.slots();
        for (at, bytes) in std::mem::take(&mut slots.heads) {
            self.pass(at, bytes.len(), |p, at, range| p.write(at, &bytes[range]))?;
        }
        self.pieces.iter().try_for_each(|p| p.flush())?;
        let there: Vec<_> = slots.there.keys().collect();
        Ok(fs::write(self.path.join("slots"), json!({"used": slots.used, "there": there}).to_string())?)
    }

    /// Writes zeros where there are holes and recovery may look: behind the ends of what was
    /// written since this was opened, and into the slots that are next.
    pub fn make_solid(&self, zeros: &[u8]) -> Result<()> {
        let slots = self.slots();
        ensure!(!self.filling && zeros.len() == MOST_BUFFER, "only what was filled is made solid");
        for (slot, end) in slots.there.iter().filter(|(_, end)| **end > 0) {
            let stop = (end + FENCED).min(self.begin(slot + 1));
            for at in (*end..stop).step_by(MOST_BUFFER) {
                let len = (stop - at).min(MOST_BUFFER as u64) as usize;
                self.pass(at, len, |p, at, range| p.write(at, &zeros[range]))?;
            }
        }
        for slot in slots.used..slots.used + RESERVE {
            self.pass(self.begin(slot), 4 * BLOCK, |p, at, range| p.write(at, &zeros[range]))?;
        }
        Ok(self.pieces.iter().try_for_each(|p| p.flush())?)
    }

    /// Checkpoints written since this was opened.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// Slots taken into use so far.
    pub fn used(&self) -> u32 {
        self.slots().used
    }

    /// Reads of what was dropped.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Drops what recovery will not ask for: the checkpoint that was under way when a segment
    /// was closed doesn't know it yet, nor may the next.
    fn drop_closed(&self, checkpoints: u64) {
        let mut slots = self.slots();
        while let Some((slot, _)) = slots.closed.pop_front_if(|(_, then)| *then + 3 <= checkpoints) {
            slots.there.remove(&slot);
            let mut from = slots.heads.split_off(&self.begin(slot));
            slots.heads.append(&mut from.split_off(&self.begin(slot + 1)));
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("nobody panics while holding it")
    }

    fn begin(&self, slot: u32) -> u64 {
        self.first + u64::from(slot) * self.segment
    }

    fn slot(&self, at: u64) -> Option<u32> {
        Some((at.checked_sub(self.first)? / self.segment) as u32)
    }

    /// Does something to the file, or the two, that hold these bytes.
    fn pass(&self, at: u64, len: usize, mut f: impl FnMut(&dyn Disk, u64, std::ops::Range<usize>) -> io::Result<()>) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let here = at + done as u64;
            let n = ((PIECE - here % PIECE) as usize).min(len - done);
            let piece = self.pieces.get((here / PIECE) as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
            f(&**piece, here % PIECE, done..done + n)?;
            done += n;
        }
        Ok(())
    }
}

fn piece(path: &Path, i: u64) -> PathBuf {
    path.join(format!("piece.{i}"))
}

/// Whether this is a batch that closes its segment.
fn closes(bytes: &[u8]) -> bool {
    Head::peek(bytes).is_ok() && bytes[6] == Kind::SegmentIndex as u8
}

impl Disk for Wide {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if let Some(slot) = self.slot(at) {
            let slots = self.slots();
            if slot < slots.used && !slots.there.contains_key(&slot) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::other(format!("slot {slot} was dropped")));
            }
        }
        self.pass(at, into.len(), |p, at, range| p.read(at, &mut into[range]))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(slot) = self.slot(at) else {
            if at == AT[0] * BLOCK as u64 {
                let before = self.checkpoints.fetch_add(1, Ordering::Relaxed);
                self.drop_closed(before + 1);
            }
            return self.pass(at, bytes.len(), |p, at, range| p.write(at, &bytes[range]));
        };
        let closed = bytes.len() < MOST_BUFFER && closes(bytes);
        let mut slots = self.slots();
        slots.used = slots.used.max(slot + 1);
        let end = slots.there.entry(slot).or_default();
        *end = if closed { 0 } else { (*end).max(at + bytes.len() as u64) };
        if !self.filling {
            drop(slots);
            return self.pass(at, bytes.len(), |p, at, range| p.write(at, &bytes[range]));
        }
        slots.heads.insert(at, bytes.to_vec());
        if closed {
            slots.closed.push_back((slot, self.checkpoints()));
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.filling { Ok(()) } else { self.pieces.iter().try_for_each(|p| p.flush()) }
    }
}

/// A file through the page cache: filling is not what is measured.
struct Cached(File);

impl Disk for Cached {
    fn name(&self) -> String {
        "a file being filled".into()
    }

    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |m| m.len())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Disks as the engine takes them.
pub fn as_disks(wides: &[Arc<Wide>]) -> Vec<Arc<dyn Disk>> {
    wides.iter().map(|w| w.clone() as Arc<dyn Disk>).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_store::Layout;

    #[test]
    fn what_was_dropped_cannot_be_read() {
        let folder = std::env::temp_dir().join(format!("hoidla-wide.{}", std::process::id()));
        let geometry = Layout { segment: 1 << 20, ..Layout::default() }.geometry(1 << 26, 1).unwrap();
        let wide = Wide::create(&folder, 1 << 26, &geometry).unwrap();
        let block = vec![7; BLOCK];
        [0, 2].iter().for_each(|slot| wide.write(wide.begin(*slot), &block).unwrap());
        wide.put_down().unwrap();
        drop(wide);
        let wide = Wide::open(&folder, &geometry).unwrap();
        let pool = hoidla_uring::Buffers::new(1 << 20).unwrap();
        let mut buffer = hoidla_store::Pool::take(&pool, BLOCK).unwrap();
        assert!(wide.read(wide.begin(0), &mut buffer.as_mut()[..BLOCK]).is_ok() && buffer.as_ref() == block);
        assert!(wide.read(wide.begin(1), &mut buffer.as_mut()[..BLOCK]).is_err(), "nothing was written there");
        assert!(wide.read(wide.begin(3), &mut buffer.as_mut()[..BLOCK]).is_ok(), "it was never used");
        assert_eq!(wide.refused(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
