//! What an auditor of the log asks, and what is answered: checkpoints, proofs, possession.
//!
//! Promises: bounded; a [`Part`] exists only if its frames lead from the chain before it to
//! its leaf. Whether the leaf is in a tree that somebody signed is for who asked to check
//! ([`Part::receipt`]).

use hoidla_format::{Hash32, Leaf, Malformed, Name, Reader, StreamId, Writer, disk::batch::Entry, frame, frame::Chain};
use hoidla_log::{Receipt, ReceiptError, SignedCheckpoint, receipt};

use crate::message::{flag, name, put_name};

/// The most frames under one leaf: more don't fit the front of a batch, 48 bytes of line and frame each at least.
pub const MOST_FRAMES: usize = 24_000;
/// The most papers of a witness's question.
pub const MOST_PAPERS: usize = 64;
/// The most bytes of a witness's question.
pub const MOST_WITNESS: usize = 256 << 10;
/// The least and the most bytes of a [`Part`].
pub const PART_BOUNDS: (usize, usize) = (100, MOST_FRAMES * 36 + receipt::MOST_HASHES * 32 + 512);

/// The part of a stream that covers an offset, please, and where it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prove {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// A byte of the stream.
    pub offset: u64,
    /// The size of the tree in which the leaf is to be proven.
    pub size: u64,
    /// Whether the frame at the offset is to be sent too: possession.
    pub frame: bool,
}

impl Prove {
    pub(crate) fn encode(&self, w: &mut Writer) {
        put_name(w, &self.dataset);
        w.put(&self.stream.0).u64(self.offset).u64(self.size).u8(self.frame.into());
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { dataset: name(r)?, stream: StreamId(r.array()?), offset: r.u64()?, size: r.u64()?, frame: flag(r)? })
    }
}

/// One stream's part of one group commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which leaf of the log.
    pub index: u64,
    /// The leaf.
    pub leaf: Leaf,
    /// That it is in the tree of the size asked for.
    pub proof: Vec<Hash32>,
    /// The chain's root before the part.
    pub before: Hash32,
    /// The frames of the part, in order.
    pub frames: Vec<Entry>,
}

impl Part {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.index).short(&self.leaf.to_bytes()).u8(self.proof.len() as u8);
        self.proof.iter().for_each(|h| _ = w.put(&h.0));
        w.put(&self.before.0).u16(u16::try_from(self.frames.len()).expect("bounded by the caller"));
        self.frames.iter().for_each(|f| _ = w.u32(f.len).put(&f.hash.0));
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (index, leaf) = (r.u64()?, Leaf::from_bytes(r.short(256, "a leaf too long")?)?);
        let hashes = usize::from(r.u8()?);
        if hashes > receipt::MOST_HASHES {
            return Err(Malformed::Field("a proof too long"));
        }
        let proof = (0..hashes).map(|_| r.array().map(Hash32)).collect::<Result<_, _>>()?;
        let before = Hash32(r.array()?);
        let count = usize::from(r.u16()?);
        if count > MOST_FRAMES || count * 36 > r.left() {
            return Err(Malformed::Field("more frames than a part has"));
        }
        let frames = (0..count).map(|_| Ok(Entry { len: r.u32()?, hash: Hash32(r.array()?) })).collect::<Result<Vec<_>, Malformed>>()?;
        if frames.iter().any(|f| f.len as usize > frame::MOST || f.len == 0) {
            return Err(Malformed::Field("a frame of a length that none has"));
        }
        let begin = Chain { root: before, length: leaf.part.at() };
        let end = frames.iter().fold(begin, |chain, f| chain.then(&f.hash, f.len));
        if (end != Chain { root: leaf.root, length: leaf.part.end() }) || (begin.length == 0 && begin != Chain::EMPTY) {
            return Err(Malformed::Field("frames that don't lead to their leaf"));
        }
        Ok(Self { index, leaf, proof, before, frames })
    }

    /// The receipt that it gives under a checkpoint of the size that was asked for.
    pub fn receipt(&self, checkpoint: &SignedCheckpoint) -> Result<Receipt, ReceiptError> {
        Receipt::new(self.leaf.clone(), self.index, self.proof.clone(), checkpoint.clone())
    }

    /// Where in the stream the frame that covers an offset begins, its length and its hash.
    pub fn frame_at(&self, offset: u64) -> Option<(u64, Entry)> {
        let mut at = self.leaf.part.at();
        self.frames.iter().find_map(|f| {
            let begin = at;
            at += u64::from(f.len);
            (begin..at).contains(&offset).then_some((begin, *f))
        })
    }
}

/// Another appliance's head, to be held against the last one seen here, and signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its papers: site file, release, enrolment, identity.
    pub papers: Vec<Vec<u8>>,
    /// An extension ([`hoidla_log::Extension`]) from the size last seen here, or from 0.
    pub extension: Vec<u8>,
}

impl Witness {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.long(&self.extension).u8(u8::try_from(self.papers.len()).expect("bounded by the caller"));
        self.papers.iter().for_each(|p| _ = w.long(p));
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let extension = r.long(receipt::MOST, "an extension too long")?.to_vec();
        let count = usize::from(r.u8()?);
        if count > MOST_PAPERS {
            return Err(Malformed::Field("too many papers"));
        }
        let papers = (0..count).map(|_| r.long(MOST_WITNESS, "a paper too long").map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        Ok(Self { papers, extension })
    }
}
