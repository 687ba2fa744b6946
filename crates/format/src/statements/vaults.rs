//! What dealing puts out: public and sealed things only.

use serde::{Deserialize, Serialize};

use crate::{Bytes, Hash32, Moment, Name};

/// Which door a share opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// With the appliance's TPM.
    Quorum,
    /// At home, without it.
    Recovery,
}

/// The vault certificate: agents seal to nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// The site.
    pub site: Name,
    /// The dataset whose vault this is.
    pub dataset: Name,
    /// The vault epoch, from 1.
    pub vault_epoch: u32,
    /// The suite of `public_key`, in words: `MLKEM1024-P384, HKDF-SHA384, AES-256-GCM`.
    pub suite: String,
    /// What data keys are sealed to (HPKE, 1,665 bytes).
    pub public_key: Bytes,
    /// SHA-256 of the roster.
    pub roster: Hash32,
    /// Shares that open with the TPM.
    pub quorum: u8,
    /// Shares that open at home.
    pub recovery_quorum: u8,
    /// When it was dealt.
    pub dealt: Moment,
    /// One for each share of either door.
    #[serde(rename = "commitment")]
    pub commitments: Vec<Commitment>,
}

/// What a share must hash to, so that a bad one is blamed on its custodian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// Which door.
    pub door: Door,
    /// Whose share.
    pub custodian: Name,
    /// Its x coordinate, 1 to 255.
    pub index: u8,
    /// The salted hash; see `hoidla-quorum`'s `share`.
    pub commitment: Hash32,
}

/// The shares of one vault and door, each sealed to its custodian. Public ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelopes {
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// Which door. Recovery envelopes never sit in the appliance.
    pub door: Door,
    /// The envelopes.
    #[serde(rename = "share")]
    pub shares: Vec<ShareEnvelope>,
}

/// One custodian's envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareEnvelope {
    /// Whose.
    pub custodian: Name,
    /// The share's x coordinate.
    pub index: u8,
    /// The envelope's bytes ([`crate::Kind::Envelope`]).
    pub sealed: Bytes,
}

/// What one appliance imports: its halves of all vaults dealt for it, and the vault keys they help to unwrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halves {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// SHA-256 of the identity whose SRK they are encrypted to.
    pub identity: Hash32,
    /// One a vault.
    #[serde(rename = "half", default)]
    pub halves: Vec<TpmHalf>,
}

/// `K_tpm` of one vault and appliance, for `TPM2_Import`, and the wrapped vault key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmHalf {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
    /// The object's public area: marshalled TPMT_PUBLIC.
    pub public: Bytes,
    /// TPM2B_PRIVATE's content: integrity and encrypted sensitive area.
    pub duplicate: Bytes,
    /// TPM2B_ENCRYPTED_SECRET's content: the ephemeral point.
    pub seed: Bytes,
    /// The vault's private key under `K_unlock`: nonce (12) ‖ AES-256-GCM.
    pub wrapped_key: Bytes,
}

/// The vault's private key under `K_quorum_r`. Kept at home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryWrap {
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// nonce (12) ‖ AES-256-GCM.
    pub wrapped_key: Bytes,
}
