//! What the store holds, as of one durable commit.
//!
//! Promises: [`Catalogue::apply`] is the only way it changes, at acknowledgement and
//! at recovery alike, so a checkpoint and what follows it give what was acknowledged.
//! A closed segment costs 40 bytes, and 16 for each stretch of a stream in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use hoidla_format::{
    Hash32, Leaf, Name, StreamId,
    disk::batch::{Head, IndexEntry, Run, What},
    frame::Chain,
    ids::ByteRange,
};
use hoidla_log::{Frontier, leaf_hash};

use crate::{
    expiry::{GENERATION_WEIGHT, Kept},
    read::{Place, Where},
    slots::Slots,
    source::Source,
    space::Pin,
    tiles::Tiles,
    types::{Generation, StreamState},
};

/// One batch, and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub slot: u32,
    pub block: u32,
    pub generation: Arc<Generation>,
    pub dense: bool,
    pub head: Head,
    pub hash: Hash32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Open,
    /// Its index is at this block.
    Closed(u32),
    Damaged,
}

/// A segment in use.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub incarnation: u64,
    pub generation: u32,
    pub end: u32,
    /// Payload, in KiB.
    pub payload: u32,
    /// Powered minutes when all of it was last written or read back whole.
    pub seen: u32,
    pub shape: Shape,
    pub dense: bool,
}

/// Bytes of a stream in a checkpoint, without its lists.
pub(crate) const STREAM_WEIGHT: usize = 74 + 3 * 2;

/// Where an open segment goes on.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The hash that the next batch names.
    pub hash: Hash32,
    /// The number of the next batch.
    pub number: u32,
    /// The index so far.
    pub index: Vec<IndexEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub generation: u32,
    pub chain: Chain,
    pub closed: u32,
    pub alarm: Option<u64>,
    pub epochs: Vec<(u32, u64)>,
    /// From which offset on which slot holds it; without holes unless damaged.
    pub extents: Vec<(u64, u32)>,
}

/// A clone shares what doesn't change after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    pub commit: u64,
    pub next_incarnation: u64,
    pub fresh: u32,
    pub frontier: Frontier,
    /// As many leaves' as the frontier has, unless some were lost.
    pub tiles: Tiles,
    pub generations: Vec<Arc<Generation>>,
    /// Places among them that nothing names any more.
    pub vacant: BTreeSet<u32>,
    pub segments: Slots,
    pub tails: HashMap<u32, Arc<Tail>>,
    pub streams: BTreeMap<StreamId, Arc<Stream>>,
    /// Bytes of a checkpoint, roughly, kept up as streams grow.
    pub weight: usize,
    /// Powered seconds.
    pub powered: u64,
    pub datasets: BTreeMap<Name, Kept>,
    /// By generation: powered seconds at its last record.
    pub last: BTreeMap<u32, u64>,
}

impl Catalogue {
    /// `height`: how many levels of the log's tree a tile has.
    pub fn empty(slots: u32, height: u32) -> Self {
        Self { next_incarnation: 1, segments: Slots::new(slots), tiles: Tiles::new(height), ..Self::default() }
    }

    /// The place of a generation among all, a new one if need be.
    pub fn generation(&mut self, wanted: &Generation) -> u32 {
        if let Some(at) = self.known_generation(wanted) {
            return at;
        }
        self.weight += GENERATION_WEIGHT;
        let new = Arc::new(wanted.clone());
        match self.vacant.pop_first() {
            Some(at) => self.generations[at as usize] = new,
            None => self.generations.push(new),
        }
        self.known_generation(wanted).expect("it was put there")
    }

    /// The place of a generation among all, if it has one.
    pub fn known_generation(&self, wanted: &Generation) -> Option<u32> {
        let mut newest_first = (0..self.generations.len() as u32).rev();
        newest_first.find(|at| *self.generations[*at as usize] == *wanted && !self.vacant.contains(at))
    }

    /// Nothing names this generation any more, neither here nor under way: its place is another's.
    pub fn vacate(&mut self, generation: u32) {
        if self.vacant.insert(generation) {
            self.weight = self.weight.saturating_sub(GENERATION_WEIGHT);
        }
    }

    pub fn segment(&self, slot: u32) -> Option<&Segment> {
        self.segments.get(slot)
    }

