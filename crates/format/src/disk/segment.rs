//! A segment's header: what a slot holds since it was last taken into use.

use super::{BLOCK, VERSION, check_seal, seal};
use crate::{Hash32, Kind, Malformed, Name, Reader, Writer};

/// The first block of a segment. Its hash seeds the chain of the segment's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store's name.
    pub store: [u8; 16],
    /// The slot, so that a misdirected write is seen.
    pub slot: u32,
    /// Never used twice within a store; rises.
    pub incarnation: u64,
    /// The store's run that began it.
    pub run: u64,
    /// Whether it takes records rewritten from sparse segments only.
    pub dense: bool,
    /// The dataset.
    pub dataset: Name,
    /// The generation.
    pub generation: u32,
}

impl SegmentHeader {
    /// As one block, and its hash.
    pub fn to_block(&self) -> ([u8; BLOCK], Hash32) {
        let mut w = Writer::with_header(Kind::Segment, VERSION);
        w.put(&[0; 32]).put(&self.store).u32(self.slot).u64(self.incarnation).u64(self.run);
        w.u8(self.dense.into()).short(self.dataset.as_str().as_bytes()).u32(self.generation);
        let bytes = w.finish();
        let mut block = [0; BLOCK];
        block[..bytes.len()].copy_from_slice(&bytes);
        let hash = seal(&mut block);
        (block, hash)
    }

    /// Reads one, and its hash.
    pub fn from_block(block: &[u8; BLOCK]) -> Result<(Self, Hash32), Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::Segment, VERSION)?;
        let hash = check_seal(block)?;
        r.take(32)?;
        let (store, slot, incarnation, run) = (r.array()?, r.u32()?, r.u64()?, r.u64()?);
        let dense = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::Field("neither dense nor not")),
        };
        let dataset = Name::from_bytes(r.short(Name::MOST, "a dataset's name is at most 64 bytes")?)?;
        let generation = r.u32()?;
        if r.rest().iter().any(|b| *b != 0) {
            return Err(Malformed::Field("a segment header's rest must be zero"));
        }
        Ok((Self { store, slot, incarnation, run, dense, dataset, generation }, hash))
    }
}
