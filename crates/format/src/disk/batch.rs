//! A batch: what one group commit wrote into one segment.
//!
//! ```text
//! head    header, hash, chain, commit, log's frontier, runs, notes, index
//! small   records shorter than 32 KiB, one right after the other
//! ...     zero up to a whole block
//! large   each other record from a block of its own on, zero up to a whole block
//! ```
//! Head and small records together are the *front*, one buffer of at most 1 MiB.
//! The head's hash, keyed, covers the head; the head holds the hash of every record. So
//! the chain over heads covers every byte.

use super::{BLOCK, SealKey, VERSION, blocks, check_seal_keyed, seal_keyed};
use crate::{Hash32, Kind, Malformed, Reader, StreamId, Writer, frame, frame::Chain};

/// Records from this length on begin at a block of their own.
pub const LARGE: u32 = 32 * 1024;
/// The most bytes of head and small records together.
pub const MOST_FRONT: usize = 1 << 20;
/// The most records of a batch.
pub const MOST_RECORDS: usize = 4096;
/// The most bytes of a frontier: 63 peaks.
pub const MOST_FRONTIER: usize = 8 + 63 * 32;

const FIXED: usize = 8 + 32 + 32 + 8 * 6 + 4 + 2 + 2 + 4 + 4 + 1 + 12 + 16 + 2 + 2 + 2 + 4;
const RUN: usize = 16 + 4 + 8 + 8 + 32 + 2;
const ENTRY: usize = 4 + 32;
const NOTE: usize = 16 + 1 + 8;
const INDEX_ENTRY: usize = 16 + 8 + 4;

/// One record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its bytes.
    pub len: u32,
    /// BLAKE3 of them.
    pub hash: Hash32,
}

/// Records of one stream and epoch that follow each other: one leaf of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The stream.
    pub stream: StreamId,
    /// The epoch.
    pub epoch: u32,
    /// The index of its leaf in the log.
    pub leaf: u64,
    /// The stream's chain before the first record.
    pub before: Chain,
    /// The records, in order.
    pub records: Vec<Entry>,
}

impl Run {
    /// The stream's chain after the last record.
    pub fn after(&self) -> Chain {
        self.records.iter().fold(self.before, |c, e| c.then(&e.hash, e.len))
    }

    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.before.length + self.records.iter().map(|e| u64::from(e.len)).sum::<u64>()
    }
}

/// Something about a stream that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The stream.
    pub stream: StreamId,
    /// What is noted.
    pub what: What,
}

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Epochs up to this one take no more records.
    Closed(u32),
    /// An agent presented this offset, and the store had less: the stream is refused.
    Alarmed(u64),
    /// An operator lifted the alarm.
    Readmitted,
}

/// One line of a segment's index: the batch at `block` has a run of this stream from this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The stream.
    pub stream: StreamId,
    /// The offset at which the run begins.
    pub offset: u64,
    /// The batch's block within the segment.
    pub block: u32,
}

/// What a batch carries of time and retention, so that no lost catalogue forgets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// Seconds that the machine was powered, as the store knew them when the batch was sealed.
    pub powered: u64,
    /// The generations of this dataset with a lower number are gone for good.
    pub floor: u32,
    /// The most days for which the authority ever said that this dataset's generations are kept.
    pub days: u32,
}

/// A batch's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The hash of the batch before, or of the segment's header.
    pub previous: Hash32,
    /// The segment's incarnation.
    pub incarnation: u64,
    /// The store's run that wrote it.
    pub run: u64,
    /// The first commit of that run: what an earlier run wrote from it on was cut.
    pub run_first: u64,
    /// The commit; counted without gaps from 1.
    pub commit: u64,
    /// The highest commit known flushed on every current copy.
    pub mark: u64,
    /// The sequence of the catalogue checkpoint that counted.
    pub checkpoint: u64,
    /// Counted within the segment from 0.
    pub number: u32,
    /// Which part of the commit, from 0.
    pub part: u16,
    /// How many parts the commit has.
    pub parts: u16,
    /// Its records were moved here and keep their leaves; they are new to neither log nor stream.
    pub moved: bool,
    /// The slot and incarnation of a segment that holds nothing more since this commit.
    pub retires: Option<(u32, u64)>,
    /// Time and retention.
    pub tenure: Tenure,
    /// The log before this commit (`hoidla-log`'s `Frontier`).
    pub frontier: Vec<u8>,
    /// The records.
    pub runs: Vec<Run>,
    /// The notes.
    pub notes: Vec<Note>,
    /// In the last batch of a closed segment: where each run is, in order.
    pub index: Option<Vec<IndexEntry>>,
}

