//! Deliberate mistakes, each of which the simulation must find.

use hoidla_protocol::Fault as Session;
use hoidla_store::Fault as Store;

use crate::{
    plan::Mistake,
    schedule::{Failure, Schedule},
    shrink::outcome,
};

/// A mistake, and what it is in words.
pub struct Mutant {
    /// The mistake.
    pub mistake: Mistake,
    /// In words.
    pub says: &'static str,
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    store(Store::AcknowledgeBeforeFlush, "acknowledged before the flush"),
    store(Store::NoFlush, "a missing flush"),
    store(Store::OneCopyIsEnough, "one copy taken for all"),
    store(Store::MarkTooHigh, "a mark that is too high"),
    store(Store::TrustStaleDisk, "a stale disk trusted"),
    store(Store::KeepMembership, "membership left as it was"),
    store(Store::CutTooMuch, "a cut of too much"),
    store(Store::CutTooLittle, "a cut of too little"),
    store(Store::KeepOnOneCopy, "recovery leaves copies apart"),
    store(Store::ReuseBeforeCheckpoint, "a slot reused too early"),
    store(Store::RetireTooEarly, "a segment retired before its records moved"),
    store(Store::SameRunAgain, "a run without a number of its own"),
    store(Store::IgnoreFailedFlush, "a failed flush ignored"),
    store(Store::ForkUnseen, "a fork let through"),
    store(Store::CountTooEarly, "a disk counts before it is rebuilt"),
    store(Store::ForgetJoining, "new writes don't go to a disk that is rebuilt"),
    store(Store::BelieveJoining, "a disk is believed while it is rebuilt"),
    store(Store::ExpireEarly, "a generation ended too early"),
    store(Store::BelieveRot, "rot believed"),
    store(Store::RollbackUnseen, "disks put back unseen"),
    store(Store::TilesTooLate, "a tile not written before its leaves go"),
    store(Store::CounterBeforeIntent, "the counter before its intent"),
    store(Store::UncheckedProofs, "a proof that nobody checked"),
    session(Session::AnswerAtOnce, "acknowledged when handed to the store"),
    session(Session::AnswerTooFar, "acknowledged with all that came after"),
    session(Session::KeepWindow, "window not given back"),
    session(Session::StaleWriter, "a stale writer not shut out"),
    session(Session::TakeOverAtOnce, "a stream taken over too early"),
    session(Session::ReconcileOffByOne, "reconciled one frame too far"),
    session(Session::LossUnseen, "a lost spool unseen"),
];

const fn store(fault: Store, says: &'static str) -> Mutant {
    Mutant { mistake: Mistake::Store(fault), says }
}

const fn session(fault: Session, says: &'static str) -> Mutant {
    Mutant { mistake: Mistake::Session(fault), says }
}

/// The first seed that finds the mistake, of so many, and how.
pub fn hunt(mutant: &Mutant, seeds: u64) -> Option<(u64, Failure)> {
    (0..seeds).find_map(|seed| Some((seed, outcome(&Schedule::from(seed), Some(mutant.mistake)).err()?)))
}
