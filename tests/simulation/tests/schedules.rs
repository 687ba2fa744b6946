//! The store keeps its promises over thousands of schedules, and over each that once
//! broke one.

use std::time::Duration;

use hoidla_simulation::{
    schedule::{Schedule, play},
    seeds,
    soak::soak,
    trace::Trace,
};

#[test]
fn all_invariants_hold_over_thousands_of_schedules() {
    let soaked = soak(0, 1500, Duration::MAX, 1);
    if let Some(failure) = soaked.failure {
        panic!("{failure}\nreplay it: ./just sim {}", failure.schedule.seed);
    }
    let sum = soaked.tally;
    println!("{sum}");
    // A schedule that never gets into trouble proves nothing.
    let troubles = [
        "crashes",
        "crashes while opening",
        "commits cut",
        "repairs",
        "bits flipped",
        "stretches unreadable",
        "phantom writes",
        "misdirected writes",
        "disks rewound",
        "strange disks refused",
        "blocks lost on every disk",
        "disks stopped",
        "disks made whole",
        "blank disks put in",
        "disks put back",
        "uncovered stores refused",
        "stale disks refused",
        "catalogues rebuilt",
        "segments rewritten",
        "submissions to a full store",
        "generations ended",
        "stores put back",
    ];
    for what in troubles {
        assert!(sum.of(what) >= 20, "only {} {what} in all schedules", sum.of(what));
    }
    assert!(sum.of("records acknowledged") > 50_000, "{sum}");
}

#[test]
fn the_same_seed_plays_the_same_schedule() {
    for seed in [7, 42, 99] {
        let hash = || play(&seed.into(), None, Trace::hashed()).unwrap().1.hash().unwrap();
        assert_eq!(hash(), hash());
    }
}

#[test]
fn what_once_broke_holds() {
    for schedule in seeds::parse(seeds::KEPT).unwrap() {
        if let Err(failure) = play(&schedule, None, Trace::Silent) {
            panic!("{failure}\nreplay it: ./just sim '{schedule}'");
        }
    }
}

#[test]
fn a_schedule_is_written_as_it_is_read() {
    for written in ["7", "7: 1 20 300", "0:"] {
        assert_eq!(written.parse::<Schedule>().unwrap().to_string(), written);
    }
    for wrong in ["", "x", "7: 1 x", "-1"] {
        assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
    }
    assert_eq!(seeds::parse("# none\n\n3 # one\n4: 5").unwrap(), ["3".parse().unwrap(), "4: 5".parse().unwrap()]);
}
