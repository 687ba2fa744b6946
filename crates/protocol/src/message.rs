//! The messages: `length of body (u32) ‖ type (u8) ‖ body`, after [`HELLO`].
//!
//! Promises: a [`Head`] is refused before its body is read if its type is unknown
//! or its length passes that type's bound; what is parsed cannot be wrong in form.
//! It says nothing about what a peer may send: that is [`crate::Role`]'s and the
//! sessions'.

use hoidla_format::{ByteRange, Hash32, Header, Kind, Malformed, Name, Reader, Writer, frame, frame::Chain, statement};
use hoidla_log::receipt;

use crate::{AppendHead, DataHead, audit, request};

/// The protocol's version.
pub const VERSION: u8 = 1;
/// The first bytes that either side sends.
pub const HELLO: [u8; Header::LEN] = Header::bytes(Kind::Hello, VERSION);
/// Bytes before a message's body.
pub const HEAD: usize = 5;
/// The most streams in one listing entry's epochs.
pub const MOST_EPOCHS: usize = 32 * 1024;
/// The most vaults in one grant's progress or challenge.
pub const MOST_VAULTS: usize = 64;

/// The most bytes of one part of an answer that is cut into parts.
pub(crate) const PART: usize = 1 << 20;
pub(crate) const NOTE: usize = statement::MOST;

macro_rules! types {
    ($($name:ident = $number:literal, $least:expr, $most:expr, $doc:literal;)*) => {
        /// What a message is. The numbers are part of the protocol; from 64 on the appliance speaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Type { $( #[doc = $doc] $name = $number, )* }

        impl Type {
            /// Every type there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The least and the most bytes of such a message's body.
            pub fn bounds(self) -> (usize, usize) {
                match self { $( Self::$name => ($least, $most), )* }
            }
        }
    };
}

types! {
    Open = 1, 0, 256, "Agent: begin or go on with a stream.";
    Append = 2, AppendHead::LEN + frame::HEAD, AppendHead::LEN + frame::MOST, "Agent: one frame.";
    List = 3, 0, 128, "Agent, reader: the streams of a dataset.";
    Health = 4, 0, 0, "Anyone: how the appliance is.";
    Papers = 5, 0, 0, "Anyone: the signed statements the appliance holds.";
    Propose = 6, 1, NOTE, "Custodian: a grant.";
    Approve = 7, 1, NOTE, "Custodian: an approval.";
    Seal = 8, 0, 32, "Custodian: end an opening, or all.";
    Keys = 9, 32, 32, "Reader: the re-wrapped data keys of a grant.";
    Read = 10, 0, 256, "Reader: bytes of a stream.";
    Extend = 11, 16, 16, "Anyone: a signed checkpoint, and the proof that the log only grew.";
    Prove = 12, 0, 128, "Agent: a part of a stream and its place in the log.";
    Witness = 13, 5, audit::MOST_WITNESS, "Agent: another appliance's checkpoint, to be seen and signed here.";
    Update = 14, 1, request::MOST_UPDATE, "Agent, custodian: newer papers that the authority signed.";
    Welcome = 64, 0, 1024, "The first message: which appliance this is.";
    Opened = 65, 0, 128, "Where a stream stands.";
    Acknowledged = 66, 20, 20, "All of a stream before an offset is kept.";
    Window = 67, 4, 4, "So many more bytes may be sent.";
    Stream = 68, 0, PART, "One stream of a listing.";
    Paper = 69, 1, NOTE, "One signed statement.";
    Challenged = 70, 0, PART, "What approvals of a grant must bind to.";
    Progress = 71, 0, 16 * 1024, "How far a ceremony is.";
    Sealed = 72, 4, 4, "So many openings have ended.";
    Key = 73, 0, 8 * 1024, "One re-wrapped data key.";
    Data = 74, DataHead::LEN, DataHead::LEN + PART, "Bytes of a stream.";
    End = 75, 8, 8, "The last of an answer in parts, and how many there were.";
    HealthReport = 76, 0, 256, "How the appliance is.";
    Extension = 77, 1, receipt::MOST, "A signed checkpoint, and the proof that the log only grew.";
    Part = 78, audit::PART_BOUNDS.0, audit::PART_BOUNDS.1, "A part of a stream and its place in the log.";
    Witnessed = 79, 1, receipt::MOST_CHECKPOINT, "A checkpoint with this appliance's line below it.";
    Updated = 80, 5, 5, "Which site file was taken, and whether it is in force.";
    Refused = 127, 0, 2048, "No.";
}

impl Type {
    fn from_number(n: u8) -> Result<Self, Malformed> {
        Self::ALL.iter().copied().find(|t| *t as u8 == n).ok_or(Malformed::Field("an unknown message type"))
    }

    /// Whether the appliance sends it.
    pub fn from_appliance(self) -> bool {
        self as u8 >= 64
    }
}

/// What a message is and how long its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What.
    pub kind: Type,
    /// Bytes of body.
    pub len: usize,
}

impl Head {
    /// Parses a head; refuses unknown types and lengths outside the type's bounds.
    pub fn parse(bytes: &[u8; HEAD]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let (len, number) = (r.u32()? as usize, r.u8()?);
        let kind = Type::from_number(number)?;
        let (least, most) = kind.bounds();
        if !(least..=most).contains(&len) {
            return Err(Malformed::Field("a message of a length that its type doesn't allow"));
        }
        Ok(Self { kind, len })
    }

    /// The head as bytes.
    pub fn bytes(self) -> [u8; HEAD] {
        debug_assert!((self.kind.bounds().0..=self.kind.bounds().1).contains(&self.len), "{self:?} is out of bounds");
        let mut out = [self.kind as u8; HEAD];
        out[..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        out
    }
}

/// A stream's number within one connection; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u32);

pub(crate) fn handle(r: &mut Reader<'_>) -> Result<Handle, Malformed> {
    match r.u32()? {
        0 => Err(Malformed::Field("a stream's handle of 0")),
        n => Ok(Handle(n)),
    }
}

pub(crate) fn name(r: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::from_bytes(r.short(Name::MOST, "a name too long")?)
}

pub(crate) fn put_name(w: &mut Writer, name: &Name) {
    w.short(name.as_str().as_bytes());
}

pub(crate) fn flag(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Field("a flag that is neither 0 nor 1")),
    }
}

pub(crate) fn chain(r: &mut Reader<'_>) -> Result<Chain, Malformed> {
    let chain = Chain { length: r.u64()?, root: Hash32(r.array()?) };
    ByteRange::new(0, chain.length)?;
    if chain.length == 0 && chain != Chain::EMPTY {
        return Err(Malformed::Field("a root of no bytes"));
    }
    Ok(chain)
}

pub(crate) fn put_chain(w: &mut Writer, c: &Chain) {
    w.u64(c.length).put(&c.root.0);
}

pub(crate) fn list<'a, T>(
    r: &mut Reader<'a>,
    most: usize,
    what: &'static str,
    item: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = usize::from(r.u16()?);
    if count > most || count > r.left() {
        return Err(Malformed::Field(what));
    }
    (0..count).map(|_| item(r)).collect()
}

pub(crate) fn put_count(w: &mut Writer, count: usize) {
    w.u16(u16::try_from(count).expect("bounded by the caller"));
}

pub(crate) fn message(kind: Type, body: Writer) -> Vec<u8> {
    let body = body.finish();
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend(Head { kind, len: body.len() }.bytes());
    out.extend(body);
    out
}
