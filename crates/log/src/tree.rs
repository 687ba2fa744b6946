//! The tree's hashes (RFC 6962, section 2.1), and where proofs get them from.

use hoidla_format::{Hash32, Leaf};
use sha2::{Digest, Sha256};

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash32 {
    Hash32(Sha256::digest([]).into())
}

/// The hash of one leaf of our log.
pub fn leaf_hash(leaf: &Leaf) -> Hash32 {
    raw_leaf_hash(&leaf.to_bytes())
}

/// The hash of a leaf with these bytes: SHA-256(0 ‖ bytes).
pub fn raw_leaf_hash(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
}

/// The hash over two children: SHA-256(1 ‖ left ‖ right).
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    Hash32(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// A tree's complete subtrees: at `level` 0 the leaf hashes, at `level` n the hash over
/// leaves `index << n .. (index + 1) << n`. Only complete ones are ever asked for.
pub trait Nodes {
    /// Why a hash couldn't be got (damage, I/O).
    type Error;

    /// The hash of one complete subtree.
    fn node(&self, level: u32, index: u64) -> Result<Hash32, Self::Error>;
}

/// [`Nodes`] from leaf hashes alone, each subtree hashed anew when asked for.
pub struct Leaves<F>(pub F);

impl<E, F: Fn(u64) -> Result<Hash32, E>> Nodes for Leaves<F> {
    type Error = E;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, E> {
        let Some(below) = level.checked_sub(1) else { return (self.0)(index) };
        Ok(node_hash(&self.node(below, 2 * index)?, &self.node(below, 2 * index + 1)?))
    }
}

/// The root over the first `size` leaves.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash32, N::Error> {
    if size == 0 { Ok(empty_root()) } else { range(nodes, 0, size) }
}

/// The hash over leaves `begin..end` of a subtree that begins at a multiple of its size rounded up.
pub(crate) fn range<N: Nodes>(nodes: &N, begin: u64, end: u64) -> Result<Hash32, N::Error> {
    let len = end - begin;
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.node(level, begin >> level);
    }
    let middle = begin + split(len);
    Ok(node_hash(&range(nodes, begin, middle)?, &range(nodes, middle, end)?))
}

/// The largest power of two below `len` (which is at least 2).
pub(crate) fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

#[cfg(test)]
pub(crate) mod known {
    use super::*;

    /// The leaves of the known answers that implementations of RFC 6962 share.
    pub fn leaves() -> Vec<Hash32> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .map(|hex| {
                raw_leaf_hash(
                    &hex.as_bytes().chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect::<Vec<_>>(),
                )
            })
            .to_vec()
    }

    /// Their roots, from the empty tree on.
    pub const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    /// The tree as RFC 6962 writes it down, straight from its definition.
    pub fn naive_root(leaves: &[Hash32]) -> Hash32 {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (l, r) = many.split_at(split(many.len() as u64) as usize);
                node_hash(&naive_root(l), &naive_root(r))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{known::*, *};

    #[test]
    fn known_roots() {
        let leaves = leaves();
        let nodes = Leaves(|i| leaves.get(i as usize).copied().ok_or(()));
        for (size, known) in ROOTS.iter().enumerate() {
            assert_eq!(root(&nodes, size as u64).unwrap().to_string(), *known, "of {size} leaves");
            assert_eq!(naive_root(&leaves[..size]).to_string(), *known);
        }
        assert!(root(&nodes, 9).is_err(), "a leaf that is missing must be an error");
    }

    #[test]
    fn split_is_the_largest_power_below() {
        assert_eq!([2, 3, 4, 5, 8, 9].map(split), [1, 2, 2, 4, 4, 8]);
    }
}
