//! A large store: how much memory each TiB takes, and how long a restart does.
//!
//! Two stores, of 1 TiB and of 100 TiB, each laid out as for disks of its size and filled
//! by the real engine, payload left out ([`crate::filler`]), what closed segments hold
//! dropped ([`crate::wide`]). Before each restart the tail since the last checkpoint is
//! grown until the next is almost due; its end is written in full, and the holes around
//! it are filled with zeros on disk. Then a process of its own opens the store as after a
//! power cut, writes on through several checkpoints, and tells its peak.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use hoidla_format::disk::Geometry;
use hoidla_store::{Counters as _, Layout, MOST_BUFFER, Options, Pool as _};
use hoidla_uring::{Buffers, Engine};
use serde_json::{Value, json};

use crate::{
    filler::Filler,
    rows::{Row, Target, low_median_high},
    setup::{KEY, Memory, Scratch, new_store, of_process},
    wide::{Wide, as_disks},
};

/// Streams that the bytes are spread over, each a generation of a dataset of its own.
const STREAMS: u8 = 100;
/// Those that the tail belongs to, written in turns.
const TAIL: std::ops::Range<u8> = STREAMS - 10..STREAMS;
/// Memory for buffers, the same for both sizes and touched whole.
const POOL: usize = 64 << 20;
/// Records of a stream between two looks at whether a checkpoint is due.
const STEP: u64 = 16;
/// Segments that the tail begins before a checkpoint is almost due: it is at 32.
const ALMOST: u32 = 20;
/// Steps after which it is almost due: 11 commits each, and it is at 1024.
const STEPS: usize = 85;
/// Checkpoints that the measured process writes after opening.
const CHECKPOINTS: u64 = 4;

/// One store between processes.
struct Large {
    folder: PathBuf,
    id: [u8; 16],
    counters: Memory,
    geometry: Geometry,
    /// Records in each stream of the tail.
    stored: u64,
}

/// What a process that opened one told.
struct Told {
    ms: f64,
    peak: f64,
    read: f64,
}

/// Both rows.
pub fn rows(folder: &Path, tib: u64, rounds: usize) -> Result<Vec<Row>> {
    let small = measure(folder, 1, 1)?;
    let large = measure(folder, tib, rounds)?;
    let of = |told: &[Told], f: fn(&Told) -> f64| told.iter().map(f).collect::<Vec<_>>();
    let (base, read) = (small[0].peak, low_median_high(&of(&large, |t| t.read)).1);
    let each: Vec<_> = large.iter().map(|t| (t.peak - base) / (tib - 1) as f64).collect();
    let memory = format!(
        "a process that opens a store and writes on: {base:.1} MiB at 1 TiB, {:.1} at {tib}, of which {} are buffers; payload left out; limit: 40 bytes a segment",
        low_median_high(&of(&large, |t| t.peak)).1,
        POOL >> 20
    );
    let restart = format!(
        "{tib} TiB in {STREAMS} streams, two disks, left as by a power cut just before a checkpoint; {read:.0} MiB were read; \
         limit: reading the catalogue and the open tails of both copies"
    );
    Ok(vec![
        Row::over("mib_per_tib", &each, Target::AtMost(1.0), memory),
        Row::over("restart_ms", &of(&large, |t| t.ms), Target::AtMost(1000.0), restart),
    ])
}

fn measure(folder: &Path, tib: u64, rounds: usize) -> Result<Vec<Told>> {
    let scratch = Scratch::new(folder)?;
    let mut large = Large::fill(scratch.path(), tib)?;
    let one = |round| {
        eprintln!("opening {tib} TiB, round {round} of {rounds}");
        large.grow_tail()?;
        let answer = Command::new(std::env::current_exe()?).arg("--opens").arg(&large.folder).output()?;
        ensure!(answer.status.success(), "the process that opened it: {}", String::from_utf8_lossy(&answer.stderr));
        let told: Value = serde_json::from_slice(&answer.stdout)?;
        let number = |name: &str| told[name].as_f64().with_context(|| format!("it told no {name}"));
        large.stored = number("stored")? as u64;
        Ok(Told { ms: number("ms")?, peak: number("peak")?, read: number("read")? })
    };
    (1..=rounds).map(one).collect()
}

/// What the measured process does: it opens the store, timed, and writes on.
pub fn open(folder: &Path) -> Result<()> {
    let large = Large::load(folder)?;
    let (pool, wides) = (touched_pool()?, large.wides()?);
    let (began, before) = (Instant::now(), bytes_read()?);
    let mut filler = Filler::open(as_disks(&wides), large.id, &large.counters, &pool, Options::default().commit_bytes)?;
    let length = filler.length(STREAMS - 1);
    let (ms, read) = (began.elapsed().as_secs_f64() * 1e3, bytes_read()? - before);
    ensure!(length == large.stored * MOST_BUFFER as u64, "a stream has {length} bytes instead of {} MiB", large.stored);
    let (mut stored, until) = (large.stored, wides[0].checkpoints() + CHECKPOINTS);
    while wides[0].checkpoints() < until {
        filler.fill(TAIL, stored..stored + STEP, false)?;
        stored += STEP;
    }
    let peak = of_process(std::process::id())?.1;
    ensure!(wides.iter().all(|w| w.refused() == 0), "something read what was dropped");
    wides.iter().try_for_each(|w| w.put_down())?;
    Large { stored, ..large }.save()?;
    println!("{}", json!({"ms": ms, "peak": peak, "read": read as f64 / f64::from(1 << 20), "stored": stored}));
    Ok(())
}

