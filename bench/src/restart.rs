//! How long a restart takes with much stored.
//!
//! Catalogue, indexes, batches and tails are made by the real engine from real appends;
//! only payload is left out. All records hold zero bytes and the disks are sparse files,
//! so that *not* writing such a payload leaves exactly what writing it would have left:
//! the holes read as zeros, every hash is right, and the store verifies. Batch headers, tables, indexes, catalogue and marks are written everywhere.
//! Then, before each restart, another GiB is written in full, the holes around it are
//! filled with zeros on disk, and the store is left as a power cut leaves it.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
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

/// Streams that the bytes are spread over: ten generations of each of ten datasets.
const STREAMS: u8 = 100;
/// Streams that are written at the same time: one of each dataset.
const AT_ONCE: u8 = 10;

/// Bytes of a segment.
const SEGMENT: u64 = 64 << 20;
/// What is written in full before each restart.
const TAIL: u64 = 1 << 30;

/// The row.
pub async fn rows(folder: &Path, gib: u64, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let disks: Vec<_> = (0..2).map(|i| scratch.path().join(format!("store.{i}"))).collect();
    for disk in &disks {
        File::create_new(disk)?.set_len((gib << 30) * 5 / 4 + (8 << 30) + rounds as u64 * TAIL)?;
    }
    let (counters, id) = (Memory::default(), new_store());
    hoidla_uring::format(&disks, id, Layout { segment: SEGMENT, ..Layout::default() }, &mut counters.clone())?;
    eprintln!("storing {gib} GiB, payload left out");
    let each = (gib << 30) / MOST_BUFFER as u64 / u64::from(STREAMS);
    let mut filler = Filler::open(cached(&disks)?, id, &counters)?;
    for first in (0..STREAMS).step_by(AT_ONCE.into()) {
        filler.fill(first..first + AT_ONCE, 0..each, false)?;
    }
    drop(filler);
    disks.iter().try_for_each(|d| File::open(d)?.sync_all())?;
    let mut filler = Filler::open(direct(&disks)?, id, &counters)?;
    let (mut times, mut stored, mut read) = (Vec::new(), each, 0);
    for round in 1..=rounds {
        let more = stored..stored + TAIL / MOST_BUFFER as u64 / u64::from(AT_ONCE);
        stored = more.end;
        filler.fill(STREAMS - AT_ONCE..STREAMS, more, true)?;
        filler.make_solid()?;
        drop(filler); // as a power cut: the engine has nothing that it does at its end
        eprintln!("restart, round {round} of {rounds}");
        let (ms, bytes) = restart(&disks, id, &counters, stored * MOST_BUFFER as u64).await?;
        times.push(ms);
        read = bytes.max(read);
        filler = Filler::open(direct(&disks)?, id, &counters)?;
    }
    let note = format!(
        "{gib} GiB in {STREAMS} streams, two disks, left as by a power cut; at most {} MiB were read; limit: reading open tails of both copies, one after another",
        read >> 20
    );
    Ok(vec![Row::over("restart_ms", &times, Target::AtMost(1000.0), note)])
}

async fn restart(disks: &[PathBuf], id: [u8; 16], counters: &Memory, stored: u64) -> Result<(f64, u64)> {
    let (began, before) = (Instant::now(), bytes_read()?);
    let (store, report) = Store::open(disks, id, Box::new(counters.clone()), Settings::default())?;
    let state = store.state(StreamId([STREAMS - 1; 16])).await?.context("the last stream is gone")?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    ensure!(!report.opened.rebuilt && report.opened.damage.is_empty(), "not an ordinary restart: {report:?}");
    ensure!(state.chain.length == stored, "a stream has {} bytes instead of {stored}", state.chain.length);
    store.close();
    Ok((ms, bytes_read()? - before))
}

/// What this process has had read from disks so far.
fn bytes_read() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    Ok(line.context("the kernel counts no I/O")?.parse()?)
}

fn direct(paths: &[PathBuf]) -> Result<Vec<Arc<dyn Disk>>> {
    paths.iter().map(|p| Ok(Arc::new(DiskFile::open(p)?) as Arc<dyn Disk>)).collect()
}

fn cached(paths: &[PathBuf]) -> Result<Vec<Arc<dyn Disk>>> {
    let open = |p: &PathBuf| Ok(Arc::new(Cached(File::options().read(true).write(true).open(p)?)) as Arc<dyn Disk>);
    paths.iter().map(open).collect()
}

/// A disk through the page cache, flushed once at the end: filling is not what is measured.
struct Cached(File);

impl Disk for Cached {
    fn name(&self) -> String {
        "a disk being filled".into()
    }

    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |m| m.len())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A loop that carries out the engine's requests at once, but for payload that is all zeros.
struct Filler {
    engine: Engine,
    disks: Vec<Option<Arc<dyn Disk>>>,
    /// A MiB of zeros that is not written, and another that is.
    left_out: Blocks,
    written: Blocks,
    hash: Hash32,
    unanswered: u64,
    /// The places of the first and the last large record that was written.
    touched: (u64, u64),
    pool: Buffers,
}

fn zeros(pool: &Buffers) -> Result<Blocks> {
    let mut buffer = pool.take(MOST_BUFFER).context("a fresh pool has room")?;
    buffer.as_mut().fill(0);
    Ok(buffer.freeze(MOST_BUFFER))
}

impl Filler {
    fn open(disks: Vec<Arc<dyn Disk>>, id: [u8; 16], counters: &Memory) -> Result<Self> {
        let pool = Buffers::new(256 << 20)?;
        let [left_out, written] = [zeros(&pool)?, zeros(&pool)?];
        let hash = Hash32(blake3::hash(left_out.as_ref()).into());
        let options = Options { prewrite: false, ..Options::default() };
        let (engine, _) = Engine::open(disks, id, Arc::new(pool.clone()), Box::new(counters.clone()), options)?;
        Ok(Self { disks: engine.disks(), engine, left_out, written, hash, unanswered: 0, touched: (u64::MAX, 0), pool })
    }

    /// Appends records `numbers` to each of `streams`, written in full or left out.
    fn fill(&mut self, streams: Range<u8>, numbers: Range<u64>, in_full: bool) -> Result<()> {
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

    /// Turns the holes around what was last written into zeros that lie on the disk, as in
    /// segments that were written before: recovery scans the rest of each open one.
    fn make_solid(&mut self) -> Result<()> {
        let segment = SEGMENT;
        let mut buffer = self.pool.take(MOST_BUFFER).context("the pool has room")?;
        for disk in self.disks.iter().flatten() {
            let mut at = self.touched.0.saturating_sub(segment);
            while at <= self.touched.1.saturating_add(segment).min(disk.size() - MOST_BUFFER as u64) {
                disk.read(at, buffer.as_mut())?;
                disk.write(at, buffer.as_ref())?;
                at += MOST_BUFFER as u64;
            }
            disk.flush()?;
        }
        self.touched = (u64::MAX, 0);
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
                Op::Write { at, blocks } => {
                    if blocks.as_ref().len() == MOST_BUFFER {
                        self.touched = (self.touched.0.min(*at), self.touched.1.max(*at));
                    }
                    disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len())
                }
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
