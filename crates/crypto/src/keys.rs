//! Key rings: every private key of one role out of one 32-byte master secret, so
//! that a key file, a backup and a piece of paper each hold one secret.
//!
//! Promises: the keys of a ring are unrelated to each other (a label each), and the
//! same secret always gives the same ring.

use hoidla_format::{Bytes, Name, statements::Reader};

use crate::{
    Secret,
    hpke::KeyPair,
    labels::{AGENT_INDEX, AUTHORITY_DOOR, AUTHORITY_STATEMENTS, Label, READER_HPKE, READER_SIGNING, RELEASE_SCALAR},
    secret::then_wipe_stack,
    sign::SigningKey,
    wrap::derive,
};

/// A key of a ring, out of its master secret.
pub(crate) fn part(label: Label, master: &Secret<32>) -> Secret<32> {
    derive(label, &[master.expose()], &[])
}

/// The home authority's keys.
pub struct AuthorityKeys {
    /// Signs statements.
    pub statements: SigningKey,
    /// Signs X.509 certificates, and nothing else.
    pub door: SigningKey,
}

impl AuthorityKeys {
    /// The ring of a master secret.
    pub fn from_seed(master: &Secret<32>) -> Self {
        let key = |label| SigningKey::from_secret(&part(label, master));
        Self { statements: key(AUTHORITY_STATEMENTS), door: key(AUTHORITY_DOOR) }
    }
}

/// A reader's keys.
pub struct ReaderKeys {
    /// Signs its public key and its grants, and enters the door.
    pub signing: SigningKey,
    /// What data keys are re-wrapped to.
    pub hpke: KeyPair,
}

impl ReaderKeys {
    /// The ring of a master secret.
    pub fn from_seed(master: &Secret<32>) -> Self {
        Self { signing: SigningKey::from_secret(&part(READER_SIGNING, master)), hpke: KeyPair::from_seed(part(READER_HPKE, master)) }
    }

    /// What stands in a grant; to be signed with `signing` under the same name.
    pub fn public(&self, name: &Name) -> Reader {
        Reader { name: name.clone(), signing: Bytes(self.signing.verifying_key().to_sec1()), hpke: Bytes(self.hpke.public().to_bytes()) }
    }
}

/// An agent's keys.
pub struct AgentKeys {
    /// Signs epochs' headers and roots, and enters the door.
    pub signing: SigningKey,
    /// Keys the index of chunks, so that it tells nobody what they hold.
    pub index: Secret<32>,
}

impl AgentKeys {
    /// The ring of a master secret.
    pub fn from_seed(master: &Secret<32>) -> Self {
        Self { signing: SigningKey::from_secret(master), index: part(AGENT_INDEX, master) }
    }
}

/// The release key's scalar, for a library of P-256: big-endian, below the curve's order.
pub fn release_scalar(master: &Secret<32>) -> Secret<32> {
    let candidate = |n| derive::<32>(RELEASE_SCALAR, &[master.expose()], &[&[n]]);
    let fits = |s: &Secret<32>| then_wipe_stack(|| p256::SecretKey::from_slice(s.expose()).is_ok());
    (0..=u8::MAX).map(candidate).find(fits).expect("256 candidates never all miss")
}