impl Head {
    /// Bytes of a head with so much in it.
    pub fn len_of(frontier: usize, runs: usize, records: usize, notes: usize, index: usize) -> usize {
        FIXED + frontier + runs * RUN + records * ENTRY + notes * NOTE + index * INDEX_ENTRY
    }

    /// Bytes of the head.
    pub fn head_len(&self) -> usize {
        let records = self.runs.iter().map(|r| r.records.len()).sum();
        Self::len_of(self.frontier.len(), self.runs.len(), records, self.notes.len(), self.index.as_ref().map_or(0, Vec::len))
    }

    /// All records in order.
    pub fn records(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(|r| &r.records)
    }

    /// Bytes of head and small records.
    pub fn front_len(&self) -> usize {
        self.head_len() + self.records().filter(|e| e.len < LARGE).map(|e| e.len as usize).sum::<usize>()
    }

    /// The batch's blocks.
    pub fn blocks(&self) -> u32 {
        let large: usize = self.records().filter(|e| e.len >= LARGE).map(|e| blocks(e.len as usize)).sum();
        (blocks(self.front_len()) + large) as u32
    }

    /// Where each record begins, in bytes from the batch's first, in order.
    pub fn places(&self) -> Vec<usize> {
        let (mut small, mut large) = (self.head_len(), blocks(self.front_len()) * BLOCK);
        let place = |e: &Entry| {
            let len = e.len as usize;
            let (cursor, step) = if e.len < LARGE { (&mut small, len) } else { (&mut large, blocks(len) * BLOCK) };
            *cursor += step;
            *cursor - step
        };
        self.records().map(place).collect()
    }

    /// As bytes, sealed with the store's key, and the hash that the next batch names.
    ///
    /// # Panics
    /// If a bound is broken: the engine's mistake.
    pub fn to_bytes(&self, key: &SealKey) -> (Vec<u8>, Hash32) {
        let kind = if self.index.is_some() { Kind::SegmentIndex } else { Kind::Batch };
        let mut w = Writer::with_header(kind, VERSION);
        w.put(&[0; 32]).put(&self.previous.0).u64(self.incarnation).u64(self.run).u64(self.run_first);
        w.u64(self.commit).u64(self.mark).u64(self.checkpoint).u32(self.number).u16(self.part).u16(self.parts);
        w.u32(self.head_len() as u32).u32(self.blocks()).u8(u8::from(self.moved) | u8::from(self.retires.is_some()) << 1);
        let (slot, incarnation) = self.retires.unwrap_or((0, 0));
        w.u32(slot).u64(incarnation).u64(self.tenure.powered).u32(self.tenure.floor).u32(self.tenure.days).short(&self.frontier);
        w.u16(self.runs.len() as u16).u16(self.notes.len() as u16).u32(self.index.as_ref().map_or(0, |i| i.len() as u32));
        for r in &self.runs {
            w.put(&r.stream.0).u32(r.epoch).u64(r.leaf).u64(r.before.length).put(&r.before.root.0).u16(r.records.len() as u16);
            for e in &r.records {
                w.u32(e.len).put(&e.hash.0);
            }
        }
        for n in &self.notes {
            let (code, value) = match n.what {
                What::Closed(epoch) => (0, epoch.into()),
                What::Alarmed(offset) => (1, offset),
                What::Readmitted => (2, 0),
            };
            w.put(&n.stream.0).u8(code).u64(value);
        }
        for i in self.index.iter().flatten() {
            w.put(&i.stream.0).u64(i.offset).u32(i.block);
        }
        let mut bytes = w.finish();
        assert!(bytes.len() == self.head_len() && self.front_len() <= MOST_FRONT, "a batch's front is at most 1 MiB");
        let hash = seal_keyed(&mut bytes, key);
        (bytes, hash)
    }

    /// What the first block of a batch says of it before the rest is read: bytes of its
    /// head (at most [`MOST_FRONT`]). Not yet checked against the hash.
    pub fn peek(block: &[u8]) -> Result<usize, Malformed> {
        let mut r = Reader::new(block);
        r.header(kind_of(block), VERSION)?;
        r.take(32 + 32 + 8 * 6 + 4 + 2 + 2)?;
        let head = r.u32()? as usize;
        if (FIXED..=MOST_FRONT).contains(&head) { Ok(head) } else { Err(Malformed::Field("a head of impossible length")) }
    }

