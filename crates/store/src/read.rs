//! Reading records back and checking segments, off the engine's thread.
//!
//! Promises: what a reader returns has matched its hash; a copy found bad is repaired
//! from a good one; a slot is not recycled while a [`Place`] or [`SegmentRef`] to it
//! lives. It holds one head and one index in memory, and a buffer or two.

use std::{ops::Range, sync::Arc};

use hoidla_format::{
    Hash32, StreamId,
    disk::{
        BLOCK,
        batch::{Head, LARGE},
        blocks,
    },
};

use crate::{
    catalogue::run_leaf,
    copies::{Batch, Copies},
    device::{DiskNo, Disks, Pool},
    source::Source,
    space::Pin,
    types::{Generation, Record, Refused},
};

/// Where a record lies, held against recycling until dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) slot: u32,
    pub(crate) incarnation: u64,
    pub(crate) end: u32,
    pub(crate) at: Where,
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    pub(crate) generation: Arc<Generation>,
    pub(crate) source: Source,
    pub(crate) pin: Pin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// In the batch at this block.
    Batch(u32),
    /// The index at this block tells.
    Index(u32),
    /// Only going through the segment tells.
    Somewhere,
}

/// A segment, held against recycling until dropped.
#[derive(Clone, Debug)]
pub struct SegmentRef {
    pub(crate) store: [u8; 16],
    pub(crate) slot: u32,
    pub(crate) incarnation: u64,
    pub(crate) end: u32,
    pub(crate) source: Source,
    pub(crate) generation: Arc<Generation>,
    #[allow(dead_code, reason = "it is held, not looked at")]
    pub(crate) pin: Pin,
}

impl SegmentRef {
    /// Its number: [`crate::Engine::segment`] goes on from the next one.
    pub fn number(&self) -> u32 {
        self.slot
    }

    /// Which use of its slot it is: no other segment ever has this number.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whose it is.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Its bytes in use, on each copy.
    pub fn bytes(&self) -> u64 {
        u64::from(self.end) * BLOCK as u64
    }
}

/// A record as read back: it has matched its hash.
pub struct Found<P: Pool> {
    /// Of its first byte in the stream.
    pub offset: u64,
    /// The epoch.
    pub epoch: u32,
    /// BLAKE3 of its bytes.
    pub hash: Hash32,
    /// The buffer that holds it.
    pub buffer: P::Buffer,
    /// The record's bytes within `buffer`.
    pub range: Range<usize>,
}

impl<P: Pool> Found<P> {
    /// The record's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[self.range.clone()]
    }
}

/// What cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No copy holds it whole.
    #[error("no copy holds offset {offset} of stream {stream} whole: restore it from another appliance")]
    Damaged {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        offset: u64,
    },
    /// The log isn't that long.
    #[error("asked for {asked} leaves of a log that has {size}: take a newer checkpoint, or a smaller number")]
    BeyondLog {
        /// What was asked for.
        asked: u64,
        /// The log's leaves.
        size: u64,
    },
    /// A hash of the log is wrong or missing on every copy.
    #[error("the log is damaged where this proof needs it: have the disks verified, and tell the authority")]
    LogDamaged,
    /// The pool has no buffer at the moment.
    #[error("no memory for reading at the moment: try again")]
    Busy,
    /// A segment that is to be rewritten has lost something on every copy.
    #[error("{0}: it cannot be rewritten")]
    Lost(String),
    /// A batch is damaged on every copy, and with it how old it is.
    #[error("{0}, so nobody can tell when its records were written")]
    Unsure(String),
    /// A bad copy could not be written anew.
    #[error("{what} could not be repaired: {why}; replace the disk")]
    Repair {
        /// Which disk.
        disk: DiskNo,
        /// What was bad.
        what: String,
        /// What the disk said.
        why: String,
    },
}

/// What checking one segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes read, on all copies together.
    pub bytes: u64,
    /// Records checked.
    pub records: u64,
    /// What was bad on one copy and is repaired from another.
    pub repaired: Vec<String>,
    /// What no copy holds any more.
    pub damage: Vec<String>,
    /// What is bad on one disk, good elsewhere, and could not be written anew: which disk, and what
    /// it said. Only copying to another disk goes on after that.
    pub unrepaired: Vec<(DiskNo, String)>,
}

