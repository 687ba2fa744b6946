//! The storage engine, a state machine over traits for disk, memory and counters.
//!
//! [`Engine`] takes records and hands out writes and flushes; [`Reader`] reads and
//! checks. Both run on whatever implements the traits of [`device`]: an io_uring
//! thread, or the seeded simulator. `docs/formats/store.md` is the layout on disk.
#![forbid(unsafe_code)]

pub mod device;
pub mod powered;

mod catalogue;
mod checkpoint;
mod commit;
mod copies;
mod counter;
mod draft;
mod engine;
mod expiry;
mod fence;
mod holes;
mod job;
mod logged;
mod members;
mod open;
mod options;
mod place;
mod prewrite;
mod proofs;
mod read;
mod rebuild;
mod recovery;
mod rewrite;
mod seen;
mod slots;
mod source;
mod space;
mod stretch;
mod tiles;
mod types;

pub use hoidla_format::disk::SealKey;

pub use device::{BLOCK, Blocks, BlocksOf, Buffer, Counters, Disk, DiskNo, Disks, MOST_BUFFER, Op, Pool, Request};
pub use engine::Engine;
pub use expiry::{GRACE, Tenure, may_end};
pub use logged::Logged;
pub use open::{OpenError, Opened, best_superblock};
#[cfg(feature = "faults")]
pub use options::Fault;
pub use options::{Layout, Options};
pub use proofs::{Asked, Grounds};
pub use read::{Checked, Found, Place, ReadError, Reader, SegmentRef};
pub use rebuild::{JoinError, JoinId, Mark, Rebuilding, ToCopy};
pub use rewrite::Moved;
pub use types::*;
