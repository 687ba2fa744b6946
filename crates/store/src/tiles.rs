//! The log's tiles: the hashes that proofs are made from, kept in segments like everything else.
//!
//! Level 0 is a stream of all leaf hashes, level k + 1 one of the roots of complete subtrees of
//! 256 of level k, in a dataset of the log's own. A commit's hashes wait here, in memory and in
//! checkpoints, until a tile is complete; then a later commit writes it.
//!
//! Promises: a hash leaves memory when every current copy has flushed it; at most a tile a level
//! waits, besides what is under way; no slot is given free before the hashes of its leaves are
//! written, so that a rebuilt catalogue can find them all. The log doesn't log itself: runs of
//! its own dataset have no leaf.

use std::{collections::BTreeMap, sync::Arc};

use hoidla_format::{Hash32, LOG_DATASET, StreamId, disk::batch::Entry};
use hoidla_log::Frontier;

use crate::{
    catalogue::Catalogue,
    device::{Buffer, Pool},
    draft::{Add, Payload, Waiter},
    engine::Engine,
    proofs::Wanted,
    read::Reader,
    source::Source,
    types::{Generation, Refused},
};

/// A tile has 2^8 hashes (C2SP tlog-tiles).
pub(crate) const HEIGHT: u32 = 8;
/// Hashes of a level that one commit writes at most: 16 KiB, so always a small record.
const MOST: usize = 512;
/// Leaves whose hashes are looked for in segments when the catalogue is lost, at most.
const MOST_LOST: u64 = 1 << 16;
const HASH: u64 = 32;

impl Generation {
    /// Whether it is the log's own, which no site may name and nobody outside may write.
    pub fn is_log(&self) -> bool {
        self.dataset.as_str() == LOG_DATASET
    }
}

fn log_generation() -> Generation {
    Generation { dataset: LOG_DATASET.parse().expect("it is a name"), number: 0 }
}

const PREFIX: &[u8; 15] = b"hoidla log tile";

/// The stream of a level.
pub(crate) fn stream_of(level: u32) -> StreamId {
    let mut id = [0; 16];
    id[..15].copy_from_slice(PREFIX);
    id[15] = level as u8;
    StreamId(id)
}

fn level_of(id: StreamId) -> Option<u32> {
    id.0.starts_with(PREFIX).then(|| u32::from(id.0[15])).filter(|l| *l < 64)
}

/// Whether a stream or a generation is none of an agent's.
pub(crate) fn is_internal(generation: &Generation, stream: StreamId) -> bool {
    generation.is_log() || id_is_internal(stream)
}

fn id_is_internal(id: StreamId) -> bool {
    id.0.starts_with(PREFIX)
}

/// The hashes of one level that aren't written yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// How many are.
    pub stored: u64,
    pub hashes: Vec<Hash32>,
}

impl Level {
    fn end(&self) -> u64 {
        self.stored + self.hashes.len() as u64
    }
}

/// What waits to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tiles {
    pub height: u32,
    pub levels: Vec<Level>,
}

impl Default for Tiles {
    fn default() -> Self {
        Self::new(HEIGHT)
    }
}

impl Tiles {
    pub fn new(height: u32) -> Self {
        Self { height, levels: Vec::new() }
    }

    fn level(&mut self, level: u32) -> &mut Level {
        let wanted = level as usize + 1;
        if self.levels.len() < wanted {
            self.levels.resize_with(wanted, Level::default);
        }
        &mut self.levels[level as usize]
    }

    /// Leaves whose hashes are here or written.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, Level::end)
    }

    /// Takes a leaf; the frontier too.
    pub fn push(&mut self, frontier: &mut Frontier, leaf: Hash32) {
        if self.size() != frontier.size() {
            frontier.push(leaf); // a leaf before it was lost: `restore` sees to it
            return;
        }
        let height = self.height;
        frontier.push_with(leaf, |at, hash| {
            if at % height == 0 {
                self.level(at / height).hashes.push(*hash);
            }
        });
    }

    /// All of a level before `end` is written.
    pub fn stored(&mut self, stream: StreamId, bytes: u64) {
        let Some(level) = level_of(stream) else { return };
        let (level, end) = (self.level(level), bytes / HASH);
        if end > level.stored {
            let written = (end - level.stored).min(level.hashes.len() as u64) as usize;
            level.hashes.drain(..written);
            level.stored = end;
        }
    }

    /// Takes what a checkpoint says is not written yet; none if there is no such level.
    pub fn resume(&mut self, level: u32, waiting: &[Hash32]) -> Option<()> {
        (level < 64).then(|| self.level(level).hashes.extend(waiting))
    }

    /// How many hashes of each level to write now: up to a whole tile of level 0, or all.
    fn due(&self, all: bool) -> Vec<usize> {
        let Some(leaves) = self.levels.first() else { return Vec::new() };
        let end = leaves.end().min(leaves.stored + MOST as u64);
        let end = if all { end } else { end >> self.height << self.height };
        if end <= leaves.stored {
            return Vec::new();
        }
        let count = |(k, l): (u32, &Level)| (end.checked_shr(k * self.height).unwrap_or(0)).saturating_sub(l.stored) as usize;
        (0..).zip(&self.levels).map(count).collect()
    }

    /// Bytes that they take in a checkpoint, at most, while none is under way.
    pub fn weight(&self) -> usize {
        self.levels.iter().map(|l| l.hashes.len() * 32 + 4).sum::<usize>() + (32 << self.height)
    }
}

