//! What goes into the engine and what comes out of it.

use hoidla_format::{Hash32, Name, StreamId, frame::Chain};
use thiserror::Error;

use crate::device::{BlocksOf, DiskNo, Pool};

/// Which registry's base with increments a stream belongs to: what expires together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation {
    /// The dataset.
    pub dataset: Name,
    /// Counted by the agent, within the dataset.
    pub number: u32,
}

/// One frame to keep. The submitter has hashed it, away from the engine's thread.
pub struct Record<P: Pool> {
    /// Where the stream belongs.
    pub generation: Generation,
    /// The stream.
    pub stream: StreamId,
    /// The stream's epoch, from 1.
    pub epoch: u32,
    /// The offset of its first byte in the stream.
    pub offset: u64,
    /// Its bytes: at least 1, at most [`hoidla_format::frame::MOST`].
    pub len: u32,
    /// BLAKE3 of its bytes.
    pub hash: Hash32,
    /// Its bytes from the first on; zero up to the end of the last block.
    pub blocks: BlocksOf<P>,
}

/// Chosen by whoever submits; comes back in the [`Event`] that answers.
pub type Ticket = u64;

/// What became of an append that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// An [`Event`] with this ticket follows.
    Pending,
    /// These bytes lie before what is acknowledged, so they were stored before: compare
    /// them with [`crate::Reader::compare`], off the engine's thread, and acknowledge or
    /// refuse. No event follows.
    Before(crate::Place),
}

/// Why an append was refused. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Too much is under way: try again after the next event; nothing is wrong.
    #[error("the store is busy: send the same again")]
    Busy,
    /// No room.
    #[error("the store is full: add disks, or free generations whose retention is over")]
    Full,
    /// The catalogue cannot hold more streams.
    #[error("the store holds as many streams as its catalogue takes: format it with a larger one")]
    TooManyStreams,
    /// Bytes between are missing.
    #[error("offset {offset} of the stream was sent, but {expected} comes next: resume there")]
    Gap {
        /// What was sent.
        offset: u64,
        /// What comes next.
        expected: u64,
    },
    /// Another content at the same place.
    #[error("other bytes are stored at offset {offset} of this stream: it was forked; begin a new generation")]
    Fork {
        /// Where.
        offset: u64,
    },
    /// It was stored, and is on no disk any more: nobody can say whether these are the same bytes.
    #[error("what was stored at offset {offset} of this stream is on no disk any more: tell the authority, and begin a new generation")]
    Lost {
        /// Where.
        offset: u64,
    },
    /// The epoch is closed, or a later one has begun.
    #[error("epoch {epoch} of this stream is over: begin epoch {next} or later")]
    EpochOver {
        /// What was sent.
        epoch: u32,
        /// The first that may follow.
        next: u32,
    },
    /// The stream belongs to another dataset or generation.
    #[error("this stream belongs to another dataset or generation")]
    Foreign,
    /// The stream is refused since an alarm.
    #[error("this stream is refused: its agent holds an acknowledgement up to {presented}, the store has less; an operator must look")]
    Alarmed {
        /// What the agent presented.
        presented: u64,
    },
    /// The generation's days are over.
    #[error("generation {generation} is over: this store has let go of all below {floor}; begin a new generation")]
    Expired {
        /// What was asked for.
        generation: u32,
        /// The lowest that may be there.
        floor: u32,
    },
    /// Something is still to be kept.
    #[error("not all of these generations are over")]
    NotOver,
    /// No such stream.
    #[error("there is no such stream")]
    Unknown,
    /// A length or epoch that no record has.
    #[error("not a record: {0}")]
    NotARecord(&'static str),
    /// Its disks are older than it was, or another's.
    #[error("the store only reads: {0}; tell the authority, restore what is needed, and begin new generations on formatted disks")]
    OnlyReads(String),
    /// No disk is left.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// What the engine has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Kept on every current copy.
    Acknowledged(Acknowledged),
    /// Epoch closed, alarm kept, stream readmitted or segment rewritten: durable.
    Noted {
        /// Of the submission.
        ticket: Ticket,
    },
    /// A disk failed and is left alone from now on; the store goes on with the others.
    DiskStopped {
        /// Which.
        disk: DiskNo,
        /// Why.
        why: String,
    },
    /// A disk is rebuilt, and a member from now on.
    DiskJoined {
        /// Which.
        disk: DiskNo,
    },
    /// No disk is left: everything pending is lost to its submitters, nothing more is taken.
    Stopped {
        /// Why.
        why: String,
    },
}

/// The word that a record is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the submission.
    pub ticket: Ticket,
    /// The stream.
    pub stream: StreamId,
    /// All of the stream before this offset is kept.
    pub end: u64,
    /// The log's leaf that covers the record.
    pub leaf: u64,
    /// The log's leaves, this commit's included.
    pub log_size: u64,
    /// The log's root over them.
    pub log_root: Hash32,
}

/// What the store holds of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// Where it belongs.
    pub generation: Generation,
    /// The current epoch; 0 before the first record.
    pub epoch: u32,
    /// Epochs up to this one are closed.
    pub closed: u32,
    /// What is acknowledged: length and chain's root.
    pub chain: Chain,
    /// Where each epoch starts, in order.
    pub epochs: Vec<(u32, u64)>,
    /// Set while the stream is refused: what its agent presented.
    pub alarm: Option<u64>,
}
