//! The store keeps its promises over thousands of schedules; and the simulation finds
//! each mistake that the engine can be told to make.

use std::{panic, sync::Once};

use hoidla_simulation::schedule::{Failure, Tally, run};
use hoidla_store::Fault;

#[test]
fn all_invariants_hold_over_thousands_of_schedules() {
    let mut sum = Tally::default();
    for seed in 0..1500 {
        match run(seed, None, false) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => panic!("{failure}\nreplay it: cargo run -p hoidla-simulation --bin hoidla-sim -- --seed {seed}"),
        }
    }
    println!("{sum:?}");
    // A schedule that never gets into trouble proves nothing.
    let troubles = [
        ("crashes", sum.crashes),
        ("crashes while opening", sum.crashes_while_opening),
        ("cut commits", sum.cut),
        ("repairs", sum.repaired),
        ("stopped disks", sum.disks_stopped),
        ("resyncs", sum.resynced),
        ("stale disks refused", sum.refused_stale),
        ("rebuilt catalogues", sum.rebuilt),
        ("rewritten segments", sum.rewritten),
        ("full stores", sum.full),
    ];
    for (what, count) in troubles {
        assert!(count >= 20, "only {count} {what} in all schedules");
    }
    assert!(sum.acknowledged > 50_000, "{sum:?}");
}

#[test]
fn the_same_seed_plays_the_same_schedule() {
    for seed in [7, 42, 99] {
        let (a, b) = (run(seed, None, false).unwrap(), run(seed, None, false).unwrap());
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
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
        (0..2000).find_map(|seed| match panic::catch_unwind(|| run(seed, Some(fault), false)) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure { seed, step: 0, invariant: "panic", why: "the engine's own check".into() }),
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
