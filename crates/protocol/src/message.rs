//! The messages: `length of body (u32) ‖ type (u8) ‖ body`, after [`HELLO`].
//!
//! Promises: a [`Head`] is refused before its body is read if its type is unknown
//! or its length passes that type's bound; what is parsed cannot be wrong in form.
//! It says nothing about what a peer may send: that is [`crate::Role`]'s and the
//! sessions'.

use hoidla_format::{ByteRange, Hash32, Header, Kind, Malformed, Name, Reader, StreamId, Writer, frame, frame::Chain, statement};

use crate::Refused;

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
const PART: usize = 1 << 20;
const NOTE: usize = statement::MOST;

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

/// Begin or go on with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The generation it belongs to.
    pub generation: u32,
    /// The last acknowledgement the agent remembers; [`Chain::EMPTY`] if none.
    pub last: Chain,
}

/// Where a stream stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number on this connection.
    pub handle: Handle,
    /// The last epoch of which the store holds a byte; 0 if none.
    pub epoch: u32,
    /// Whether that epoch takes no more: begin the next.
    pub closed: bool,
    /// What the store holds: length and chain's root.
    pub acknowledged: Chain,
}

/// What stands before an appended frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendHead {
    /// The stream.
    pub handle: Handle,
    /// The epoch the frame belongs to.
    pub epoch: u32,
    /// The frame's offset in the stream.
    pub offset: u64,
}

impl AppendHead {
    /// Bytes of it.
    pub const LEN: usize = 16;

    /// The head as bytes.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.handle.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// The head of a message and this one, to be followed by a frame of `frame` bytes.
    pub fn message(&self, frame: usize) -> [u8; HEAD + Self::LEN] {
        let mut out = [0; HEAD + Self::LEN];
        out[..HEAD].copy_from_slice(&Head { kind: Type::Append, len: Self::LEN + frame }.bytes());
        out[HEAD..].copy_from_slice(&self.bytes());
        out
    }

    /// Parses it; refuses handle 0, epoch 0 and offsets past the end of any stream.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let out = Self { handle: handle(&mut r)?, epoch: r.u32()?, offset: r.u64()? };
        if out.epoch == 0 {
            return Err(Malformed::Field("epochs are counted from 1"));
        }
        ByteRange::new(out.offset, frame::MOST as u64)?;
        Ok(out)
    }
}

/// What stands before bytes that were read: their offset in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHead {
    /// The first byte's offset in the stream.
    pub offset: u64,
}

impl DataHead {
    /// Bytes of it.
    pub const LEN: usize = 8;

    /// The head of a message and this one, to be followed by `len` bytes.
    pub fn message(&self, len: usize) -> [u8; HEAD + Self::LEN] {
        let mut out = [0; HEAD + Self::LEN];
        out[..HEAD].copy_from_slice(&Head { kind: Type::Data, len: Self::LEN + len }.bytes());
        out[HEAD..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }
}

/// Bytes of a stream, please.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The grant under which.
    pub grant: Hash32,
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// Which bytes; cut to what the stream has.
    pub range: ByteRange,
}

/// What an agent, a custodian or a reader asks. An append is not among them: its
/// payload is read by the caller straight to where it belongs ([`AppendHead`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answered by [`Response::Opened`].
    Open(Open),
    /// Answered by [`Response::Stream`]s and [`Response::End`].
    List {
        /// Of which dataset.
        dataset: Name,
    },
    /// Answered by [`Response::Health`].
    Health,
    /// Answered by [`Response::Paper`]s and [`Response::End`].
    Papers,
    /// A signed `grant/1`; answered by [`Response::Challenged`]. The same grant again gives the same challenge.
    Propose(Vec<u8>),
    /// A signed `approval/1`; answered by [`Response::Progress`].
    Approve(Vec<u8>),
    /// Ends the opening and the ceremony of a grant, or all; answered by [`Response::Sealed`].
    Seal {
        /// Which grant; none for all.
        grant: Option<Hash32>,
    },
    /// Answered by [`Response::Key`]s and [`Response::End`].
    Keys {
        /// Of which grant.
        grant: Hash32,
    },
    /// Answered by [`Response::Data`]s and [`Response::End`].
    Read(Read),
}

/// Which appliance this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its site.
    pub site: Name,
    /// Its name.
    pub appliance: Name,
    /// SHA-256 of the site statement in force.
    pub site_hash: Hash32,
    /// That statement's serial.
    pub site_serial: u32,
    /// The running release.
    pub release: Name,
    /// Whether that is a development release: every screen says so.
    pub development: bool,
    /// Bytes of appends that may be under way at first; 0 for who may not append.
    pub window: u32,
}

/// One epoch of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number.
    pub epoch: u32,
    /// The offset of its header's frame.
    pub start: u64,
}

