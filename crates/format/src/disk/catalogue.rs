//! The catalogue checkpoint: a cache of what all segments say together, as of one
//! commit that every current copy had flushed. Two areas take turns.

use super::{BLOCK, VERSION, batch::IndexEntry, batch::MOST_FRONTIER, blocks, check_seal, seal};
use crate::{Hash32, Kind, Malformed, Name, Reader, StreamId, Writer, frame::Chain};

/// Bytes before the body: header, hash, length of the body.
pub const HEAD: usize = 8 + 32 + 8;

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// Raised with each; its area is this modulo 2.
    pub sequence: u64,
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
    /// The segments in use, by slot.
    pub segments: Vec<SegmentEntry>,
    /// The streams, by id.
    pub streams: Vec<StreamEntry>,
    /// What is known of datasets' retention, by name.
    pub datasets: Vec<DatasetEntry>,
    /// When each generation last took something.
    pub generations: Vec<GenerationEntry>,
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

/// A generation's age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationEntry {
    /// The dataset.
    pub dataset: Name,
    /// The generation.
    pub generation: u32,
    /// The powered seconds at its last record.
    pub last: u64,
}

/// One segment in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its slot.
    pub slot: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The dataset.
    pub dataset: Name,
    /// The generation.
    pub generation: u32,
    /// Whether it takes rewritten records only.
    pub dense: bool,
    /// The first block after its last batch.
    pub end: u32,
    /// Payload bytes.
    pub payload: u64,
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
    Open(Tail),
    /// Its index is the batch at this block.
    Closed(u32),
    /// It lost a batch on every copy; it has no index and takes nothing more.
    Damaged,
}

/// Where an open segment goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The hash that the next batch names.
    pub hash: Hash32,
    /// The number of the next batch.
    pub number: u32,
    /// The index so far.
    pub index: Vec<IndexEntry>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its id.
    pub stream: StreamId,
    /// The dataset.
    pub dataset: Name,
    /// The generation.
    pub generation: u32,
    /// Acknowledged length and root.
    pub chain: Chain,
    /// Epochs up to this one are closed.
    pub closed: u32,
    /// What an agent presented that the store didn't have, while that stands.
    pub alarm: Option<u64>,
    /// Where each epoch starts.
    pub epochs: Vec<(u32, u64)>,
    /// From which offset on which slot holds the stream.
    pub extents: Vec<(u64, u32)>,
}

impl Catalogue {
    /// As bytes, sealed, filled up to whole blocks.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::Catalogue, VERSION);
        w.put(&[0; 32]).u64(0);
        w.u64(self.sequence)
            .u64(self.run)
            .u64(self.run_first)
            .u64(self.commit)
            .u64(self.next_incarnation)
            .u32(self.fresh)
            .u64(self.powered);
        w.short(&self.frontier).u32(self.reserve.len() as u32).u32(self.segments.len() as u32).u32(self.streams.len() as u32);
        w.u32(self.datasets.len() as u32).u32(self.generations.len() as u32);
        self.reserve.iter().for_each(|s| _ = w.u32(*s));
        self.segments.iter().for_each(|s| write_segment(&mut w, s));
        self.streams.iter().for_each(|s| write_stream(&mut w, s));
        self.datasets.iter().for_each(|d| _ = w.short(d.dataset.as_str().as_bytes()).u32(d.floor).u32(d.days));
        self.generations.iter().for_each(|g| _ = w.short(g.dataset.as_str().as_bytes()).u32(g.generation).u64(g.last));
        let mut bytes = w.finish();
        let body = (bytes.len() - HEAD) as u64;
        bytes[40..HEAD].copy_from_slice(&body.to_le_bytes());
        seal(&mut bytes);
        bytes.resize(blocks(bytes.len()) * BLOCK, 0);
        bytes
    }

    /// How many bytes to read, by the first block; at most `most`.
    pub fn peek(block: &[u8], most: usize) -> Result<usize, Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::Catalogue, VERSION)?;
        r.take(32)?;
        match r.u64()?.checked_add(HEAD as u64) {
            Some(len) if len <= most as u64 => Ok(len as usize),
            _ => Err(Malformed::Field("a catalogue longer than its area")),
        }
    }

    /// Reads one from exactly the bytes that [`peek`](Self::peek) told.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        check_seal(bytes)?;
        let mut r = Reader::new(bytes);
        r.header(Kind::Catalogue, VERSION)?;
        r.take(HEAD - 8)?;
        let (sequence, run, run_first, commit) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (next_incarnation, fresh, powered) = (r.u64()?, r.u32()?, r.u64()?);
        let frontier = r.short(MOST_FRONTIER, "a frontier of more than 63 peaks")?.to_vec();
        let (reserve, segments, streams) = (r.u32()?, r.u32()?, r.u32()?);
        let (datasets, generations) = (r.u32()?, r.u32()?);
        let reserve = (0..reserve).map(|_| r.u32()).collect::<Result<_, _>>()?;
        let segments = (0..segments).map(|_| read_segment(&mut r)).collect::<Result<_, _>>()?;
        let streams = (0..streams).map(|_| read_stream(&mut r)).collect::<Result<_, _>>()?;
        let dataset = |_| Ok(DatasetEntry { dataset: read_name(&mut r)?, floor: r.u32()?, days: r.u32()? });
        let datasets = (0..datasets).map(dataset).collect::<Result<_, Malformed>>()?;
        let generation = |_| Ok(GenerationEntry { dataset: read_name(&mut r)?, generation: r.u32()?, last: r.u64()? });
        let generations = (0..generations).map(generation).collect::<Result<_, Malformed>>()?;
        r.finish()?;
        #[rustfmt::skip]
        let c = Self { sequence, run, run_first, commit, next_incarnation, fresh, powered, frontier, reserve, segments, streams, datasets, generations };
        Ok(c)
    }
}

