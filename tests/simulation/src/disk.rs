//! A disk that forgets what was not flushed, sector by sector; that rots, lies and fails when told to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use hoidla_store::{BLOCK, Disk};

use crate::dice::Dice;

/// The unit that a power cut leaves whole.
const SECTOR: usize = 512;

/// The machine's power: a number of I/Os until it goes.
#[derive(Clone, Default)]
pub struct Power(Arc<AtomicI64>);

impl Power {
    /// Power that stays.
    pub fn stays() -> Self {
        let power = Self::default();
        power.set(i64::MAX);
        power
    }

    /// So many I/Os more.
    pub fn set(&self, ios: i64) {
        self.0.store(ios, Ordering::Relaxed);
    }

    /// Whether it went.
    pub fn is_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 0
    }

    fn spend(&self) -> io::Result<()> {
        if self.0.fetch_sub(1, Ordering::Relaxed) <= 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

#[derive(Default)]
struct State {
    /// Blocks that a read sees otherwise than `durable`: written and not flushed.
    cache: HashMap<u64, [u8; BLOCK]>,
    /// What survives a power cut.
    durable: HashMap<u64, [u8; BLOCK]>,
    /// By sector: all that was written to it since the last flush.
    dirty: BTreeMap<u64, Vec<[u8; SECTOR]>>,
    /// Blocks that give an error until they are written again.
    unreadable: BTreeSet<u64>,
    fail_flush: bool,
    stray: Option<Stray>,
}

/// What a lying disk does with its next write, which it reports as done.
#[derive(Clone, Copy, Debug)]
pub enum Stray {
    /// Nothing.
    Phantom,
    /// Writes it so many blocks further on, or back.
    Misdirected(i64),
}

/// What a disk held at one moment.
#[derive(Clone)]
pub struct Image(HashMap<u64, [u8; BLOCK]>);

/// One simulated disk.
pub struct SimDisk {
    name: String,
    size: u64,
    power: Power,
    state: Mutex<State>,
}

impl SimDisk {
    /// An empty one.
    pub fn new(name: &str, size: u64, power: Power) -> Self {
        Self { name: name.into(), size, power, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Its blocks.
    pub fn blocks(&self) -> u64 {
        self.size / BLOCK as u64
    }

    /// The power comes back after a cut: each unflushed sector holds what it held, or
    /// anything that was written to it since.
    pub fn power_cycle(&self, dice: &mut Dice) {
        let mut s = self.state();
        let keep = [0, 1, 4, 7, 8][dice.below(5) as usize];
        let dirty = std::mem::take(&mut s.dirty);
        for (sector, versions) in dirty {
            if dice.below(8) >= keep {
                continue;
            }
            let version = versions[dice.below(versions.len() as u64) as usize];
            put_sector(&mut s.durable, sector, &version);
        }
        s.cache.clear();
        s.fail_flush = false;
        s.stray = None;
    }

    /// What would survive a power cut now.
    pub fn image(&self) -> Image {
        Image(self.state().durable.clone())
    }

    /// The disk is as it was then.
    pub fn restore(&self, image: Image) {
        *self.state() = State { durable: image.0, ..State::default() };
    }

    /// The next write is reported and goes astray.
    pub fn lie(&self, stray: Stray) {
        self.state().stray = Some(stray);
    }

    /// Some blocks cannot be read until they are written again.
    pub fn lose(&self, blocks: std::ops::Range<u64>) {
        self.state().unreadable.extend(blocks);
    }

    /// Bytes that are on the disk, or were and may come back: what a thief would search.
    pub fn holds(&self, marker: &[u8]) -> bool {
        let s = self.state();
        s.durable.values().chain(s.cache.values()).any(|b| b.windows(marker.len()).any(|w| w == marker))
    }

    /// The next flush fails, and what was to be flushed may be lost unseen.
    pub fn break_flush(&self) {
        self.state().fail_flush = true;
    }

    /// Some blocks become garbage for good.
    pub fn ruin(&self, blocks: std::ops::Range<u64>) {
        let mut s = self.state();
        for block in blocks {
            s.cache.remove(&block);
            s.durable.insert(block, [0xbd; BLOCK]);
        }
    }

    /// Blocks from `from` on that were ever written, in order.
    pub fn written(&self, from: u64) -> Vec<u64> {
        let mut written: Vec<u64> = self.state().durable.keys().copied().filter(|b| *b >= from).collect();
        written.sort_unstable();
        written
    }

    /// Changes one bit of a block that was written and is not dirty. None if there is none.
    pub fn rot(&self, dice: &mut Dice) -> Option<u64> {
        let mut s = self.state();
        let mut written: Vec<u64> = s.durable.keys().copied().collect();
        written.sort_unstable();
        let block = *written.get(dice.below(written.len() as u64) as usize)?;
        let sectors = (BLOCK / SECTOR) as u64;
        if s.dirty.range(block * sectors..(block + 1) * sectors).next().is_some() {
            return None;
        }
        let at = dice.below(BLOCK as u64) as usize;
        let bit = 1 << dice.below(8);
        s.durable.get_mut(&block)?[at] ^= bit;
        Some(block)
    }
}

fn put_sector(blocks: &mut HashMap<u64, [u8; BLOCK]>, sector: u64, bytes: &[u8; SECTOR]) {
    let per = (BLOCK / SECTOR) as u64;
    let at = (sector % per) as usize * SECTOR;
    blocks.entry(sector / per).or_insert([0; BLOCK])[at..at + SECTOR].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(at.is_multiple_of(BLOCK as u64) && into.len().is_multiple_of(BLOCK) && at + into.len() as u64 <= self.size);
        self.power.spend()?;
        let s = self.state();
        let first = at / BLOCK as u64;
        if s.unreadable.range(first..first + (into.len() / BLOCK) as u64).next().is_some() {
            return Err(io::Error::other("unrecovered read error"));
        }
        for (i, block) in into.chunks_exact_mut(BLOCK).enumerate() {
            let no = at / BLOCK as u64 + i as u64;
            match s.cache.get(&no).or_else(|| s.durable.get(&no)) {
                Some(b) => block.copy_from_slice(b),
                None => block.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(at.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK) && at + bytes.len() as u64 <= self.size);
        self.power.spend()?;
        let mut s = self.state();
        let at = match s.stray.take() {
            Some(Stray::Phantom) => return Ok(()),
            Some(Stray::Misdirected(blocks)) => {
                let most = self.size - bytes.len() as u64;
                at.saturating_add_signed(blocks * BLOCK as i64).min(most)
            }
            None => at,
        };
        let first = at / SECTOR as u64;
        for (sector, part) in (first..).zip(bytes.chunks_exact(SECTOR)) {
            let part: &[u8; SECTOR] = part.try_into().expect("exact");
            s.dirty.entry(sector).or_default().push(*part);
        }
        for (no, block) in (at / BLOCK as u64..).zip(bytes.chunks_exact(BLOCK)) {
            s.unreadable.remove(&no);
            s.cache.insert(no, block.try_into().expect("exact"));
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.power.spend()?;
        let mut s = self.state();
        if std::mem::take(&mut s.fail_flush) {
            // As some kernels do: the error is told once, the pages are called clean, the data is gone.
            s.dirty.clear();
            s.cache.clear();
            return Err(io::Error::other("flush failed"));
        }
        s.dirty.clear();
        let cache = std::mem::take(&mut s.cache);
        s.durable.extend(cache);
        Ok(())
    }
}
