//! Signatures under statements: ECDSA over P-384 with SHA-384, deterministic (RFC 6979).
//!
//! A signed statement is a C2SP signed note. A signature line carries
//! `key id (4) ‖ r (48) ‖ s (48)`; the key id is the first four bytes of
//! `SHA-256(name ‖ "\n" ‖ 0xff ‖ "hoidla p384-sha384" ‖ SEC1 compressed key)`.
//!
//! Promises: the signature is checked before the text is parsed; one key and text
//! have exactly one signature (`s` in the lower half), so that no changed signature
//! passes. [`read_unverified`] checks none, and its name says so.

use hoidla_format::{
    Bytes, Hash32, Name, Note, Statement, StatementError,
    statement::{self, Signature as Line},
    statements::{Custodian, Reader},
};
use p384::{
    ecdsa::{self, Signature, signature::Signer},
    pkcs8::EncodePrivateKey,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    Secret,
    labels::{Label, RAW_SIGNATURE, SIGNING_SCALAR},
    secret::then_wipe_stack,
    wrap::{bind, derive},
};

/// Bytes of a public key: SEC1, compressed.
pub const PUBLIC_LEN: usize = 49;
/// Bytes of a signature: `r ‖ s`.
pub const SIGNATURE_LEN: usize = 96;
const SUITE: &[u8] = b"hoidla p384-sha384";

/// Why a signed statement was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// Not a point of P-384 in compressed form.
    #[error("not a public key of P-384 (49 bytes, SEC1 compressed): fetch the signer's card or certificate again")]
    Key,
    /// No line of the note is by this name and key.
    #[error("this statement is not signed by {0} with the expected key: ask who gave it to you for the signed original")]
    NoSuchSigner(String),
    /// A line by this name and key, but text or signature were changed.
    #[error("the signature of {0} doesn't fit the text: one of both was changed; fetch the original again")]
    Forged(String),
    /// Signed, but not what belongs here.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// A signed statement that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<S> {
    /// What it says.
    pub statement: S,
    /// SHA-256 of its text without signatures: how others name it.
    pub hash: Hash32,
    /// Text and signatures, as read.
    pub note: String,
}

/// A private key of P-384 that signs.
pub struct SigningKey {
    scalar: Secret<48>,
    public: VerifyingKey,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self::from_secret(&Secret::random())
    }

    /// The key of a 32-byte secret, always the same one.
    pub fn from_secret(secret: &Secret<32>) -> Self {
        let scalar = scalar(SIGNING_SCALAR, secret);
        let public = then_wipe_stack(|| VerifyingKey(*ecdsa_key(&scalar).verifying_key()));
        Self { scalar, public }
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.public
    }

    /// PKCS#8 in DER, for X.509 and TLS libraries.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        then_wipe_stack(|| {
            let der = ecdsa_key(&self.scalar).to_pkcs8_der().expect("a key of P-384 has an encoding");
            Zeroizing::new(der.as_bytes().to_vec())
        })
    }

    /// Writes a statement in its one encoding and signs it as `name`.
    ///
    /// # Panics
    /// If `name` is not a [`Name`].
    pub fn sign_statement<S: Statement>(&self, name: &str, statement: &S) -> String {
        self.sign_text(name, statement::write(statement))
    }

    /// Signs a text that a person wrote, after reading it as one.
    ///
    /// # Panics
    /// If `name` is not a [`Name`].
    pub fn sign_edited<S: Statement>(&self, name: &str, text: &str) -> Result<String, SignError> {
        statement::parse_edited::<S>(text)?;
        let note = self.sign_text(name, text.to_owned());
        // Whatever the text holds, the note must read back as exactly it.
        let back = Note::parse(note.as_bytes())?;
        if back.text == text {
            Ok(note)
        } else {
            Err(StatementError::NotAStatement("it must end with a newline and hold no signature lines yet").into())
        }
    }

    /// Adds a signature as `name` below those that a note already has.
    ///
    /// # Panics
    /// If `name` is not a [`Name`].
    pub fn cosign(&self, name: &str, note: &[u8]) -> Result<String, SignError> {
        let mut note = Note::parse(note)?;
        let line = self.line(name, &note.text);
        note.signatures.push(line);
        Ok(note.write())
    }

    fn sign_text(&self, name: &str, text: String) -> String {
        let signatures = vec![self.line(name, &text)];
        Note { text, signatures }.write()
    }

    fn line(&self, name: &str, text: &str) -> Line {
        assert!(name.parse::<Name>().is_ok(), "a signer's name is a Name");
        Line { name: name.to_owned(), key_id: self.public.key_id(name), bytes: self.sign_bytes(text.as_bytes()).to_vec() }
    }

    /// Signs bytes that are no statement, under a context's label. Such a
    /// signature never counts for a statement, nor under another label.
    pub fn sign_raw(&self, context: Label, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.sign_bytes(&raw_message(context, message))
    }

    fn sign_bytes(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let signature: Signature = then_wipe_stack(|| ecdsa_key(&self.scalar).sign(message));
        signature.normalize_s().to_bytes().into()
    }
}

