//! The key of one epoch of one stream, and how it travels.
//!
//! `agent → vault`: sealed to the vault's public key, bound to site, dataset,
//! stream, epoch and vault epoch. `vault → reader`: re-wrapped in the appliance to
//! the key that stands in the grant, bound to the same and to the grant's hash.
//!
//! Promises: a wrapped key opens for no other stream, epoch, vault epoch or grant
//! than the one it was made for, so that no two can be swapped.

use hoidla_format::{Hash32, Name, StreamId};

use crate::{
    Secret,
    hpke::{self, HpkeError, KeyPair, PublicKey},
    labels::{DATA_KEY_TO_READER, DATA_KEY_TO_VAULT, Label},
    wrap::bind,
};

/// Bytes of a wrapped data key.
pub const WRAPPED_LEN: usize = hpke::OVERHEAD + 32;

/// A stream epoch's key: 32 bytes for FLOE.
pub struct DataKey(pub(crate) Secret<32>);

impl DataKey {
    /// A fresh key.
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// A key out of a secret that came from elsewhere (a test vector, the spool).
    pub fn from_secret(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// The bytes, for the agent's own keeping.
    pub fn secret(&self) -> &Secret<32> {
        &self.0
    }
}

/// Where a data key belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The site.
    pub site: Name,
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The stream's epoch.
    pub epoch: u32,
    /// The vault epoch whose key wraps it.
    pub vault_epoch: u32,
}

impl Binding {
    pub(crate) fn bytes(&self, label: Label) -> Vec<u8> {
        let (epoch, vault_epoch) = (self.epoch.to_le_bytes(), self.vault_epoch.to_le_bytes());
        bind(label, &[self.site.as_str().as_bytes(), self.dataset.as_str().as_bytes(), &self.stream.0, &epoch, &vault_epoch])
    }
}

/// Seals a data key to its vault.
pub fn wrap(key: &DataKey, vault: &PublicKey, binding: &Binding) -> Vec<u8> {
    hpke::seal(vault, &binding.bytes(DATA_KEY_TO_VAULT), &[], key.0.expose())
}

/// Opens a data key with its vault's private key.
pub fn unwrap(vault: &KeyPair, binding: &Binding, wrapped: &[u8]) -> Result<DataKey, HpkeError> {
    hpke::open_secret(vault, &binding.bytes(DATA_KEY_TO_VAULT), &[], wrapped).map(DataKey)
}

/// Opens a data key with its vault's private key and seals it to a grant's reader.
pub fn rewrap_to_reader(
    vault: &KeyPair,
    binding: &Binding,
    wrapped: &[u8],
    reader: &PublicKey,
    grant_hash: &Hash32,
) -> Result<Vec<u8>, HpkeError> {
    let key = unwrap(vault, binding, wrapped)?;
    Ok(hpke::seal(reader, &binding.bytes(DATA_KEY_TO_READER), &grant_hash.0, key.0.expose()))
}

/// Opens what [`rewrap_to_reader`] made, with the reader's private key.
pub fn unwrap_as_reader(reader: &KeyPair, binding: &Binding, grant_hash: &Hash32, wrapped: &[u8]) -> Result<DataKey, HpkeError> {
    hpke::open_secret(reader, &binding.bytes(DATA_KEY_TO_READER), &grant_hash.0, wrapped).map(DataKey)
}
