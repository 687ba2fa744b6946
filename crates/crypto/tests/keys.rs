//! HPKE, data keys, envelopes, key files and wraps: what opens, and everything that must not.
#![forbid(unsafe_code)]

use hoidla_crypto::{
    Secret,
    datakey::{self, Binding, DataKey},
    envelope::{self, CustodianKeys, EnvelopeError, ShareId},
    hpke::{self, HpkeError, KeyPair, PublicKey},
    keyfile::{Cost, KeyFile, KeyFileError, Role},
    labels::{RECOVERY, UNLOCK, VAULT_KEY_BY_UNLOCK},
    wrap::{WrapError, bind, derive, unwrap_key, wrap_key},
};
use hoidla_format::{Hash32, Malformed, Name, StreamId, statements::Door};
use sha2::{Digest, Sha256};

fn name(n: &str) -> Name {
    n.parse().unwrap()
}

fn secret(n: u8) -> Secret<32> {
    Secret::from_bytes_wiping(&mut [n; 32])
}

fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let step = (bytes.len() / 60).max(1);
    (0..bytes.len()).step_by(step).map(move |at| {
        let mut b = bytes.to_vec();
        b[at] ^= 1 << (at % 8);
        b
    })
}

fn cuts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = (bytes.len() / 60).max(1);
    (0..bytes.len()).step_by(step).map(move |at| &bytes[..at])
}

#[test]
fn hpke_opens_only_what_it_sealed() {
    let (a, b) = (KeyPair::generate(), KeyPair::generate());
    let sealed = hpke::seal(a.public(), b"info", b"aad", b"secret");
    assert_eq!(sealed.len(), hpke::OVERHEAD + 6);
    assert_eq!(hpke::open(&a, b"info", b"aad", &sealed).unwrap()[..], *b"secret");
    assert_eq!(hpke::open(&b, b"info", b"aad", &sealed).unwrap_err(), HpkeError::Refused);
    assert!(hpke::open(&a, b"Info", b"aad", &sealed).is_err());
    assert!(hpke::open(&a, b"info", b"Aad", &sealed).is_err());
    assert!(hpke::open_secret::<32>(&a, b"info", b"aad", &sealed).is_err());
    for bad in flips(&sealed) {
        assert!(hpke::open(&a, b"info", b"aad", &bad).is_err());
    }
    for bad in cuts(&sealed) {
        assert!(hpke::open(&a, b"info", b"aad", bad).is_err());
    }
}

#[test]
fn hpke_keys_read_back_and_bad_ones_are_refused() {
    let pair = KeyPair::from_seed(secret(1));
    assert_eq!(KeyPair::from_seed(pair.seed().duplicate()).public(), pair.public());
    let bytes = pair.public().to_bytes();
    assert_eq!(bytes.len(), hpke::PUBLIC_LEN);
    assert_eq!(&PublicKey::from_bytes(&bytes).unwrap(), pair.public());
    assert_eq!(PublicKey::from_bytes(&bytes[1..]), Err(HpkeError::Key));
    let off_curve = [&bytes[..1664], &[bytes[1664] ^ 1]].concat();
    assert_eq!(PublicKey::from_bytes(&off_curve), Err(HpkeError::Key));
    let mlkem_out_of_range = [&[0xff; 1568][..], &bytes[1568..]].concat();
    assert_eq!(PublicKey::from_bytes(&mlkem_out_of_range), Err(HpkeError::Key));
}

fn binding() -> Binding {
    Binding { site: name("lux"), dataset: name("land"), stream: StreamId([7; 16]), epoch: 2, vault_epoch: 1 }
}

#[test]
fn a_data_key_opens_only_where_it_belongs() {
    let (vault, key) = (KeyPair::generate(), DataKey::random());
    let wrapped = datakey::wrap(&key, vault.public(), &binding());
    assert_eq!(wrapped.len(), datakey::WRAPPED_LEN);
    assert!(datakey::unwrap(&vault, &binding(), &wrapped).unwrap().secret().ct_eq(key.secret()));
    let others = [
        Binding { site: name("lu"), ..binding() },
        Binding { dataset: name("law"), ..binding() },
        Binding { stream: StreamId([8; 16]), ..binding() },
        Binding { epoch: 3, ..binding() },
        Binding { vault_epoch: 2, ..binding() },
    ];
    for other in others {
        assert!(datakey::unwrap(&vault, &other, &wrapped).is_err());
    }
    assert!(datakey::unwrap(&KeyPair::generate(), &binding(), &wrapped).is_err());
}

