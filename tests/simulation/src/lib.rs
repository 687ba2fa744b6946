//! The real store in a seeded world of failing disks.
//!
//! [`schedule::run`] plays one schedule: a seed decides what is submitted, in which
//! order requests are carried out, when the power goes, what of the unflushed writes
//! survives sector by sector, which copy rots, which disk fails, leaves and returns.
//! After every event and every recovery the invariants of [`invariants`] are checked
//! against a model that knows what was submitted and what was acknowledged. The same
//! seed plays the same schedule.
#![forbid(unsafe_code)]

pub mod dice;
pub mod disk;
pub mod invariants;
pub mod memory;
pub mod model;
pub mod schedule;
