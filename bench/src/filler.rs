//! Fills a store without writing what it is filled with.
//!
//! Catalogue, indexes, batches and tails are made by the real engine from real appends;
//! only payload is left out. All records hold zero bytes and the disks are sparse files,
//! so that *not* writing such a payload leaves exactly what writing it would have left:
//! the holes read as zeros, every hash is right.

use std::{ops::Range, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Appended, Buffer as _, Disk, Event, MOST_BUFFER, Op, Options, Pool as _, Refused};
use hoidla_uring::{Blocks, Buffers, Engine, Record};

use crate::setup::{Memory, generation};

/// A loop that carries out the engine's requests at once, but for payload that is left out.
pub struct Filler {
    engine: Engine,
    disks: Vec<Option<Arc<dyn Disk>>>,
    /// A MiB of zeros that is not written, and another that is.
    left_out: Blocks,
    written: Blocks,
    hash: Hash32,
    unanswered: u64,
}

impl Filler {
    /// Opens the store on these disks.
    pub fn open(disks: Vec<Arc<dyn Disk>>, id: [u8; 16], counters: &Memory, pool: &Buffers, commit_bytes: usize) -> Result<Self> {
        let [left_out, written] = [zeros(pool)?, zeros(pool)?];
        let hash = Hash32(blake3::hash(left_out.as_ref()).into());
        let options = Options { prewrite: false, commit_bytes, ..Options::default() };
        let (engine, opened) = Engine::open(disks, id, Arc::new(pool.clone()), Box::new(counters.clone()), options)?;
        ensure!(!opened.rebuilt && opened.damage.is_empty() && opened.missing.is_empty(), "not an ordinary opening: {opened:?}");
        Ok(Self { disks: engine.disks(), engine, left_out, written, hash, unanswered: 0 })
    }

    /// Bytes of a stream.
    pub fn length(&self, stream: u8) -> u64 {
        self.engine.state(StreamId([stream; 16])).map_or(0, |s| s.chain.length)
    }

    /// A MiB of zeros.
    pub fn zeros(&self) -> &[u8] {
        self.written.as_ref()
    }

    /// Appends records `numbers` of a MiB each to each of `streams`, written in full or left out.
    pub fn fill(&mut self, streams: Range<u8>, numbers: Range<u64>, in_full: bool) -> Result<()> {
        let blocks = if in_full { self.written.clone() } else { self.left_out.clone() };
        for n in numbers {
            for stream in streams.clone() {
                self.append(stream, n, &blocks)?;
            }
        }
        while self.unanswered > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn append(&mut self, stream: u8, n: u64, blocks: &Blocks) -> Result<()> {
        let offset = n * MOST_BUFFER as u64;
        loop {
            let record = Record {
                generation: generation(stream),
                stream: StreamId([stream; 16]),
                epoch: 1,
                offset,
                len: MOST_BUFFER as u32,
                hash: self.hash,
                blocks: blocks.clone(),
            };
            match self.engine.append(record, offset) {
                Ok(Appended::Pending) => break,
                Ok(Appended::Before(_)) => bail!("a fresh store knows the record already"),
                Err(Refused::Busy) => self.turn()?,
                Err(why) => return Err(why.into()),
            }
        }
        self.unanswered += 1;
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let mut any = false;
        while let Some(request) = self.engine.next_request() {
            any = true;
            let disk = self.disks[usize::from(request.disk)].as_ref().context("a disk is missing")?;
            let outcome = match &request.op {
                Op::Flush => disk.flush().map(|()| 0),
                Op::Write { blocks, .. } if blocks.as_ref().as_ptr() == self.left_out.as_ref().as_ptr() => Ok(blocks.as_ref().len()),
                Op::Write { at, blocks } => disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len()),
            };
            self.engine.complete(request.id, outcome);
        }
        while let Some(event) = self.engine.next_event() {
            any = true;
            match event {
                Event::Acknowledged(_) => self.unanswered -= 1,
                Event::Noted { .. } | Event::DiskJoined { .. } => {}
                Event::DiskStopped { why, .. } | Event::Stopped { why } => bail!("the store stopped: {why}"),
            }
        }
        ensure!(any, "the engine waits for nothing");
        Ok(())
    }
}

fn zeros(pool: &Buffers) -> Result<Blocks> {
    let mut buffer = pool.take(MOST_BUFFER).context("a fresh pool has room")?;
    buffer.as_mut().fill(0);
    Ok(buffer.freeze(MOST_BUFFER))
}