    /// Takes the parts of one commit, in order. `whole`: none is missing.
    pub fn apply(&mut self, parts: &[Part], whole: bool) {
        let Some(first) = parts.first() else { return };
        self.commit = self.commit.max(first.head.commit);
        if let Some(before) = Frontier::from_bytes(&first.head.frontier).ok().filter(|f| f.size() >= self.frontier.size()) {
            self.frontier = before;
            for leaf in parts.iter().filter(|_| whole).flat_map(leaves) {
                self.tiles.push(&mut self.frontier, leaf);
            }
        }
        parts.iter().for_each(|p| self.apply_part(p));
    }

    fn apply_part(&mut self, part: &Part) {
        let generation = self.generation(&part.generation);
        self.next_incarnation = self.next_incarnation.max(part.head.incarnation + 1);
        self.fresh = self.fresh.max(part.slot + 1);
        if !self.apply_tenure(generation, &part.head) {
            return self.vacate(generation);
        }
        let entries = index_of(&part.head, part.block);
        let segment = self.segments.set(part.slot, None).filter(|s| s.incarnation == part.head.incarnation);
        let mut segment = segment.unwrap_or_else(|| {
            self.tails.remove(&part.slot);
            #[rustfmt::skip]
            let new = Segment { incarnation: part.head.incarnation, generation, end: 1, payload: 0, seen: minutes(part.head.tenure.powered), shape: Shape::Open, dense: part.dense };
            new
        });
        segment.end = part.block + part.head.blocks();
        segment.payload += (part.head.records().map(|e| u64::from(e.len)).sum::<u64>() / 1024) as u32;
        if part.head.index.is_some() {
            segment.shape = Shape::Closed(part.block);
            self.tails.remove(&part.slot);
        } else if segment.shape == Shape::Open {
            let new = || Arc::new(Tail { hash: part.hash, number: 0, index: Vec::new() });
            let tail = Arc::make_mut(self.tails.entry(part.slot).or_insert_with(new));
            (tail.hash, tail.number) = (part.hash, part.head.number + 1);
            tail.index.extend(entries);
        }
        self.segments.set(part.slot, Some(segment));
        part.head.runs.iter().for_each(|r| self.apply_run(part.slot, generation, r));
        for note in part.head.notes.iter().filter(|n| self.belongs(n.stream, generation)).collect::<Vec<_>>() {
            let stream = self.stream(note.stream, generation);
            match note.what {
                What::Closed(epoch) => stream.closed = stream.closed.max(epoch),
                What::Alarmed(offset) => stream.alarm = Some(offset),
                What::Readmitted => stream.alarm = None,
            }
        }
        if let Some((slot, incarnation)) = part.head.retires {
            self.retire(slot, incarnation);
        }
    }

    fn retire(&mut self, slot: u32, incarnation: u64) {
        if self.segment(slot).is_some_and(|s| s.incarnation == incarnation) {
            self.segments.set(slot, None);
            self.tails.remove(&slot);
        }
    }

    pub fn stream(&mut self, id: StreamId, generation: u32) -> &mut Stream {
        let weight = &mut self.weight;
        let stream = self.streams.entry(id).or_insert_with(|| {
            *weight += STREAM_WEIGHT;
            let (epochs, extents) = (Vec::new(), Vec::new());
            Arc::new(Stream { generation, chain: Chain::EMPTY, closed: 0, alarm: None, epochs, extents })
        });
        Arc::make_mut(stream)
    }

    /// Whether a stream is this generation's, or nobody's yet: a segment says nothing of others'.
    fn belongs(&self, stream: StreamId, generation: u32) -> bool {
        self.streams.get(&stream).is_none_or(|s| s.generation == generation)
    }

    fn apply_run(&mut self, slot: u32, generation: u32, run: &Run) {
        if !self.belongs(run.stream, generation) {
            return;
        }
        let (from, end) = (run.before.length, run.end());
        let stream = self.stream(run.stream, generation);
        let before = stream.epochs.len() + stream.extents.len();
        match stream.epochs.binary_search_by_key(&run.epoch, |e| e.0) {
            Ok(at) => stream.epochs[at].1 = stream.epochs[at].1.min(from),
            Err(at) => stream.epochs.insert(at, (run.epoch, from)),
        }
        let length = stream.chain.length;
        insert_extent(&mut stream.extents, from, end, slot, length);
        if end > length {
            stream.chain = run.after();
            self.tiles.stored(run.stream, end);
        }
        let stream = &self.streams[&run.stream];
        let grown = (stream.epochs.len() + stream.extents.len()).saturating_sub(before);
        self.weight += grown * 12;
    }