#[test]
fn a_rewrapped_key_opens_only_for_its_reader_and_grant() {
    let (vault, reader, key) = (KeyPair::generate(), KeyPair::generate(), DataKey::random());
    let (grant, other_grant) = (Hash32([1; 32]), Hash32([2; 32]));
    let wrapped = datakey::wrap(&key, vault.public(), &binding());
    let for_reader = datakey::rewrap_to_reader(&vault, &binding(), &wrapped, reader.public(), &grant).unwrap();
    assert!(datakey::unwrap_as_reader(&reader, &binding(), &grant, &for_reader).unwrap().secret().ct_eq(key.secret()));
    assert!(datakey::unwrap_as_reader(&reader, &binding(), &other_grant, &for_reader).is_err());
    assert!(datakey::unwrap_as_reader(&vault, &binding(), &grant, &for_reader).is_err());
    assert!(datakey::unwrap_as_reader(&reader, &Binding { epoch: 3, ..binding() }, &grant, &for_reader).is_err());
    // What was made for a vault never passes as made for a reader, nor the other way round.
    assert!(datakey::unwrap_as_reader(&vault, &binding(), &grant, &wrapped).is_err());
    assert!(datakey::unwrap(&reader, &binding(), &for_reader).is_err());
    assert!(datakey::rewrap_to_reader(&reader, &binding(), &wrapped, reader.public(), &grant).is_err());
}

fn share_id() -> ShareId {
    ShareId { site: name("lux"), dataset: name("land"), vault_epoch: 1, door: Door::Quorum, custodian: name("alpha"), index: 3 }
}

#[test]
fn an_envelope_opens_only_as_its_share() {
    let keys = CustodianKeys::from_seed(&secret(1));
    let card = keys.public_card(&name("alpha"));
    let sealed = envelope::seal(&card, &share_id(), b"share").unwrap();
    assert_eq!(sealed.len(), envelope::OVERHEAD + 5);
    assert_eq!(envelope::open(&keys, &share_id(), &sealed).unwrap()[..], *b"share");
    let others = [
        ShareId { site: name("lu"), ..share_id() },
        ShareId { dataset: name("law"), ..share_id() },
        ShareId { vault_epoch: 2, ..share_id() },
        ShareId { door: Door::Recovery, ..share_id() },
        ShareId { custodian: name("bravo"), ..share_id() },
        ShareId { index: 4, ..share_id() },
    ];
    for other in others {
        assert_eq!(envelope::open(&keys, &other, &sealed).unwrap_err(), EnvelopeError::Refused);
    }
    for bad in flips(&sealed) {
        assert!(envelope::open(&keys, &share_id(), &bad).is_err());
    }
    for bad in cuts(&sealed) {
        assert!(envelope::open(&keys, &share_id(), bad).is_err());
    }
    assert!(envelope::open(&keys, &share_id(), &[&sealed[..], b"x"].concat()).is_err());
}

/// Each half of the pair is needed: a card that mixes two custodians' halves is opened by neither.
#[test]
fn an_envelope_needs_both_halves() {
    let (a, b) = (CustodianKeys::from_seed(&secret(1)), CustodianKeys::from_seed(&secret(2)));
    let mut mixed = a.public_card(&name("alpha"));
    mixed.mlkem = b.public_card(&name("alpha")).mlkem;
    let sealed = envelope::seal(&mixed, &share_id(), b"share").unwrap();
    assert_eq!(envelope::open(&a, &share_id(), &sealed).unwrap_err(), EnvelopeError::Refused);
    assert_eq!(envelope::open(&b, &share_id(), &sealed).unwrap_err(), EnvelopeError::Refused);
}

#[test]
fn a_card_without_valid_keys_is_refused() {
    let good = CustodianKeys::from_seed(&secret(1)).public_card(&name("alpha"));
    envelope::check_card(&good).unwrap();
    let mut bad = [good.clone(), good.clone(), good.clone()];
    bad[0].signing.0[48] ^= 1;
    bad[1].ecdh.0.pop();
    bad[2].mlkem.0[..3].copy_from_slice(&[0xff; 3]);
    bad[0].signing.0.pop();
    for card in bad {
        assert_eq!(envelope::check_card(&card), Err(EnvelopeError::Card(name("alpha"))));
    }
}

#[test]
fn a_key_file_opens_with_its_passphrase_only() {
    let file = KeyFile::protect_at(Cost::LEAST, Role::Custodian, &name("alpha"), &secret(5), "correct horse").unwrap();
    let parsed = KeyFile::parse(&file).unwrap();
    assert_eq!((parsed.role(), parsed.name(), parsed.cost()), (Role::Custodian, &name("alpha"), Cost::LEAST));
    assert!(parsed.open("correct horse").unwrap().ct_eq(&secret(5)));
    for wrong in ["correct Horse", "correct horse ", "x"] {
        assert_eq!(parsed.open(wrong).err(), Some(KeyFileError::WrongPassphrase));
    }
    assert_eq!(parsed.open("").err(), Some(KeyFileError::Passphrase));
    assert_eq!(parsed.open(&"x".repeat(1025)).err(), Some(KeyFileError::Passphrase));
    assert!(matches!(parsed.expect(Role::Authority), Err(KeyFileError::Role { found: "a custodian", .. })));
}

