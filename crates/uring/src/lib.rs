//! io_uring, aligned and registered memory: the store's disks on Linux.

pub mod file;
pub mod locked;

pub use file::{ALIGN, DiskError, DiskFile};
pub use locked::{Locked, LockedError, LockedKind};