    pub fn state(&self, id: StreamId) -> Option<StreamState> {
        let s = self.streams.get(&id)?;
        Some(StreamState {
            generation: (*self.generations[s.generation as usize]).clone(),
            epoch: s.epochs.last().map_or(0, |e| e.0),
            closed: s.closed,
            chain: s.chain,
            epochs: s.epochs.clone(),
            alarm: s.alarm,
        })
    }

    /// The slot that holds `offset` of a stream.
    pub fn slot_of(&self, id: StreamId, offset: u64) -> Option<u32> {
        let stream = self.streams.get(&id).filter(|s| offset < s.chain.length)?;
        let at = stream.extents.partition_point(|e| e.0 <= offset).checked_sub(1)?;
        Some(stream.extents[at].1)
    }

    /// Where the record that holds `offset` of a stream lies.
    pub fn place(&self, stream: StreamId, offset: u64, source: &Source, pin: Pin) -> Option<Place> {
        let slot = self.slot_of(stream, offset)?;
        let segment = self.segment(slot)?;
        let at = match (segment.shape, self.tails.get(&slot)) {
            (Shape::Open, Some(tail)) => {
                let run = tail.index.iter().filter(|i| i.stream == stream && i.offset <= offset).max_by_key(|i| i.offset)?;
                Where::Batch(run.block)
            }
            (Shape::Closed(index), _) => Where::Index(index),
            _ => Where::Somewhere,
        };
        let (incarnation, end) = (segment.incarnation, segment.end);
        let generation = self.generations[segment.generation as usize].clone();
        Some(Place { slot, incarnation, end, at, stream, offset, generation, source: source.clone(), pin })
    }

    /// Where a stream goes on elsewhere after `offset`, which `slot` holds: in another segment,
    /// or in another batch of an open one.
    pub fn next_run(&self, stream: StreamId, slot: u32, offset: u64) -> Option<u64> {
        let extents = &self.streams.get(&stream)?.extents;
        let extent = extents.get(extents.partition_point(|e| e.0 <= offset)).map(|e| e.0);
        let lines = self.tails.get(&slot).into_iter().flat_map(|t| &t.index);
        let run = lines.filter(|i| i.stream == stream && i.offset > offset).map(|i| i.offset).min();
        extent.into_iter().chain(run).min()
    }
}

/// As a segment's last check is kept: 8,000 years fit.
pub(crate) fn minutes(powered: u64) -> u32 {
    u32::try_from(powered / 60).unwrap_or(u32::MAX)
}

/// The hashes of the leaves that a batch adds to the log.
pub(crate) fn leaves(part: &Part) -> impl Iterator<Item = Hash32> + '_ {
    let new = !part.head.moved && !part.generation.is_log();
    part.head.runs.iter().filter(move |_| new).map(|r| run_leaf(&part.generation, r))
}

/// The leaves of a batch, moved ones too, by index.
pub(crate) fn indexed_leaves(part: &Part) -> impl Iterator<Item = (u64, Hash32)> + '_ {
    let logged = !part.generation.is_log();
    part.head.runs.iter().filter(move |_| logged).map(|r| (r.leaf, run_leaf(&part.generation, r)))
}

/// The hash of a run's leaf.
pub(crate) fn run_leaf(generation: &Generation, run: &Run) -> Hash32 {
    leaf_hash(&leaf_of(generation, run))
}

/// A run's leaf.
pub(crate) fn leaf_of(generation: &Generation, run: &Run) -> Leaf {
    let after = run.after();
    let from = run.before.length;
    let part = ByteRange::new(from, after.length - from).expect("streams end before 2^63");
    Leaf { dataset: generation.dataset.clone(), stream: run.stream, epoch: run.epoch, part, root: after.root }
}

/// The lines that a batch adds to its segment's index.
pub(crate) fn index_of(head: &Head, block: u32) -> impl Iterator<Item = IndexEntry> + '_ {
    head.runs.iter().map(move |r| IndexEntry { stream: r.stream, offset: r.before.length, block })
}

