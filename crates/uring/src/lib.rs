//! io_uring, aligned and registered memory: the store's disks on Linux.
//!
//! [`Store`] is what programs use: the engine of `hoidla-store` on a thread of its own,
//! with a handle for all others. Below it: [`Ring`], [`DiskFile`], [`Buffers`]; beside it
//! [`Locked`], memory for secrets. Each module says what it promises.

pub mod buffers;
mod driver;
pub mod file;
mod keeping;
pub mod locked;
pub mod rebuild;
pub mod ring;
pub mod store;
pub mod trays;
mod whole;
pub mod wipe;

pub use buffers::{Blocks, Buffer, Buffers};
pub use file::{DiskError, DiskFile};
pub use locked::{Locked, LockedError, LockedKind};
pub use rebuild::{AttachError, DiskState, State};
pub use ring::{Ring, RingError};
pub use store::{Kept, Pending, Report, Settings, StartError, Store, StoreError, Tally, format};

/// A record in our buffers.
pub type Record = hoidla_store::Record<Buffers>;
/// A record that was read.
pub type Found = hoidla_store::Found<Buffers>;
/// The engine over our buffers.
pub type Engine = hoidla_store::Engine<Buffers>;
/// Reads by blocking calls.
pub type Reader = hoidla_store::Reader<Buffers>;
