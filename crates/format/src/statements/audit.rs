//! What an agent says of its dataset to an auditor.

use serde::{Deserialize, Serialize};

use crate::{Hash32, Moment, Name, StreamId};

/// The agent's word that these are all streams of its dataset that it copied in or found,
/// and that each is acknowledged, and included under one checkpoint, up to the length given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completeness {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// The dataset.
    pub dataset: Name,
    /// The agent that signs.
    pub agent: Name,
    /// SHA-256 of the checkpoint's text.
    pub checkpoint: Hash32,
    /// The log's size there.
    pub log_size: u64,
    /// The TPM's checkpoint counter there.
    pub counter: u64,
    /// How many frames, at random places, were asked for and came whole.
    pub sampled_frames: u32,
    /// Their bytes.
    pub sampled_bytes: u64,
    /// When, by the agent's clock.
    pub created: Moment,
    /// The streams, by generation, then by stream.
    #[serde(rename = "stream", default)]
    pub streams: Vec<KeptStream>,
}

/// One stream of the dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptStream {
    /// Its generation.
    pub generation: u32,
    /// The stream.
    pub stream: StreamId,
    /// Its bytes.
    pub length: u64,
    /// The chain's root over them.
    pub root: Hash32,
    /// Whether this agent copied it in, and saw it acknowledged; otherwise it was found there.
    pub copied_here: bool,
}
