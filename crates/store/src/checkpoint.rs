//! The catalogue as the pieces of a checkpoint, and back.
//!
//! Promises: items are made one by one from a clone that shares what doesn't change,
//! and taken one by one, so that neither needs the whole a second time in memory; what
//! contradicts itself or the store's size is as good as lost.

use std::{collections::HashMap, sync::Arc};

use hoidla_format::{
    Hash32, StreamId,
    disk::{
        BLOCK, Geometry,
        batch::IndexEntry,
        blocks,
        catalogue::{
            DatasetEntry, Front, GenerationEntry, Item, MOST_LINES, MOST_PIECE, Piece, Pieces, SegmentEntry, SegmentState, StreamEntry,
        },
        superblock::Superblock,
    },
};
use hoidla_log::Frontier;

use crate::{
    catalogue::{Catalogue, Segment, Shape, Stream, Tail},
    device::{Disk, Disks, Pool},
    expiry::Kept,
    open::{OpenError, Trouble, Writer},
    types::Generation,
};

/// All that a checkpoint says, in order.
pub(crate) type Items = std::iter::Peekable<Box<dyn Iterator<Item = Item> + Send>>;

impl Catalogue {
    /// The items of a checkpoint as of now, made when they are asked for.
    pub fn items(&self, run: u64, run_first: u64, reserve: Vec<u32>) -> Items {
        let front = Front {
            run,
            run_first,
            commit: self.commit,
            next_incarnation: self.next_incarnation,
            fresh: self.fresh,
            powered: self.powered,
            frontier: self.frontier.to_bytes(),
            reserve,
        };
        let datasets = self.datasets.clone().into_iter();
        let datasets = datasets.map(|(dataset, k)| Item::Dataset(DatasetEntry { dataset, floor: k.floor, days: k.days }));
        let last = self.last.clone();
        let named: Vec<_> =
            (0..).zip(&self.generations).filter(|(at, _)| !self.vacant.contains(at)).map(|(at, g)| (at, g.clone())).collect();
        let places: HashMap<u32, u32> = named.iter().zip(0..).map(|((at, _), place)| (*at, place)).collect();
        let generations = named.into_iter().map(move |(at, g)| {
            let (dataset, last) = (g.dataset.clone(), last.get(&at).copied());
            Item::Generation(GenerationEntry { dataset, number: g.number, last })
        });
        let places = Arc::new(places);
        let place = move |generation: u32| places.get(&generation).copied().unwrap_or(u32::MAX);
        let place_too = place.clone();
        let (slots, tails) = (self.segments.clone(), self.tails.clone());
        let segments = (0..slots.len()).flat_map(move |slot| {
            let tail = tails.get(&slot).cloned();
            let segment = slots.get(slot).map(|s| Item::Segment(segment_entry(slot, place(s.generation), s, tail.as_deref())));
            segment.into_iter().chain(tail.into_iter().flat_map(|t| in_parts(t, |t| &t.index, Item::Index)))
        });
        let streams = self.streams.clone().into_iter().flat_map(move |(id, stream)| {
            let entry = std::iter::once(Item::Stream(stream_entry(id, place_too(stream.generation), &stream)));
            let epochs = in_parts(stream.clone(), |s| &s.epochs, Item::Epochs);
            entry.chain(epochs).chain(in_parts(stream, |s| &s.extents, Item::Extents))
        });
        let levels = (0..).zip(self.tiles.levels.clone());
        let tiles = levels.flat_map(|(level, l)| in_parts(Arc::new(l), |l| &l.hashes, move |hashes| Item::Tiles(level, hashes)));
        let all = std::iter::once(Item::Front(front)).chain(datasets).chain(generations).chain(segments).chain(streams).chain(tiles);
        (Box::new(all) as Box<dyn Iterator<Item = Item> + Send>).peekable()
    }
}

/// Open segments in a checkpoint at most: those of one run, and of a reserve.
const MOST_TAILS: usize = 200;

/// Goes on with a list of which each line is above the one before; none if it isn't.
fn extend_rising<L: Copy>(list: &mut Vec<L>, lines: Vec<L>, of: fn(&L) -> u64) -> Option<()> {
    lines.into_iter().try_for_each(|l| {
        list.last().is_none_or(|before| of(before) < of(&l)).then_some(())?;
        list.push(l);
        Some(())
    })
}

