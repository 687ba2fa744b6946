//! What the engine asks of the world: aligned memory, disks, and a counter that
//! outlives disks.
//!
//! Two ways to a disk. The engine itself does no I/O: it hands out [`Request`]s
//! (writes and flushes) and takes their outcome, so that a ring or a simulator
//! carries them out in any order. Whoever reads (opening, readers, verification)
//! does so through [`Disk`], which blocks, on a thread of its own choosing.

use std::{fmt, io, sync::Arc};

/// The unit of every address, offset and length on a disk, and of alignment in memory.
pub use hoidla_format::disk::BLOCK;

/// The most bytes that one buffer of a [`Pool`] holds, and so of one request.
pub const MOST_BUFFER: usize = 1 << 20;

/// Memory for direct I/O from a bounded, fixed pool: unique while it is filled.
/// Address and length are multiples of [`BLOCK`].
pub trait Buffer: AsRef<[u8]> + AsMut<[u8]> + Send + 'static {
    /// What it becomes when it is full.
    type Blocks: Blocks;

    /// No one changes it any more. Keeps the first `len` bytes, rounded up to whole
    /// blocks; bytes after `len` within the last block are set to zero.
    fn freeze(self, len: usize) -> Self::Blocks;
}

/// Frozen memory: cheap to clone, the same bytes go to every copy. It returns to
/// its pool when the last clone is dropped, wherever that happens.
pub trait Blocks: AsRef<[u8]> + Clone + Send + Sync + 'static {}

/// Where buffers come from. The engine needs a few for each commit: whoever fills records
/// from the same pool must leave it some, or nothing moves until records are given up.
pub trait Pool: Send + Sync + 'static {
    /// What it hands out.
    type Buffer: Buffer;

    /// A buffer of at least `len` bytes (at most [`MOST_BUFFER`]), rounded up to whole
    /// blocks, its content unspecified; none while the pool is exhausted.
    fn take(&self, len: usize) -> Option<Self::Buffer>;
}

/// The frozen memory of a pool.
pub type BlocksOf<P> = <<P as Pool>::Buffer as Buffer>::Blocks;

/// A disk or preallocated file, by blocking calls that may come from any thread.
/// Offsets, lengths and addresses are multiples of [`BLOCK`]. A call that did less
/// than all is an error.
pub trait Disk: Send + Sync {
    /// How people call it: a path or a serial number.
    fn name(&self) -> String;
    /// Its bytes.
    fn size(&self) -> u64;
    /// Fills `into` from `at`.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `at`; durable only after [`flush`](Self::flush).
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all writes that have returned durable.
    fn flush(&self) -> io::Result<()>;
}

/// One disk of a store by its place in it, counted from 0.
pub type DiskNo = u8;

/// The disks of a store by place; none where a disk is missing.
pub type Disks = Vec<Option<Arc<dyn Disk>>>;

/// What the engine wants done to one disk. Requests may be carried out in any
/// order and at the same time: the engine waits where order matters.
pub struct Request<P: Pool> {
    /// Names the request in [`crate::Engine::complete`].
    pub id: u64,
    /// Which disk.
    pub disk: DiskNo,
    /// What to do.
    pub op: Op<P>,
}

/// The two things that the engine does to disks.
pub enum Op<P: Pool> {
    /// Write all of `blocks` at byte `at`.
    Write {
        /// The first byte's place on the disk.
        at: u64,
        /// What to write; a whole number of blocks.
        blocks: BlocksOf<P>,
    },
    /// Make all writes that were completed durable.
    Flush,
}

impl<P: Pool> fmt::Debug for Request<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Op::Write { at, blocks } => write!(f, "#{} disk {} write {} at {at}", self.id, self.disk, blocks.as_ref().len()),
            Op::Flush => write!(f, "#{} disk {} flush", self.id, self.disk),
        }
    }
}

/// Counters that no disk swap or rewind takes back: NV memory of a TPM.
pub trait Counters: Send {
    /// The highest membership epoch that this machine has seen of this store; 0 if none.
    fn membership(&self) -> io::Result<u64>;
    /// Raises it to `to`, durably; never lowers it.
    fn raise_membership(&mut self, to: u64) -> io::Result<()>;

    /// Where the counter for the log stands, by which a rolled-back store is told; 0 on a
    /// machine that has none for this store.
    fn log_counter(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Raises it to `to`, one more than it stands at or where it stands already, and says where it
    /// stands then: above `to` if somebody else raised it.
    fn raise_log_counter(&mut self, to: u64) -> io::Result<u64> {
        Ok(to)
    }
}
