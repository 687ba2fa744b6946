//! Ratios against fio and peers: prints a table and writes `bench.json`.
//!
//! Promises: every ratio comes from rounds that alternate between the two sides on the
//! same machine within the same run, with the spread shown; nothing is left on disk.
//! Absolute figures mean nothing on another machine.
#![forbid(unsafe_code)]

mod bound;
mod engine;
mod filler;
mod fio;
mod group;
mod large;
mod latency;
mod peers;
mod pipeline;
mod push;
mod rebuild;
mod rows;
mod setup;
mod sink;
mod wide;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures Hoidla against fio and peers.
#[derive(Parser)]
struct Args {
    /// Where scratch files go: a disk with room for five times --gib, not memory.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// The folder that is pushed; files that don't compress if not given.
    #[arg(long)]
    path: Option<PathBuf>,
    /// Where the figures are written.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Payload of one round, in GiB.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    gib: u64,
    /// What a large store holds, in TiB.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..=100))]
    tib: u64,
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// Only these parts; all by default.
    #[arg(long)]
    only: Vec<Part>,
    /// What the process that opens a large store is told.
    #[arg(long, hide = true)]
    opens: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// engine_write_vs_fio, verify_vs_fio, scrub_vs_fio
    Engine,
    /// rebuild_vs_fio
    Rebuild,
    /// append_1k_p50_vs_fio, append_64_agents_vs_1
    Append,
    /// mib_per_tib, restart_ms
    Large,
    /// push_vs_bound, push_vs_restic, push_vs_borg, hoidlad_peak_mib
    Push,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.opens {
        return large::open(folder);
    }
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let rounds = args.rounds as usize;
    let mut all = Vec::new();
    if wanted(Part::Engine) {
        all.extend(engine::rows(&args.folder, args.gib, rounds).await?);
    }
    if wanted(Part::Rebuild) {
        all.extend(rebuild::rows(&args.folder, args.gib, rounds).await?);
    }
    if wanted(Part::Append) {
        all.extend(group::rows(&args.folder, rounds)?);
        all.extend(latency::rows(&args.folder, rounds).await?);
    }
    if wanted(Part::Large) {
        all.extend(large::rows(&args.folder, args.tib, rounds)?);
    }
    if wanted(Part::Push) {
        all.extend(push::rows(&args.folder, args.path, args.gib, rounds).await?);
    }
    rows::print(&all);
    rows::write(&args.json, &all)
}