/// One stream of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// The stream.
    pub stream: StreamId,
    /// The generation it belongs to.
    pub generation: u32,
    /// Its bytes.
    pub bytes: u64,
    /// Its epochs, rising.
    pub epochs: Vec<Epoch>,
}

/// How many of the shares of one vault have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultProgress {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// Shares that came and were good.
    pub have: u8,
    /// Shares that open.
    pub need: u8,
}

/// How far a ceremony is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The grant.
    pub grant: Hash32,
    /// Whether it is open now.
    pub opened: bool,
    /// Seconds until the opening, or the challenge, ends.
    pub seconds_left: u32,
    /// By vault.
    pub vaults: Vec<VaultProgress>,
}

/// One re-wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The epoch.
    pub epoch: u32,
    /// The data key, sealed to the reader.
    pub sealed: Vec<u8>,
}

/// How the appliance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Health {
    /// Copies that the site configured.
    pub copies: u8,
    /// Disks that are current.
    pub current: u8,
    /// Bytes that all streams may have.
    pub capacity: u64,
    /// Bytes in use.
    pub used: u64,
    /// Streams.
    pub streams: u64,
    /// Leaves of the log.
    pub log_size: u64,
    /// Damaged records found and not repaired since the start.
    pub damaged: u64,
    /// Alarms since the start: stores behind their agents, forks.
    pub alarms: u64,
    /// Grants that are open now.
    pub openings: u16,
    /// Seconds since the start.
    pub uptime: u64,
}

/// What the appliance answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The first message.
    Welcome(Welcome),
    /// Where a stream stands.
    Opened(Opened),
    /// All of a stream before `before` is on every current disk.
    Acknowledged {
        /// The stream.
        handle: Handle,
        /// Everything before this offset.
        before: u64,
        /// Leaves of the log, this one included.
        log_size: u64,
    },
    /// So many more bytes of appends may be sent.
    Window {
        /// Bytes.
        bytes: u32,
    },
    /// One stream of a listing.
    Stream(StreamEntry),
    /// One signed statement.
    Paper(Vec<u8>),
    /// What approvals of a grant must bind to.
    Challenged {
        /// The `challenge/1` statement's text, unsigned: the door's certificate vouches for it.
        challenge: String,
        /// The signed `vault/1` of each vault that the grant covers.
        vaults: Vec<Vec<u8>>,
        /// The signed `envelopes/1` of each, for the quorum's door.
        envelopes: Vec<Vec<u8>>,
    },
    /// How far a ceremony is.
    Progress(Progress),
    /// Openings and ceremonies that have ended.
    Sealed {
        /// How many.
        count: u32,
    },
    /// One re-wrapped data key.
    Key(Key),
    /// Bytes of a stream.
    Data {
        /// The first byte's offset.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The last of an answer in parts.
    End {
        /// How many parts there were.
        count: u64,
    },
    /// How the appliance is.
    Health(Health),
    /// No.
    Refused(Refused),
}

fn handle(r: &mut Reader<'_>) -> Result<Handle, Malformed> {
    match r.u32()? {
        0 => Err(Malformed::Field("a stream's handle of 0")),
        n => Ok(Handle(n)),
    }
}

fn name(r: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::from_bytes(r.short(Name::MOST, "a name too long")?)
}

fn put_name(w: &mut Writer, name: &Name) {
    w.short(name.as_str().as_bytes());
}

fn flag(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Field("a flag that is neither 0 nor 1")),
    }
}

fn chain(r: &mut Reader<'_>) -> Result<Chain, Malformed> {
    let chain = Chain { length: r.u64()?, root: Hash32(r.array()?) };
    ByteRange::new(0, chain.length)?;
    if chain.length == 0 && chain != Chain::EMPTY {
        return Err(Malformed::Field("a root of no bytes"));
    }
    Ok(chain)
}

fn put_chain(w: &mut Writer, c: &Chain) {
    w.u64(c.length).put(&c.root.0);
}

fn list<'a, T>(
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

fn put_count(w: &mut Writer, count: usize) {
    w.u16(u16::try_from(count).expect("bounded by the caller"));
}

fn message(kind: Type, body: Writer) -> Vec<u8> {
    let body = body.finish();
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend(Head { kind, len: body.len() }.bytes());
    out.extend(body);
    out
}

