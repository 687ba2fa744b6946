//! Inclusion and consistency proofs: made from [`Nodes`], verified by pure functions
//! (RFC 6962, sections 2.1.1 and 2.1.2; verification as in RFC 9162, 2.1.3.2 and 2.1.4.2).

use hoidla_format::Hash32;
use thiserror::Error;

use crate::tree::{Nodes, empty_root, node_hash, range, split};

/// Why a proof was not made, or not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The index lies outside the tree, or the older tree is the larger one.
    #[error("asked for leaf or size {asked} in a log of {size} leaves: take a newer checkpoint")]
    OutOfRange {
        /// The index or older size.
        asked: u64,
        /// The tree's size.
        size: u64,
    },
    /// The proof has another number of hashes than this tree needs.
    #[error("the proof has the wrong length for this log: ask for it anew")]
    Length,
    /// The proof leads to another root.
    #[error("the proof leads to another root: the log was changed, or proof and checkpoint don't belong together; keep both and report it")]
    Root,
}

/// The hashes that prove leaf `index` to be in the tree of `size` leaves; none if it isn't.
pub fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Option<Vec<Hash32>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(Some(proof))
}

/// The hashes that prove the tree of `old` leaves to be the beginning of the one of `new` leaves;
/// none if it is the larger one.
pub fn consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Option<Vec<Hash32>>, N::Error> {
    if old > new {
        return Ok(None);
    }
    if old == 0 || old == new {
        return Ok(Some(Vec::new()));
    }
    let (mut begin, mut end, mut proof) = (0, new, Vec::new());
    while end != old {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
        }
    }
    // The subtree that ends where the old tree did; known to the verifier when it is the whole old tree.
    if begin != 0 {
        proof.push(range(nodes, begin, end)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Checks that the leaf with this hash is number `index` of the tree with this size and root.
pub fn verify_inclusion(leaf: &Hash32, index: u64, size: u64, tree_root: &Hash32, proof: &[Hash32]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { asked: index, size });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            let up = if node & 1 == 1 { 0 } else { node.trailing_zeros().min(63) };
            (node, last) = (node >> up, last >> up);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    match (last, hash == *tree_root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length),
    }
}

