//! The log that firmware keeps of what it measured (TCG PC Client Platform Firmware Profile,
//! "crypto agile log format"), read and replayed.
//!
//! Promises: a log is parsed whole or refused, bounded in length and number; [`Log::replay`]
//! gives each register as the log has it, to be held against what the TPM says. A log by
//! itself proves nothing: whoever hands it over may have written it. Only the digests
//! count; an event's own bytes are shown and never believed.

use std::collections::BTreeMap;

use hoidla_format::Hash32;
use thiserror::Error;

use crate::boot::extended_from;

/// The most bytes of a log: firmware reserves 64 KiB, or a few times that.
pub const MOST: usize = 4 << 20;
const MOST_EVENTS: usize = 16 * 1024;
const MOST_ALGORITHMS: usize = 8;
const ALG_SHA256: u16 = 0x000b;
/// An event that is never extended.
pub const NO_ACTION: u32 = 3;
/// A program that firmware started.
pub const APPLICATION: u32 = 0x8000_0003;
const SPEC: &[u8] = b"Spec ID Event03\0";
const LOCALITY: &[u8] = b"StartupLocality\0";

/// Why a log was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// It ends within an event.
    #[error("the event log is cut short: read it again")]
    Truncated,
    /// Longer, or of more events, than any firmware writes.
    #[error("the event log is longer than any that firmware writes")]
    Long,
    /// Not in the format of TPM 2.0 firmware with a SHA-256 bank.
    #[error("this is no event log of a TPM 2.0 with a SHA-256 bank: enable that bank in the firmware's setup ({0})")]
    Format(&'static str),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register.
    pub register: u8,
    /// Its type, as the profile numbers them.
    pub kind: u32,
    /// What the register was extended with.
    pub digest: Hash32,
    /// What firmware says of it.
    pub data: &'a [u8],
}

/// A whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log<'a> {
    events: Vec<Event<'a>>,
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], LogError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(LogError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        Ok(*self.take(N)?.first_chunk().expect("as many as were asked for"))
    }

    fn u32(&mut self) -> Result<u32, LogError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, LogError> {
        self.array().map(u16::from_le_bytes)
    }

    fn sized(&mut self) -> Result<&'a [u8], LogError> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

impl<'a> Log<'a> {
    /// Reads a log as the kernel gives it: it ends with its last event.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LogError> {
        if bytes.len() > MOST {
            return Err(LogError::Long);
        }
        let mut input = Input(bytes);
        let algorithms = spec(&mut input)?;
        let mut events = Vec::new();
        while !input.0.is_empty() {
            if events.len() == MOST_EVENTS {
                return Err(LogError::Long);
            }
            events.push(event(&mut input, &algorithms)?);
        }
        Ok(Self { events })
    }

    /// The events in order.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The digests that a register was extended with.
    pub fn of(&self, register: u8) -> impl Iterator<Item = &Event<'a>> {
        self.events.iter().filter(move |e| e.register == register && e.kind != NO_ACTION)
    }

    /// Every register that the log tells of, as it must stand.
    pub fn replay(&self) -> BTreeMap<u8, Hash32> {
        let mut out = BTreeMap::new();
        for e in &self.events {
            if e.kind != NO_ACTION {
                let register = out.entry(e.register).or_insert(Hash32([0; 32]));
                *register = extended_from(*register, [e.digest]);
            } else if e.register == 0
                && let Some([locality]) = e.data.strip_prefix(LOCALITY)
            {
                // A start from another locality leaves its number in register 0.
                let mut start = [0; 32];
                start[31] = *locality;
                out.entry(0).or_insert(Hash32(start));
            }
        }
        out
    }
}

/// The first event, in the form of TPM 1.2: which algorithms follow, and their lengths.
fn spec(input: &mut Input<'_>) -> Result<Vec<(u16, usize)>, LogError> {
    let (register, kind, _sha1) = (input.u32()?, input.u32()?, input.take(20)?);
    let mut body = Input(input.sized()?);
    if register != 0 || kind != NO_ACTION || body.take(SPEC.len()).ok() != Some(SPEC) {
        return Err(LogError::Format("no TPM 2.0 header"));
    }
    body.take(8)?;
    let count = body.u32()? as usize;
    if count > MOST_ALGORITHMS {
        return Err(LogError::Format("too many banks"));
    }
    let all: Vec<(u16, usize)> = (0..count).map(|_| Ok((body.u16()?, usize::from(body.u16()?)))).collect::<Result<_, LogError>>()?;
    let once = |a: &(u16, usize)| all.iter().filter(|b| b.0 == a.0).count() == 1;
    if !all.contains(&(ALG_SHA256, 32)) || !all.iter().all(once) {
        return Err(LogError::Format("no SHA-256 bank"));
    }
    Ok(all)
}

fn event<'a>(input: &mut Input<'a>, algorithms: &[(u16, usize)]) -> Result<Event<'a>, LogError> {
    let register = u8::try_from(input.u32()?).ok().filter(|r| *r < 24).ok_or(LogError::Format("a register above 23"))?;
    let kind = input.u32()?;
    let count = input.u32()? as usize;
    if count != algorithms.len() {
        return Err(LogError::Format("an event without a digest for every bank"));
    }
    let mut digest = None;
    for _ in 0..count {
        let algorithm = input.u16()?;
        let (_, len) = algorithms.iter().find(|a| a.0 == algorithm).ok_or(LogError::Format("an unknown bank"))?;
        let bytes = input.take(*len)?;
        if algorithm == ALG_SHA256 && digest.replace(bytes).is_some() {
            return Err(LogError::Format("two digests for one bank"));
        }
    }
    let digest = digest.and_then(|d| d.try_into().ok()).ok_or(LogError::Format("an event without SHA-256"))?;
    Ok(Event { register, kind, digest: Hash32(digest), data: input.sized()? })
}