impl Request {
    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Open(o) => {
                put_name(&mut w, &o.dataset);
                w.put(&o.stream.0).u32(o.generation);
                put_chain(&mut w, &o.last);
            }
            Self::List { dataset } => put_name(&mut w, dataset),
            Self::Health | Self::Papers => {}
            Self::Propose(note) | Self::Approve(note) => {
                w.put(note);
            }
            Self::Seal { grant } => {
                w.put(grant.as_ref().map_or(&[][..], |g| &g.0));
            }
            Self::Keys { grant } => {
                w.put(&grant.0);
            }
            Self::Read(read) => {
                w.put(&read.grant.0);
                put_name(&mut w, &read.dataset);
                w.put(&read.stream.0).u64(read.range.at()).u64(read.range.len());
            }
        }
        message(self.kind(), w)
    }

    /// Which type it is.
    pub fn kind(&self) -> Type {
        match self {
            Self::Open(_) => Type::Open,
            Self::List { .. } => Type::List,
            Self::Health => Type::Health,
            Self::Papers => Type::Papers,
            Self::Propose(_) => Type::Propose,
            Self::Approve(_) => Type::Approve,
            Self::Seal { .. } => Type::Seal,
            Self::Keys { .. } => Type::Keys,
            Self::Read(_) => Type::Read,
        }
    }

    /// Parses a body whose head was accepted; an append is refused here.
    pub fn parse(kind: Type, body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let out = match kind {
            Type::Open => {
                Self::Open(Open { dataset: name(&mut r)?, stream: StreamId(r.array()?), generation: r.u32()?, last: chain(&mut r)? })
            }
            Type::List => Self::List { dataset: name(&mut r)? },
            Type::Health => Self::Health,
            Type::Papers => Self::Papers,
            Type::Propose => Self::Propose(r.rest().to_vec()),
            Type::Approve => Self::Approve(r.rest().to_vec()),
            Type::Seal if body.is_empty() => Self::Seal { grant: None },
            Type::Seal => Self::Seal { grant: Some(Hash32(r.array()?)) },
            Type::Keys => Self::Keys { grant: Hash32(r.array()?) },
            Type::Read => Self::Read(Read {
                grant: Hash32(r.array()?),
                dataset: name(&mut r)?,
                stream: StreamId(r.array()?),
                range: ByteRange::new(r.u64()?, r.u64()?)?,
            }),
            _ => return Err(Malformed::Field("a message that belongs to the other side")),
        };
        r.finish()?;
        Ok(out)
    }
}

impl Response {
    /// The whole message.
    ///
    /// # Panics
    /// If a list or a note is longer than its bound: the caller's mistake.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Welcome(v) => encode_welcome(&mut w, v),
            Self::Opened(o) => {
                w.u32(o.handle.0).u32(o.epoch).u8(o.closed.into());
                put_chain(&mut w, &o.acknowledged);
            }
            Self::Acknowledged { handle, before, log_size } => {
                w.u32(handle.0).u64(*before).u64(*log_size);
            }
            Self::Window { bytes } => {
                w.u32(*bytes);
            }
            Self::Stream(s) => {
                w.put(&s.stream.0).u32(s.generation).u64(s.bytes);
                put_count(&mut w, s.epochs.len());
                for e in &s.epochs {
                    w.u32(e.epoch).u64(e.start);
                }
            }
            Self::Paper(note) => {
                w.put(note);
            }
            Self::Challenged { challenge, vaults, envelopes } => {
                w.long(challenge.as_bytes());
                for notes in [vaults, envelopes] {
                    put_count(&mut w, notes.len());
                    for note in notes {
                        w.long(note);
                    }
                }
            }
            Self::Progress(p) => encode_progress(&mut w, p),
            Self::Sealed { count } => {
                w.u32(*count);
            }
            Self::Key(k) => {
                put_name(&mut w, &k.dataset);
                w.put(&k.stream.0).u32(k.epoch).short(&k.sealed);
            }
            Self::Data { offset, bytes } => {
                w.u64(*offset).put(bytes);
            }
            Self::End { count } => {
                w.u64(*count);
            }
            Self::Health(h) => encode_health(&mut w, h),
            Self::Refused(refused) => refused.encode(&mut w),
        }
        message(self.kind(), w)
    }

    /// Which type it is.
    pub fn kind(&self) -> Type {
        match self {
            Self::Welcome(_) => Type::Welcome,
            Self::Opened(_) => Type::Opened,
            Self::Acknowledged { .. } => Type::Acknowledged,
            Self::Window { .. } => Type::Window,
            Self::Stream(_) => Type::Stream,
            Self::Paper(_) => Type::Paper,
            Self::Challenged { .. } => Type::Challenged,
            Self::Progress(_) => Type::Progress,
            Self::Sealed { .. } => Type::Sealed,
            Self::Key(_) => Type::Key,
            Self::Data { .. } => Type::Data,
            Self::End { .. } => Type::End,
            Self::Health(_) => Type::HealthReport,
            Self::Refused(_) => Type::Refused,
        }
    }

    /// Parses a body whose head was accepted.
    pub fn parse(kind: Type, body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let out = match kind {
            Type::Welcome => Self::Welcome(parse_welcome(&mut r)?),
            Type::Opened => {
                Self::Opened(Opened { handle: handle(&mut r)?, epoch: r.u32()?, closed: flag(&mut r)?, acknowledged: chain(&mut r)? })
            }
            Type::Acknowledged => Self::Acknowledged { handle: handle(&mut r)?, before: r.u64()?, log_size: r.u64()? },
            Type::Window => Self::Window { bytes: r.u32()? },
            Type::Stream => Self::Stream(parse_stream(&mut r)?),
            Type::Paper => Self::Paper(r.rest().to_vec()),
            Type::Challenged => parse_challenged(&mut r)?,
            Type::Progress => Self::Progress(parse_progress(&mut r)?),
            Type::Sealed => Self::Sealed { count: r.u32()? },
            Type::Key => Self::Key(Key {
                dataset: name(&mut r)?,
                stream: StreamId(r.array()?),
                epoch: r.u32()?,
                sealed: r.short(4096, "a wrapped key too long")?.to_vec(),
            }),
            Type::Data => Self::Data { offset: r.u64()?, bytes: r.rest().to_vec() },
            Type::End => Self::End { count: r.u64()? },
            Type::HealthReport => Self::Health(parse_health(&mut r)?),
            Type::Refused => Self::Refused(Refused::parse(&mut r)?),
            _ => return Err(Malformed::Field("a message that belongs to the other side")),
        };
        r.finish()?;
        Ok(out)
    }
}

