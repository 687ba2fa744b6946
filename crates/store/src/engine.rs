//! The engine: takes records, hands out requests, tells what became of them.

use std::sync::Arc;

use hoidla_format::StreamId;

use crate::{
    device::{Counters, Disk, Pool, Request},
    types::*,
};

/// How a store is laid out; settled when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a segment, a multiple of the block; 64 MiB unless told otherwise.
    pub segment: u64,
    /// Bytes of each of the two catalogue areas; 0 picks by the disks' size.
    pub catalogue: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { segment: 64 << 20, catalogue: 0 }
    }
}

/// How the engine runs; none of it stands on disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Payload bytes that one commit gathers at most.
    pub commit_bytes: usize,
    /// Commits under way at once: one is written while the one before is flushed.
    pub depth: usize,
    /// Open segments at once.
    pub open_segments: usize,
    /// Copy what a returning disk has missed, at opening; else it stays out.
    pub resync: bool,
    /// Write zeros into segments before their first use, in the background.
    pub prewrite: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { commit_bytes: 16 << 20, depth: 2, open_segments: 32, resync: true, prewrite: false }
    }
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Places whose disk is missing, or stale and not resynced.
    pub missing: Vec<u8>,
    /// Places whose disk came back and was made whole.
    pub resynced: Vec<u8>,
    /// What was repaired from another copy.
    pub repaired: Vec<String>,
    /// What no copy holds any more, though it was marked as kept.
    pub damage: Vec<String>,
    /// Commits that were begun and not acknowledged, cut.
    pub cut: u64,
    /// The catalogue was lost and rebuilt from all segments.
    pub rebuilt: bool,
}

/// Why a store cannot be opened or formatted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not one of ours, or unreadable.
    #[error("{0}")]
    Disk(String),
}

/// The store, running.
pub struct Engine<P: Pool> {
    _pool: Arc<P>,
}

impl<P: Pool> Engine<P> {
    /// Lays an empty store on `disks` (one copy each); everything on them is lost. `store` is
    /// 16 random bytes that name it.
    pub fn format(_disks: &[Arc<dyn Disk>], _store: [u8; 16], _layout: Layout, _counters: &mut dyn Counters) -> Result<(), OpenError> {
        todo!()
    }

    /// Opens the store that lies on `disks`, in any order; some may be missing. `store`: refuse any other.
    pub fn open(
        _disks: Vec<Arc<dyn Disk>>,
        _store: [u8; 16],
        _pool: Arc<P>,
        _counters: Box<dyn Counters>,
        _options: Options,
    ) -> Result<(Self, Opened), OpenError> {
        todo!()
    }

    /// The disks by place, for readers and verification, and for the driver of [`Request`]s.
    pub fn disks(&self) -> crate::device::Disks {
        todo!()
    }

    /// Takes one record. Whatever is refused leaves no trace.
    pub fn append(&mut self, _record: Record<P>, _ticket: Ticket) -> Result<Appended, Refused> {
        todo!()
    }

    /// Closes all epochs of a stream up to `epoch`; appends to them are refused from now on.
    pub fn close_epoch(&mut self, _stream: StreamId, _epoch: u32, _ticket: Ticket) -> Result<(), Refused> {
        todo!()
    }

    /// An agent says up to where it holds acknowledgements, before it sends. If the store has
    /// less it is behind (rewound, or damaged): the stream is refused, durably, until `readmit`.
    pub fn present(&mut self, _generation: &Generation, _stream: StreamId, _offset: u64) -> Result<StreamState, Refused> {
        todo!()
    }

    /// An operator has looked and takes the stream as it is.
    pub fn readmit(&mut self, _stream: StreamId, _ticket: Ticket) -> Result<(), Refused> {
        todo!()
    }

    /// What is acknowledged of a stream.
    pub fn state(&self, _stream: StreamId) -> Option<StreamState> {
        todo!()
    }

    /// All streams of a dataset, in order of their ids.
    pub fn streams(&self, _dataset: &hoidla_format::Name) -> Vec<(StreamId, StreamState)> {
        todo!()
    }

    /// The log as of the last acknowledgement: size and root.
    pub fn log_head(&self) -> (u64, hoidla_format::Hash32) {
        todo!()
    }

    /// Where the record that holds `offset` of a stream lies; it stays there while the place is held.
    pub fn locate(&mut self, _stream: StreamId, _offset: u64) -> Option<Place> {
        todo!()
    }

    /// The next segment with number `from` or above that holds something, for verification;
    /// it is not recycled while the reference is held.
    pub fn segment(&mut self, _from: u32) -> Option<SegmentRef> {
        todo!()
    }

    /// What to do next to a disk; none when all waits for completions or submissions.
    pub fn next_request(&mut self) -> Option<Request<P>> {
        todo!()
    }

    /// What became of a request: the bytes written (0 for a flush), or why not.
    pub fn complete(&mut self, _id: u64, _outcome: std::io::Result<usize>) {
        todo!()
    }

    /// The next thing to tell.
    pub fn next_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// Bytes still free for payload, roughly; and all bytes.
    pub fn room(&self) -> (u64, u64) {
        todo!()
    }
}

/// Where a record lies, held against recycling until dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) slot: u32,
}

/// A segment, held against recycling until dropped.
#[derive(Clone, Debug)]
pub struct SegmentRef {
    pub(crate) slot: u32,
}

/// A record as read back: verified against its hash.
pub struct Found<P: Pool> {
    /// Of its first byte in the stream.
    pub offset: u64,
    /// The epoch.
    pub epoch: u32,
    /// BLAKE3 of its bytes.
    pub hash: hoidla_format::Hash32,
    /// The buffer that holds it, and where in it the bytes are.
    pub buffer: P::Buffer,
    /// The record's bytes within `buffer`.
    pub range: std::ops::Range<usize>,
}

/// Reads records and checks segments by blocking calls; one for each thread.
pub struct Reader<P: Pool> {
    _p: Arc<P>,
}

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No copy holds it whole.
    #[error("{0}")]
    Damaged(String),
    /// The pool has no buffer at the moment.
    #[error("no memory for reading at the moment: try again")]
    Busy,
}

/// What checking one segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes read, all copies.
    pub bytes: u64,
    /// Records checked.
    pub records: u64,
    /// What was bad on one copy and repaired from another.
    pub repaired: Vec<String>,
    /// What no copy holds any more.
    pub damage: Vec<String>,
}

impl<P: Pool> Reader<P> {
    /// Over the engine's disks, with buffers from `pool`.
    pub fn new(_disks: crate::device::Disks, _pool: Arc<P>) -> Self {
        todo!()
    }

    /// Reads the record at a place; a bad copy is repaired from a good one.
    pub fn read(&mut self, _place: &Place) -> Result<Found<P>, ReadError> {
        todo!()
    }

    /// Whether the record at a place is the one submitted again; a fork if not.
    pub fn compare(&mut self, _place: &Place, _record: &Record<P>) -> Result<Result<(), Refused>, ReadError> {
        todo!()
    }

    /// Checks every byte of a segment on every copy, and repairs.
    pub fn check(&mut self, _segment: &SegmentRef) -> Result<Checked, ReadError> {
        todo!()
    }
}
