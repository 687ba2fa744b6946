//! Shares against another implementation, and against damage.

use hoidla_crypto::Secret;
use hoidla_format::{Header, Kind, statements::Door};
use hoidla_quorum::share::{self, LEN, Share, ShareError, combine, split};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use vsss_rs::Gf256;

use crate::world::{name, rng, vault_id};

fn secret(byte: u8) -> Secret<32> {
    Secret::filled(|b| b.iter_mut().zip(0u8..).for_each(|(b, i)| *b = byte.wrapping_mul(31).wrapping_add(i)))
}

/// Index and value of a share, as the other implementation writes them.
fn theirs(share: &Share) -> Vec<u8> {
    share.encode()[8..41].to_vec()
}

fn ours(theirs: &[u8]) -> Share {
    let mut bytes = [&Header::bytes(Kind::Share, share::VERSION)[..], theirs, &[0; 32]].concat();
    let sum = Sha256::digest(&bytes);
    bytes.extend(&sum[..8]);
    Share::decode(&bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_implementation_combines_ours(seed: u64, byte: u8, m in 2u8..12, more in 0u8..12) {
        let shares = split(&secret(byte), m, m + more, &mut rng(seed)).unwrap();
        let any = |offset: usize| (0..usize::from(m)).map(|i| theirs(&shares[(i + offset) % shares.len()])).collect::<Vec<_>>();
        for offset in 0..shares.len() {
            let (theirs, ours) = (Gf256::combine_bytes(any(offset)).unwrap(), secret(byte));
            prop_assert_eq!(&theirs[..], &ours.expose()[..]);
        }
    }

    #[test]
    fn we_combine_another_implementation_s(seed: u64, byte: u8, m in 2u8..12, more in 0u8..12) {
        let all = Gf256::split_bytes(m.into(), usize::from(m + more), secret(byte).expose(), rng(seed)).unwrap();
        let shares: Vec<_> = all.iter().rev().take(m.into()).map(|s| ours(s)).collect();
        prop_assert!(combine(&shares.iter().collect::<Vec<_>>(), m).unwrap().ct_eq(&secret(byte)));
    }

    #[test]
    fn damage_is_told_apart(seed: u64, at in 0..LEN, bit in 0u8..8) {
        let share = split(&secret(1), 2, 3, &mut rng(seed)).unwrap().remove(0);
        let good = share.encode();
        let mut bad = good.to_vec();
        bad[at] ^= 1 << bit;
        prop_assert!(Share::decode(&bad).is_err());
        prop_assert!(Share::decode(&good[..at]).is_err());
        bad.clone_from(&good);
        bad.push(0);
        prop_assert!(Share::decode(&bad).is_err());
    }
}

#[test]
fn the_largest_split_combines_from_either_end() {
    let shares = split(&secret(4), 200, 255, &mut rng(1)).unwrap();
    assert_eq!(shares.last().unwrap().index(), 255);
    let (first, last): (Vec<_>, Vec<_>) = (shares[..200].iter().collect(), shares[55..].iter().collect());
    assert!(combine(&first, 200).unwrap().ct_eq(&secret(4)));
    assert!(combine(&last, 200).unwrap().ct_eq(&secret(4)));
}

#[test]
fn thresholds_repeats_and_too_few_are_refused() {
    for (m, n) in [(0, 3), (1, 3), (4, 3)] {
        assert!(matches!(split(&secret(1), m, n, &mut rng(1)), Err(ShareError::Threshold { .. })), "{m} of {n}");
    }
    let s = split(&secret(1), 3, 5, &mut rng(1)).unwrap();
    let refused = |shares: &[&Share]| combine(shares, 3).err().unwrap();
    assert_eq!(refused(&[&s[0], &s[1]]), ShareError::TooFew { have: 2, need: 3 });
    assert_eq!(refused(&[&s[0], &s[1], &s[0]]), ShareError::Repeated(1));
    assert!(combine(&[&s[0]], 1).is_err(), "a threshold of one combines nothing");
}

/// Any value of the secret fits M-1 shares: for one byte, all 256 occur equally often.
#[test]
fn fewer_than_m_shares_say_nothing() {
    let zero = Secret::<32>::filled(|_| {});
    let mut seen = vec![0u32; 256];
    for seed in 0..256 {
        // Bytes of one split are independent, so each gives 32 samples.
        let shares = split(&zero, 2, 2, &mut rng(seed)).unwrap();
        shares[0].encode()[9..41].iter().for_each(|b| seen[usize::from(*b)] += 1);
    }
    // 8,192 samples, 32 expected of each; six deviations either way.
    assert!(seen.iter().all(|n| (1..=66).contains(n)), "{seen:?}");
    assert!(seen[0] > 0, "a zero coefficient is never rejected");
}

#[test]
fn a_commitment_knows_share_vault_door_and_custodian() {
    let shares = split(&secret(1), 2, 3, &mut rng(3)).unwrap();
    let (a, b) = (name("alpha"), name("bravo"));
    let good = shares[0].commitment(&vault_id("land", 1).share(Door::Quorum, &a, 1));
    for other in [
        vault_id("land", 2).share(Door::Quorum, &a, 1),
        vault_id("court", 1).share(Door::Quorum, &a, 1),
        vault_id("land", 1).share(Door::Recovery, &a, 1),
        vault_id("land", 1).share(Door::Quorum, &b, 1),
    ] {
        assert_ne!(shares[0].commitment(&other), good, "{other:?}");
    }
    assert_ne!(shares[1].commitment(&vault_id("land", 1).share(Door::Quorum, &a, 2)), good);
}

/// The vector of `docs/formats/share.md`, also computed by another program.
#[test]
fn the_written_vector_holds() {
    let mut bytes = Header::bytes(Kind::Share, 1).to_vec();
    bytes.push(3);
    bytes.extend([0x11; 32]);
    bytes.extend([0x22; 32]);
    let sum = Sha256::digest(&bytes);
    bytes.extend(&sum[..8]);
    let share = Share::decode(&bytes).unwrap();
    assert_eq!(share.encode()[..], bytes[..]);
    let commitment = share.commitment(&vault_id("land", 1).share(Door::Quorum, &name("charlie"), 3));
    assert_eq!(hex(&sum[..8]), CHECKSUM);
    assert_eq!(commitment.to_string(), COMMITMENT);
}

const CHECKSUM: &str = "d025b8529de2735e";
const COMMITMENT: &str = "481a244a2ca3957f97c8ec713da9bac1ee74e68929de77c216d878b858df5768";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
