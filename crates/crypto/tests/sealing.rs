//! Sealing, held against FLOE's known answers, across two providers, and against tampering.
#![forbid(unsafe_code)]

use std::fs;

use fast_floe::{Key, Parameters, Provider as Floe};
use hoidla_crypto::{
    Secret,
    datakey::DataKey,
    sealing::{MOST_PLAINTEXT, OVERHEAD, Provider, SealError, Sealer, sealed_len},
};
use hoidla_format::{StreamId, frame};
use proptest::prelude::*;

#[cfg(feature = "fast")]
const PROVIDERS: &[Provider] = &[Provider::AwsLc, Provider::RustCrypto];
#[cfg(not(feature = "fast"))]
const PROVIDERS: &[Provider] = &[Provider::RustCrypto];

fn sealer(key: u8, provider: Provider) -> Sealer {
    Sealer::new(&DataKey::from_secret(Secret::from_bytes_wiping(&mut [key; 32])), provider)
}

fn seal(s: &Sealer, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    s.seal(aad, plain, &mut out).unwrap();
    out
}

fn open(s: &Sealer, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut out = Vec::new();
    s.open(aad, sealed, &mut out).map(|()| out)
}

fn hex(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/vectors/crypto/floe/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let digits: Vec<u8> = text.trim().bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect()
}

/// The specification's known answers, from five implementations, under every provider.
#[test]
fn floe_gives_the_specifications_known_answers() {
    let answers =
        [("cpp_64", 64), ("go_64", 64), ("java_64", 64), ("rust_64", 64), ("pub_java_64", 64), ("rust_4k", 4096), ("pub_java_4k", 4096)];
    for &provider in Floe::COMPILED {
        let key = Key::from_bytes_with_provider([0; 32], provider);
        for (name, segment) in answers {
            let (sealed, plain) = (hex(&format!("{name}_ct")), hex(&format!("{name}_pt")));
            let profile = Parameters::with_segment_length(segment).unwrap();
            let opened = fast_floe::decrypt_with_parameters(&key, b"This is AAD", profile, &sealed).unwrap();
            assert!(opened == plain, "{name} under {}", provider.name());
            let mut changed = sealed.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(fast_floe::decrypt_with_parameters(&key, b"This is AAD", profile, &changed).is_err());
        }
    }
}

/// Any FLOE program opens our messages, and we open what it writes in our profile.
#[test]
fn a_message_is_plain_floe() {
    let ours = seal(&sealer(1, Provider::RustCrypto), b"aad", b"record");
    let key = Key::from_bytes_with_provider([1; 32], Floe::RUSTCRYPTO);
    assert_eq!(fast_floe::decrypt(&key, b"aad", &ours).unwrap(), b"record");
    let theirs = fast_floe::encrypt(&key, b"aad", Parameters::SEGMENT_1_MIB, b"record").unwrap();
    assert_eq!(open(&sealer(1, Provider::RustCrypto), b"aad", &theirs).unwrap(), b"record");
    let other_profile = fast_floe::encrypt(&key, b"aad", Parameters::SEGMENT_4_KIB, b"record").unwrap();
    assert_eq!(open(&sealer(1, Provider::RustCrypto), b"aad", &other_profile), Err(SealError::Refused));
}

#[test]
fn the_fullest_message_fits_one_frame() {
    let plain = vec![7; MOST_PLAINTEXT];
    let s = sealer(1, Provider::default());
    let sealed = seal(&s, b"", &plain);
    assert_eq!(sealed.len() + frame::HEAD, frame::MOST);
    assert_eq!(sealed.len(), sealed_len(plain.len()));
    assert!(open(&s, b"", &sealed).unwrap() == plain);
    let mut out = b"before".to_vec();
    assert_eq!(s.seal(b"", &vec![7; MOST_PLAINTEXT + 1], &mut out), Err(SealError::TooLong(MOST_PLAINTEXT + 1)));
    assert_eq!(out, b"before");
}

#[test]
fn a_message_opens_only_where_it_belongs() {
    let s = sealer(1, Provider::default());
    let (land, stream) = ("land".parse().unwrap(), StreamId([1; 16]));
    let here = frame::message_aad(&land, stream, 2, 4096);
    let sealed = seal(&s, &here, b"record");
    assert_eq!(open(&s, &here, &sealed).unwrap(), b"record");
    let elsewhere = [
        frame::message_aad(&"law".parse().unwrap(), stream, 2, 4096),
        frame::message_aad(&land, StreamId([2; 16]), 2, 4096),
        frame::message_aad(&land, stream, 3, 4096),
        frame::message_aad(&land, stream, 2, 8192),
    ];
    for aad in elsewhere {
        assert_eq!(open(&s, &aad, &sealed), Err(SealError::Refused));
    }
    assert_eq!(open(&sealer(2, Provider::default()), &here, &sealed), Err(SealError::Refused));
}

#[test]
fn a_refused_message_leaves_nothing_behind() {
    let s = sealer(1, Provider::default());
    let mut sealed = seal(&s, b"", b"a longer record");
    *sealed.last_mut().unwrap() ^= 1;
    let mut out = b"before".to_vec();
    assert_eq!(s.open(b"", &sealed, &mut out), Err(SealError::Refused));
    assert_eq!(out, b"before");
}

#[test]
fn two_messages_in_one_are_refused() {
    let s = sealer(1, Provider::default());
    let (a, b) = (seal(&s, b"", b"first"), seal(&s, b"", b"second"));
    assert_eq!(open(&s, b"", &[&a[..], &b].concat()), Err(SealError::Refused));
    // One's header with the other's segment.
    let mixed = [&a[..74], &b[74..]].concat();
    assert_eq!(open(&s, b"", &mixed), Err(SealError::Refused));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_provider_opens_what_the_other_sealed(
        key: u8,
        aad in prop::collection::vec(any::<u8>(), 0..64),
        plain in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        for &a in PROVIDERS {
            for &b in PROVIDERS {
                let sealed = seal(&sealer(key, a), &aad, &plain);
                prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
                prop_assert_eq!(&open(&sealer(key, b), &aad, &sealed).unwrap(), &plain);
            }
        }
    }

    #[test]
    fn any_change_is_refused(
        plain in prop::collection::vec(any::<u8>(), 0..512),
        at: prop::sample::Index,
        bit in 0u8..8,
        cut: prop::sample::Index,
        more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        for &p in PROVIDERS {
            let s = sealer(1, p);
            let sealed = seal(&s, b"aad", &plain);
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(open(&s, b"aad", &flipped), Err(SealError::Refused));
            prop_assert_eq!(open(&s, b"aad", &sealed[..cut.index(sealed.len())]), Err(SealError::Refused));
            prop_assert_eq!(open(&s, b"aad", &[&sealed[..], &more].concat()), Err(SealError::Refused));
            prop_assert_eq!(open(&s, b"aaD", &sealed), Err(SealError::Refused));
        }
    }
}