/// Says that `slot` holds `from .. to`, of a stream that was `length` long before.
fn insert_extent(extents: &mut Vec<(u64, u32)>, from: u64, to: u64, slot: u32, length: u64) {
    let first = extents.partition_point(|e| e.0 < from);
    let last = extents.partition_point(|e| e.0 <= to);
    let rest = extents[..last].last().filter(|e| e.0 != to).map(|e| e.1).filter(|_| to < length);
    let until = extents.partition_point(|e| e.0 < to);
    let same_before = first.checked_sub(1).is_some_and(|i| extents[i].1 == slot);
    let new = (!same_before).then_some((from, slot)).into_iter().chain(rest.filter(|s| *s != slot).map(|s| (to, s)));
    extents.splice(first..until, new.collect::<Vec<_>>());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hoidla_format::disk::batch::{Entry, Note, Tenure};
    use proptest::prelude::*;

    /// A batch of one record and one note about `stream`, in a generation, where all below `floor` have ended.
    pub(crate) fn part(commit: u64, number: u32, stream: u8, floor: u32) -> Part {
        let stream = StreamId([stream; 16]);
        let records = vec![Entry { len: 100, hash: Hash32([7; 32]) }];
        let head = Head {
            previous: Hash32([0; 32]),
            incarnation: commit,
            run: 1,
            run_first: 1,
            commit,
            mark: commit - 1,
            checkpoint: 1,
            number: 0,
            part: 0,
            parts: 1,
            moved: false,
            retires: None,
            tenure: Tenure { powered: 0, floor, days: 1 },
            frontier: vec![0; 8],
            runs: vec![Run { stream, epoch: 1, leaf: 0, before: Chain::EMPTY, records }],
            notes: vec![Note { stream, what: What::Closed(1) }],
            index: None,
        };
        let generation = Arc::new(Generation { dataset: "land".parse().unwrap(), number });
        Part { slot: commit as u32 % 100, block: 1, generation, dense: false, head, hash: Hash32([1; 32]) }
    }

    #[test]
    fn a_segment_says_nothing_of_another_generations_streams() {
        let mut c = Catalogue::empty(100, 2);
        c.apply(&[part(1, 1, 1, 0)], true);
        let before = c.state(StreamId([1; 16]));
        let mut other = part(2, 2, 1, 0);
        other.head.runs[0].before.length = 100;
        other.head.notes[0].what = What::Alarmed(1 << 40);
        c.apply(&[other], true);
        assert_eq!(c.state(StreamId([1; 16])), before);
        assert_eq!(c.slot_of(StreamId([1; 16]), 50), Some(1));
        c.apply(&[part(3, 2, 2, 0)], true);
        assert_eq!(c.state(StreamId([2; 16])).unwrap().generation.number, 2, "its own, it does");
    }

    #[test]
    fn ended_generations_leave_no_name_and_no_weight() {
        let mut c = Catalogue::empty(100, 2);
        for n in 1..1000 {
            c.apply(&[part(n, n as u32, n as u8, n as u32)], true);
        }
        assert!(c.generations.len() <= 3, "{} names", c.generations.len());
        (1..500).for_each(|n| c.apply(&[part(n, n as u32, 77, 0)], true)); // late, and gone already
        assert!(c.generations.len() <= 3, "{} names", c.generations.len());
        assert_eq!(c.known_generation(&Generation { dataset: "land".parse().unwrap(), number: 998 }), None);
        assert_eq!((c.streams.len(), c.last.len(), c.segments.used()), (1, 1, 1));
        assert_eq!(c.weight, GENERATION_WEIGHT + STREAM_WEIGHT + 2 * 12);
    }

    proptest! {
        #[test]
        fn extents_equal_a_naive_map(steps in prop::collection::vec((0u64..40, 1u64..12, 0u32..4), 1..40)) {
            let (mut extents, mut naive) = (Vec::new(), Vec::<u32>::new());
            for (from, len, slot) in steps {
                let from = from.min(naive.len() as u64);
                let length = naive.len() as u64;
                insert_extent(&mut extents, from, from + len, slot, length);
                naive.resize(naive.len().max((from + len) as usize), 0);
                naive[from as usize..(from + len) as usize].fill(slot);
                for (offset, want) in naive.iter().enumerate() {
                    let at = extents.partition_point(|e| e.0 <= offset as u64) - 1;
                    prop_assert_eq!(extents[at].1, *want);
                }
            }
        }
    }
}
