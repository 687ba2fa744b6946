//! What a machine starts from: slots with images, the stick that brings them, the disks that
//! keep them; and the papers that a stick carries.
//!
//! Promises: all layouts are fixed, so that every byte that firmware may look at follows from
//! the image, its manifest and its certificate; what is read is bounded, whoever wrote it. No
//! input or output of its own but through what the caller hands over. It doesn't check whose an
//! image is: `hoidla_verify::manifest` does.
#![forbid(unsafe_code)]

pub mod disk;
pub mod entry;
pub mod papers;
pub mod slot;
pub mod stick;

pub use slot::Slot;

/// Bytes of a sector. Disks with other sectors are not for starting from.
pub const SECTOR: u64 = 512;

/// Why something is not what a machine starts from.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// Too much for its place.
    #[error("{0} doesn't fit: {1} bytes are too many")]
    Long(&'static str, usize),
    /// Other bytes than Hoidla writes.
    #[error("{0}")]
    Strange(String),
    /// A file system or device that cannot be read or written.
    #[error("{what} cannot be read or written: {why}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl MediumError {
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |why| Self::Io { what, why: why.to_string() }
    }

    fn table(why: impl std::fmt::Display) -> Self {
        Self::Io { what: "the partition table", why: why.to_string() }
    }
}
