//! Batches while they are put together, before the commit has a number.
//!
//! Promises: a draft knows its exact size before it is sealed, so that a record
//! that doesn't fit is refused when it is submitted and never later.

use std::sync::Arc;

use hoidla_format::{
    disk::{
        batch::{Entry, Head, IndexEntry, LARGE, MOST_FRONT, MOST_FRONTIER, MOST_RECORDS, Note, Run},
        blocks,
    },
    frame::Chain,
};

use crate::{
    device::{BlocksOf, Pool},
    types::{Generation, Ticket},
};
use hoidla_format::{Hash32, StreamId};

/// The most runs and notes of a batch.
const MOST_RUNS: usize = 2048;

/// Bytes of a record within frozen blocks.
pub(crate) struct Payload<P: Pool> {
    pub blocks: BlocksOf<P>,
    pub at: usize,
    pub len: usize,
}

impl<P: Pool> Clone for Payload<P> {
    fn clone(&self) -> Self {
        Self { blocks: self.blocks.clone(), ..*self }
    }
}

impl<P: Pool> Payload<P> {
    pub fn bytes(&self) -> &[u8] {
        &self.blocks.as_ref()[self.at..self.at + self.len]
    }
}

/// What is to be added to a draft.
#[derive(Clone, Copy, Default)]
pub(crate) struct Add {
    pub runs: usize,
    pub records: usize,
    pub small: usize,
    pub large_blocks: usize,
    pub notes: usize,
}

impl Add {
    pub fn record(len: u32) -> Self {
        let small = if len < LARGE { len as usize } else { 0 };
        let large_blocks = if len < LARGE { 0 } else { blocks(len as usize) };
        Self { runs: 1, records: 1, small, large_blocks, notes: 0 }
    }

    pub fn and(self, o: Self) -> Self {
        Self {
            runs: self.runs + o.runs,
            records: self.records + o.records,
            small: self.small + o.small,
            large_blocks: self.large_blocks + o.large_blocks,
            notes: self.notes + o.notes,
        }
    }

    fn front_len(&self, frontier: usize, index: usize) -> usize {
        Head::len_of(frontier, self.runs, self.records, self.notes, index) + self.small
    }

    /// Blocks of a batch that holds this; none if no batch does.
    pub fn blocks(&self, frontier: usize) -> Option<u32> {
        let front = self.front_len(frontier, 0);
        // Wherever it is rewritten, and however long the log is by then, it fits again.
        let fits = self.front_len(MOST_FRONTIER, 0) <= MOST_FRONT && self.records <= MOST_RECORDS && self.runs.max(self.notes) <= MOST_RUNS;
        fits.then(|| (blocks(front) + self.large_blocks) as u32)
    }
}

/// Blocks to keep free in a segment so that it can be closed with `index` lines.
pub(crate) fn closing_blocks(index: usize) -> Option<u32> {
    let len = Head::len_of(MOST_FRONTIER, 0, 0, 0, index);
    (len <= MOST_FRONT).then(|| blocks(len) as u32)
}

/// One batch to be.
pub(crate) struct Draft<P: Pool> {
    pub slot: u32,
    pub incarnation: u64,
    pub generation: Arc<Generation>,
    pub dense: bool,
    pub block: u32,
    /// The segment's header goes before it.
    pub opens: bool,
    pub runs: Vec<Run>,
    pub payload: Vec<Payload<P>>,
    pub notes: Vec<Note>,
    pub retires: Option<(u32, u64)>,
    pub index: Option<Vec<IndexEntry>>,
    pub sum: Add,
}

impl<P: Pool> Draft<P> {
    /// Adds one record behind `before`; begins a run where needed. True if it did.
    pub fn add(&mut self, stream: StreamId, epoch: u32, before: Chain, entry: Entry, payload: Payload<P>) -> bool {
        let mut add = Add::record(entry.len);
        let last = self.runs.iter().rposition(|r| r.stream == stream).filter(|i| self.continues(*i, epoch));
        let i = match last {
            Some(i) => {
                add.runs = 0;
                i
            }
            None => {
                self.runs.push(Run { stream, epoch, leaf: 0, before, records: Vec::new() });
                self.runs.len() - 1
            }
        };
        let at = self.runs[..=i].iter().map(|r| r.records.len()).sum();
        self.runs[i].records.push(entry);
        self.payload.insert(at, payload);
        self.sum = self.sum.and(add);
        last.is_none()
    }

    fn continues(&self, run: usize, epoch: u32) -> bool {
        self.runs[run].epoch == epoch && self.runs[run].records.len() < usize::from(u16::MAX)
    }

    pub fn blocks(&self, frontier: usize) -> u32 {
        match &self.index {
            Some(index) => blocks(self.sum.front_len(frontier, index.len())) as u32,
            None => self.sum.blocks(frontier).expect("checked when it was added"),
        }
    }
}

/// Who waits for a commit.
#[derive(Clone)]
pub(crate) enum Waiter {
    Record { ticket: Ticket, stream: StreamId, draft: usize, run: usize, leaf: u64, offset: u64, entry: Entry, epoch: u32 },
    Note { ticket: Option<Ticket>, stream: Option<StreamId> },
}

/// The commit to be.
pub(crate) struct Building<P: Pool> {
    pub drafts: Vec<Draft<P>>,
    pub waiters: Vec<Waiter>,
    pub bytes: usize,
}

impl<P: Pool> Default for Building<P> {
    fn default() -> Self {
        Self { drafts: Vec::new(), waiters: Vec::new(), bytes: 0 }
    }
}

impl<P: Pool> Building<P> {
    /// The last draft of a segment, which may still grow.
    pub fn last_of(&self, slot: u32) -> Option<usize> {
        self.drafts.iter().rposition(|d| d.slot == slot).filter(|i| self.drafts[*i].index.is_none())
    }
}

/// A hash that is known when the batch is sealed.
pub(crate) struct Link {
    pub hash: Hash32,
    pub number: u32,
}
