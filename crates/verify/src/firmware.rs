//! What a firmware did before it started the image, by its own log of register 4.
//!
//! Promises: [`Launch`] tells what the firmware measured of itself from programs that came from a
//! disk or the network, and [`Launch::surprises`] holds the former against what a profile
//! recorded: the same digests in the same order, or a sentence for each difference that says what
//! to do. It explains and doesn't judge: whether register 4 is one that a release approves, the TPM says. Where a
//! program came from is the firmware's word, and never decides but between sentences.

use std::fmt;

use hoidla_format::Hash32;
use thiserror::Error;

use crate::{
    eventlog::{APPLICATION, Event, Log},
    public::sha256,
};

/// What firmware says before it starts a boot entry's program.
pub const CALLING: &[u8] = b"Calling EFI Application from Boot Option";
/// What it says once a boot entry's program came back, or wasn't there.
pub const RETURNING: &[u8] = b"Returning from EFI Application from Boot Option";
/// What ends the firmware's own part of a register.
pub const SEPARATOR: &[u8] = &[0; 4];
/// The register that programs are measured into.
const REGISTER: u8 = 4;
/// Events of programs and drivers that firmware started: application, and the two kinds of drivers.
const PROGRAMS: std::ops::RangeInclusive<u32> = APPLICATION..=0x8000_0005;
/// The most bytes of a program's name that are told.
const NAME: usize = 96;

/// What every firmware measures into register 4 before the image, if it measures nothing else.
pub fn usual() -> [Hash32; 2] {
    [hash(CALLING), hash(SEPARATOR)]
}

/// What stands in register 4 before the image: what a profile recorded, or else what is usual.
pub fn before_image(recorded: &[Hash32]) -> Vec<Hash32> {
    if recorded.is_empty() { usual().to_vec() } else { recorded.to_vec() }
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(sha256(&[bytes]))
}

/// A difference between what firmware did and what its profile has: a sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Surprise {
    /// The firmware did something of its own that nobody recorded.
    #[error(
        "before the image the firmware measured into register 4 what the profile doesn't have: {what} (SHA-256 {digest}): switch it off in the \
         firmware's setup (system preparation, a vendor's agent), or have home record it with hoidlad profile capture and sign a release for it"
    )]
    Unexplained {
        /// The event's digest.
        digest: Hash32,
        /// What it is, as far as the log tells.
        what: String,
    },
    /// The firmware left out what was recorded of it.
    #[error(
        "the firmware no longer does what the profile recorded of it (SHA-256 {digest} in register 4): its setup was changed or it was updated; \
         put that back, or have home record it anew with hoidlad profile capture and sign a release for it"
    )]
    Missing {
        /// The digest that is missing.
        digest: Hash32,
    },
    /// All of it, in another order.
    #[error(
        "the firmware did what the profile recorded of it in another order: its setup was changed or it was updated; put that back, or have \
         home record it anew with hoidlad profile capture and sign a release for it"
    )]
    Order,
    /// Boot entries came before ours and didn't start.
    #[error(
        "the firmware tried {0} other boot {entries} first, which didn't start, and register 4 tells that forever after: make Hoidla's entry the first \
         one in the firmware's setup, delete the others, pull every other stick, and start again",
        entries = if *.0 == 1 { "entry" } else { "entries" }
    )]
    CameBack(usize),
    /// Something else of a disk ran before the image.
    #[error(
        "another program ran before the image: {0}: delete it on the boot disk, make Hoidla's boot entry the first one in the firmware's setup, \
         and start again"
    )]
    Before(Origin),
}

/// Where a program came from, as the firmware tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A part of the firmware, or of a card.
    Firmware,
    /// A disk or a network: the path of its file, if it has one.
    Outside(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware => f.write_str("a program of the firmware itself"),
            Self::Outside(path) if path.is_empty() => f.write_str("a program of a disk or network"),
            Self::Outside(path) => write!(f, "the program {path}"),
        }
    }
}

