//! The simulation finds each deliberate mistake, soon, and makes it small.

use hoidla_simulation::{
    mutants::{MUTANTS, hunt},
    shrink::{outcome, shrink},
};

/// Within so many seeds each must be found.
const SEEDS: u64 = 600;

#[test]
fn every_mistake_is_found() {
    let missed: Vec<_> = MUTANTS
        .iter()
        .filter(|m| match hunt(m, SEEDS) {
            Some((seed, failure)) => {
                println!("{}: seed {seed}, {}", m.says, failure.invariant);
                false
            }
            None => true,
        })
        .map(|m| m.says)
        .collect();
    assert_eq!(missed, [""; 0], "no schedule shows these");
}

#[test]
fn a_failure_is_made_small_and_is_still_the_same() {
    let mutant = &MUTANTS[0];
    let (_, failure) = hunt(mutant, SEEDS).expect("it is found");
    let before = failure.schedule.steps.as_ref().map_or(0, Vec::len);
    let small = shrink(failure.clone(), Some(mutant.mistake));
    let after = small.schedule.steps.as_ref().map_or(0, Vec::len);
    assert!(after <= before.min(20), "{before} steps became {after}");
    let again = outcome(&small.schedule, Some(mutant.mistake)).expect_err("it fails again");
    assert_eq!((again.invariant, again.why), (failure.invariant, small.why));
}
