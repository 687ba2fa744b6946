//! Deliberate mistakes, each of which the simulation must find.

use hoidla_store::Fault;

use crate::{
    schedule::{Failure, Schedule},
    shrink::outcome,
};

/// A mistake, and what it is in words.
pub struct Mutant {
    /// The mistake.
    pub fault: Fault,
    /// In words.
    pub says: &'static str,
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    Mutant { fault: Fault::AcknowledgeBeforeFlush, says: "acknowledged before the flush" },
    Mutant { fault: Fault::NoFlush, says: "a missing flush" },
    Mutant { fault: Fault::OneCopyIsEnough, says: "one copy taken for all" },
    Mutant { fault: Fault::MarkTooHigh, says: "a mark that is too high" },
    Mutant { fault: Fault::TrustStaleDisk, says: "a stale disk trusted" },
    Mutant { fault: Fault::KeepMembership, says: "membership left as it was" },
    Mutant { fault: Fault::CutTooMuch, says: "a cut of too much" },
    Mutant { fault: Fault::CutTooLittle, says: "a cut of too little" },
    Mutant { fault: Fault::KeepOnOneCopy, says: "recovery leaves copies apart" },
    Mutant { fault: Fault::ReuseBeforeCheckpoint, says: "a slot reused too early" },
    Mutant { fault: Fault::RetireTooEarly, says: "a segment retired before its records moved" },
    Mutant { fault: Fault::SameRunAgain, says: "a run without a number of its own" },
    Mutant { fault: Fault::IgnoreFailedFlush, says: "a failed flush ignored" },
    Mutant { fault: Fault::ForkUnseen, says: "a fork let through" },
    Mutant { fault: Fault::CountTooEarly, says: "a disk counts before it is rebuilt" },
    Mutant { fault: Fault::ForgetJoining, says: "new writes don't go to a disk that is rebuilt" },
    Mutant { fault: Fault::BelieveJoining, says: "a disk is believed while it is rebuilt" },
    Mutant { fault: Fault::BelieveRot, says: "rot believed" },
];

/// The first seed that finds the mistake, of so many, and how.
pub fn hunt(mutant: &Mutant, seeds: u64) -> Option<(u64, Failure)> {
    (0..seeds).find_map(|seed| Some((seed, outcome(&Schedule::from(seed), Some(mutant.fault)).err()?)))
}
