//! What an enrolled machine must not start, must not open, and must not answer.
//!
//! One embassy is founded and shared; each test spoils a copy of its machine, two at a time.
#![forbid(unsafe_code)]

mod ports;
mod shared;
mod start;
mod unseal;

use shared::{refused, registers_are_foretold, serves, shared};