/// A public key of P-384 that checks signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ecdsa::VerifyingKey);

impl VerifyingKey {
    /// Reads SEC1's compressed form; refuses every other.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, SignError> {
        if bytes.len() != PUBLIC_LEN {
            return Err(SignError::Key);
        }
        ecdsa::VerifyingKey::from_sec1_bytes(bytes).map(Self).map_err(|_| SignError::Key)
    }

    /// Reads SEC1's uncompressed form (97 bytes), as X.509 certificates carry it; refuses every other.
    pub fn from_sec1_uncompressed(bytes: &[u8]) -> Result<Self, SignError> {
        if bytes.len() != 97 {
            return Err(SignError::Key);
        }
        ecdsa::VerifyingKey::from_sec1_bytes(bytes).map(Self).map_err(|_| SignError::Key)
    }

    /// SEC1's compressed form, 49 bytes.
    pub fn to_sec1(&self) -> Vec<u8> {
        self.0.to_sec1_point(true).as_bytes().to_vec()
    }

    /// SEC1's uncompressed form, 97 bytes, as X.509 certificates carry it.
    pub fn to_sec1_uncompressed(&self) -> Vec<u8> {
        self.0.to_sec1_point(false).as_bytes().to_vec()
    }

    /// The id that stands in signature lines of this key under this name.
    pub fn key_id(&self, name: &str) -> [u8; 4] {
        let hash = Sha256::new().chain_update(name).chain_update(b"\n\xff").chain_update(SUITE).chain_update(self.to_sec1()).finalize();
        *hash.first_chunk().expect("a hash has four bytes")
    }

    /// Whether [`SigningKey::sign_raw`] made this signature.
    pub fn verify_raw(&self, context: Label, message: &[u8], signature: &[u8]) -> bool {
        self.verify_bytes(&raw_message(context, message), signature)
    }

    fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| s == s.normalize_s() && self.is_by(message, &s))
    }

    /// A machine checks a dozen papers before its door opens: by AWS-LC in a quarter of the time.
    #[cfg(feature = "fast")]
    fn is_by(&self, message: &[u8], signature: &Signature) -> bool {
        use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.to_sec1_uncompressed()).verify(message, &signature.to_bytes()).is_ok()
    }

    #[cfg(not(feature = "fast"))]
    fn is_by(&self, message: &[u8], signature: &Signature) -> bool {
        self.by_portable_code(message, signature)
    }

    #[cfg(any(test, not(feature = "fast")))]
    fn by_portable_code(&self, message: &[u8], signature: &Signature) -> bool {
        use p384::ecdsa::signature::Verifier;
        self.0.verify(message, signature).is_ok()
    }
}

/// Opens a statement that a program wrote: first the signature by `key` (under
/// `name`, or under any name if `None`), then the text, in its one encoding.
pub fn open<S: Statement>(bytes: &[u8], name: Option<&str>, key: &VerifyingKey) -> Result<Signed<S>, SignError> {
    open_as(bytes, name, key, statement::parse)
}

/// The same for a statement that a person wrote (the site file): comments and order are theirs.
pub fn open_edited<S: Statement>(bytes: &[u8], name: Option<&str>, key: &VerifyingKey) -> Result<Signed<S>, SignError> {
    open_as(bytes, name, key, statement::parse_edited)
}

