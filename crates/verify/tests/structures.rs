//! Public areas, names and policies: read back, refused, and held against known answers.
//! (A TPM and tpm2-tools judge them too, in `crates/tpm/tests/judge.rs`.)
#![forbid(unsafe_code)]

use hoidla_crypto::Secret;
use hoidla_format::{Hash32, statements::PcrValue};
use hoidla_verify::{
    Created, Policy, PolicyRef, Public, PublicError, RELEASE_COUNTER, ReleaseKey, TpmName, import,
    public::{Point, Shape, attribute},
};

fn key(byte: u8) -> Point {
    let secret = p256::SecretKey::from_slice(&[byte; 32]).unwrap();
    Point::of(&secret.public_key())
}

fn srk() -> Public {
    Public { shape: Shape::Storage(key(1)), ..Public::srk_template() }
}

fn all() -> [Public; 4] {
    let node = Public::signing_template(Hash32([3; 32]), false);
    let sealed = Public { attributes: attribute::NO_DA, policy: Some(Hash32([4; 32])), shape: Shape::Sealed([5; 32]) };
    [srk(), Public { shape: Shape::Storage(key(2)), ..Public::ek_template() }, Public { shape: Shape::Signing(key(3)), ..node }, sealed]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn public_areas_read_back_to_the_same_bytes() {
    for public in all() {
        let bytes = public.marshal();
        assert_eq!(Public::parse(&bytes), Ok(public.clone()));
        assert_eq!(public.name(), TpmName::of(&bytes));
    }
}

#[test]
fn what_is_cut_longer_or_of_another_algorithm_is_refused() {
    for public in all() {
        let bytes = public.marshal();
        for cut in 0..bytes.len() {
            assert!(Public::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Public::parse(&[&bytes[..], &[0]].concat()), Err(PublicError::Trailing(1)));
        for at in [0, 1, 2, 3] {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert!(matches!(Public::parse(&other), Err(PublicError::Unsupported(_))), "byte {at}");
        }
        // Whatever a changed byte parses to, it has another name, and marshals to what was read.
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            if let Ok(read) = Public::parse(&other) {
                assert_eq!(read.marshal(), other);
                assert_ne!(read.name(), public.name());
            }
        }
    }
    assert!(Public::parse(&[0; 5000]).is_err());
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    let off = Point { x: [1; 32], y: [1; 32] };
    assert_eq!(off.key(), Err(PublicError::NotOnCurve));
    assert_eq!(Point::EMPTY.key(), Err(PublicError::NotOnCurve));
    assert!(key(1).key().is_ok());
}

#[test]
fn policies_have_known_answers() {
    // PolicyAuthValue alone, as the TCG's own and every other implementation has it.
    let auth = Policy::new().auth_value().digest();
    assert_eq!(hex(&auth.0), "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e");
}

/// What `tests/vectors/tpm/structures.txt` says, computed from the standard by another program.
fn vector(name: &str) -> String {
    let all = include_str!("../../../tests/vectors/tpm/structures.txt");
    all.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no vector {name}")).to_owned()
}

#[test]
fn structures_are_those_of_the_vectors() {
    let [srk, ek, node, half] = all();
    let half = Public { attributes: attribute::ADMIN_WITH_POLICY | attribute::NO_DA, ..half };
    for (name, public) in [("srk", &srk), ("ek", &ek), ("node", &node), ("half", &half)] {
        assert_eq!(hex(&public.marshal()), vector(name), "{name}");
    }
    let created = Created::parse(&bytes(&vector("created"))).unwrap();
    assert_eq!(hex(&created.marshal()), vector("created"));
    assert_eq!((created.qualifying, created.clock.resets, created.creation), ([5; 32], 7, Hash32([3; 32])));
    let release = ReleaseKey::from_secret(&Secret::filled(|b| b.fill(9))).unwrap().public();
    assert_eq!(hex(&release.public().marshal()), vector("release-key"));
    assert_eq!(hex(&srk.name().0), vector("srk-name"));
    assert_eq!(hex(&release.name().0), vector("release-key-name"));
    assert_eq!(hex(&TpmName::of_counter(RELEASE_COUNTER).0), vector("counter-name"));

    let pcrs = [PcrValue { index: 4, value: Hash32([1; 32]) }, PcrValue { index: 11, value: Hash32([2; 32]) }];
    let policy = Policy::new().pcr(&pcrs);
    assert_eq!(hex(&policy.digest().0), vector("policy-pcr"));
    assert_eq!(hex(&policy.counter_at_most(RELEASE_COUNTER, 7).digest().0), vector("policy"));
    let (lux, land) = ("lux".parse().unwrap(), "land".parse().unwrap());
    let reference = PolicyRef::vault(&lux, true, &land, 2);
    assert_eq!(hex(&PolicyRef::node(&lux, true).0), vector("reference-node"));
    assert_eq!(hex(&reference.0), vector("reference-vault"));
    assert_eq!(hex(&release.policy(&reference).digest().0), vector("policy-vault"));
    assert_eq!(hex(&release.half_policy(&reference).digest().0), vector("policy-half"));
}

#[test]
fn every_part_of_a_policy_counts() {
    let pcr = |index, byte| PcrValue { index, value: Hash32([byte; 32]) };
    let base = Policy::new().pcr(&[pcr(4, 1)]).counter_at_most(1, 1);
    let others = [
        Policy::new().pcr(&[pcr(4, 2)]).counter_at_most(1, 1),
        Policy::new().pcr(&[pcr(5, 1)]).counter_at_most(1, 1),
        Policy::new().pcr(&[pcr(4, 1)]).counter_at_most(2, 1),
        Policy::new().pcr(&[pcr(4, 1)]).counter_at_most(1, 2),
        Policy::new().counter_at_most(1, 1).pcr(&[pcr(4, 1)]),
        Policy::new().pcr(&[pcr(4, 1)]),
    ];
    others.iter().for_each(|o| assert_ne!(o.digest(), base.digest()));
    let swapped = [pcr(11, 2), pcr(4, 1)];
    assert_eq!(Policy::new().pcr(&swapped), Policy::new().pcr(&[pcr(4, 1), pcr(11, 2)]), "in order of their numbers");
}

#[test]
fn halves_are_sealed_to_storage_root_keys_only() {
    let (secret, auth) = (Secret::random(), Secret::random());
    let policy = Hash32([7; 32]);
    let made = import::make(&srk(), &secret, policy, &auth).unwrap();
    assert!(import::is_half(&made.public, policy));
    assert!(!import::is_half(&made.public, Hash32([8; 32])));
    assert!(made.duplicate.len() <= import::MOST_DUPLICATE && made.seed.len() == import::SEED);
    let again = import::make(&srk(), &secret, policy, &auth).unwrap();
    assert!(again.public != made.public && again.seed != made.seed && again.duplicate != made.duplicate, "never the same twice");

    let node = Public { shape: Shape::Signing(key(1)), ..Public::signing_template(policy, false) };
    let exportable = Public { attributes: srk().attributes & !attribute::FIXED_TPM, ..srk() };
    let off_curve = Public { shape: Shape::Storage(Point { x: [1; 32], y: [1; 32] }), ..srk() };
    for wrong in [&node, &exportable, &off_curve, &all()[1], &all()[3]] {
        assert!(import::make(wrong, &secret, policy, &auth).is_err());
    }
    let usable_by_auth = Public { attributes: made.public.attributes | attribute::USER_WITH_AUTH, ..made.public.clone() };
    assert!(!import::is_half(&usable_by_auth, policy), "the auth value alone must not do");
}
