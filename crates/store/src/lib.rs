//! The storage engine, a state machine over traits for disk, memory and counters.
#![forbid(unsafe_code)]

pub mod device;
mod engine;
mod types;

pub use device::{BLOCK, Blocks, BlocksOf, Buffer, Counters, Disk, DiskNo, Disks, MOST_BUFFER, Op, Pool, Request};
pub use engine::*;
pub use types::*;