/// A list that `of` holds, as items of a bounded length.
fn in_parts<T, L: Clone + 'static>(of: Arc<T>, list: fn(&T) -> &Vec<L>, item: impl Fn(Vec<L>) -> Item) -> impl Iterator<Item = Item> {
    let count = list(&of).len();
    (0..count).step_by(MOST_LINES).map(move |at| item(list(&of)[at..count.min(at + MOST_LINES)].to_vec()))
}

fn segment_entry(slot: u32, generation: u32, s: &Segment, tail: Option<&Tail>) -> SegmentEntry {
    let state = match (s.shape, tail) {
        (Shape::Open, Some(t)) => SegmentState::Open { hash: t.hash, number: t.number },
        (Shape::Closed(at), _) => SegmentState::Closed(at),
        _ => SegmentState::Damaged,
    };
    SegmentEntry { slot, incarnation: s.incarnation, generation, dense: s.dense, end: s.end, payload: s.payload, seen: s.seen, state }
}

fn stream_entry(stream: StreamId, generation: u32, s: &Stream) -> StreamEntry {
    StreamEntry { stream, generation, chain: s.chain, closed: s.closed, alarm: s.alarm }
}

/// A catalogue that is being read.
pub(crate) struct Loader {
    catalogue: Catalogue,
    /// What lists belong to.
    tail: Option<u32>,
    stream: Option<StreamId>,
    segment_blocks: u32,
}

impl Loader {
    /// For a store of this geometry, and tiles of that height.
    pub fn new(geometry: &Geometry, height: u32) -> Self {
        let catalogue = Catalogue::empty(geometry.slots, height);
        Self { catalogue, tail: None, stream: None, segment_blocks: geometry.segment_blocks }
    }

    /// Takes the next piece; none if it contradicts what came before, or the store.
    pub fn take(&mut self, piece: Piece) -> Option<()> {
        piece.items.into_iter().try_for_each(|i| self.take_item(i))
    }

    fn take_item(&mut self, item: Item) -> Option<()> {
        let c = &mut self.catalogue;
        match item {
            Item::Front(f) => {
                (c.commit, c.next_incarnation, c.fresh, c.powered) = (f.commit, f.next_incarnation, f.fresh, f.powered);
                c.frontier = Frontier::from_bytes(&f.frontier).ok()?;
            }
            Item::Dataset(d) => {
                if c.datasets.insert(d.dataset, Kept { floor: d.floor, days: d.days }).is_some() {
                    return None;
                }
            }
            Item::Generation(g) => {
                let place = c.generations.len() as u32;
                (c.generation(&Generation { dataset: g.dataset, number: g.number }) == place).then_some(())?;
                c.last.extend(g.last.map(|last| (place, last)));
            }
            Item::Segment(s) => {
                self.tail = None;
                c.generations.get(s.generation as usize)?;
                let last = if let SegmentState::Closed(index) = s.state { index.checked_add(1)? } else { 1 };
                (last..=self.segment_blocks).contains(&s.end).then_some(())?;
                let shape = match s.state {
                    SegmentState::Open { hash, number } => {
                        self.tail = Some(s.slot);
                        (c.tails.len() < MOST_TAILS).then_some(())?;
                        c.tails.insert(s.slot, Arc::new(Tail { hash, number, index: Vec::new() }));
                        Shape::Open
                    }
                    SegmentState::Closed(at) => Shape::Closed(at),
                    SegmentState::Damaged => Shape::Damaged,
                };
                #[rustfmt::skip]
                let segment = Segment { incarnation: s.incarnation, generation: s.generation, end: s.end, payload: s.payload, seen: s.seen, shape, dense: s.dense };
                if s.slot >= c.segments.len() || c.segments.set(s.slot, Some(segment)).is_some() {
                    return None;
                }
            }
            Item::Tiles(level, hashes) => c.tiles.resume(u32::from(level), &hashes)?,
            Item::Index(lines) => self.index()?.extend(lines),
            Item::Stream(s) => {
                c.generations.get(s.generation as usize)?;
                if c.streams.contains_key(&s.stream) {
                    return None;
                }
                let stream = c.stream(s.stream, s.generation);
                (stream.chain, stream.closed, stream.alarm) = (s.chain, s.closed, s.alarm);
                c.tiles.stored(s.stream, s.chain.length);
                self.stream = Some(s.stream);
            }
            Item::Epochs(lines) => {
                c.weight += lines.len() * 12;
                extend_rising(&mut self.stream()?.epochs, lines, |l| u64::from(l.0))?;
            }
            Item::Extents(lines) => {
                c.weight += lines.len() * 12;
                let slots = c.segments.len();
                lines.iter().all(|l| l.1 < slots).then_some(())?;
                extend_rising(&mut self.stream()?.extents, lines, |l| l.0)?;
            }
        }
        Some(())
    }