/// Checks that the tree of `old` leaves and root is the beginning of the one of `new` leaves and root.
pub fn verify_consistency(old: u64, old_root: &Hash32, new: u64, new_root: &Hash32, proof: &[Hash32]) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::OutOfRange { asked: old, size: new });
    }
    if old == 0 || old == new {
        let known = if old == 0 { empty_root() } else { *new_root };
        return match (proof.is_empty(), *old_root == known) {
            (false, _) => Err(ProofError::Length),
            (_, false) => Err(ProofError::Root),
            _ => Ok(()),
        };
    }
    let whole = old.is_power_of_two().then_some(*old_root);
    let mut path = whole.into_iter().chain(proof.iter().copied());
    let first = path.next().ok_or(ProofError::Length)?;
    let ones = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> ones, (new - 1) >> ones);
    let (mut before, mut after) = (first, first);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            before = node_hash(&sibling, &before);
            after = node_hash(&sibling, &after);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            after = node_hash(&after, &sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    match (last, before == *old_root && after == *new_root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Leaves, known, raw_leaf_hash, root};
    use proptest::prelude::*;

    fn tree(n: u64) -> (Vec<Hash32>, impl Nodes<Error = ()>) {
        let leaves: Vec<_> = (0..n).map(|i| raw_leaf_hash(&i.to_le_bytes())).collect();
        let all = leaves.clone();
        (leaves, Leaves(move |i| all.get(i as usize).copied().ok_or(())))
    }

    fn hex(hashes: &[Hash32]) -> Vec<String> {
        hashes.iter().map(Hash32::to_string).collect()
    }

    #[test]
    fn known_proofs() {
        let leaves = known::leaves();
        let nodes = Leaves(|i| leaves.get(i as usize).copied().ok_or(()));
        assert_eq!(hex(&inclusion(&nodes, 0, 1).unwrap().unwrap()), [""; 0]);
        assert_eq!(
            hex(&inclusion(&nodes, 5, 8).unwrap().unwrap()),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            hex(&consistency(&nodes, 6, 8).unwrap().unwrap()),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    #[test]
    fn every_leaf_and_every_pair_of_sizes_up_to_34() {
        let (leaves, nodes) = tree(34);
        for size in 0..=34 {
            let new_root = root(&nodes, size).unwrap();
            for index in 0..size {
                let proof = inclusion(&nodes, index, size).unwrap().unwrap();
                verify_inclusion(&leaves[index as usize], index, size, &new_root, &proof).unwrap();
                for other in (0..size).filter(|o| *o != index) {
                    verify_inclusion(&leaves[index as usize], other, size, &new_root, &proof).unwrap_err();
                }
            }
            for old in 0..=size {
                let proof = consistency(&nodes, old, size).unwrap().unwrap();
                verify_consistency(old, &root(&nodes, old).unwrap(), size, &new_root, &proof).unwrap();
            }
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let (leaves, nodes) = tree(4);
        let r = root(&nodes, 4).unwrap();
        let out = |asked, size| ProofError::OutOfRange { asked, size };
        assert_eq!(inclusion(&nodes, 4, 4).unwrap(), None);
        assert_eq!(consistency(&nodes, 5, 4).unwrap(), None);
        assert_eq!(verify_inclusion(&leaves[0], 4, 4, &r, &[]), Err(out(4, 4)));
        assert_eq!(verify_consistency(5, &r, 4, &r, &[]), Err(out(5, 4)));
        assert_eq!(verify_consistency(0, &r, 4, &r, &[]), Err(ProofError::Root));
        assert_eq!(verify_consistency(4, &r, 4, &r, &[r]), Err(ProofError::Length));
        assert_eq!(verify_consistency(3, &r, 4, &r, &[]), Err(ProofError::Length));
    }

    #[test]
    fn a_fork_is_not_an_extension() {
        let (leaves, nodes) = tree(20);
        let mut forked = leaves.clone();
        forked[3] = Hash32([0; 32]);
        let fork = Leaves(|i| forked.get(i as usize).copied().ok_or(()));
        let (old_root, new_root) = (root(&nodes, 9).unwrap(), root(&fork, 20).unwrap());
        let proof = consistency(&fork, 9, 20).unwrap().unwrap();
        assert_eq!(verify_consistency(9, &old_root, 20, &new_root, &proof), Err(ProofError::Root));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn large_trees(size in 1u64..2000, a: u64, b: u64) {
            let (leaves, nodes) = tree(size);
            let (index, old) = (a % size, b % (size + 1));
            let new_root = root(&nodes, size).unwrap();
            prop_assert_eq!(new_root, known::naive_root(&leaves));
            let proof = inclusion(&nodes, index, size).unwrap().unwrap();
            verify_inclusion(&leaves[index as usize], index, size, &new_root, &proof).unwrap();
            let proof = consistency(&nodes, old, size).unwrap().unwrap();
            verify_consistency(old, &known::naive_root(&leaves[..old as usize]), size, &new_root, &proof).unwrap();
        }

        #[test]
        fn damage_is_refused(size in 2u64..300, a: u64, b: u64, byte in 0usize..32, bit in 0u8..8) {
            let (leaves, nodes) = tree(size);
            let (index, old) = (a % size, 1 + b % (size - 1));
            let (old_root, new_root) = (root(&nodes, old).unwrap(), root(&nodes, size).unwrap());
            let leaf = &leaves[index as usize];
            let inc = inclusion(&nodes, index, size).unwrap().unwrap();
            let con = consistency(&nodes, old, size).unwrap().unwrap();
            let check = |inc: &[Hash32], con: &[Hash32]| {
                (verify_inclusion(leaf, index, size, &new_root, inc), verify_consistency(old, &old_root, size, &new_root, con))
            };
            let (short, long) = (|p: &[Hash32]| p[..p.len() - 1].to_vec(), |p: &[Hash32]| [p, &[leaves[0]]].concat());
            let flip = |p: &[Hash32], at: u64| { let mut p = p.to_vec(); let i = at as usize % p.len(); p[i].0[byte] ^= 1 << bit; p };
            for (i, c) in [check(&short(&inc), &short(&con)), check(&long(&inc), &long(&con)), check(&flip(&inc, b), &flip(&con, a))] {
                prop_assert!(i.is_err() && c.is_err());
            }
        }

        #[test]
        fn no_input_panics(index: u64, size: u64, old: u64, n in 0usize..70) {
            let (h, proof) = (Hash32([1; 32]), vec![Hash32([2; 32]); n]);
            prop_assert!(verify_inclusion(&h, index, size, &empty_root(), &proof).is_err());
            prop_assert!(verify_consistency(old.max(1), &h, size, &empty_root(), &proof).is_err());
        }
    }
}
