//! The programs together: a push against what bounds it, and against its peers.
//!
//! A site, custodians, vaults, a software TPM, `hoidlad` and `hoidla-agent` are set up as
//! their users do it. Each round measures the bounds, one push of the whole folder as a
//! new generation, and each peer that is installed, in turn.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use hoidla_journey::{
    Narrator, Stage, sample,
    stage::{CUSTODIANS, RECOVERY},
};

use crate::{
    bound::Bound,
    peers::{PEERS, Peer},
    rows::{Row, Target, low_median_high},
    setup::{Cost, Scratch, children_cpu, of_process},
};

const COPIES: u32 = 2;
/// Files of the folder that is made when none is given.
const FILES: u64 = 16;

/// All rows of the programs.
pub async fn rows(folder: &Path, given: Option<PathBuf>, gib: u64, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let (source, made) = match given {
        Some(path) => (path.canonicalize().with_context(|| format!("{} can't be read", path.display()))?, "the folder given"),
        None => (make_source(scratch.path(), gib << 30)?, "files that don't compress"),
    };
    let bytes = weigh(&source)?;
    eprintln!("setting up a site, an appliance and an agent");
    let mut stage = set_up(&scratch.path().join("stage"), bytes * (rounds as u64 + 1))?;
    let (mut pushes, mut bounds) = (Vec::new(), Vec::new());
    let mut peers: Vec<(Peer, Vec<Cost>)> = PEERS.into_iter().filter(Peer::installed).map(|peer| (peer, Vec::new())).collect();
    for round in 1..=rounds {
        eprintln!("push, round {round} of {rounds}");
        bounds.push(Bound::measure(scratch.path(), &source, COPIES, gib << 30).await?);
        pushes.push(push(&mut stage, &source, bytes)?);
        for (peer, costs) in &mut peers {
            costs.push(peer.copy(scratch.path(), &source, bytes)?);
        }
    }
    let peak = of_process(stage.daemon()?.pid())?.1;
    let what = format!("{:.2} GB, {made}", bytes as f64 / 1e9);
    let mut rows = vec![against_bound(&pushes, &bounds, &what)];
    rows.extend(peers.iter().map(|(peer, costs)| against(peer, &pushes, costs)));
    let note = format!("the most memory that hoidlad had while {rounds} times {what} came in; limit: its pool of buffers");
    rows.push(Row::over("hoidlad_peak_mib", &[peak], Target::AtMost(300.0), note));
    Ok(rows)
}

fn against_bound(pushes: &[Cost], bounds: &[Bound], what: &str) -> Row {
    let ratios: Vec<_> = pushes.iter().zip(bounds).map(|(p, b)| p.rate() / b.least()).collect();
    let middle = |f: fn(&Bound) -> f64| low_median_high(&bounds.iter().map(f).collect::<Vec<_>>()).1 / 1e9;
    let note = format!(
        "{what}: {:.2} GB/s sealed, sent and kept twice; alone: disks {:.2}, TLS {:.2}, pipeline {:.2}; limit: {}, and that all share two cores",
        median(pushes, Cost::rate) / 1e9,
        middle(|b| b.disks),
        middle(|b| b.sink),
        middle(|b| b.pipeline),
        bounds[bounds.len() - 1].name(),
    );
    Row::over("push_vs_bound", &ratios, Target::AtLeast(0.6), note)
}

fn against(peer: &Peer, pushes: &[Cost], costs: &[Cost]) -> Row {
    let ratios: Vec<_> = pushes.iter().zip(costs).map(|(p, c)| p.rate() / c.rate()).collect();
    let note = format!(
        "CPU s/GB: {:.1} (agent and hoidlad) against {:.1}; {} {:.2} GB/s, but it keeps one copy, and sends nothing through TLS",
        median(pushes, Cost::cpu_per_gb),
        median(costs, Cost::cpu_per_gb),
        peer.program,
        median(costs, Cost::rate) / 1e9,
    );
    Row::over(peer.row, &ratios, peer.goal.map_or(Target::Shown, Target::AtLeast), note)
}

fn median(costs: &[Cost], of: fn(&Cost) -> f64) -> f64 {
    low_median_high(&costs.iter().map(of).collect::<Vec<_>>()).1
}

fn push(stage: &mut Stage, source: &Path, bytes: u64) -> Result<Cost> {
    let path = source.to_str().context("the folder's path must be text")?;
    let daemon = stage.daemon()?.pid();
    let (before, agents) = (of_process(daemon)?.0, children_cpu()?);
    let began = Instant::now();
    let answer = stage.agent(&["push", "--home", "home/agent", "--new-generation", path])?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(answer.code == 0, "the push failed: {}{}", answer.out, answer.err);
    let cpu = of_process(daemon)?.0 - before + children_cpu()? - agents;
    Ok(Cost { seconds, cpu, bytes })
}

/// A site, an appliance with disks for so many bytes, and an agent; `hoidlad` runs.
pub fn set_up(folder: &Path, bytes: u64) -> Result<Stage> {
    let mut stage = Stage::new(folder, Narrator::silent())?;
    stage.new_site()?;
    for name in CUSTODIANS.iter().chain(&RECOVERY) {
        stage.new_custodian(name)?;
    }
    stage.sign_site()?;
    stage.start_tpm()?;
    stage.identify()?;
    stage.deal()?;
    stage.enrol((bytes * 6 / 5).div_ceil(1 << 20) + 2048)?;
    stage.new_agent()?;
    stage.start_daemon()?;
    Ok(stage)
}

fn make_source(scratch: &Path, bytes: u64) -> Result<PathBuf> {
    let folder = scratch.join("source");
    std::fs::create_dir_all(&folder)?;
    // The generator's bytes are the same each time, so each file begins elsewhere in them.
    let whole = scratch.join("noise");
    sample::noise(&whole, bytes)?;
    let noise = std::fs::File::open(&whole)?;
    for i in 0..FILES {
        use std::io::{Read, Seek, SeekFrom};
        let mut part = &noise;
        part.seek(SeekFrom::Start(i * bytes / FILES))?;
        std::io::copy(&mut part.take(bytes / FILES), &mut std::fs::File::create(folder.join(format!("register-{i}")))?)?;
    }
    std::fs::remove_file(whole)?;
    Ok(folder)
}

fn weigh(path: &Path) -> Result<u64> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(if meta.is_file() { meta.len() } else { 0 });
    }
    std::fs::read_dir(path)?.map(|entry| weigh(&entry?.path())).sum()
}