impl Origin {
    /// From an event's data (UEFI_IMAGE_LOAD_EVENT): three numbers, and a device path of so many bytes.
    pub fn of(data: &[u8]) -> Self {
        let path = data.get(24..32).and_then(|n| n.first_chunk()).map(|n| u64::from_le_bytes(*n));
        let path = path.and_then(|len| data.get(32..)?.get(..usize::try_from(len).ok()?));
        let (mut outside, mut file) = (path.is_none(), String::new());
        let mut rest = path.unwrap_or_default();
        while let [kind, sub, low, high, ..] = *rest {
            let len = usize::from(u16::from_le_bytes([low, high]));
            let Some(node) = rest.get(4..len) else { break };
            match (kind, sub) {
                // A cable, a card or a network; a partition; a disc.
                (3, _) | (4, 1 | 2) => outside = true,
                (4, 4) => file = name(node),
                _ => {}
            }
            rest = &rest[len..];
        }
        if outside { Self::Outside(file) } else { Self::Firmware }
    }
}

/// A file's path as text: UTF-16 with a zero at its end; nothing that would steer a terminal.
fn name(node: &[u8]) -> String {
    let units = node.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).take_while(|u| *u != 0);
    char::decode_utf16(units).map(|c| c.ok().filter(|c| !c.is_control()).unwrap_or('?')).take(NAME).collect()
}

/// What is known of an event, for people.
fn what(event: &Event<'_>) -> String {
    let usual = usual();
    match event.digest {
        d if d == usual[0] => "the call of the boot entry".into(),
        d if d == usual[1] => "the end of the firmware's own part".into(),
        _ if PROGRAMS.contains(&event.kind) => Origin::of(event.data).to_string(),
        _ => format!("an event of type {:#010x}", event.kind),
    }
}

/// A start of the machine, as its firmware logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch<'a> {
    own: Vec<Event<'a>>,
    came_back: usize,
    programs: Vec<Event<'a>>,
}

impl<'a> Launch<'a> {
    /// From the whole log; `recorded` are the digests of the profile's firmware events.
    pub fn of(log: &Log<'a>, recorded: &[Hash32]) -> Self {
        let events: Vec<&Event<'a>> = log.of(REGISTER).collect();
        let attempts: Vec<&[&Event<'a>]> = events.split(|e| e.digest == hash(RETURNING)).collect();
        let program =
            |e: &&&Event<'a>| PROGRAMS.contains(&e.kind) && !recorded.contains(&e.digest) && Origin::of(e.data) != Origin::Firmware;
        let (first, last) = (attempts.first().copied().unwrap_or_default(), attempts.last().copied().unwrap_or_default());
        Self {
            own: first.iter().filter(|e| !program(e)).map(|e| (*e).clone()).collect(),
            came_back: attempts.len().saturating_sub(1),
            programs: last.iter().filter(program).map(|e| (*e).clone()).collect(),
        }
    }

    /// How many boot entries were tried before, and came back or weren't there.
    pub fn came_back(&self) -> usize {
        self.came_back
    }

    /// For a profile: what this firmware measures before the image, and what that is; empty if it is what is usual.
    pub fn to_record(&self) -> Vec<(Hash32, String)> {
        let usual = self.own.iter().map(|e| e.digest).eq(usual());
        self.own.iter().filter(|_| !usual).map(|e| (e.digest, what(e))).collect()
    }

    /// How the firmware's own part differs from what was recorded (empty: from what is usual).
    pub fn surprises(&self, recorded: &[Hash32]) -> Vec<Surprise> {
        let expected = before_image(recorded);
        let own: Vec<Hash32> = self.own.iter().map(|e| e.digest).collect();
        let unexplained = self.own.iter().filter(|e| !expected.contains(&e.digest));
        let unexplained = unexplained.map(|e| Surprise::Unexplained { digest: e.digest, what: what(e) });
        let missing = expected.iter().filter(|d| !own.contains(d)).map(|d| Surprise::Missing { digest: *d });
        let mut out: Vec<Surprise> = unexplained.chain(missing).collect();
        if out.is_empty() && own != expected {
            out.push(Surprise::Order);
        }
        if self.came_back > 0 {
            out.push(Surprise::CameBack(self.came_back));
        }
        out
    }

    /// Programs that ran between firmware and the last program: for an image that starts no other one.
    pub fn between(&self) -> Vec<Surprise> {
        let before = &self.programs[..self.programs.len().saturating_sub(1)];
        before.iter().map(|e| Surprise::Before(Origin::of(e.data))).collect()
    }
}
