//! Digits that people read to each other by telephone.
//!
//! Promises: 24 hexadecimal digits (96 bits) of SHA-256, in six groups: making another key with
//! the same digits is out of reach. They are for comparing; programs compare whole keys.

use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::{
    Hash32,
    statements::{Custodian, Reader},
};
use sha2::{Digest, Sha256};

/// How many groups of four digits.
const GROUPS: usize = 6;

/// The first digits of a hash.
pub fn of_hash(hash: &Hash32) -> String {
    let digits = hash.to_string();
    let groups: Vec<&str> = (0..GROUPS).map(|i| &digits[i * 4..i * 4 + 4]).collect();
    groups.join(" ")
}

/// A signing key's digits: the authority's.
pub fn of_key(key: &VerifyingKey) -> String {
    of_hash(&Hash32(Sha256::digest(key.to_sec1()).into()))
}

/// A custodian's three keys as one fingerprint: what the authority compares before it signs a roster.
pub fn of_card(card: &Custodian) -> String {
    let hash = Sha256::new().chain_update(&card.signing.0).chain_update(&card.ecdh.0).chain_update(&card.mlkem.0).finalize();
    of_hash(&Hash32(hash.into()))
}

/// A reader's two keys as one fingerprint: what custodians see in a grant.
pub fn of_reader(reader: &Reader) -> String {
    let hash = Sha256::new().chain_update(&reader.signing.0).chain_update(&reader.hpke.0).finalize();
    of_hash(&Hash32(hash.into()))
}

/// Whether digits that a person gave are these; spaces and capitals don't matter.
pub fn same(given: &str, fingerprint: &str) -> bool {
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect::<String>();
    bare(given) == bare(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_hash_s_first_and_compare_whole() {
        let mut hash = Hash32([0xab; 32]);
        let digits = of_hash(&hash);
        assert_eq!(digits, "abab abab abab abab abab abab");
        assert!(same("ABABABAB ABABABAB abababab", &digits));
        assert!(!same("", &digits) && !same("abab", &digits) && !same(&format!("{digits} ab"), &digits));
        hash.0[11] ^= 1;
        assert!(!same(&of_hash(&hash), &digits), "the last group counts too");
    }

    #[test]
    fn a_reader_s_digits_follow_from_both_keys() {
        let bytes = |n| hoidla_format::Bytes(vec![n; 4]);
        let reader = |s, h| Reader { name: "reader-1".parse().unwrap(), signing: bytes(s), hpke: bytes(h) };
        let digits = of_reader(&reader(1, 2));
        assert_ne!(digits, of_reader(&reader(3, 2)));
        assert_ne!(digits, of_reader(&reader(1, 3)));
    }
}