fn encode_welcome(w: &mut Writer, v: &Welcome) {
    put_name(w, &v.site);
    put_name(w, &v.appliance);
    w.put(&v.site_hash.0).u32(v.site_serial);
    put_name(w, &v.release);
    w.u8(v.development.into()).u32(v.window);
}

fn parse_welcome(r: &mut Reader<'_>) -> Result<Welcome, Malformed> {
    Ok(Welcome {
        site: name(r)?,
        appliance: name(r)?,
        site_hash: Hash32(r.array()?),
        site_serial: r.u32()?,
        release: name(r)?,
        development: flag(r)?,
        window: r.u32()?,
    })
}

fn parse_stream(r: &mut Reader<'_>) -> Result<StreamEntry, Malformed> {
    let entry = StreamEntry {
        stream: StreamId(r.array()?),
        generation: r.u32()?,
        bytes: r.u64()?,
        epochs: list(r, MOST_EPOCHS, "too many epochs", |r| Ok(Epoch { epoch: r.u32()?, start: r.u64()? }))?,
    };
    let rising = entry.epochs.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start);
    let within = entry.epochs.iter().all(|e| e.epoch > 0 && e.start < entry.bytes);
    if rising && within { Ok(entry) } else { Err(Malformed::Field("epochs that don't rise within their stream")) }
}

fn parse_challenged(r: &mut Reader<'_>) -> Result<Response, Malformed> {
    let challenge = std::str::from_utf8(r.long(NOTE, "a challenge too long")?)
        .map_err(|_| Malformed::Field("a challenge that is not text"))?
        .to_owned();
    let notes = |r: &mut Reader<'_>| list(r, MOST_VAULTS, "too many vaults", |r| Ok(r.long(NOTE, "a note too long")?.to_vec()));
    Ok(Response::Challenged { challenge, vaults: notes(r)?, envelopes: notes(r)? })
}

fn encode_progress(w: &mut Writer, p: &Progress) {
    w.put(&p.grant.0).u8(p.opened.into()).u32(p.seconds_left);
    put_count(w, p.vaults.len());
    for v in &p.vaults {
        put_name(w, &v.dataset);
        w.u32(v.vault_epoch).u8(v.have).u8(v.need);
    }
}

fn parse_progress(r: &mut Reader<'_>) -> Result<Progress, Malformed> {
    Ok(Progress {
        grant: Hash32(r.array()?),
        opened: flag(r)?,
        seconds_left: r.u32()?,
        vaults: list(r, MOST_VAULTS, "too many vaults", |r| {
            Ok(VaultProgress { dataset: name(r)?, vault_epoch: r.u32()?, have: r.u8()?, need: r.u8()? })
        })?,
    })
}

fn encode_health(w: &mut Writer, h: &Health) {
    w.u8(h.copies).u8(h.current).u64(h.capacity).u64(h.used).u64(h.streams).u64(h.log_size);
    w.u64(h.damaged).u64(h.alarms).u16(h.openings).u64(h.uptime);
}

fn parse_health(r: &mut Reader<'_>) -> Result<Health, Malformed> {
    Ok(Health {
        copies: r.u8()?,
        current: r.u8()?,
        capacity: r.u64()?,
        used: r.u64()?,
        streams: r.u64()?,
        log_size: r.u64()?,
        damaged: r.u64()?,
        alarms: r.u64()?,
        openings: r.u16()?,
        uptime: r.u64()?,
    })
}