/// Reads records and checks segments by blocking calls; one for each thread.
pub struct Reader<P: Pool> {
    disks: Disks,
    pool: Arc<P>,
    pub(crate) believe: bool,
    /// Deliberately: proofs leave as they were made.
    pub(crate) unchecked: bool,
    batch: Option<(u64, Batch)>,
    index: Option<(u64, Head)>,
}

impl<P: Pool> Reader<P> {
    /// Over the engine's disks, with buffers from `pool`.
    pub fn new(disks: Disks, pool: Arc<P>) -> Self {
        Self { disks, pool, believe: false, unchecked: false, batch: None, index: None }
    }

    /// A reader with a deliberate fault: it doesn't check hashes.
    #[cfg(feature = "faults")]
    pub fn believing(disks: Disks, pool: Arc<P>) -> Self {
        Self { believe: true, ..Self::new(disks, pool) }
    }

    /// A reader with a deliberate fault: it checks neither the hashes that proofs are made from, nor proofs.
    #[cfg(feature = "faults")]
    pub fn proving_blindly(disks: Disks, pool: Arc<P>) -> Self {
        Self { unchecked: true, ..Self::new(disks, pool) }
    }

    /// The disks as they are now: one may have been replaced.
    pub fn attach(&mut self, disks: Disks) {
        self.disks = disks;
    }

    pub(crate) fn disks(&self) -> &Disks {
        &self.disks
    }

    fn copies_at(&self, places: u64, source: &Source) -> Copies<P> {
        Copies::new(self.pool.clone(), &self.disks, places, source.geometry, source.key)
    }

    pub(crate) fn copies(&self, source: &Source) -> Copies<P> {
        self.copies_at(source.places(&self.disks), source)
    }

    /// Reads the record at a place; a bad copy is repaired from a good one.
    pub fn read(&mut self, place: &Place) -> Result<Found<P>, ReadError> {
        let copies = self.copies(&place.source);
        let (batch, nth) = self.find(&copies, place)?;
        if let Some(found) = self.read_nth(&copies, &batch, nth)? {
            return Ok(found);
        }
        let mut out = Checked::default();
        copies.reconcile(&batch, &mut out)?;
        self.read_nth(&copies, &batch, nth)?.ok_or(damaged(place))
    }

    /// Whether the record at a place is the one submitted again; a fork if not.
    pub fn compare(&mut self, place: &Place, record: &Record<P>) -> Result<Result<(), Refused>, ReadError> {
        let copies = self.copies(&place.source);
        let (batch, nth) = self.find(&copies, place)?;
        let (offset, epoch, entry) = nth_record(&batch.head, nth).ok_or(damaged(place))?;
        let same = (offset, epoch, entry.len, entry.hash) == (record.offset, record.epoch, record.len, record.hash);
        Ok(if same || self.believe { Ok(()) } else { Err(Refused::Fork { offset: record.offset }) })
    }

    /// Checks every byte of a segment on every copy, and repairs.
    pub fn check(&mut self, segment: &SegmentRef) -> Result<Checked, ReadError> {
        self.copies(&segment.source).check(segment)
    }

    /// The log's leaves of a segment: index and hash of each, for proofs.
    pub fn leaves(&mut self, segment: &SegmentRef) -> Result<Vec<(u64, Hash32)>, ReadError> {
        let mut leaves = Vec::new();
        self.copies(&segment.source).each_batch(segment, &mut Checked::default(), |batch, _| {
            let logged = !segment.generation.is_log();
            leaves.extend(batch.head.runs.iter().filter(|_| logged).map(|r| (r.leaf, run_leaf(&segment.generation, r))));
            Ok(())
        })?;
        Ok(leaves)
    }

    /// The latest powered second at which a record of this segment was written, as its batches say
    /// on any copy; whatever the catalogue says. None if there is no record. Damaged where no copy
    /// holds a batch.
    pub fn last_powered(&mut self, segment: &SegmentRef) -> Result<Option<u64>, ReadError> {
        let (mut latest, mut found) = (None, Checked::default());
        let all = segment.source.places(&self.disks);
        let one_each = (0..64).map(|n| 1 << n).filter(|copy| all & copy != 0);
        for copies in std::iter::once(all).chain(one_each) {
            let mut checked = Checked::default();
            self.copies_at(copies, &segment.source).each_batch(segment, &mut checked, |batch, _| {
                latest = latest.max((!batch.head.runs.is_empty()).then_some(batch.head.tenure.powered));
                Ok(())
            })?;
            if copies == all {
                found = checked;
            }
        }
        match found.damage.pop() {
            Some(what) => Err(ReadError::Unsure(what)),
            None => Ok(latest),
        }
    }

