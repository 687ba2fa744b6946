//! What the appliance answers.

use hoidla_format::{Hash32, Malformed, Name, Reader, StreamId, Writer, frame::Chain};

use crate::{
    Head, Refused, Type,
    audit::Part,
    message::{HEAD, Handle, MOST_EPOCHS, MOST_VAULTS, NOTE, chain, flag, handle, list, message, name, put_chain, put_count, put_name},
};

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
    /// Days of running for which its generation is kept at least from now on; [`u32::MAX`] while
    /// no time ends it.
    pub kept_days: u32,
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
    /// A signed checkpoint, and the proof that the log only grew: [`hoidla_log::Extension`] as a file.
    Extension(Vec<u8>),
    /// A part of a stream and its place in the log.
    Part(Part),
    /// A signed checkpoint with this appliance's line below it.
    Witnessed(Vec<u8>),
    /// What became of an update.
    Updated {
        /// The serial of the newest site file that is kept.
        serial: u32,
        /// Whether it comes into force at once; otherwise as soon as nothing is being opened.
        in_force: bool,
    },
    /// No.
    Refused(Refused),
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
                w.put(&s.stream.0).u32(s.generation).u64(s.bytes).u32(s.kept_days);
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
            Self::Updated { serial, in_force } => {
                w.u32(*serial).u8((*in_force).into());
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
            Self::Extension(note) | Self::Witnessed(note) => {
                w.put(note);
            }
            Self::Part(part) => part.encode(&mut w),
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
            Self::Extension(_) => Type::Extension,
            Self::Part(_) => Type::Part,
            Self::Witnessed(_) => Type::Witnessed,
            Self::Updated { .. } => Type::Updated,
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
            Type::Extension => Self::Extension(r.rest().to_vec()),
            Type::Part => Self::Part(Part::parse(&mut r)?),
            Type::Witnessed => Self::Witnessed(r.rest().to_vec()),
            Type::Updated => Self::Updated { serial: r.u32()?, in_force: flag(&mut r)? },
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

/// The most bytes of one stream: 2^63.
const MOST_BYTES: u64 = 1 << 63;

fn parse_stream(r: &mut Reader<'_>) -> Result<StreamEntry, Malformed> {
    let entry = StreamEntry {
        stream: StreamId(r.array()?),
        generation: r.u32()?,
        bytes: r.u64()?,
        kept_days: r.u32()?,
        epochs: list(r, MOST_EPOCHS, "too many epochs", |r| Ok(Epoch { epoch: r.u32()?, start: r.u64()? }))?,
    };
    if entry.bytes > MOST_BYTES {
        return Err(Malformed::Field("a stream longer than any can be"));
    }
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