fn open_as<S>(
    bytes: &[u8],
    name: Option<&str>,
    key: &VerifyingKey,
    parse: fn(&str) -> Result<S, StatementError>,
) -> Result<Signed<S>, SignError> {
    let note = Note::parse(bytes)?;
    check(&note, name, key)?;
    Ok(Signed { statement: parse(&note.text)?, hash: note.hash(), note: note.write() })
}

/// Reads a statement *without* checking any signature: for one whose hash is
/// checked by the caller, or whose content says which key to check.
pub fn read_unverified<S: Statement>(bytes: &[u8]) -> Result<Signed<S>, SignError> {
    let note = Note::parse(bytes)?;
    Ok(Signed { statement: statement::parse_edited(&note.text)?, hash: note.hash(), note: note.write() })
}

/// A statement that carries its signer's name and key: it proves that its author
/// holds the key, and nothing about who that is.
pub trait SelfSigned: Statement {
    /// The signer's name and key as it claims.
    fn signer(&self) -> (&Name, &Bytes);
}

impl SelfSigned for Custodian {
    fn signer(&self) -> (&Name, &Bytes) {
        (&self.name, &self.signing)
    }
}

impl SelfSigned for Reader {
    fn signer(&self) -> (&Name, &Bytes) {
        (&self.name, &self.signing)
    }
}

/// Opens a statement signed by the key that stands in it.
pub fn open_self_signed<S: SelfSigned>(bytes: &[u8]) -> Result<Signed<S>, SignError> {
    let note = Note::parse(bytes)?;
    let statement: S = statement::parse(&note.text)?;
    let (name, key) = statement.signer();
    check(&note, Some(name.as_str()), &VerifyingKey::from_sec1(&key.0)?)?;
    Ok(Signed { statement, hash: note.hash(), note: note.write() })
}

/// At least one line is by this name and key, and every such line fits the text.
fn check(note: &Note, name: Option<&str>, key: &VerifyingKey) -> Result<(), SignError> {
    let by_key = |l: &&Line| name.is_none_or(|n| n == l.name) && key.key_id(&l.name) == l.key_id;
    let mut found = false;
    for line in note.signatures.iter().filter(by_key) {
        if !key.verify_bytes(note.text.as_bytes(), &line.bytes) {
            return Err(SignError::Forged(line.name.clone()));
        }
        found = true;
    }
    if found { Ok(()) } else { Err(SignError::NoSuchSigner(name.unwrap_or("the key's holder").to_owned())) }
}

/// The first candidate below the curve's order; the first one is, but for one time in 2^190.
pub(crate) fn scalar(label: Label, secret: &Secret<32>) -> Secret<48> {
    let candidate = |n| derive::<48>(label, &[secret.expose()], &[&[n]]);
    let fits = |s: &Secret<48>| then_wipe_stack(|| p384::SecretKey::from_slice(s.expose()).is_ok());
    (0..=u8::MAX).map(candidate).find(fits).expect("256 candidates never all miss")
}

fn ecdsa_key(scalar: &Secret<48>) -> ecdsa::SigningKey {
    ecdsa::SigningKey::from_slice(scalar.expose()).expect("checked when it was made")
}

fn raw_message(context: Label, message: &[u8]) -> Vec<u8> {
    bind(RAW_SIGNATURE, &[context.as_bytes(), message])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::second_opinion::holds;

    #[test]
    fn both_libraries_say_the_same_of_every_signature() {
        let both = |key: &VerifyingKey, message: &[u8], bytes: &[u8]| {
            let signature = Signature::from_slice(bytes).ok()?;
            Some((key.is_by(message, &signature), key.by_portable_code(message, &signature)))
        };
        for n in 0..8u8 {
            let (key, message) = (SigningKey::from_secret(&Secret::filled(|b| b.fill(n))), vec![n; usize::from(n) * 50]);
            let (public, good) = (key.verifying_key(), key.sign_bytes(&message));
            let other = SigningKey::from_secret(&Secret::filled(|b| b.fill(n + 1))).verifying_key();
            let high = Signature::from_slice(&good).unwrap();
            let high = Signature::from_scalars(high.r(), -*high.s()).unwrap().to_bytes();
            holds([&public, &other], &message, [&good, &high], both);
            assert!(public.verify_bytes(&message, &good) && !public.verify_bytes(&message, &high), "here a text has one signature");
        }
    }
}
