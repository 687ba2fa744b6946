//! What the log says of what is stored: the part that covers an offset, for receipts.
//!
//! Promises: a [`Logged`] comes from a head whose seal matched, and its leaf follows from it.

use hoidla_format::{Leaf, disk::batch::Entry, frame::Chain};

use crate::{
    catalogue::leaf_of,
    device::Pool,
    read::{Place, ReadError, Reader, damaged},
};

/// One stream's part of one group commit: a leaf of the log, and the frames under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The leaf's index in the log.
    pub index: u64,
    /// The leaf.
    pub leaf: Leaf,
    /// The stream's chain before the part.
    pub before: Chain,
    /// The part's frames in order: `before`, then these, gives the leaf's root.
    pub frames: Vec<Entry>,
}

impl<P: Pool> Reader<P> {
    /// What the log says of the part that covers a place.
    pub fn logged(&mut self, place: &Place) -> Result<Logged, ReadError> {
        let batch = self.batch_of(place)?;
        let covers = |r: &&hoidla_format::disk::batch::Run| r.stream == place.stream && (r.before.length..r.end()).contains(&place.offset);
        let run = batch.head.runs.iter().find(covers).ok_or(damaged(place))?;
        Ok(Logged { index: run.leaf, leaf: leaf_of(&place.generation, run), before: run.before, frames: run.records.clone() })
    }
}
