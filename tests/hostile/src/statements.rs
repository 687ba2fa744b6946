//! Texts: notes, statements, checkpoints.

use std::sync::LazyLock;

use hoidla_crypto::{
    Secret,
    sign::{self, SigningKey, VerifyingKey},
};
use hoidla_format::{
    Note, Statement,
    profile::Profile,
    statement::{parse, parse_edited, write},
    statements::*,
};
use hoidla_log::Checkpoint;

pub fn note(bytes: &[u8]) -> bool {
    let Ok(note) = Note::parse(bytes) else { return false };
    assert_eq!(Note::parse(note.write().as_bytes()).as_ref(), Ok(&note), "a note reads back");
    true
}

/// Every kind at once: each refuses the others by the first line.
pub fn statement(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    fn one<S: Statement>(text: &str) -> bool {
        if let Ok(edited) = parse_edited::<S>(text) {
            let canonical = write(&edited);
            assert!(parse::<S>(&canonical).is_ok(), "what was read can be written and read: {canonical}");
        }
        match parse::<S>(text) {
            Ok(statement) => {
                assert_eq!(write(&statement), text, "one encoding");
                true
            }
            Err(_) => false,
        }
    }
    let accepted = [
        one::<Site>(text),
        one::<Roster>(text),
        one::<Release>(text),
        one::<ApplianceIdentity>(text),
        one::<Endorsement>(text),
        one::<Enrolment>(text),
        one::<AgentCertificate>(text),
        one::<Custodian>(text),
        one::<Vault>(text),
        one::<Envelopes>(text),
        one::<Halves>(text),
        one::<RecoveryWrap>(text),
        one::<Reader>(text),
        one::<Grant>(text),
        one::<Challenge>(text),
        one::<Approval>(text),
        one::<EpochHeader>(text),
        one::<Skip>(text),
        one::<DiskWord>(text),
        one::<CountWord>(text),
        one::<StreamRoot>(text),
        one::<Completeness>(text),
        one::<ImageManifest>(text),
        one::<Erased>(text),
    ];
    let kinds = accepted.iter().filter(|a| **a).count();
    assert!(kinds <= 1, "a text is of one kind");
    kinds == 1
}

static KEY: LazyLock<VerifyingKey> = LazyLock::new(|| signer().verifying_key());

/// The key whose notes the corpus holds.
pub fn signer() -> SigningKey {
    SigningKey::from_secret(&Secret::from_bytes_wiping(&mut [7; 32]))
}

/// Only what [`signer`] signed is accepted; a note's other lines may be anyone's.
pub fn signed(bytes: &[u8]) -> bool {
    _ = sign::read_unverified::<Grant>(bytes);
    _ = sign::open_self_signed::<Custodian>(bytes);
    let Ok(opened) = sign::open::<Grant>(bytes, Some("alpha"), &KEY) else { return false };
    let again = signer().sign_statement("alpha", &opened.statement);
    let line = again.lines().next_back().expect("a note has lines");
    assert!(opened.note.lines().any(|l| l == line), "the signature is ours");
    true
}

pub fn checkpoint(bytes: &[u8]) -> bool {
    _ = Checkpoint::open(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(head) = Checkpoint::parse(text) else { return false };
    assert_eq!(head.to_string(), text, "one encoding");
    true
}

/// A profile may be edited by hand: what was read can be written, and is then the same.
pub fn profile(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(profile) = Profile::parse(text) else { return false };
    assert_eq!(Profile::parse(&profile.write()).as_ref(), Ok(&profile), "a profile reads back");
    true
}
