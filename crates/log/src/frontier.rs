//! The frontier: all that is needed to go on appending.

use hoidla_format::{Hash32, Malformed, Reader, Writer};

use crate::tree::{Nodes, empty_root, node_hash};

/// The roots of the complete subtrees that the leaves so far form, largest first:
/// one for each bit that is set in `size`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash32>,
}

impl Frontier {
    /// The most leaves: what a stream's length is bounded by too.
    pub const MOST: u64 = 1 << 63;
    /// The most bytes of [`to_bytes`](Self::to_bytes).
    pub const MOST_BYTES: usize = 8 + 63 * 32;

    /// Of an empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of the first `size` leaves of a tree (below 2^63).
    pub fn of<N: Nodes>(nodes: &N, size: u64) -> Result<Self, N::Error> {
        let levels = (0..63).rev().filter(|level| size >> level & 1 == 1);
        let peaks = levels.map(|level| nodes.node(level, (size >> level) - 1)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf by its hash; returns its index.
    ///
    /// # Panics
    /// After 2^63 - 1 leaves: some 292 years at a billion a second.
    pub fn push(&mut self, leaf_hash: Hash32) -> u64 {
        self.push_with(leaf_hash, |_, _| {})
    }

    /// Appends one leaf, and shows every complete subtree that it ends: its level and root, the
    /// leaf itself (level 0) first.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_with(&mut self, leaf_hash: Hash32, mut each: impl FnMut(u32, &Hash32)) -> u64 {
        assert!(self.size < Self::MOST - 1, "the log is full");
        let mut node = leaf_hash;
        each(0, &node);
        for level in 1..=self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a peak for each bit of the size");
            node = node_hash(&left, &node);
            each(level, &node);
        }
        self.peaks.push(node);
        self.size += 1;
        self.size - 1
    }

    /// The tree's root.
    pub fn root(&self) -> Hash32 {
        let mut from_right = self.peaks.iter().rev().copied();
        let Some(last) = from_right.next() else { return empty_root() };
        from_right.fold(last, |right, left| node_hash(&left, &right))
    }

    /// `size (u64) ‖ one hash of 32 bytes a peak`, a field of other layouts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(self.size);
        for peak in &self.peaks {
            w.put(&peak.0);
        }
        w.finish()
    }

    /// Reads exactly what [`to_bytes`](Self::to_bytes) writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let frontier = Self::read(&mut r)?;
        r.finish()?;
        Ok(frontier)
    }

    /// Reads a frontier that stands as a field within another layout.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let size = r.u64()?;
        if size >= Self::MOST {
            return Err(Malformed::Field("a log of 2^63 leaves or more"));
        }
        let peaks = (0..size.count_ones()).map(|_| r.array().map(Hash32)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{known::*, raw_leaf_hash};
    use proptest::prelude::*;

    #[test]
    fn known_roots_one_by_one() {
        let mut f = Frontier::new();
        assert_eq!(f.root().to_string(), ROOTS[0]);
        for (i, leaf) in leaves().into_iter().enumerate() {
            assert_eq!(f.push(leaf), i as u64);
            assert_eq!(f.root().to_string(), ROOTS[i + 1]);
        }
    }

    #[test]
    fn bytes_are_exact() {
        let mut f = Frontier::new();
        (0..7).for_each(|i| _ = f.push(raw_leaf_hash(&[i])));
        let bytes = f.to_bytes();
        assert_eq!(bytes.len(), 8 + 3 * 32);
        for cut in 0..bytes.len() {
            assert!(Frontier::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed::Trailing(1)));
        assert!(Frontier::from_bytes(&[0xff; Frontier::MOST_BYTES]).is_err());
    }

    #[test]
    fn made_from_nodes_and_from_leaves_it_is_the_same() {
        let leaves: Vec<_> = (0..40_u8).map(|i| raw_leaf_hash(&[i])).collect();
        let nodes = crate::Leaves(|i| leaves.get(i as usize).copied().ok_or(()));
        let (mut f, mut shown) = (Frontier::new(), 0);
        for (i, leaf) in leaves.iter().enumerate() {
            assert_eq!(Frontier::of(&nodes, i as u64).unwrap(), f);
            f.push_with(*leaf, |level, hash| {
                shown += 1;
                assert_eq!(nodes.node(level, (i as u64) >> level).unwrap(), *hash);
            });
        }
        assert_eq!(shown, 40 + 20 + 10 + 5 + 2 + 1);
    }

    proptest! {
        #[test]
        fn equals_the_naive_tree_and_survives_storage(n in 0usize..200) {
            let leaves: Vec<_> = (0..n).map(|i| raw_leaf_hash(&i.to_le_bytes())).collect();
            let mut f = Frontier::new();
            for l in &leaves {
                f = Frontier::from_bytes(&f.to_bytes()).unwrap();
                f.push(*l);
            }
            prop_assert_eq!(f.root(), naive_root(&leaves));
            prop_assert_eq!(f.size(), n as u64);
            prop_assert!(f.to_bytes().len() <= Frontier::MOST_BYTES);
        }
    }
}
