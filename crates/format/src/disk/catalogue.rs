//! The catalogue checkpoint: a cache of what all segments say together, as of one
//! commit that every current copy had flushed. Two areas take turns.
//!
//! ```text
//! piece   header, hash, hash of the piece before, sequence, number, last, items
//! ...     zero up to a whole block; then the next piece
//! ```
//! Promises: a piece is bounded, so a checkpoint is written and read piece by piece,
//! however much is stored; each names the one before it, so that pieces of two
//! checkpoints are never taken for one. What items say together, the store judges.

use super::{VERSION, batch::IndexEntry, batch::MOST_FRONTIER, check_seal, seal};
use crate::{Hash32, Kind, Malformed, Name, Reader, StreamId, Writer, frame::Chain};

/// The most bytes of a piece.
pub const MOST_PIECE: usize = 1 << 20;
/// The most lines of an item that is a list; longer lists go on in further items.
pub const MOST_LINES: usize = 64;
/// The most slots in a reserve.
pub const MOST_RESERVE: usize = 256;

/// Bytes of a piece before its items.
const HEAD: usize = 8 + 32 + 32 + 8 + 4 + 1 + 4;

/// A part of a checkpoint that is written at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The hash of the piece before; zero for the first.
    pub previous: Hash32,
    /// The checkpoint's; raised with each; its area is this modulo 2.
    pub sequence: u64,
    /// Counted from 0.
    pub number: u32,
    /// No piece follows.
    pub last: bool,
    /// What it says.
    pub items: Vec<Item>,
}

/// One thing that a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The first of all, and only that.
    Front(Front),
    /// What is known of a dataset's retention.
    Dataset(DatasetEntry),
    /// A generation of a dataset; others name it by its place among these, from 0.
    Generation(GenerationEntry),
    /// A segment in use.
    Segment(SegmentEntry),
    /// More of the index so far, of the open segment before.
    Index(Vec<IndexEntry>),
    /// A stream.
    Stream(StreamEntry),
    /// More of the stream before: where an epoch starts.
    Epochs(Vec<(u32, u64)>),
    /// More of the stream before: from which offset on which slot holds it.
    Extents(Vec<(u64, u32)>),
    /// More hashes of a level of the log's tiles that its stream doesn't have yet.
    Tiles(u8, Vec<Hash32>),
}

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The run that wrote it.
    pub run: u64,
    /// The first commit of that run.
    pub run_first: u64,
    /// All commits up to this one are in it.
    pub commit: u64,
    /// The incarnation of the next segment.
    pub next_incarnation: u64,
    /// Slots from this one on were never written.
    pub fresh: u32,
    /// Seconds that the machine was powered, as of that commit.
    pub powered: u64,
    /// The log (`hoidla-log`'s `Frontier`).
    pub frontier: Vec<u8>,
    /// The slots that may be taken into use before the next checkpoint.
    pub reserve: Vec<u32>,
}

/// A dataset's retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetEntry {
    /// The dataset.
    pub dataset: Name,
    /// Its generations with a lower number are gone.
    pub floor: u32,
    /// The most days that the authority ever said.
    pub days: u32,
}

/// A generation, and its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationEntry {
    /// The dataset.
    pub dataset: Name,
    /// The generation.
    pub number: u32,
    /// The powered seconds at its last record; none if it has none.
    pub last: Option<u64>,
}

/// One segment in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its slot.
    pub slot: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The generation, by its place.
    pub generation: u32,
    /// Whether it takes rewritten records only.
    pub dense: bool,
    /// The first block after its last batch.
    pub end: u32,
    /// Payload, in KiB.
    pub payload: u32,
    /// The powered minutes at which every byte of it was last written or read back whole, on
    /// every copy.
    pub seen: u32,
    /// Open or closed.
    pub state: SegmentState,
}

/// What more is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It takes batches.
    Open {
        /// The hash that the next batch names.
        hash: Hash32,
        /// The number of the next batch.
        number: u32,
    },
    /// Its index is the batch at this block.
    Closed(u32),
    /// It lost a batch on every copy; it has no index and takes nothing more.
    Damaged,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its id.
    pub stream: StreamId,
    /// The generation, by its place.
    pub generation: u32,
    /// Acknowledged length and root.
    pub chain: Chain,
    /// Epochs up to this one are closed.
    pub closed: u32,
    /// What an agent presented that the store didn't have, while that stands.
    pub alarm: Option<u64>,
}

/// Packs items into pieces, one after another.
pub struct Pieces {
    sequence: u64,
    number: u32,
    previous: Hash32,
    over: bool,
}

impl Pieces {
    /// Of a new checkpoint.
    pub fn new(sequence: u64) -> Self {
        Self { sequence, number: 0, previous: Hash32([0; 32]), over: false }
    }