    /// Reads a head from `bytes`, which may go on after it; checks its hash, keyed, and returns it too.
    pub fn read(bytes: &[u8], key: &SealKey) -> Result<(Self, Hash32), Malformed> {
        let len = Self::peek(bytes)?;
        let bytes = bytes.get(..len).ok_or(Malformed::Truncated { wanted: len, left: bytes.len() })?;
        let hash = check_seal_keyed(bytes, key)?;
        let mut r = Reader::new(bytes);
        r.take(8 + 32)?;
        let previous = Hash32(r.array()?);
        let (incarnation, run, run_first) = (r.u64()?, r.u64()?, r.u64()?);
        let (commit, mark, checkpoint) = (r.u64()?, r.u64()?, r.u64()?);
        let (number, part, parts) = (r.u32()?, r.u16()?, r.u16()?);
        let (_, blocks, flags) = (r.u32()?, r.u32()?, r.u8()?);
        let retires = (r.u32()?, r.u64()?);
        let tenure = Tenure { powered: r.u64()?, floor: r.u32()?, days: r.u32()? };
        let frontier = r.short(MOST_FRONTIER, "a frontier of more than 63 peaks")?.to_vec();
        let (runs, notes, entries) = (r.u16()?, r.u16()?, r.u32()?);
        let idle = flags & 2 == 0 && retires != (0, 0);
        if flags > 3 || idle || part >= parts || mark >= commit {
            return Err(Malformed::Field("a batch that contradicts itself"));
        }
        let runs = (0..runs).map(|_| read_run(&mut r)).collect::<Result<Vec<_>, _>>()?;
        let notes = (0..notes).map(|_| read_note(&mut r)).collect::<Result<Vec<_>, _>>()?;
        let index = (0..entries).map(|_| read_index_entry(&mut r)).collect::<Result<Vec<_>, _>>()?;
        r.finish()?;
        let index = match kind_of(bytes) {
            Kind::SegmentIndex => Some(index),
            _ if index.is_empty() => None,
            _ => return Err(Malformed::Field("an index in the midst of a segment")),
        };
        let retires = (flags & 2 != 0).then_some(retires);
        let moved = flags & 1 != 0;
        #[rustfmt::skip]
        let head = Self { previous, incarnation, run, run_first, commit, mark, checkpoint, number, part, parts, moved, retires, tenure, frontier, runs, notes, index };
        if head.front_len() > MOST_FRONT || head.blocks() != blocks {
            return Err(Malformed::Field("a batch that contradicts its length"));
        }
        Ok((head, hash))
    }
}

/// Whether a block may be the first of a batch.
pub fn may_begin(block: &[u8]) -> bool {
    Head::peek(block).is_ok()
}

fn kind_of(bytes: &[u8]) -> Kind {
    if bytes.get(6) == Some(&(Kind::SegmentIndex as u8)) { Kind::SegmentIndex } else { Kind::Batch }
}

fn read_run(r: &mut Reader<'_>) -> Result<Run, Malformed> {
    let (stream, epoch, leaf) = (StreamId(r.array()?), r.u32()?, r.u64()?);
    let (length, root) = (r.u64()?, Hash32(r.array()?));
    let count = r.u16()?;
    let records = (0..count)
        .map(|_| match (r.u32()?, r.array()?) {
            (len, hash) if (1..=frame::MOST as u32).contains(&len) => Ok(Entry { len, hash: Hash32(hash) }),
            _ => Err(Malformed::Field("a record of impossible length")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if records.is_empty() || epoch == 0 || length >= 1 << 62 {
        return Err(Malformed::Field("a run that cannot be"));
    }
    Ok(Run { stream, epoch, leaf, before: Chain { root, length }, records })
}

fn read_note(r: &mut Reader<'_>) -> Result<Note, Malformed> {
    let (stream, code, value) = (StreamId(r.array()?), r.u8()?, r.u64()?);
    let what = match code {
        0 => What::Closed(u32::try_from(value).map_err(|_| Malformed::Field("an epoch past 2^32"))?),
        1 => What::Alarmed(value),
        2 if value == 0 => What::Readmitted,
        _ => return Err(Malformed::Field("a note that this program doesn't know")),
    };
    Ok(Note { stream, what })
}

fn read_index_entry(r: &mut Reader<'_>) -> Result<IndexEntry, Malformed> {
    Ok(IndexEntry { stream: StreamId(r.array()?), offset: r.u64()?, block: r.u32()? })
}