impl Large {
    fn fill(folder: &Path, tib: u64) -> Result<Self> {
        let size = (tib << 40) + (tib << 40) / 50 + (64 << 30);
        let geometry = Layout::default().geometry(size, 2).context("it is large enough")?;
        let (counters, id, pool) = (Memory::default(), new_store(), touched_pool()?);
        let each = (tib << 40) / MOST_BUFFER as u64 / u64::from(STREAMS);
        let large = Self { folder: folder.to_owned(), id, counters, geometry, stored: each };
        let wides = (0..2).map(|i| Ok(Arc::new(Wide::create(&large.disk(i), size, &geometry)?))).collect::<Result<Vec<_>>>()?;
        Engine::format(&as_disks(&wides), id, KEY, Layout::default(), &pool, &mut large.counters.clone())?;
        // Large commits: a batch of 16 MiB or of 256 costs the catalogue the same.
        let mut filler = Filler::open(as_disks(&wides), id, &large.counters, &pool, 256 << 20)?;
        let began = Instant::now();
        for stream in 0..STREAMS {
            filler.fill(stream..stream + 1, 0..each, false)?;
            if (stream + 1) % 10 == 0 {
                eprintln!("filled {} % of {tib} TiB in {:.0} s", stream + 1, began.elapsed().as_secs_f64());
            }
        }
        wides.iter().try_for_each(|w| w.put_down())?;
        large.save()?;
        Ok(large)
    }

    fn disk(&self, i: u64) -> PathBuf {
        self.folder.join(format!("disk.{i}"))
    }

    fn wides(&self) -> Result<Vec<Arc<Wide>>> {
        (0..2).map(|i| Ok(Arc::new(Wide::open(&self.disk(i), &self.geometry)?))).collect()
    }

    /// Writes until a checkpoint is almost due; then leaves the store as a power cut does.
    fn grow_tail(&mut self) -> Result<()> {
        let (pool, wides) = (touched_pool()?, self.wides()?);
        let mut filler = Filler::open(as_disks(&wides), self.id, &self.counters, &pool, Options::default().commit_bytes)?;
        let seen = || (wides[0].checkpoints(), wides[0].used());
        let step = |stored: &mut u64, filler: &mut Filler, in_full| {
            *stored += STEP;
            filler.fill(TAIL, *stored - STEP..*stored, in_full)
        };
        let before = seen().0;
        while seen().0 == before {
            step(&mut self.stored, &mut filler, false)?;
        }
        let (checkpoints, used) = seen();
        let mut steps = 0;
        while seen().1 < used + ALMOST && steps < STEPS {
            step(&mut self.stored, &mut filler, false)?;
            steps += 1;
        }
        step(&mut self.stored, &mut filler, true)?;
        ensure!(seen().0 == checkpoints, "a checkpoint came before it was expected");
        wides.iter().try_for_each(|w| w.make_solid(filler.zeros()))?;
        wides.iter().try_for_each(|w| w.put_down())?;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let id = u128::from_le_bytes(self.id).to_string();
        let g = &self.geometry;
        let all = json!({
            "id": id, "membership": self.counters.membership()?, "stored": self.stored,
            "geometry": [g.places, g.copies], "blocks": [g.segment_blocks, g.catalogue_blocks, g.slots],
        });
        Ok(fs::write(self.folder.join("store"), all.to_string())?)
    }

    fn load(folder: &Path) -> Result<Self> {
        let all: Value = serde_json::from_slice(&fs::read(folder.join("store"))?)?;
        let number = |v: &Value| v.as_u64().context("a number is missing");
        let (small, blocks) = (&all["geometry"], &all["blocks"]);
        let geometry = Geometry {
            places: number(&small[0])? as u8,
            copies: number(&small[1])? as u8,
            segment_blocks: number(&blocks[0])? as u32,
            catalogue_blocks: number(&blocks[1])? as u32,
            slots: number(&blocks[2])? as u32,
        };
        let id: u128 = all["id"].as_str().context("no name")?.parse()?;
        let mut counters = Memory::default();
        counters.raise_membership(number(&all["membership"])?)?;
        Ok(Self { folder: folder.to_owned(), id: id.to_le_bytes(), counters, geometry, stored: number(&all["stored"])? })
    }
}

/// A pool whose every page has been written, so that it weighs the same in all processes.
fn touched_pool() -> Result<Buffers> {
    let pool = Buffers::new(POOL)?;
    let mut all: Vec<_> = std::iter::from_fn(|| pool.take(MOST_BUFFER)).collect();
    all.iter_mut().for_each(|b| b.as_mut().fill(1));
    Ok(pool)
}

/// What this process has had read from disks so far.
fn bytes_read() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    Ok(line.context("the kernel counts no I/O")?.parse()?)
}