fn read_name(r: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::from_bytes(r.short(Name::MOST, "a dataset's name is at most 64 bytes")?)
}

fn write_segment(w: &mut Writer, s: &SegmentEntry) {
    w.u32(s.slot).u64(s.incarnation).short(s.dataset.as_str().as_bytes()).u32(s.generation);
    w.u8(s.dense.into()).u32(s.end).u64(s.payload).u32(s.seen);
    match &s.state {
        SegmentState::Open(t) => {
            w.u8(0).put(&t.hash.0).u32(t.number).u32(t.index.len() as u32);
            t.index.iter().for_each(|i| _ = w.put(&i.stream.0).u64(i.offset).u32(i.block));
        }
        SegmentState::Closed(at) => _ = w.u8(1).u32(*at),
        SegmentState::Damaged => _ = w.u8(2),
    }
}

fn read_segment(r: &mut Reader<'_>) -> Result<SegmentEntry, Malformed> {
    let (slot, incarnation) = (r.u32()?, r.u64()?);
    let dataset = read_name(r)?;
    let (generation, dense, end, payload, seen) = (r.u32()?, r.u8()?, r.u32()?, r.u64()?, r.u32()?);
    if dense > 1 {
        return Err(Malformed::Field("neither dense nor not"));
    }
    let state = match r.u8()? {
        0 => {
            let (hash, number, count) = (Hash32(r.array()?), r.u32()?, r.u32()?);
            let entry = |_| Ok(IndexEntry { stream: StreamId(r.array()?), offset: r.u64()?, block: r.u32()? });
            SegmentState::Open(Tail { hash, number, index: (0..count).map(entry).collect::<Result<_, _>>()? })
        }
        1 => SegmentState::Closed(r.u32()?),
        2 => SegmentState::Damaged,
        _ => return Err(Malformed::Field("a segment in no known state")),
    };
    Ok(SegmentEntry { slot, incarnation, dataset, generation, dense: dense == 1, end, payload, seen, state })
}

fn write_stream(w: &mut Writer, s: &StreamEntry) {
    w.put(&s.stream.0).short(s.dataset.as_str().as_bytes()).u32(s.generation);
    w.u64(s.chain.length).put(&s.chain.root.0).u32(s.closed);
    w.u8(s.alarm.is_some().into()).u64(s.alarm.unwrap_or(0));
    w.u32(s.epochs.len() as u32).u32(s.extents.len() as u32);
    s.epochs.iter().for_each(|(e, at)| _ = w.u32(*e).u64(*at));
    s.extents.iter().for_each(|(at, slot)| _ = w.u64(*at).u32(*slot));
}

fn read_stream(r: &mut Reader<'_>) -> Result<StreamEntry, Malformed> {
    let stream = StreamId(r.array()?);
    let dataset = read_name(r)?;
    let (generation, length, root, closed) = (r.u32()?, r.u64()?, Hash32(r.array()?), r.u32()?);
    let alarm = match (r.u8()?, r.u64()?) {
        (0, 0) => None,
        (1, offset) => Some(offset),
        _ => return Err(Malformed::Field("neither an alarm nor none")),
    };
    let (epochs, extents) = (r.u32()?, r.u32()?);
    let epochs = (0..epochs).map(|_| Ok((r.u32()?, r.u64()?))).collect::<Result<_, _>>()?;
    let extents = (0..extents).map(|_| Ok((r.u64()?, r.u32()?))).collect::<Result<_, _>>()?;
    Ok(StreamEntry { stream, dataset, generation, chain: Chain { root, length }, closed, alarm, epochs, extents })
}
