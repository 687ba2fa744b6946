//! What agents, custodians and readers ask.

use hoidla_format::{ByteRange, Hash32, Malformed, Name, Reader, StreamId, Writer, frame, frame::Chain};

use crate::{
    Head, Type,
    audit::{Prove, Witness},
    message::{HEAD, Handle, chain, handle, message, name, put_chain, put_name},
};

/// The most bytes of an update.
pub const MOST_UPDATE: usize = 1 << 20;

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
    /// Answered by [`crate::Response::Opened`].
    Open(Open),
    /// Answered by [`crate::Response::Stream`]s and [`crate::Response::End`].
    List {
        /// Of which dataset.
        dataset: Name,
    },
    /// Answered by [`crate::Response::Health`].
    Health,
    /// Answered by [`crate::Response::Paper`]s and [`crate::Response::End`].
    Papers,
    /// A signed `grant/1`; answered by [`crate::Response::Challenged`]. The same grant again gives the same challenge.
    Propose(Vec<u8>),
    /// A signed `approval/1`; answered by [`crate::Response::Progress`].
    Approve(Vec<u8>),
    /// Ends the opening and the ceremony of a grant, or all; answered by [`crate::Response::Sealed`].
    Seal {
        /// Which grant; none for all.
        grant: Option<Hash32>,
    },
    /// Answered by [`crate::Response::Key`]s and [`crate::Response::End`].
    Keys {
        /// Of which grant.
        grant: Hash32,
    },
    /// Answered by [`crate::Response::Data`]s and [`crate::Response::End`].
    Read(Read),
    /// Answered by [`crate::Response::Extension`].
    Extend {
        /// From the tree of this size; 0 for a checkpoint alone.
        old: u64,
        /// To a checkpoint of at least this size: the appliance waits for it.
        least: u64,
    },
    /// Answered by [`crate::Response::Part`], [`crate::Response::Data`] if a frame was asked for, and [`crate::Response::End`].
    Prove(Prove),
    /// Answered by [`crate::Response::Witnessed`].
    Witness(Witness),
    /// Papers that the authority signed, and parcels; answered by [`crate::Response::Updated`].
    Update(Vec<Vec<u8>>),
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
            Self::Extend { old, least } => {
                w.u64(*old).u64(*least);
            }
            Self::Prove(prove) => prove.encode(&mut w),
            Self::Witness(witness) => witness.encode(&mut w),
            Self::Update(papers) => {
                w.u8(u8::try_from(papers.len()).expect("bounded by the caller"));
                papers.iter().for_each(|p| _ = w.long(p));
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
            Self::Extend { .. } => Type::Extend,
            Self::Prove(_) => Type::Prove,
            Self::Witness(_) => Type::Witness,
            Self::Update(_) => Type::Update,
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
            Type::Extend => Self::Extend { old: r.u64()?, least: r.u64()? },
            Type::Prove => Self::Prove(Prove::parse(&mut r)?),
            Type::Witness => Self::Witness(Witness::parse(&mut r)?),
            Type::Update => {
                let count = r.u8()?;
                Self::Update((0..count).map(|_| Ok(r.long(MOST_UPDATE, "a paper too long")?.to_vec())).collect::<Result<_, Malformed>>()?)
            }
            _ => return Err(Malformed::Field("a message that belongs to the other side")),
        };
        r.finish()?;
        Ok(out)
    }
}
