//! What group commit gains: 64 agents against one, each with one record under way, on
//! disks whose flush takes 2 ms.
//!
//! The engine is the real one, over files whose flush sleeps; the door is not in it, so
//! that the ratio is of commits and not of handshakes and ciphers.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Appended, Buffer as _, Disk, Event, Layout, Op, Options, Pool as _, Refused};
use hoidla_uring::{Blocks, Buffers, DiskFile, Engine, Record};

use crate::{
    rows::{Row, Target, low_median_high},
    setup::{KEY, Memory, Scratch, generation, new_store, written_file},
};

const AGENTS: u8 = 64;
/// What a flush takes on a disk that has to mean it.
const FLUSH: Duration = Duration::from_millis(2);
const RECORD: usize = 1000;
/// How long each side runs.
const RUN: Duration = Duration::from_secs(3);

/// A disk whose flush takes its time.
struct SlowFlush(DiskFile);

impl Disk for SlowFlush {
    fn name(&self) -> String {
        self.0.name()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(at, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        thread::sleep(FLUSH);
        self.0.flush()
    }
}

/// The row.
pub fn rows(folder: &Path, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let paths: Vec<_> = ["a", "b"].map(|n| scratch.path().join(n)).to_vec();
    paths.iter().try_for_each(|p| written_file(p, 1 << 30))?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("group commit, round {round} of {rounds}");
        let disks = || paths.iter().map(|p| Ok(Arc::new(SlowFlush(DiskFile::open(p)?)) as Arc<dyn Disk>)).collect::<Result<Vec<_>>>();
        one.push(rate(disks()?, 1)?);
        many.push(rate(disks()?, AGENTS)?);
    }
    let ratios: Vec<_> = many.iter().zip(&one).map(|(m, o)| m / o).collect();
    let middle = |all: &[f64]| low_median_high(all).1;
    let note = format!(
        "{:.0} records a second of {AGENTS} agents, {:.0} of one, kept twice on disks whose flush takes 2 ms; the engine alone, without the door; \
         one agent alone also waits for the mark behind its last record",
        middle(&many),
        middle(&one)
    );
    Ok(vec![Row::over("append_64_agents_vs_1", &ratios, Target::AtLeast(10.0), note)])
}

/// Records a second of so many agents.
fn rate(disks: Vec<Arc<dyn Disk>>, agents: u8) -> Result<f64> {
    let (counters, id, pool) = (Memory::default(), new_store(), Buffers::new(64 << 20)?);
    Engine::format(&disks, id, KEY, Layout::default(), &pool, &mut counters.clone())?;
    let options = Options { prewrite: false, ..Options::default() };
    let (engine, _) = Engine::open(disks, id, Arc::new(pool.clone()), Box::new(counters), options)?;
    let (tell, told) = channel();
    let mut crowd =
        Crowd { flushers: Flushers::start(&engine, &tell)?, told, engine, pool, next: vec![0; usize::from(agents)], held: vec![], kept: 0 };
    (0..agents).try_for_each(|a| crowd.append(a))?;
    let began = Instant::now();
    while began.elapsed() < RUN {
        crowd.turn()?;
    }
    Ok(crowd.kept as f64 / began.elapsed().as_secs_f64())
}

type Done = (u64, io::Result<usize>);

/// A thread a disk that flushes: the engine goes on meanwhile.
struct Flushers(Vec<Sender<u64>>);

impl Flushers {
    fn start(engine: &Engine, tell: &Sender<Done>) -> Result<Self> {
        let disks = engine.disks().into_iter().map(|d| d.context("a disk is missing"));
        let one = |disk: Arc<dyn Disk>| {
            let (order, orders) = channel::<u64>();
            let tell = tell.clone();
            thread::spawn(move || {
                for id in orders {
                    if tell.send((id, disk.flush().map(|()| 0))).is_err() {
                        return;
                    }
                }
            });
            order
        };
        Ok(Self(disks.map(|d| d.map(one)).collect::<Result<_>>()?))
    }
}

/// Agents that each send the next record when the last is acknowledged.
struct Crowd {
    engine: Engine,
    flushers: Flushers,
    told: Receiver<Done>,
    pool: Buffers,
    /// Each agent's next record.
    next: Vec<u64>,
    /// Those whose record the engine had no room for just now.
    held: Vec<u8>,
    kept: u64,
}

impl Crowd {
    fn append(&mut self, agent: u8) -> Result<()> {
        let n = self.next[usize::from(agent)];
        let mut buffer = self.pool.take(RECORD).context("the pool is large enough")?;
        buffer.as_mut()[..RECORD].fill(agent);
        let hash = Hash32(blake3::hash(&buffer.as_ref()[..RECORD]).into());
        let blocks: Blocks = buffer.freeze(RECORD);
        let (stream, offset) = (StreamId([agent + 1; 16]), n * RECORD as u64);
        let record = Record { generation: generation(0), stream, epoch: 1, offset, len: RECORD as u32, hash, blocks };
        self.next[usize::from(agent)] += 1;
        match self.engine.append(record, agent.into()) {
            Ok(Appended::Pending) => return Ok(()),
            Ok(Appended::Before(_)) => bail!("a fresh store knows the record already"),
            Err(Refused::Busy) => self.held.push(agent),
            Err(why) => return Err(why.into()),
        }
        self.next[usize::from(agent)] -= 1;
        Ok(())
    }

    /// Hands out what there is to do, then waits for a flush to end.
    fn turn(&mut self) -> Result<()> {
        let mut done: VecDeque<Done> = VecDeque::new();
        while let Some(request) = self.engine.next_request() {
            let place = usize::from(request.disk);
            match &request.op {
                Op::Flush => self.flushers.0[place].send(request.id)?,
                Op::Write { at, blocks } => {
                    let disk = self.engine.disks()[place].clone().context("a disk is missing")?;
                    done.push_back((request.id, disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len())));
                }
            }
        }
        if done.is_empty() {
            done.push_back(self.told.recv_timeout(FLUSH * 1000).context("the engine waits for nothing")?);
            done.extend(self.told.try_iter());
        }
        done.into_iter().for_each(|(id, outcome)| self.engine.complete(id, outcome));
        while let Some(event) = self.engine.next_event() {
            match event {
                Event::Acknowledged(kept) => {
                    self.kept += 1;
                    self.append(kept.ticket as u8)?;
                }
                Event::DiskStopped { why, .. } | Event::Stopped { why } => bail!("the store stopped: {why}"),
                Event::Noted { .. } | Event::DiskJoined { .. } => {}
            }
        }
        std::mem::take(&mut self.held).into_iter().try_for_each(|agent| self.append(agent))
    }
}
