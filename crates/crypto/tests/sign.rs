//! Signed statements: what passes, and everything that must not.
#![forbid(unsafe_code)]

use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    labels::{TPM_AUTH, UNLOCK},
    sign::{self, SignError, SigningKey, VerifyingKey},
};
use hoidla_format::{
    Bytes, Hash32, Moment, Note, StatementError,
    statements::{Approval, Covers, Custodian, Grant, Reader, Site},
};

fn grant() -> Grant {
    Grant {
        site: "lux".parse().unwrap(),
        appliance: "lux-1".parse().unwrap(),
        purpose: "restore land\n\n— after the fire".into(),
        created: Moment::from_seconds(1_800_000_000),
        open_for_seconds: 3600,
        nonce: Bytes(vec![1; 16]),
        reader: Reader { name: "echo".parse().unwrap(), signing: Bytes(vec![2; 49]), hpke: Bytes(vec![3; 1665]) },
        covers: vec![Covers { dataset: "land".parse().unwrap(), vault_epoch: 1, vault: Hash32([4; 32]) }],
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_secret(&Secret::from_bytes_wiping(&mut [n; 32]))
}

#[test]
fn a_signed_statement_opens_and_is_deterministic() {
    let note = key(1).sign_statement("alpha", &grant());
    assert_eq!(note, key(1).sign_statement("alpha", &grant()));
    let opened = sign::open::<Grant>(note.as_bytes(), Some("alpha"), &key(1).verifying_key()).unwrap();
    assert_eq!(opened.statement, grant());
    assert_eq!(opened.note, note);
    assert_eq!(opened.hash, Note::parse(note.as_bytes()).unwrap().hash());
    assert_eq!(sign::open::<Grant>(note.as_bytes(), None, &key(1).verifying_key()).unwrap(), opened);
}

#[test]
fn other_key_other_name_and_no_signer_are_refused() {
    let note = key(1).sign_statement("alpha", &grant());
    let open = |name, k: u8| sign::open::<Grant>(note.as_bytes(), name, &key(k).verifying_key());
    assert_eq!(open(Some("alpha"), 2), Err(SignError::NoSuchSigner("alpha".into())));
    assert_eq!(open(Some("bravo"), 1), Err(SignError::NoSuchSigner("bravo".into())));
    assert_eq!(open(None, 2), Err(SignError::NoSuchSigner("the key's holder".into())));
    // A line that only pretends to be by the key: its id fits, its bytes don't.
    let mut forged = Note::parse(note.as_bytes()).unwrap();
    forged.signatures[0].key_id = key(2).verifying_key().key_id("alpha");
    let forged = forged.write();
    assert_eq!(sign::open::<Grant>(forged.as_bytes(), Some("alpha"), &key(2).verifying_key()), Err(SignError::Forged("alpha".into())));
}

#[test]
fn no_bit_of_a_note_can_change() {
    let note = key(1).sign_statement("alpha", &grant()).into_bytes();
    let public = key(1).verifying_key();
    for at in (0..note.len()).step_by(7).chain(note.len() - 140..note.len()) {
        for bit in [0, 3, 6] {
            let mut changed = note.clone();
            changed[at] ^= 1 << bit;
            assert!(sign::open::<Grant>(&changed, Some("alpha"), &public).is_err(), "byte {at}, bit {bit}");
        }
    }
    for cut in (0..note.len()).step_by(11) {
        assert!(sign::open::<Grant>(&note[..cut], Some("alpha"), &public).is_err(), "cut at {cut}");
    }
}

#[test]
fn the_signature_is_checked_before_the_text_is_parsed() {
    let other_kind = key(1).sign_statement("alpha", &grant()).replace("grant/1", "grant/9");
    assert_eq!(sign::open::<Grant>(other_kind.as_bytes(), Some("alpha"), &key(1).verifying_key()), Err(SignError::Forged("alpha".into())));
    let signed = key(1).sign_statement("alpha", &grant());
    assert!(matches!(
        sign::open::<Approval>(signed.as_bytes(), Some("alpha"), &key(1).verifying_key()),
        Err(SignError::Statement(StatementError::WrongKind { .. }))
    ));
}

/// The order of P-384, to turn a signature into its other valid form.
const ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a,
    0xcc, 0xc5, 0x29, 0x73,
];

fn order_minus(s: &[u8]) -> Vec<u8> {
    let mut borrow = 0i16;
    let mut out = vec![0; 48];
    for i in (0..48).rev() {
        let d = i16::from(ORDER[i]) - i16::from(s[i]) - borrow;
        borrow = i16::from(d < 0);
        out[i] = (d & 0xff) as u8;
    }
    out
}