impl<P: Pool> Engine<P> {
    /// Puts the hashes that are due into the commit to be: whole tiles, or all. Busy while others
    /// are under way, or if these weren't all that had to go.
    pub(crate) fn write_tiles(&mut self, all: bool) -> Result<(), Refused> {
        let due = self.catalogue.tiles.due(all);
        if due.is_empty() {
            return Ok(());
        }
        if self.ahead.contains_key(&stream_of(0)) {
            return Err(Refused::Busy);
        }
        let total: usize = due.iter().map(|n| n * 32).sum();
        let mut buffer = self.pool.take(total).ok_or(Refused::Busy)?;
        let hashes = self.catalogue.tiles.levels.iter().zip(&due).flat_map(|(l, n)| &l.hashes[..*n]);
        for (place, hash) in buffer.as_mut().chunks_exact_mut(32).zip(hashes) {
            place.copy_from_slice(&hash.0);
        }
        let blocks = buffer.freeze(total);
        let generation = self.catalogue.generation(&log_generation());
        let add = due.iter().filter(|n| **n > 0).fold(Add::default(), |a, n| a.and(Add::record(*n as u32 * 32)));
        let draft = self.draft_for(generation, false, add, true)?;
        let mut at = 0;
        for (level, len) in (0..).zip(due.iter().map(|n| n * 32)).filter(|(_, len)| *len > 0) {
            let stream = stream_of(level);
            let entry = Entry { len: len as u32, hash: Hash32(blake3::hash(&blocks.as_ref()[at..at + len]).into()) };
            self.add_record(generation, draft, stream, 1, entry, Payload { blocks: blocks.clone(), at, len });
            self.building.waiters.push(Waiter::Note { ticket: None, stream: Some(stream) });
            at += len;
        }
        let left = all && self.catalogue.tiles.levels.first().is_some_and(|l| l.hashes.len() > due[0]);
        if left { Err(Refused::Busy) } else { Ok(()) }
    }
}

/// Makes the tiles' state anew after the catalogue was lost, or leaves were: from the levels'
/// streams, and from `leaves` that were found in segments. Says what is wrong.
pub(crate) fn restore<P: Pool>(
    catalogue: &mut Catalogue,
    reader: &mut Reader<P>,
    source: &Source,
    leaves: &BTreeMap<u64, Hash32>,
) -> Option<String> {
    let height = catalogue.tiles.height;
    let mut tiles = Tiles::new(height);
    let stored = catalogue.streams.iter().filter_map(|(id, s)| Some((level_of(*id)?, s.chain.length / HASH)));
    stored.for_each(|(level, count)| tiles.level(level).stored = count);
    let (from, to) = (tiles.size(), catalogue.frontier.size());
    let found = frontier_at(catalogue, reader, source, &tiles, from);
    let lost = (from..to).take(MOST_LOST as usize).filter(|i| !leaves.contains_key(i)).count();
    catalogue.tiles = tiles;
    let Some(mut frontier) = found.filter(|_| from <= to && to - from <= MOST_LOST) else {
        return Some("the log's tiles cannot be read: no more proofs can be made".into());
    };
    for i in from..to {
        let leaf = leaves.get(&i).copied().unwrap_or(Hash32([0; 32]));
        catalogue.tiles.push(&mut frontier, leaf);
    }
    let whole = lost == 0 && frontier.root() == catalogue.frontier.root();
    (!whole).then(|| format!("the log lost {lost} of its hashes: proofs over them cannot be made"))
}

fn frontier_at<P: Pool>(catalogue: &Catalogue, reader: &mut Reader<P>, source: &Source, tiles: &Tiles, size: u64) -> Option<Frontier> {
    let wanted = Wanted::new(tiles.height);
    let _ = Frontier::of(&wanted, size);
    let pieces = wanted.pieces(catalogue, tiles, source, &mut |_| Arc::new(()))?;
    let nodes = reader.load(&pieces).ok()?;
    Frontier::of(&nodes, size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_log::raw_leaf_hash;

    fn grown(height: u32, size: u64) -> (Tiles, Frontier) {
        let (mut tiles, mut frontier) = (Tiles::new(height), Frontier::new());
        (0..size).for_each(|i| tiles.push(&mut frontier, raw_leaf_hash(&i.to_le_bytes())));
        (tiles, frontier)
    }

    #[test]
    fn each_level_has_the_roots_of_whole_tiles_below() {
        let (tiles, frontier) = grown(2, 70);
        let counts: Vec<_> = tiles.levels.iter().map(|l| l.hashes.len()).collect();
        assert_eq!((counts, tiles.size()), (vec![70, 17, 4, 1], frontier.size()));
        let mut first = Frontier::new();
        tiles.levels[0].hashes[..4].iter().for_each(|h| _ = first.push(*h));
        assert_eq!(tiles.levels[1].hashes[0], first.root());
    }

    #[test]
    fn whole_tiles_are_due_and_all_before_a_slot_is_freed() {
        let (mut tiles, mut frontier) = grown(8, 255);
        assert_eq!((tiles.due(false), tiles.due(true)), (vec![], vec![255]));
        tiles.push(&mut frontier, Hash32([1; 32]));
        assert_eq!(tiles.due(false), [256, 1]);
        tiles.stored(stream_of(0), 256 * 32);
        tiles.stored(stream_of(1), 32);
        assert_eq!((tiles.due(true), tiles.size()), (vec![], 256));
        let (tiles, _) = grown(8, 1300);
        assert_eq!(tiles.due(false), [512, 2], "no more than one small record");
    }

    #[test]
    fn levels_have_streams_of_their_own() {
        assert_eq!(level_of(stream_of(3)), Some(3));
        assert_eq!(level_of(StreamId([1; 16])), None);
        assert!(is_internal(&log_generation(), StreamId([1; 16])));
    }
}
