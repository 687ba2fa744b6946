//! What a ceremony says: who may read what and why, which machine asks, who agrees.

use serde::{Deserialize, Serialize};

use crate::{Bytes, Hash32, Moment, Name};

/// A reader's public key, signed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    /// The reader's name, for people.
    pub name: Name,
    /// What it enters the door with: P-384, SEC1, compressed.
    pub signing: Bytes,
    /// What data keys are re-wrapped to: HPKE, 1,665 bytes.
    pub hpke: Bytes,
}

/// What may be opened, for whom, why, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The site.
    pub site: Name,
    /// The appliance that shall open.
    pub appliance: Name,
    /// Why, in words that the custodians read.
    pub purpose: String,
    /// When it was written.
    pub created: Moment,
    /// How long the opened keys may be fetched, in seconds after the opening; at most a day.
    pub open_for_seconds: u32,
    /// 16 random bytes, so that no two grants are the same.
    pub nonce: Bytes,
    /// For whom.
    pub reader: Reader,
    /// What.
    #[serde(rename = "covers")]
    pub covers: Vec<Covers>,
}

/// One vault epoch of one dataset: all stream epochs sealed to it until the approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covers {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
}

/// What the appliance adds to a grant, so that an approval dies at reboot and within a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// SHA-256 of the grant.
    pub grant: Hash32,
    /// The appliance.
    pub appliance: Name,
    /// SHA-256 of the site statement in force.
    pub site_hash: Hash32,
    /// 32 random bytes.
    pub nonce: Bytes,
    /// Shares are sealed to this (HPKE); it lives in memory only.
    pub one_time_key: Bytes,
    /// The TPM name of the attestation key (for the quote that comes later).
    pub attestation_key: Bytes,
    /// TPM resets so far.
    pub reset_count: u32,
    /// TPM restarts so far.
    pub restart_count: u32,
    /// The release's name.
    pub release: Name,
    /// True for drills and tests.
    pub development: bool,
    /// How long approvals for it count, in seconds after issue; at most a day, by the appliance's monotonic clock.
    pub valid_for_seconds: u32,
    /// What register 15 was extended by since the machine's start: the papers in force, the last one now.
    pub measured: Vec<Hash32>,
    /// A quote over this challenge (with this field empty) by the attestation key, in the form of a signature line's bytes.
    pub quote: Bytes,
}

/// A custodian's word for one grant and one challenge, with their shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// SHA-256 of the grant.
    pub grant: Hash32,
    /// SHA-256 of the challenge.
    pub challenge: Hash32,
    /// Who.
    pub custodian: Name,
    /// Their share of each vault that the grant covers.
    #[serde(rename = "share")]
    pub shares: Vec<SealedShare>,
}

/// A share sealed to the challenge's one-time key; associated data: grant hash ‖ challenge hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedShare {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// The share's x coordinate.
    pub index: u8,
    /// HPKE ciphertext.
    pub sealed: Bytes,
}
