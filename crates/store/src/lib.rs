//! The storage engine, a state machine over traits for disk, clock and randomness.
#![forbid(unsafe_code)]
