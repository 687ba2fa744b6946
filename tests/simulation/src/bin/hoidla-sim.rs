//! Plays schedules of the simulated store: one with its trace, many, for hours, or with
//! deliberate mistakes.
#![forbid(unsafe_code)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use hoidla_simulation::{
    mutants::{MUTANTS, hunt},
    schedule::{Failure, Schedule, play},
    shrink::shrink,
    soak::{Soaked, soak},
    trace::Trace,
};

/// Plays schedules of the real store in a world of failing disks.
///
/// Exit codes: 0 all invariants hold, 1 one is broken, 2 a wrong call.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  hoidla-sim 42                 replay seed 42 and tell every event
  hoidla-sim '42: 3 7 12'       the same, with three of its steps only
  hoidla-sim --seeds 0..10000   play these seeds
  hoidla-sim --hours 0.5        play from seed 0 on for half an hour, on all cores
  hoidla-sim --mutants          which deliberate mistakes are found, and how soon"
)]
struct Arguments {
    /// Replay this seed, or `SEED: STEP STEP ...`, and tell each event.
    schedule: Option<String>,
    /// Play these seeds.
    #[arg(long, value_name = "A..B", conflicts_with = "schedule")]
    seeds: Option<String>,
    /// Play for so many hours.
    #[arg(long, conflicts_with_all = ["schedule", "seeds"])]
    hours: Option<f64>,
    /// The first seed of a soak by hours.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many threads play; all cores unless told.
    #[arg(long)]
    threads: Option<usize>,
    /// Let the code make each known mistake, or those whose words contain WORDS, and print which seed
    /// finds it by which invariant.
    #[arg(long, conflicts_with_all = ["schedule", "seeds", "hours"], num_args = 0..=1, default_missing_value = "", value_name = "WORDS")]
    mutants: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(a: &Arguments) -> Result<bool> {
    let threads = a.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if let Some(words) = &a.mutants {
        return Ok(mutants(words));
    }
    if let Some(hours) = a.hours {
        let time = Duration::try_from_secs_f64(hours * 3600.0).context("write the hours as a number, such as 0.5")?;
        return Ok(tell(soak(a.from, u64::MAX, time, threads)));
    }
    if let Some(seeds) = &a.seeds {
        let (from, to) = seeds.split_once("..").context("write the seeds as A..B, such as 0..10000")?;
        return Ok(tell(soak(from.parse()?, to.parse()?, Duration::MAX, threads)));
    }
    let schedule = a.schedule.as_deref().context("say what to play: a seed, --seeds, --hours or --mutants")?;
    let schedule: Schedule = schedule.parse().map_err(|e: String| anyhow!(e))?;
    match play(&schedule, None, Trace::told()) {
        Ok((tally, trace)) => {
            println!("all invariants hold: {tally}\ntrace {}", trace.hash().unwrap_or_default());
            Ok(true)
        }
        Err(failure) => {
            println!("{failure}");
            Ok(false)
        }
    }
}

fn tell(soaked: Soaked) -> bool {
    let seconds = soaked.took.as_secs_f64();
    println!("{} schedules in {seconds:.0} s: {}", soaked.schedules, soaked.tally);
    match soaked.failure {
        None => {
            println!("all invariants hold");
            true
        }
        Some(failure) => {
            println!("{failure}");
            tell_small(failure);
            false
        }
    }
}

fn tell_small(failure: Failure) {
    eprintln!("making it small...");
    let small = shrink(failure, None);
    println!("small: {small}");
    println!("replay it:                       ./just sim '{}'", small.schedule);
    println!("keep it in tests/simulation/seeds.txt: {} # {}: {}", small.schedule, small.invariant, small.why);
}

fn mutants(words: &str) -> bool {
    println!("{:46} {:>5}  found by", "mistake", "seed");
    let mut all = true;
    for mutant in MUTANTS.iter().filter(|m| m.says.contains(words)) {
        match hunt(mutant, 2000) {
            Some((seed, failure)) => println!("{:46} {seed:>5}  {}", mutant.says, failure.invariant),
            None => {
                println!("{:46}     -  not found", mutant.says);
                all = false;
            }
        }
    }
    all
}
