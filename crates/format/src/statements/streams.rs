//! What an agent signs within its streams.

use serde::{Deserialize, Serialize};

use crate::{Bytes, Hash32, Moment, Name, StreamId};

/// The first frame of an epoch: whose bytes these are, and the data key under the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochHeader {
    /// The site.
    pub site: Name,
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The generation the stream belongs to.
    pub generation: u32,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The offset of this frame in the stream.
    pub start: u64,
    /// The chain's root before this frame.
    pub previous_root: Hash32,
    /// The vault epoch whose key wraps the data key.
    pub vault_epoch: u32,
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
    /// The epoch's data key, sealed to the vault (HPKE; info and associated data in `hoidla-crypto`'s `datakey`).
    pub wrapped_key: Bytes,
    /// The agent that signs.
    pub agent: Name,
    /// What its clock claimed.
    pub created: Moment,
}

/// The agent's word for all frames of a stream before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRoot {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The epoch.
    pub epoch: u32,
    /// The stream's bytes covered.
    pub length: u64,
    /// The chain's root over them.
    pub root: Hash32,
    /// Whether a whole snapshot ends here.
    pub complete: bool,
    /// What the agent's clock claimed.
    pub created: Moment,
}