    /// The next piece's bytes, at most `most`, from as many of `items` as fit; none after the last.
    ///
    /// # Panics
    /// If an item doesn't fit into a piece of its own: [`super::BLOCK`] bytes hold any.
    pub fn next(&mut self, items: &mut std::iter::Peekable<impl Iterator<Item = Item>>, most: usize) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let mut body = Writer::new();
        let mut len = 0;
        while let Some(item) = items.peek() {
            let grown = body.len() + item.len();
            if HEAD + grown > most {
                break;
            }
            item.write(&mut body);
            debug_assert_eq!(body.len(), grown);
            len = grown;
            items.next();
        }
        self.over = items.peek().is_none();
        assert!(len > 0 || self.over, "any item fits into a piece");
        let (bytes, hash) = sealed(&self.previous, self.sequence, self.number, self.over, &body.finish());
        (self.number, self.previous) = (self.number + 1, hash);
        Some(bytes)
    }
}

fn sealed(previous: &Hash32, sequence: u64, number: u32, last: bool, body: &[u8]) -> (Vec<u8>, Hash32) {
    let mut w = Writer::with_header(Kind::Catalogue, VERSION);
    w.put(&[0; 32]).put(&previous.0).u64(sequence).u32(number).u8(last.into()).long(body);
    let mut bytes = w.finish();
    let hash = seal(&mut bytes);
    (bytes, hash)
}

impl Piece {
    /// As bytes, sealed, and the hash that the next piece names.
    pub fn to_bytes(&self) -> (Vec<u8>, Hash32) {
        let mut body = Writer::new();
        self.items.iter().for_each(|i| i.write(&mut body));
        sealed(&self.previous, self.sequence, self.number, self.last, &body.finish())
    }

    /// How long it is, by its first block. Not yet checked against the hash.
    pub fn peek(block: &[u8]) -> Result<usize, Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::Catalogue, VERSION)?;
        r.take(HEAD - 8 - 4)?;
        match r.u32()? as usize {
            body if body <= MOST_PIECE - HEAD => Ok(HEAD + body),
            _ => Err(Malformed::Field("a piece of a catalogue of impossible length")),
        }
    }

    /// Reads one from `bytes`, which may go on after it; checks its hash and returns it too.
    pub fn read(bytes: &[u8]) -> Result<(Self, Hash32), Malformed> {
        let len = Self::peek(bytes)?;
        let bytes = bytes.get(..len).ok_or(Malformed::Truncated { wanted: len, left: bytes.len() })?;
        let hash = check_seal(bytes)?;
        let mut r = Reader::new(bytes);
        r.take(8 + 32)?;
        let (previous, sequence, number, last) = (Hash32(r.array()?), r.u64()?, r.u32()?, r.u8()?);
        r.u32()?;
        let mut items = Vec::new();
        while r.left() > 0 {
            items.push(Item::read(&mut r)?);
        }
        if last > 1 || (number == 0) != (previous.0 == [0; 32]) {
            return Err(Malformed::Field("a piece of a catalogue that contradicts itself"));
        }
        let starts = |(i, item): (usize, &Item)| matches!(item, Item::Front(_)) == (number == 0 && i == 0);
        if !items.iter().enumerate().all(starts) || (number == 0 && items.is_empty()) {
            return Err(Malformed::Field("a catalogue begins with its front, once"));
        }
        Ok((Self { previous, sequence, number, last: last == 1, items }, hash))
    }

    /// Bytes of it.
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        HEAD + self.items.iter().map(Item::len).sum::<usize>()
    }

    /// What the checkpoint is, if this is its first piece.
    pub fn front(&self) -> Option<&Front> {
        if let Some(Item::Front(front)) = self.items.first() { Some(front) } else { None }
    }
}

