//! Makes a failing schedule small: leaves out steps for as long as the same invariant breaks.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use crate::{
    plan::Mistake,
    schedule::{Failure, Schedule, play},
    tally::Tally,
    trace::Trace,
};

/// The most schedules that are played to make one small.
const MOST_TRIES: usize = 3000;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Plays a schedule; a check of the engine's own that fails is a broken invariant, too.
pub fn outcome(schedule: &Schedule, mistake: Option<Mistake>) -> Result<Tally, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let played = panic::catch_unwind(AssertUnwindSafe(|| play(schedule, mistake, Trace::Silent)));
    QUIET.set(false);
    match played {
        Ok(played) => played.map(|(tally, _)| tally),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let why = why.unwrap_or_else(|| "a panic without words".into());
            Err(Failure { schedule: schedule.clone(), step: 0, invariant: "the engine's own checks", why })
        }
    }
}

/// The failure with as few steps as leaving out finds.
pub fn shrink(failure: Failure, mistake: Option<Mistake>) -> Failure {
    let mut best = failure;
    let mut steps = best.schedule.steps.clone().unwrap_or_else(|| (1..=400).collect());
    let (mut chunk, mut tries) = (steps.len().div_ceil(2), 0);
    while chunk > 0 && tries < MOST_TRIES {
        let mut at = 0;
        while at < steps.len() && tries < MOST_TRIES {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + chunk).min(steps.len()));
            tries += 1;
            let schedule = Schedule { seed: best.schedule.seed, steps: Some(fewer) };
            match outcome(&schedule, mistake) {
                Err(again) if again.invariant == best.invariant => {
                    steps = again.schedule.steps.clone().unwrap_or_default();
                    best = again;
                }
                _ => at += chunk,
            }
        }
        chunk /= 2;
    }
    best
}
