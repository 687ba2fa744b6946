//! How long a restart takes with much stored.
//!
//! Catalogue, indexes, batches and tails are made by the real engine from real appends;
//! only payload is left out. All records but those of the last GiB hold zero bytes, and
//! the disks are sparse files, so that *not* writing such a payload leaves exactly what
//! writing it would have left: the holes read as zeros, every hash is right, and the store
//! verifies. Batch headers, tables, indexes, catalogue and marks are written everywhere,
//! and the last GiB in full. Then the store is left as a power cut leaves it, and opened.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Appended, Buffer as _, Disk, Event, Layout, MOST_BUFFER, Op, Options, Pool as _, Refused};
use hoidla_uring::{Blocks, Buffers, DiskFile, Engine, Record, Settings, Store};

use crate::{
    rows::{Row, Target},
    setup::{Memory, Scratch, generation, new_store},
};

/// Streams that the bytes are spread over: the ten datasets of a site, several generations each.
const STREAMS: u8 = 100;

/// The row.
pub async fn rows(folder: &Path, gib: u64, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let disks: Vec<_> = (0..2).map(|i| scratch.path().join(format!("store.{i}"))).collect();
    for disk in &disks {
        File::create_new(disk)?.set_len((gib << 30) * 5 / 4 + (8 << 30))?;
    }
    let (counters, id) = (Memory::default(), new_store());
    eprintln!("storing {gib} GiB, payload left out");
    let stored = fill(&disks, id, &counters, gib << 30)?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        eprintln!("restart, round {round} of {rounds}");
        times.push(restart(&disks, id, &counters, stored).await?);
    }
    let note = format!("{gib} GiB in {STREAMS} streams, two disks, left as by a power cut; limit: reading catalogue and open tails");
    Ok(vec![Row::over("restart_ms", &times, Target::AtMost(1000.0), note)])
}

async fn restart(disks: &[PathBuf], id: [u8; 16], counters: &Memory, stored: u64) -> Result<f64> {
    let began = Instant::now();
    let (store, report) = Store::open(disks, id, Box::new(counters.clone()), Settings::default())?;
    let state = store.state(StreamId([0; 16])).await?.context("the first stream is gone")?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    ensure!(!report.opened.rebuilt && report.opened.damage.is_empty(), "not an ordinary restart: {report:?}");
    ensure!(state.chain.length == stored, "a stream has {} bytes instead of {stored}", state.chain.length);
    store.close();
    Ok(ms)
}

/// A loop that carries out the engine's requests at once, but for payload that is all zeros.
struct Filler {
    engine: Engine,
    disks: Vec<Option<Arc<dyn Disk>>>,
    zeros: Blocks,
    unanswered: u64,
}

/// Stores `bytes` and returns the bytes of each stream.
fn fill(paths: &[PathBuf], id: [u8; 16], counters: &Memory, bytes: u64) -> Result<u64> {
    hoidla_uring::format(paths, id, Layout::default(), &mut counters.clone())?;
    let disks = paths.iter().map(|p| Ok(Arc::new(DiskFile::open(p)?) as Arc<dyn Disk>)).collect::<Result<_>>()?;
    let pool = Buffers::new(256 << 20)?;
    let options = Options { prewrite: false, ..Options::default() };
    let (engine, _) = Engine::open(disks, id, Arc::new(pool.clone()), Box::new(counters.clone()), options)?;
    let [zeros, last] = [zeros(&pool)?, zeros(&pool)?];
    let hash = Hash32(blake3::hash(zeros.as_ref()).into());
    let mut filler = Filler { disks: engine.disks(), engine, zeros: zeros.clone(), unanswered: 0 };
    let each = bytes / MOST_BUFFER as u64 / u64::from(STREAMS);
    let written = ((1 << 30) / MOST_BUFFER as u64).div_ceil(u64::from(STREAMS));
    for n in 0..each {
        // The last GiB from memory that the filler doesn't know as zeros, so it is written.
        let blocks = if n + written < each { &zeros } else { &last };
        for stream in 0..STREAMS {
            filler.append(stream, n, blocks, hash)?;
        }
    }
    while filler.unanswered > 0 {
        filler.turn()?;
    }
    Ok(each * MOST_BUFFER as u64)
}

fn zeros(pool: &Buffers) -> Result<Blocks> {
    let mut buffer = pool.take(MOST_BUFFER).context("a fresh pool has room")?;
    buffer.as_mut().fill(0);
    Ok(buffer.freeze(MOST_BUFFER))
}

impl Filler {
    fn append(&mut self, stream: u8, n: u64, blocks: &Blocks, hash: Hash32) -> Result<()> {
        let offset = n * MOST_BUFFER as u64;
        loop {
            let record = Record {
                generation: generation(stream),
                stream: StreamId([stream; 16]),
                epoch: 1,
                offset,
                len: MOST_BUFFER as u32,
                hash,
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
                Op::Write { blocks, .. } if blocks.as_ref().as_ptr() == self.zeros.as_ref().as_ptr() => Ok(blocks.as_ref().len()),
                Op::Write { at, blocks } => disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len()),
            };
            self.engine.complete(request.id, outcome);
        }
        while let Some(event) = self.engine.next_event() {
            any = true;
            match event {
                Event::Acknowledged(_) => self.unanswered -= 1,
                Event::Noted { .. } => {}
                Event::DiskStopped { why, .. } | Event::Stopped { why } => bail!("the store stopped: {why}"),
            }
        }
        ensure!(any, "the engine waits for nothing");
        Ok(())
    }
}
