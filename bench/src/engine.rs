//! The engine against fio: two copies, hashed, flushed, then every byte verified.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use hoidla_store::{Layout, MOST_BUFFER, Options};
use hoidla_uring::{Settings, Store};

use crate::{
    fio::{self, Direction},
    rows::{Row, Target, low_median_high},
    setup::{KEY, Memory, Scratch, new_store, record, written_file},
};

/// Copies of the store, and files of fio.
const COPIES: u32 = 2;
/// Streams written at once, a task each.
const STREAMS: u8 = 2;
/// Records of a stream under way at once.
const WINDOW: usize = 32;

/// What writing came to.
pub struct Written {
    rate: f64,
    per_flush: u64,
    payload: f64,
}

/// What `verify` does is what the scrub does, unpaced: one measurement, two rows.
pub async fn rows(folder: &Path, gib: u64, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let bytes = gib << 30;
    let disks: Vec<_> = (0..COPIES).map(|i| scratch.path().join(format!("store.{i}"))).collect();
    // A tenth more for what is not payload, and for segments left half full.
    disks.iter().try_for_each(|d| written_file(d, bytes + bytes / 10 + (1 << 30)))?;
    (0..COPIES).try_for_each(|i| written_file(&scratch.path().join(format!("fio.{i}")), bytes))?;
    let (mut writes, mut verifies) = (Rounds::default(), Rounds::default());
    let (mut payload, mut per_flush) = (Vec::new(), 0);
    for round in 1..=rounds {
        eprintln!("engine against fio, round {round} of {rounds}");
        let (written, verified) = one_round(&disks, bytes).await?;
        let direction = Direction::Write { flush_every: written.per_flush };
        writes.add(written.rate, fio::grid(scratch.path(), COPIES, bytes, direction)?);
        verifies.add(verified, fio::grid(scratch.path(), COPIES, bytes, Direction::Read)?);
        payload.push(written.payload);
        per_flush = written.per_flush;
    }
    let kept = low_median_high(&payload).1 / 1e9;
    let flush = format!("a flush every {} MiB a disk; {kept:.2} GB/s of payload kept twice", per_flush >> 20);
    Ok(vec![
        writes.row(("engine_write_vs_fio", 0.9), &format!("{flush}; limit: the disk, then BLAKE3 (every byte once) on shared cores")),
        verifies.row(("verify_vs_fio", 0.8), "as scrub_vs_fio, the goal of the first release"),
        verifies.row(("scrub_vs_fio", 0.9), "all copies read and hashed; limit: the disk, then BLAKE3 (every byte of every copy)"),
    ])
}

/// Rates of one kind, round by round.
#[derive(Default)]
pub struct Rounds {
    ours: Vec<f64>,
    fio: Vec<Vec<fio::Figure>>,
}

impl Rounds {
    /// One round of both.
    pub fn add(&mut self, ours: f64, grid: Vec<fio::Figure>) {
        self.ours.push(ours);
        self.fio.push(grid);
    }

    /// Ours over the cell of the grid that was best in the median, round by round.
    pub fn row(&self, (name, goal): (&'static str, f64), note: &str) -> Row {
        let cell = |i: usize| self.fio.iter().map(|grid| grid[i].rate).collect::<Vec<_>>();
        let best = (0..fio::GRID.len()).map(cell).max_by(|a, b| low_median_high(a).1.total_cmp(&low_median_high(b).1));
        let best = best.expect("the grid is not empty");
        let index = (0..fio::GRID.len()).find(|i| cell(*i) == best).expect("one of the grid");
        let ratios: Vec<_> = self.ours.iter().zip(&best).map(|(ours, fio)| ours / fio).collect();
        let ((kib, depth), (_, ours, _), (low, fio, high)) = (fio::GRID[index], low_median_high(&self.ours), low_median_high(&best));
        let cpu = self.fio[0][index].cpu;
        let made = format!(
            "{:.2} GB/s over all disks; fio {:.2} ({:.2} .. {:.2}, {kib} KiB at depth {depth}, {cpu:.0} CPU ms/GB)",
            ours / 1e9,
            fio / 1e9,
            low / 1e9,
            high / 1e9
        );
        Row::over(name, &ratios, Target::AtLeast(goal), format!("{made}; {note}"))
    }
}

async fn one_round(disks: &[PathBuf], bytes: u64) -> Result<(Written, f64)> {
    let (counters, id) = (Memory::default(), new_store());
    hoidla_uring::format(disks, id, KEY, Layout::default(), &mut counters.clone())?;
    let settings = Settings { memory: 256 << 20, options: Options { prewrite: false, ..Options::default() } };
    let (store, report) = Store::open(disks, id, Box::new(counters), settings)?;
    ensure!(report.absent.is_empty(), "the store began with trouble: {report:?}");
    store.register().await.map_err(anyhow::Error::msg)?;
    let written = write_all(&store, bytes).await?;
    let verified = verify_all(&store, bytes).await?;
    store.close();
    Ok((written, verified))
}

/// Appends so many bytes, and waits until all is kept.
pub async fn write_all(store: &Store, bytes: u64) -> Result<Written> {
    let each = bytes / u64::from(STREAMS) / MOST_BUFFER as u64;
    let (before, began) = (store.tally(), Instant::now());
    let tasks: Vec<_> = (0..STREAMS).map(|s| tokio::spawn(write_stream(store.clone(), s, each))).collect();
    for task in tasks {
        task.await??;
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), store.tally());
    let (moved, flushes) = (after.bytes - before.bytes, after.flushes - before.flushes);
    ensure!(moved >= bytes * u64::from(COPIES), "{moved} bytes reached the disks, too few for two copies");
    Ok(Written { rate: moved as f64 / seconds, per_flush: moved / flushes.max(1), payload: bytes as f64 / seconds })
}

async fn write_stream(store: Store, stream: u8, records: u64) -> Result<()> {
    let mut window = VecDeque::new();
    for n in 0..records {
        let buffer = store.buffer(MOST_BUFFER).await;
        window.push_back(store.append(record(stream, n, buffer)).await?);
        if window.len() >= WINDOW {
            window.pop_front().context("not empty")?.kept().await?;
        }
    }
    for pending in window {
        pending.kept().await?;
    }
    Ok(())
}

async fn verify_all(store: &Store, bytes: u64) -> Result<f64> {
    let (mut all, began) = (Vec::new(), Instant::now());
    store.see_all(|_, checked| all.push(checked)).await?;
    ensure!(all.iter().all(|c| c.damage.is_empty() && c.repaired.is_empty()), "damage on a fresh disk");
    let total: u64 = all.iter().map(|c| c.bytes).sum();
    ensure!(total >= bytes * u64::from(COPIES), "only {total} bytes were verified");
    Ok(total as f64 / began.elapsed().as_secs_f64())
}