    fn index(&mut self) -> Option<&mut Vec<IndexEntry>> {
        Some(&mut Arc::make_mut(self.catalogue.tails.get_mut(&self.tail?)?).index)
    }

    fn stream(&mut self) -> Option<&mut Stream> {
        Some(Arc::make_mut(self.catalogue.streams.get_mut(&self.stream?)?))
    }

    /// What was read, once the last piece is taken.
    pub fn finish(self) -> Catalogue {
        self.catalogue
    }
}

/// A checkpoint as it was read.
pub(crate) struct Loaded {
    pub catalogue: Catalogue,
    pub sequence: u64,
    pub front: Front,
}

/// The best catalogue on any of these disks that is not older than the superblock says, and not of
/// an opening that was cut short: that may have had fewer disks, and kept what others lack. So
/// those are asked that carry the superblock's epoch, and no others.
pub(crate) fn read_catalogue<P: Pool>(
    disks: &Disks,
    own: u64,
    superblock: &Superblock,
    height: u32,
    pool: &Arc<P>,
) -> Result<Option<Loaded>, Trouble> {
    let mut found = Vec::new();
    for disk in (0..).zip(disks).filter(|(i, _)| own >> i & 1 == 1).filter_map(|(_, d)| d.as_ref()) {
        for area in 0..2 {
            let Some((piece, _)) = read_piece(&**disk, superblock, area, 0, &**pool)? else { continue };
            let counts = |f: &Front| piece.sequence >= superblock.checkpoint && f.run <= superblock.run;
            if piece.sequence % 2 == area && piece.front().is_some_and(counts) {
                found.push((piece.sequence, disk));
            }
        }
    }
    found.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
    for (sequence, disk) in found {
        if let Some(loaded) = load_catalogue(&**disk, superblock, sequence, height, &**pool)? {
            return Ok(Some(loaded));
        }
    }
    Ok(None)
}

/// The whole catalogue in an area of one disk, if it is whole: each piece names the one before.
fn load_catalogue<P: Pool>(
    disk: &dyn Disk,
    superblock: &Superblock,
    sequence: u64,
    height: u32,
    pool: &P,
) -> Result<Option<Loaded>, Trouble> {
    let mut loader = Loader::new(&superblock.geometry, height);
    let (mut block, mut number, mut previous, mut front) = (0, 0, Hash32([0; 32]), None);
    loop {
        let Some((piece, hash)) = read_piece(disk, superblock, sequence % 2, block, pool)? else { return Ok(None) };
        if (piece.sequence, piece.number, piece.previous) != (sequence, number, previous) {
            return Ok(None);
        }
        front = front.or_else(|| piece.front().cloned());
        block += blocks(piece.len()) as u32;
        (number, previous) = (number + 1, hash);
        let last = piece.last;
        if loader.take(piece).is_none() {
            return Ok(None);
        }
        if last {
            return Ok(front.map(|front| Loaded { catalogue: loader.finish(), sequence, front }));
        }
    }
}

