//! Proofs from the log: made off the engine's thread, and checked before they are given.
//!
//! Promises: a proof that is returned verifies, against the root that the engine vouches
//! for; damage gives an error, never a wrong proof.

use std::collections::BTreeMap;

use hoidla_format::Hash32;
use hoidla_log::{Leaves, Nodes, consistency, inclusion, root, verify_consistency, verify_inclusion};

use crate::{
    device::Pool,
    engine::Engine,
    read::{ReadError, Reader, SegmentRef},
};

/// What is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Leaf `index` is in the log's first `size` leaves.
    Inclusion {
        /// The leaf.
        index: u64,
        /// The log's size.
        size: u64,
    },
    /// The log's first `old` leaves are the beginning of its first `new`.
    Consistency {
        /// The older size.
        old: u64,
        /// The newer one.
        new: u64,
    },
}

/// All that a proof is made from.
pub struct Grounds {
    asked: Asked,
    head: (u64, Hash32),
    segments: Vec<SegmentRef>,
}

impl<P: Pool> Engine<P> {
    /// What a proof will be made from, by [`Reader::prove`]; held against recycling meanwhile.
    pub fn grounds(&mut self, asked: Asked) -> Result<Grounds, ReadError> {
        let head = self.log_head();
        let (smaller, larger) = match asked {
            Asked::Inclusion { index, size } => (index.saturating_add(1), size),
            Asked::Consistency { old, new } => (old, new),
        };
        if smaller > larger || larger > head.0 {
            return Err(ReadError::BeyondLog { asked: larger.max(smaller), size: head.0 });
        }
        let mut segments = Vec::new();
        let mut from = 0;
        while let Some(segment) = self.segment(from) {
            from = segment.number() + 1;
            segments.push(segment);
        }
        Ok(Grounds { asked, head, segments })
    }
}

impl<P: Pool> Reader<P> {
    /// Makes the proof and checks it.
    pub fn prove(&mut self, grounds: &Grounds) -> Result<Vec<Hash32>, ReadError> {
        let mut leaves = BTreeMap::new();
        for segment in &grounds.segments {
            leaves.extend(self.leaves(segment)?);
        }
        prove(&Leaves(|i| leaves.get(&i).copied().ok_or(ReadError::LogDamaged)), grounds.asked, grounds.head)
    }
}

/// Makes a proof from nodes that may be wrong, for the head that is right.
fn prove(nodes: &impl Nodes<Error = ReadError>, asked: Asked, (head, head_root): (u64, Hash32)) -> Result<Vec<Hash32>, ReadError> {
    let new = match asked {
        Asked::Inclusion { size, .. } => size,
        Asked::Consistency { new, .. } => new,
    };
    let new_root = root(nodes, new)?;
    let to_head = consistency(nodes, new, head)?.ok_or(ReadError::LogDamaged)?;
    verify_consistency(new, &new_root, head, &head_root, &to_head).map_err(|_| ReadError::LogDamaged)?;
    match asked {
        Asked::Inclusion { index, size } => {
            let proof = inclusion(nodes, index, size)?.ok_or(ReadError::LogDamaged)?;
            let leaf = nodes.node(0, index)?;
            verify_inclusion(&leaf, index, size, &new_root, &proof).map(|()| proof)
        }
        Asked::Consistency { old, new } => {
            let proof = consistency(nodes, old, new)?.ok_or(ReadError::LogDamaged)?;
            verify_consistency(old, &root(nodes, old)?, new, &new_root, &proof).map(|()| proof)
        }
    }
    .map_err(|_| ReadError::LogDamaged)
}
