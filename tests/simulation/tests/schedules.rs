//! The store keeps its promises over thousands of schedules; and the simulation finds
//! each mistake that the engine can be told to make.

use std::{panic, sync::Once};

use hoidla_simulation::{
    schedule::{Failure, play},
    tally::Tally,
    trace::Trace,
};
use hoidla_store::Fault;

#[test]
fn all_invariants_hold_over_thousands_of_schedules() {
    let mut sum = Tally::default();
    for seed in 0..1500 {
        match play(&seed.into(), None, Trace::Silent) {
            Ok((tally, _)) => sum.add(&tally),
            Err(failure) => panic!("{failure}\nreplay it: ./just sim {seed}"),
        }
    }
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
        "disks stopped",
        "disks made whole",
        "stale disks refused",
        "catalogues rebuilt",
        "segments rewritten",
        "submissions to a full store",
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

/// The first failure of an engine with a fault, if the seeds show one.
fn first_failure(fault: Fault) -> Option<Failure> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("faulty") {
                usual(info);
            }
        }));
    });
    let search = move || {
        (0..2000).find_map(|seed| match panic::catch_unwind(|| play(&seed.into(), Some(fault), Trace::Silent)) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure { schedule: seed.into(), step: 0, invariant: "panic", why: "the engine's own check".into() }),
        })
    };
    std::thread::Builder::new().name("faulty".into()).spawn(search).unwrap().join().unwrap()
}

macro_rules! finds {
    ($($name:ident: $fault:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let failure = first_failure(Fault::$fault).expect("no schedule shows this fault");
            println!("{failure}");
        })*
    };
}

finds! {
    finds_acknowledging_before_the_flush: AcknowledgeBeforeFlush,
    finds_a_missing_flush: NoFlush,
    finds_one_copy_taken_for_all: OneCopyIsEnough,
    finds_a_mark_that_is_too_high: MarkTooHigh,
    finds_trust_in_a_stale_disk: TrustStaleDisk,
    finds_membership_left_as_it_was: KeepMembership,
    finds_a_cut_of_too_much: CutTooMuch,
    finds_a_cut_of_too_little: CutTooLittle,
    finds_copies_left_apart: KeepOnOneCopy,
    finds_a_slot_reused_too_early: ReuseBeforeCheckpoint,
    finds_a_segment_retired_too_early: RetireTooEarly,
    finds_a_run_without_its_own_number: SameRunAgain,
    finds_an_ignored_flush_error: IgnoreFailedFlush,
    finds_a_fork_let_through: ForkUnseen,
    finds_rot_that_is_believed: BelieveRot,
}
