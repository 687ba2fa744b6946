//! Register 15: under which papers an appliance runs.
//!
//! Promises: the value that the register has after these sets of papers, and no others, came
//! into force one after another since the machine's start. A set is known by its site file,
//! which names the rosters by their hashes, and the enrolment, which names identity and halves.

use std::iter;

use hoidla_format::Hash32;

use crate::public::sha256;

/// The register.
pub const PAPERS: u8 = 15;
/// The most sets of papers that one start of a machine sees, as far as anybody follows them.
pub const MOST: usize = 64;

/// What is extended into the register when a site file and an enrolment come into force.
pub fn digest(site: &Hash32, enrolment: &Hash32) -> Hash32 {
    Hash32(sha256(&[b"hoidla papers 1\n", &site.0, &enrolment.0]))
}

/// The register's value after these digests, from a machine's start on.
pub fn replay(digests: &[Hash32]) -> Hash32 {
    digests.iter().fold(Hash32([0; 32]), |value, d| Hash32(sha256(&[&value.0, &d.0])))
}

/// Which of these digests, in their order, were extended since the start: the last is what is in
/// force now. None if no choice of them gives the value. Looks at the last eight only.
pub fn explained_by(value: &Hash32, in_order: &[Hash32]) -> Option<Vec<Hash32>> {
    let last = &in_order[in_order.len().saturating_sub(8)..];
    let chosen = |mask: u32| last.iter().enumerate().filter(move |(i, _)| mask >> i & 1 == 1).map(|(_, d)| *d).collect::<Vec<_>>();
    iter::successors(Some(1), |mask| Some(mask + 1)).take((1 << last.len()) - 1).map(chosen).find(|digests| replay(digests) == *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_explained_by_what_was_extended_and_nothing_else() {
        let d: Vec<Hash32> = (1..=10).map(|n| digest(&Hash32([n; 32]), &Hash32([n + 100; 32]))).collect();
        assert_ne!(digest(&Hash32([1; 32]), &Hash32([2; 32])), digest(&Hash32([2; 32]), &Hash32([1; 32])));
        assert_eq!(replay(&[]), Hash32([0; 32]));
        assert_eq!(explained_by(&replay(&d[9..]), &d), Some(d[9..].to_vec()));
        let some = [d[3], d[7], d[9]];
        assert_eq!(explained_by(&replay(&some), &d), Some(some.to_vec()));
        assert_eq!(explained_by(&replay(&[d[9], d[8]]), &d), None, "out of order");
        assert_eq!(explained_by(&replay(&[d[0]]), &d), None, "too long ago");
        assert_eq!(explained_by(&replay(&[]), &d), None, "nothing was measured");
        assert_eq!(explained_by(&replay(&[Hash32([5; 32])]), &d), None);
        assert_eq!(explained_by(&replay(&[d[0]]), &[]), None);
    }
}