#[test]
fn the_other_form_of_a_signature_is_refused() {
    let mut note = Note::parse(key(1).sign_statement("alpha", &grant()).as_bytes()).unwrap();
    let bytes = &mut note.signatures[0].bytes;
    let high = order_minus(&bytes[48..]);
    bytes[48..].copy_from_slice(&high);
    assert_eq!(
        sign::open::<Grant>(note.write().as_bytes(), Some("alpha"), &key(1).verifying_key()),
        Err(SignError::Forged("alpha".into()))
    );
}

#[test]
fn cosigning_keeps_the_first_signature() {
    let note = key(1).sign_statement("alpha", &grant());
    let both = key(2).cosign("bravo", note.as_bytes()).unwrap();
    for (name, k) in [("alpha", 1), ("bravo", 2)] {
        sign::open::<Grant>(both.as_bytes(), Some(name), &key(k).verifying_key()).unwrap();
    }
    assert!(sign::open::<Grant>(both.as_bytes(), Some("alpha"), &key(2).verifying_key()).is_err());
}

#[test]
fn a_hand_written_site_opens_only_as_edited() {
    let text = "hoidla = \"site/1\"\n# our first site\nserial = 1\nsite = \"lux\"\ndevelopment = true\nauthority = \"\"\nrelease_key = \"\"\ndoor_root = \"\"\n";
    let note = key(1).sign_edited::<Site>("authority", text).unwrap();
    let public = key(1).verifying_key();
    assert_eq!(sign::open_edited::<Site>(note.as_bytes(), Some("authority"), &public).unwrap().statement.serial, 1);
    assert_eq!(sign::open::<Site>(note.as_bytes(), Some("authority"), &public), Err(SignError::Statement(StatementError::NotCanonical)));
    let wrong = text.replace("serial", "serail");
    assert!(matches!(key(1).sign_edited::<Site>("authority", &wrong), Err(SignError::Statement(StatementError::Content { line: 3, .. }))));
    assert!(key(1).sign_edited::<Site>("authority", text.trim_end()).is_err());
}

#[test]
fn a_card_is_signed_by_the_key_in_it() {
    let keys = CustodianKeys::from_seed(&Secret::random());
    let card = keys.public_card(&"alpha".parse().unwrap());
    let note = keys.signing_key().sign_statement("alpha", &card);
    assert_eq!(sign::open_self_signed::<Custodian>(note.as_bytes()).unwrap().statement, card);
    let by_other = key(1).sign_statement("alpha", &card);
    assert!(matches!(sign::open_self_signed::<Custodian>(by_other.as_bytes()), Err(SignError::NoSuchSigner(_))));
    let other_name = keys.signing_key().sign_statement("bravo", &card);
    assert!(sign::open_self_signed::<Custodian>(other_name.as_bytes()).is_err());
}

#[test]
fn raw_signatures_keep_to_their_context() {
    let signature = key(1).sign_raw(UNLOCK, b"message");
    let public = key(1).verifying_key();
    assert!(public.verify_raw(UNLOCK, b"message", &signature));
    assert!(!public.verify_raw(TPM_AUTH, b"message", &signature));
    assert!(!public.verify_raw(UNLOCK, b"massage", &signature));
    assert!(!public.verify_raw(UNLOCK, b"message", &signature[..95]));
    assert!(!key(2).verifying_key().verify_raw(UNLOCK, b"message", &signature));
}

#[test]
fn keys_are_read_in_one_form_only() {
    let public = key(1).verifying_key();
    assert_eq!(VerifyingKey::from_sec1(&public.to_sec1()).unwrap(), public);
    assert_eq!(VerifyingKey::from_sec1_uncompressed(&public.to_sec1_uncompressed()).unwrap(), public);
    assert_eq!(VerifyingKey::from_sec1(&public.to_sec1_uncompressed()), Err(SignError::Key));
    assert_eq!(VerifyingKey::from_sec1_uncompressed(&public.to_sec1()), Err(SignError::Key));
    assert_eq!(VerifyingKey::from_sec1(&[2; 48]), Err(SignError::Key));
    assert_eq!(VerifyingKey::from_sec1(&[0xff; 49]), Err(SignError::Key));
    assert_eq!(VerifyingKey::from_sec1(&[]), Err(SignError::Key));
}

#[test]
fn pkcs8_is_what_tls_libraries_read() {
    use p384::pkcs8::DecodePrivateKey;
    let der = key(1).to_pkcs8();
    let back = p384::SecretKey::from_pkcs8_der(&der).unwrap();
    assert_eq!(back.public_key(), *p384::PublicKey::from_sec1_bytes(&key(1).verifying_key().to_sec1()).as_ref().unwrap());
}