#[test]
fn a_damaged_key_file_is_told_from_a_wrong_passphrase() {
    let file = KeyFile::protect_at(Cost::LEAST, Role::Agent, &name("land"), &secret(5), "correct horse").unwrap();
    for at in 8..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 0x10;
        assert_eq!(KeyFile::parse(&bad).err(), Some(KeyFileError::Damaged), "byte {at}");
    }
    for cut in 8..file.len() {
        assert_eq!(KeyFile::parse(&file[..cut]).err(), Some(KeyFileError::Damaged), "cut at {cut}");
    }
    assert!(matches!(KeyFile::parse(b"-----BEGIN KEY-----"), Err(KeyFileError::Malformed(Malformed::Magic))));
    assert!(matches!(KeyFile::parse(&file[..5]), Err(KeyFileError::Malformed(Malformed::Truncated { .. }))));
}

/// Whoever rewrites the file with a fitting hash at the end is stopped by the AEAD, or by the bounds.
#[test]
fn a_rewritten_key_file_is_refused() {
    let file = KeyFile::protect_at(Cost::LEAST, Role::Agent, &name("land"), &secret(5), "correct horse").unwrap();
    let rehash = |mut body: Vec<u8>| {
        let hash = Sha256::digest(&body);
        body.extend(hash);
        body
    };
    let body = &file[..file.len() - 32];
    let mut other_role = body.to_vec();
    other_role[8] = Role::Authority as u8;
    assert_eq!(KeyFile::parse(&rehash(other_role)).unwrap().open("correct horse").err(), Some(KeyFileError::WrongPassphrase));
    let mut other_name = body.to_vec();
    other_name[11] = b'b';
    assert_eq!(KeyFile::parse(&rehash(other_name)).unwrap().open("correct horse").err(), Some(KeyFileError::WrongPassphrase));
    // Header 8, role 1, name 2 + 4: then memory, passes, lanes.
    for (at, absurd) in [(15, u32::MAX), (15, 0), (15, 1024 * 1024 + 1), (19, 0), (19, 17), (23, 0), (23, 9)] {
        let mut bad = body.to_vec();
        bad[at..at + 4].copy_from_slice(&absurd.to_le_bytes());
        assert!(matches!(KeyFile::parse(&rehash(bad)), Err(KeyFileError::Malformed(Malformed::Field(_)))), "{absurd} at {at}");
    }
    let mut unknown_role = body.to_vec();
    unknown_role[8] = 99;
    assert!(matches!(KeyFile::parse(&rehash(unknown_role)), Err(KeyFileError::Malformed(_))));
    assert!(matches!(KeyFile::parse(&rehash([body, b"x"].concat())), Err(KeyFileError::Malformed(Malformed::Trailing(1)))));
}

#[test]
fn a_wrapped_key_opens_under_its_key_and_ids_only() {
    let aad = bind(VAULT_KEY_BY_UNLOCK, &[b"lux-1", b"land"]);
    let wrapped = wrap_key(&secret(1), &aad, &secret(2));
    assert!(unwrap_key(&secret(1), &aad, &wrapped).unwrap().ct_eq(&secret(2)));
    assert_eq!(unwrap_key(&secret(3), &aad, &wrapped).err(), Some(WrapError::Refused));
    assert_eq!(unwrap_key(&secret(1), &bind(VAULT_KEY_BY_UNLOCK, &[b"lux-", b"1land"]), &wrapped).err(), Some(WrapError::Refused));
    assert_eq!(unwrap_key(&secret(1), &aad, &wrapped[1..]).err(), Some(WrapError::Length(59)));
    for bad in flips(&wrapped) {
        assert_eq!(unwrap_key(&secret(1), &aad, &bad).err(), Some(WrapError::Refused));
    }
    assert_ne!(wrapped, wrap_key(&secret(1), &aad, &secret(2)), "a nonce is never reused");
}

#[test]
fn derived_keys_differ_by_secret_label_and_context() {
    let base = derive::<32>(UNLOCK, &[&[1; 32], &[2; 32]], &[b"a", b"b"]);
    assert!(base.ct_eq(&derive(UNLOCK, &[&[1; 32], &[2; 32]], &[b"a", b"b"])));
    assert!(!base.ct_eq(&derive(UNLOCK, &[&[2; 32], &[1; 32]], &[b"a", b"b"])));
    assert!(!base.ct_eq(&derive(RECOVERY, &[&[1; 32], &[2; 32]], &[b"a", b"b"])));
    assert!(!base.ct_eq(&derive(UNLOCK, &[&[1; 32], &[2; 32]], &[b"ab"])));
    assert!(!base.ct_eq(&derive(UNLOCK, &[&[1; 32], &[2; 32]], &[b"", b"ab"])));
}
