//! Plays schedules of the simulated store: one with its trace, or many.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use hoidla_simulation::{schedule::play, tally::Tally, trace::Trace};

/// Plays schedules of the store in a world of failing disks.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Replay this seed, and tell each step.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Play many, such as 0..10000; the first that breaks an invariant is named.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    seeds: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return match play(&seed.into(), None, Trace::told()) {
            Ok((tally, trace)) => {
                println!("all invariants hold: {tally}\ntrace {}", trace.hash().unwrap_or_default());
                Ok(())
            }
            Err(failure) => bail!("{failure}"),
        };
    }
    let (from, to) = arguments.seeds.split_once("..").context("write the seeds as A..B, such as 0..10000")?;
    let (from, to): (u64, u64) = (from.parse()?, to.parse()?);
    let mut sum = Tally::default();
    for seed in from..to {
        match play(&seed.into(), None, Trace::Silent) {
            Ok((tally, _)) => sum.add(&tally),
            Err(failure) => bail!("{failure}\nreplay it: hoidla-sim --seed {seed}"),
        }
    }
    println!("{} schedules, all invariants hold: {sum}", to - from);
    Ok(())
}
