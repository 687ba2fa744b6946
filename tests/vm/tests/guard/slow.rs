//! What takes a machine many starts: boot disks that come and go, updates, the stick's menu, whatever is wrong. Too
//! slow for every run of all tests; `./just vm-test` has it.
#![forbid(unsafe_code)]

mod disks;
mod shared;
mod trouble;
mod update;
mod visit;

use shared::{refused, scratch, serves, shared};
