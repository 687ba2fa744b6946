//! Content into batches: reads straight into a batch's buffer and finds the cuts.

use std::{
    io,
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use hoidla_format::Hash32;

use crate::{
    Progress,
    batch::{Batch, CAPACITY, How, MOST_STEPS, Step},
    chunk::{Cutter, MOST},
};

/// The most bytes asked of one read: what was read is still in the processor's cache when it is cut.
const READ: usize = 256 << 10;
/// So many bytes nearly always hold a cut.
const LIKELY: usize = 320 << 10;
/// Below so much room a new batch begins.
const LITTLE: usize = 64 << 10;

/// Why a producer ends: whoever takes its batches is gone.
#[derive(Debug)]
pub struct Stopped;

/// A batch under way to a worker, and where it is handed on.
pub type Job = (Batch, SyncSender<Batch>);

/// The first stage's end of the pipeline.
pub struct Feed<'a> {
    pub batch: Batch,
    pub cutter: Cutter,
    pub jobs: SyncSender<Job>,
    pub ordered: SyncSender<Receiver<Batch>>,
    pub spare: Receiver<Batch>,
    pub progress: &'a Progress,
}

impl Feed<'_> {
    /// Adds a step.
    pub fn step(&mut self, step: Step) -> Result<(), Stopped> {
        if self.batch.steps.len() >= MOST_STEPS {
            self.flush(self.batch.filled)?;
        }
        self.batch.steps.push(step);
        Ok(())
    }

    /// Reads until `read` gives nothing more, as chunks; returns how many bytes there were.
    pub fn content(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Result<io::Result<u64>, Stopped> {
        if CAPACITY - self.batch.filled < LITTLE {
            self.flush(self.batch.filled)?;
        }
        let (mut start, mut total) = (self.batch.filled, 0);
        loop {
            if self.batch.filled == CAPACITY {
                self.flush(start)?;
                start = 0;
            }
            let end = CAPACITY.min(self.batch.filled + READ);
            let n = match read(&mut self.batch.bytes[self.batch.filled..end]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Err(e)),
            };
            total += n as u64;
            self.progress.read.fetch_add(n as u64, Ordering::Relaxed);
            self.batch.filled += n;
            let least = if n == 0 { 1 } else { LIKELY };
            while self.batch.filled - start >= least {
                let window = &self.batch.bytes[start..self.batch.filled.min(start + MOST)];
                let len = self.cutter.cut(window);
                if len == window.len() && len < MOST && n > 0 {
                    break; // it may go on in what is read next
                }
                self.batch.steps.push(Step::Chunk { at: start, len, id: Hash32([0; 32]), how: How::Plain });
                start += len;
            }
            if n == 0 {
                return Ok(Ok(total));
            }
        }
    }

    /// Hands the batch on; its content from `keep` on moves to the next.
    fn flush(&mut self, keep: usize) -> Result<(), Stopped> {
        let mut next = self.spare.recv().map_err(|_| Stopped)?;
        let kept = &self.batch.bytes[keep..self.batch.filled];
        next.bytes[..kept.len()].copy_from_slice(kept);
        next.filled = kept.len();
        let full = std::mem::replace(&mut self.batch, next);
        self.send(full)
    }

    fn send(&mut self, batch: Batch) -> Result<(), Stopped> {
        let (done, receiver) = sync_channel(1);
        self.ordered.send(receiver).map_err(|_| Stopped)?;
        self.jobs.send((batch, done)).map_err(|_| Stopped)
    }

    /// Hands the last batch on.
    pub fn finish(mut self) -> Result<(), Stopped> {
        let last = std::mem::replace(&mut self.batch, Batch { bytes: vec![], filled: 0, pressed: vec![], steps: vec![] });
        self.send(last)
    }
}
