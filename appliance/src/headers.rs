//! Epoch headers, read out of the store when their epochs are opened.
//!
//! Promises: a wrapped key is taken only from a header that an agent of the
//! authority's signed for the very stream and epoch it was found in. A frame that
//! is no such header stays sealed; it stops nobody else's opening.

use anyhow::{Context, ensure};
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{
    Kind, Name, StreamId, frame,
    statements::{AgentCertificate, EpochHeader},
};
use hoidla_tpm::opening::WrappedKey;

use crate::helper::Wrapped;

/// Where a header frame was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The epoch that begins there.
    pub epoch: u32,
    /// The frame's offset.
    pub start: u64,
}

/// The wrapped key in a header frame.
pub fn wrapped_key(bytes: &[u8], place: &Place, site: &Name, authority: &VerifyingKey) -> anyhow::Result<Wrapped> {
    let (kind, body, rest) = frame::split(bytes)?;
    ensure!(kind == Kind::EpochHeader && rest.is_empty(), "its epoch begins with another frame");
    let (agent, epoch) = frame::split_epoch_header(body)?;
    let agent = sign::open::<AgentCertificate>(agent, Some("authority"), authority).context("its agent's certificate")?.statement;
    let key = VerifyingKey::from_sec1(&agent.key.0)?;
    let header = sign::open::<EpochHeader>(epoch, Some(agent.agent.as_str()), &key).context("its header")?.statement;
    ensure!(agent.site == *site && header.site == *site, "it is another site's");
    ensure!(agent.dataset == place.dataset && header.dataset == place.dataset, "it is another dataset's");
    ensure!((header.stream, header.epoch, header.start) == (place.stream, place.epoch, place.start), "it belongs elsewhere");
    let key = WrappedKey { stream: place.stream, epoch: place.epoch, wrapped: header.wrapped_key.0 };
    Ok(Wrapped { vault: header.vault, key })
}