    /// The batch that holds a place.
    pub(crate) fn batch_of(&mut self, place: &Place) -> Result<Batch, ReadError> {
        let copies = self.copies(&place.source);
        Ok(self.find(&copies, place)?.0)
    }

    /// The batch that holds a place, and which of its records it is.
    fn find(&mut self, copies: &Copies<P>, place: &Place) -> Result<(Batch, usize), ReadError> {
        if let Some((incarnation, batch)) = &self.batch
            && *incarnation == place.incarnation
            && batch.slot == place.slot
            && let Some(nth) = nth_of(&batch.head, place)
        {
            return Ok((batch.clone(), nth));
        }
        let at = match place.at {
            Where::Batch(block) => Some(block),
            Where::Index(block) => self.look_up(copies, place, block)?,
            Where::Somewhere => None,
        };
        let holds = |h: &Head| h.incarnation == place.incarnation && nth_of(h, place).is_some();
        let batch = match at {
            Some(block) => copies.batch(place.slot, block, holds)?,
            None => None,
        };
        let batch = match batch {
            Some(batch) => batch,
            None => copies.later(place.slot, 1, place.end, holds)?.ok_or(damaged(place))?,
        };
        let nth = nth_of(&batch.head, place).ok_or(damaged(place))?;
        self.batch = Some((place.incarnation, batch.clone()));
        Ok((batch, nth))
    }

    fn look_up(&mut self, copies: &Copies<P>, place: &Place, block: u32) -> Result<Option<u32>, ReadError> {
        if self.index.as_ref().is_none_or(|(incarnation, _)| *incarnation != place.incarnation) {
            let ours = |h: &Head| h.incarnation == place.incarnation && h.index.is_some();
            self.index = copies.batch(place.slot, block, ours)?.map(|b| (place.incarnation, b.head));
        }
        let Some(lines) = self.index.as_ref().and_then(|(_, h)| h.index.as_ref()) else { return Ok(None) };
        let before = lines.partition_point(|i| (i.stream, i.offset) <= (place.stream, place.offset));
        Ok(lines[..before].last().filter(|i| i.stream == place.stream).map(|i| i.block))
    }

    fn read_nth(&self, copies: &Copies<P>, batch: &Batch, nth: usize) -> Result<Option<Found<P>>, ReadError> {
        let (Some((offset, epoch, entry)), Some(place)) = (nth_record(&batch.head, nth), batch.head.places().get(nth).copied()) else {
            return Ok(None);
        };
        let (first, len) = (place / BLOCK, entry.len as usize);
        debug_assert!(entry.len >= LARGE || place + len <= batch.head.front_len());
        let count = blocks(place % BLOCK + len);
        let range = place % BLOCK..place % BLOCK + len;
        for copy in copies.of(batch.slot) {
            let Some(buffer) = copies.read(&copy, batch.block + first as u32, count)? else { continue };
            if self.believe || blake3::hash(&buffer.as_ref()[range.clone()]).as_bytes() == &entry.hash.0 {
                return Ok(Some(Found { offset, epoch, hash: entry.hash, buffer, range }));
            }
        }
        Ok(None)
    }
}

pub(crate) fn damaged(place: &Place) -> ReadError {
    ReadError::Damaged { stream: place.stream, offset: place.offset }
}

/// Which record of a batch holds a place.
fn nth_of(head: &Head, place: &Place) -> Option<usize> {
    let mut nth = 0;
    for run in &head.runs {
        let mut offset = run.before.length;
        for entry in &run.records {
            let end = offset + u64::from(entry.len);
            if run.stream == place.stream && (offset..end).contains(&place.offset) {
                return Some(nth);
            }
            offset = end;
            nth += 1;
        }
    }
    None
}

fn nth_record(head: &Head, nth: usize) -> Option<(u64, u32, hoidla_format::disk::batch::Entry)> {
    let all = head.runs.iter().flat_map(|r| {
        r.records.iter().scan(r.before.length, |at, e| {
            *at += u64::from(e.len);
            Some((*at - u64::from(e.len), r.epoch, *e))
        })
    });
    all.into_iter().nth(nth)
}