/// The piece at a block of an area; none if none is there, or if it is damaged.
fn read_piece<P: Pool>(
    disk: &dyn Disk,
    superblock: &Superblock,
    area: u64,
    block: u32,
    pool: &P,
) -> Result<Option<(Piece, Hash32)>, Trouble> {
    let g = &superblock.geometry;
    let left = g.catalogue_blocks.saturating_sub(block) as usize * BLOCK;
    if left == 0 {
        return Ok(None);
    }
    let mut buffer = pool.take(MOST_PIECE.min(left)).ok_or(OpenError::Memory)?;
    let at = (g.catalogue_at(area) + u64::from(block)) * BLOCK as u64;
    if disk.read(at, &mut buffer.as_mut()[..BLOCK]).is_err() {
        return Ok(None);
    }
    let len = Piece::peek(&buffer.as_ref()[..BLOCK]).map_or(0, |len| blocks(len) * BLOCK);
    if !(BLOCK..=left).contains(&len) || disk.read(at, &mut buffer.as_mut()[..len]).is_err() {
        return Ok(None);
    }
    Ok(Piece::read(&buffer.as_ref()[..len]).ok())
}

impl<P: Pool> Writer<'_, P> {
    /// All pieces of a checkpoint, then a flush.
    pub fn catalogue(&self, superblock: &Superblock, mut items: Items) -> Result<(), Trouble> {
        let (geometry, sequence) = (&superblock.geometry, superblock.checkpoint);
        let (mut pieces, mut block) = (Pieces::new(sequence), 0);
        while let Some(bytes) = pieces.next(&mut items, MOST_PIECE.min(geometry.catalogue_blocks as usize * BLOCK)) {
            let len = blocks(bytes.len()) * BLOCK;
            if block + len / BLOCK > geometry.catalogue_blocks as usize {
                return Err(OpenError::NoRoom.into());
            }
            let mut buffer = self.pool.take(len).ok_or(OpenError::Memory)?;
            buffer.as_mut()[..len].fill(0);
            buffer.as_mut()[..bytes.len()].copy_from_slice(&bytes);
            let at = (geometry.catalogue_at(sequence % 2) + block as u64) * BLOCK as u64;
            self.each(|_, disk| disk.write(at, &buffer.as_ref()[..len]))?;
            block += len / BLOCK;
        }
        self.each(|_, disk| disk.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_format::frame::Chain;

    fn taken(items: Vec<Item>) -> bool {
        let geometry = Geometry { places: 1, copies: 1, segment_blocks: 64, catalogue_blocks: 16, slots: 1000 };
        let mut loader = Loader::new(&geometry, 2);
        let generation = Item::Generation(GenerationEntry { dataset: "land".parse().unwrap(), number: 1, last: None });
        [generation].into_iter().chain(items).try_for_each(|i| loader.take_item(i)).is_some()
    }

    #[test]
    fn a_catalogue_that_nothing_can_be_added_to_is_refused() {
        let stream = || Item::Stream(StreamEntry { stream: StreamId([1; 16]), generation: 0, chain: Chain::EMPTY, closed: 0, alarm: None });
        assert!(taken(vec![stream(), Item::Extents(vec![(0, 1), (5, 2)]), Item::Extents(vec![(9, 1)])]));
        assert!(!taken(vec![stream(), Item::Extents(vec![(5, 1), (0, 2)])]), "out of order");
        assert!(!taken(vec![stream(), Item::Extents(vec![(0, 1), (5, 2)]), Item::Extents(vec![(5, 1)])]), "twice");
        assert!(!taken(vec![stream(), Item::Extents(vec![(0, 1000)])]), "no such slot");
        assert!(taken(vec![stream(), Item::Epochs(vec![(1, 0), (2, 7)])]));
        assert!(!taken(vec![stream(), Item::Epochs(vec![(2, 7), (1, 0)])]));
        #[rustfmt::skip]
        let segment = |slot, end, state| Item::Segment(SegmentEntry { slot, incarnation: 1, generation: 0, dense: false, end, payload: 0, seen: 0, state });
        let open = |slot| segment(slot, 1, SegmentState::Open { hash: Hash32([0; 32]), number: 0 });
        assert!(taken(vec![segment(3, 64, SegmentState::Closed(63))]));
        assert!(!taken(vec![segment(3, 65, SegmentState::Damaged)]), "it ends behind its slot");
        assert!(!taken(vec![segment(3, 0, SegmentState::Damaged)]), "it ends before it begins");
        assert!(!taken(vec![segment(3, 64, SegmentState::Closed(64))]), "an index behind its end");
        assert!(taken((0..MOST_TAILS as u32).map(open).collect()));
        assert!(!taken((0..=MOST_TAILS as u32).map(open).collect()), "more than fences fit into a block");
    }
}
