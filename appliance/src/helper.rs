//! The short-lived process in which shares are checked and vaults opened.
//!
//! Why a process: libtss2 leaves an unsealed half on its heap. This one is started
//! with an allocator that overwrites freed memory, locks its pages, forbids dumps
//! and tracing, does one job and ends. Promises: no share and nothing of a vault's
//! key ever enters the daemon; it gives the ceremony's one-time key over a pipe, and
//! gets back a verdict, or data keys re-wrapped to the grant's reader. The daemon
//! has verified grant and approvals; commitments, signatures of epoch headers and
//! the TPM's own policy are checked here.
//!
//! Over standard input: `one-time seed (32) ‖ length (u32) ‖ job (JSON)`, and for an
//! opening then one header frame after another, `length (u32) ‖ place ‖ frame`. Over
//! standard output: `length (u32) ‖ answer (JSON)` to the job, and to each header
//! `length (u32) ‖ re-wrapped key`, empty if it stays sealed.

pub mod process;
mod work;

use hoidla_format::{Hash32, Malformed, Name, Reader, StreamId, Writer, statements::SealedShare};
use hoidla_quorum::opening::Occasion;
use serde::{Deserialize, Serialize};

pub use process::{Helpers, Opening};
pub use work::run;

/// The hidden subcommand's name.
pub const COMMAND: &str = "open-helper";
/// The most bytes of a job, an answer or a header.
const MOST: usize = 4 << 20;

/// A share and who sent it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Who.
    pub custodian: Name,
    /// What.
    pub share: SealedShare,
}

/// What the helper shall do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// SHA-256 of the grant.
    grant: Hash32,
    /// SHA-256 of the challenge.
    challenge: Hash32,
    /// The shares to check, or to open with.
    shares: Vec<Sent>,
    /// The signed grant, to open; none to check only.
    open: Option<String>,
}

impl Job {
    fn occasion(&self) -> Occasion {
        Occasion { grant: self.grant, challenge: self.challenge }
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    /// A share is bad, in words that name its custodian.
    BadShare(String),
    /// It could not be done.
    Failed(String),
}

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

impl Place {
    fn with(&self, frame: &[u8]) -> Vec<u8> {
        let mut w = Writer::new();
        w.short(self.dataset.as_str().as_bytes()).put(&self.stream.0).u32(self.epoch).u64(self.start).put(frame);
        w.finish()
    }

    fn split(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let dataset = Name::from_bytes(r.short(Name::MOST, "a name too long")?)?;
        Ok((Self { dataset, stream: StreamId(r.array()?), epoch: r.u32()?, start: r.u64()? }, r.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        let place = Place { dataset: "land".parse().unwrap(), stream: StreamId([1; 16]), epoch: 2, start: 3 };
        let bytes = place.with(b"frame");
        assert_eq!(Place::split(&bytes).unwrap(), (place, &b"frame"[..]));
        assert!(Place::split(&bytes[..20]).is_err());
    }
}
