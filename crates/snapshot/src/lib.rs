//! A folder as messages, and back.
//!
//! ```text
//! push:    read → cut → (id, known?, compress) → pack → messages of one size
//! restore: message → chunk → file under a passing name → its own name
//! ```
//!
//! Promises: whatever is needed to restore is in the messages alone; what lies at
//! home ([`Index`], [`Cache`]) only spares work and may be lost. Names are bytes.
//! Memory is bounded by a directory's names and a few buffers, not by what is
//! copied. A file that changed while it was read is never copied in silence: it
//! is read again, and if it won't hold still, marked and named. A restore writes
//! no partial file under its final name, follows no link, leaves its folder never,
//! and checks each file against the digest that was taken when it was read.
//!
//! It doesn't seal, sign or send. It doesn't keep extended attributes, ACLs,
//! access times, device nodes or sockets; the last two are named as left out. A
//! snapshot is not one instant: files are read one after another.
#![forbid(unsafe_code)]

mod batch;
mod cache;
mod chunk;
mod cut;
mod entry;
mod index;
mod pack;
mod packer;
mod push;
mod read;
mod record;
mod restore;
mod unpack;
mod walk;

pub use cache::Cache;
pub use chunk::GenerationKey;
pub use index::Index;
pub use pack::{Message, PackHead, Place};
pub use push::{Options, Progress, Pushed, Source, push};
pub use record::Record;
pub use restore::{Only, Restored, restore};
pub use unpack::{Messages, record_of};

use std::path::PathBuf;

use thiserror::Error;

/// What keeps a snapshot from being made or restored.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The system refused something by name.
    #[error("{path}: {error}", path = .path.display())]
    At {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The system refused something that has no name.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// Whoever takes the messages gave up.
    #[error("{0}")]
    Sink(String),
    /// Whoever gives the messages could not.
    #[error("message {number} of run {run}: {why}")]
    Message {
        /// The run.
        run: u32,
        /// The message in it.
        number: u32,
        /// Why.
        why: String,
    },
    /// Bytes that this format doesn't allow.
    #[error("the snapshot is damaged, or not one: {0}")]
    Malformed(#[from] hoidla_format::Malformed),
    /// The wanted path isn't in the snapshot.
    #[error("{0}: not in this snapshot; `hoidla-agent list` shows what was copied")]
    NotThere(String),
    /// The snapshot's root is there already.
    #[error("{path}: exists already; restore into an empty folder", path = .0.display())]
    Exists(PathBuf),
}

impl SnapshotError {
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |error| Self::At { path, error }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}
