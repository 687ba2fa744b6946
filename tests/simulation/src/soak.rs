//! Plays schedules for hours, on all cores, and tells how fast.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    schedule::{Failure, Schedule},
    shrink::outcome,
    tally::Tally,
};

/// What a soak did.
pub struct Soaked {
    /// Schedules played.
    pub schedules: u64,
    /// What happened in them.
    pub tally: Tally,
    /// How long it took.
    pub took: Duration,
    /// The first failure, as it was found.
    pub failure: Option<Failure>,
}

/// Plays the seeds from `first` on until the time is over, `last` is reached or one fails.
pub fn soak(first: u64, last: u64, time: Duration, threads: usize) -> Soaked {
    let (began, next, stop) = (Instant::now(), AtomicU64::new(first), AtomicBool::new(false));
    let sum = Mutex::new((0u64, Tally::default(), None::<Failure>));
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while !stop.load(Ordering::Relaxed) && began.elapsed() < time {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let played = outcome(&Schedule::from(seed), None);
            let mut sum = lock();
            sum.0 += 1;
            match played {
                Ok(tally) => sum.1.add(&tally),
                Err(failure) => {
                    stop.store(true, Ordering::Relaxed);
                    sum.2.get_or_insert(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        while std::io::stderr().is_terminal() && workers.iter().any(|w| !w.is_finished()) {
            thread::sleep(Duration::from_millis(200));
            let (done, seconds) = (lock().0, began.elapsed().as_secs_f64());
            eprint!("\r{done} schedules, {:.0} a second, {seconds:.0} s ", done as f64 / seconds);
            _ = std::io::stderr().flush();
        }
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    });
    let (schedules, tally, failure) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Soaked { schedules, tally, took: began.elapsed(), failure }
}