impl Item {
    /// Bytes of it.
    fn len(&self) -> usize {
        1 + match self {
            Self::Front(f) => 8 * 4 + 4 + 8 + 2 + f.frontier.len() + 2 + 4 * f.reserve.len(),
            Self::Dataset(d) => 2 + d.dataset.as_str().len() + 4 + 4,
            Self::Generation(g) => 2 + g.dataset.as_str().len() + 4 + 9,
            Self::Segment(s) => {
                let state = match s.state {
                    SegmentState::Open { .. } => 36,
                    SegmentState::Closed(_) => 4,
                    SegmentState::Damaged => 0,
                };
                4 + 8 + 4 + 1 + 4 + 4 + 4 + 1 + state
            }
            Self::Index(lines) => 2 + 28 * lines.len(),
            Self::Stream(_) => 16 + 4 + 8 + 32 + 4 + 9,
            Self::Epochs(lines) => 2 + 12 * lines.len(),
            Self::Extents(lines) => 2 + 12 * lines.len(),
            Self::Tiles(_, hashes) => 1 + 2 + 32 * hashes.len(),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::Front(f) => {
                w.u8(0).u64(f.run).u64(f.run_first).u64(f.commit).u64(f.next_incarnation).u32(f.fresh).u64(f.powered);
                w.short(&f.frontier).u16(f.reserve.len() as u16);
                f.reserve.iter().for_each(|s| _ = w.u32(*s));
            }
            Self::Generation(g) => {
                w.u8(1).short(g.dataset.as_str().as_bytes()).u32(g.number).u8(g.last.is_some().into()).u64(g.last.unwrap_or(0));
            }
            Self::Dataset(d) => _ = w.u8(7).short(d.dataset.as_str().as_bytes()).u32(d.floor).u32(d.days),
            Self::Segment(s) => {
                w.u8(2).u32(s.slot).u64(s.incarnation).u32(s.generation).u8(s.dense.into()).u32(s.end).u32(s.payload).u32(s.seen);
                match &s.state {
                    SegmentState::Open { hash, number } => _ = w.u8(0).put(&hash.0).u32(*number),
                    SegmentState::Closed(at) => _ = w.u8(1).u32(*at),
                    SegmentState::Damaged => _ = w.u8(2),
                }
            }
            Self::Index(lines) => {
                w.u8(3).u16(lines.len() as u16);
                lines.iter().for_each(|i| _ = w.put(&i.stream.0).u64(i.offset).u32(i.block));
            }
            Self::Stream(s) => {
                w.u8(4).put(&s.stream.0).u32(s.generation).u64(s.chain.length).put(&s.chain.root.0).u32(s.closed);
                w.u8(s.alarm.is_some().into()).u64(s.alarm.unwrap_or(0));
            }
            Self::Epochs(lines) => {
                w.u8(5).u16(lines.len() as u16);
                lines.iter().for_each(|(epoch, at)| _ = w.u32(*epoch).u64(*at));
            }
            Self::Extents(lines) => {
                w.u8(6).u16(lines.len() as u16);
                lines.iter().for_each(|(at, slot)| _ = w.u64(*at).u32(*slot));
            }
            Self::Tiles(level, hashes) => {
                w.u8(8).u8(*level).u16(hashes.len() as u16);
                hashes.iter().for_each(|h| _ = w.put(&h.0));
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Front(read_front(r)?),
            1 => Self::Generation(GenerationEntry { dataset: read_name(r)?, number: r.u32()?, last: read_maybe(r)? }),
            2 => Self::Segment(read_segment(r)?),
            3 => Self::Index(lines(r, |r| Ok(IndexEntry { stream: StreamId(r.array()?), offset: r.u64()?, block: r.u32()? }))?),
            4 => Self::Stream(read_stream(r)?),
            5 => Self::Epochs(lines(r, |r| Ok((r.u32()?, r.u64()?)))?),
            6 => Self::Extents(lines(r, |r| Ok((r.u64()?, r.u32()?)))?),
            8 => Self::Tiles(r.u8()?, lines(r, |r| r.array().map(Hash32))?),
            7 => Self::Dataset(DatasetEntry { dataset: read_name(r)?, floor: r.u32()?, days: r.u32()? }),
            _ => return Err(Malformed::Field("an item of a catalogue that this program doesn't know")),
        })
    }
}

fn read_name(r: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::from_bytes(r.short(Name::MOST, "a dataset's name is at most 64 bytes")?)
}

fn read_maybe(r: &mut Reader<'_>) -> Result<Option<u64>, Malformed> {
    match (r.u8()?, r.u64()?) {
        (0, 0) => Ok(None),
        (1, number) => Ok(Some(number)),
        _ => Err(Malformed::Field("neither a number nor none")),
    }
}

fn lines<T>(r: &mut Reader<'_>, line: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    match usize::from(r.u16()?) {
        count if count <= MOST_LINES => (0..count).map(|_| line(r)).collect(),
        _ => Err(Malformed::Field("a list of more than 64 lines")),
    }
}

fn read_front(r: &mut Reader<'_>) -> Result<Front, Malformed> {
    let (run, run_first, commit, next_incarnation) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
    let (fresh, powered) = (r.u32()?, r.u64()?);
    let frontier = r.short(MOST_FRONTIER, "a frontier of more than 63 peaks")?.to_vec();
    let reserve = match usize::from(r.u16()?) {
        count if count <= MOST_RESERVE => (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?,
        _ => return Err(Malformed::Field("a reserve of more than 256 slots")),
    };
    Ok(Front { run, run_first, commit, next_incarnation, fresh, powered, frontier, reserve })
}

fn read_segment(r: &mut Reader<'_>) -> Result<SegmentEntry, Malformed> {
    let (slot, incarnation, generation, dense) = (r.u32()?, r.u64()?, r.u32()?, r.u8()?);
    let (end, payload, seen) = (r.u32()?, r.u32()?, r.u32()?);
    if dense > 1 {
        return Err(Malformed::Field("neither dense nor not"));
    }
    let state = match r.u8()? {
        0 => SegmentState::Open { hash: Hash32(r.array()?), number: r.u32()? },
        1 => SegmentState::Closed(r.u32()?),
        2 => SegmentState::Damaged,
        _ => return Err(Malformed::Field("a segment in no known state")),
    };
    Ok(SegmentEntry { slot, incarnation, generation, dense: dense == 1, end, payload, seen, state })
}

fn read_stream(r: &mut Reader<'_>) -> Result<StreamEntry, Malformed> {
    let (stream, generation) = (StreamId(r.array()?), r.u32()?);
    let (length, root, closed, alarm) = (r.u64()?, Hash32(r.array()?), r.u32()?, read_maybe(r)?);
    Ok(StreamEntry { stream, generation, chain: Chain { root, length }, closed, alarm })
}
