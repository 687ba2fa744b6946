//! Why the appliance says no: a code for programs, a sentence for people.

use hoidla_format::{Malformed, Reader, Writer};
use thiserror::Error;

use crate::message::Handle;

/// Why something was refused. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The role or the certificate doesn't allow it.
    NotAllowed = 1,
    /// The bytes were not a message; the connection ends.
    Malformed = 2,
    /// A message in the wrong order, or past the window; the connection ends.
    Order = 3,
    /// No room for another connection, stream or ceremony now: try later.
    Busy = 4,
    /// The same offset with other bytes than those stored.
    Fork = 5,
    /// The store is behind what the agent has seen acknowledged: alarm.
    Behind = 6,
    /// The epoch was closed by an opening: open the stream again, begin the next epoch.
    EpochClosed = 7,
    /// The disks are full; nothing of it was kept.
    Full = 8,
    /// Nothing is open for this reader now.
    Sealed = 9,
    /// The grant was refused.
    Grant = 10,
    /// The approval, or a share in it, was refused.
    Approval = 11,
    /// The bytes asked for are damaged on every copy.
    Damaged = 12,
    /// No such stream.
    Unknown = 13,
    /// The peer was too slow or silent; the connection ends.
    Slow = 14,
    /// The appliance failed; its log says why.
    Failed = 15,
    /// The generation's days are over: begin a new one.
    Expired = 16,
}

impl Code {
    const ALL: [Self; 16] = [
        Self::NotAllowed,
        Self::Malformed,
        Self::Order,
        Self::Busy,
        Self::Fork,
        Self::Behind,
        Self::EpochClosed,
        Self::Full,
        Self::Sealed,
        Self::Grant,
        Self::Approval,
        Self::Damaged,
        Self::Unknown,
        Self::Slow,
        Self::Failed,
        Self::Expired,
    ];

    fn from_number(n: u8) -> Result<Self, Malformed> {
        Self::ALL.into_iter().find(|c| *c as u8 == n).ok_or(Malformed::Field("an unknown refusal code"))
    }

    /// Whether the connection ends with it.
    pub fn ends(self) -> bool {
        matches!(self, Self::Malformed | Self::Order | Self::Slow)
    }
}

/// A refusal. With a handle it is about that stream, whose handle is dead
/// afterwards: open the stream again. Without one it answers the last request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{sentence}")]
pub struct Refused {
    /// Why, for programs.
    pub code: Code,
    /// Which stream, if an append was refused.
    pub handle: Option<Handle>,
    /// Why, and what to do next, for people.
    pub sentence: String,
}

impl Refused {
    /// The most bytes of a sentence.
    pub const MOST: usize = 1000;

    /// A refusal; the sentence is cut to [`Self::MOST`] bytes, control characters become spaces.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        let sentence: String = sentence.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=Self::MOST.min(sentence.len())).rev().find(|&i| sentence.is_char_boundary(i)).unwrap_or(0);
        Self { code, handle: None, sentence: sentence[..end].to_owned() }
    }

    /// The same about one stream.
    #[must_use]
    pub fn about(mut self, handle: Handle) -> Self {
        self.handle = Some(handle);
        self
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(self.code as u8).u32(self.handle.map_or(0, |h| h.0)).short(self.sentence.as_bytes());
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = Code::from_number(r.u8()?)?;
        let handle = Some(Handle(r.u32()?)).filter(|h| h.0 != 0);
        let sentence = r.short(Self::MOST, "a refusal's sentence too long")?;
        let sentence = std::str::from_utf8(sentence).map_err(|_| Malformed::Field("a refusal that is not text"))?;
        Ok(Self { handle, ..Self::new(code, sentence) })
    }
}

impl From<Malformed> for Refused {
    fn from(e: Malformed) -> Self {
        Self::new(Code::Malformed, format!("the message was not understood: {e}"))
    }
}
