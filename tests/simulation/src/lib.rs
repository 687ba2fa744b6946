//! The real store in a seeded world of failing disks.
//!
//! [`schedule::play`] plays one schedule: a seed decides what is submitted, in which
//! order requests are carried out, when the power goes, what of the unflushed writes
//! survives sector by sector, which copy rots, which disk lies, fails, leaves and returns.
//! After every event and every recovery the invariants of [`invariants`] are checked
//! against a model that knows what was submitted and what was acknowledged. The same
//! seed plays the same schedule, and each step throws its own dice, so that steps can
//! be left out to make a failure small.
//!
//! [`sessions`] are agents over a network, [`world`] is the machine, [`faults`] what is done to it, `actors` who makes it work,
//! [`plan`] what must be survived, [`endings`] what is tried when a schedule is over.
#![forbid(unsafe_code)]

mod actors;
mod clocks;
pub mod counter;
pub mod dice;
pub mod disk;
pub mod endings;
mod faults;
pub mod invariants;
pub mod memory;
pub mod model;
pub mod mutants;
mod opening;
pub mod plan;
pub mod schedule;
pub mod seeds;
pub mod sessions;
pub mod shrink;
pub mod soak;
pub mod tally;
pub mod trace;
pub mod world;
