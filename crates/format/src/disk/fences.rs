//! How far each open segment may have been written: what bounds recovery's search
//! behind damage.
//!
//! One block, in two copies on each disk; two records take turns. The one with the
//! highest sequence of a run counts, if it is of the membership epoch that counts.

use super::{BLOCK, VERSION, check_seal, seal};
use crate::{Kind, Malformed, Reader, Writer};

/// The most segments that a record names.
pub const MOST_FENCES: usize = (BLOCK - FIXED) / ENTRY;

const FIXED: usize = 8 + 32 + 16 + 8 * 3 + 4 + 2;
const ENTRY: usize = 4 + 8 + 4;

/// The blocks at which the copies of a record stand.
pub fn fences_at(sequence: u64) -> [u64; 2] {
    if sequence.is_multiple_of(2) { [8, 24] } else { [40, 56] }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fences {
    /// The store's random name.
    pub store: [u8; 16],
    /// The run that wrote it.
    pub run: u64,
    /// The membership epoch at that time.
    pub membership: u64,
    /// Raised with each.
    pub sequence: u64,
    /// In a segment that isn't named, no batch begins at or behind this block.
    pub unnamed: u32,
    /// The segments that the last checkpoint calls open, or that were opened since.
    pub named: Vec<Fence>,
}

/// How far one segment may have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The slot.
    pub slot: u32,
    /// The segment in it.
    pub incarnation: u64,
    /// No batch begins at or behind this block.
    pub block: u32,
}

impl Fences {
    /// As one block.
    ///
    /// # Panics
    /// If more than [`MOST_FENCES`] are named: the engine's mistake.
    pub fn to_block(&self) -> [u8; BLOCK] {
        assert!(self.named.len() <= MOST_FENCES, "a block holds them");
        let mut w = Writer::with_header(Kind::Fences, VERSION);
        w.put(&[0; 32]).put(&self.store).u64(self.run).u64(self.membership).u64(self.sequence).u32(self.unnamed);
        w.u16(self.named.len() as u16);
        self.named.iter().for_each(|f| _ = w.u32(f.slot).u64(f.incarnation).u32(f.block));
        let mut block = [0; BLOCK];
        let bytes = w.finish();
        block[..bytes.len()].copy_from_slice(&bytes);
        seal(&mut block);
        block
    }

    /// Reads one copy.
    pub fn from_block(block: &[u8; BLOCK]) -> Result<Self, Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::Fences, VERSION)?;
        check_seal(block)?;
        r.take(32)?;
        let store = r.array()?;
        let (run, membership, sequence, unnamed) = (r.u64()?, r.u64()?, r.u64()?, r.u32()?);
        let count = r.u16()?;
        let fence = |_| Ok(Fence { slot: r.u32()?, incarnation: r.u64()?, block: r.u32()? });
        let named = (0..count).map(fence).collect::<Result<Vec<_>, Malformed>>()?;
        if r.rest().iter().any(|b| *b != 0) {
            return Err(Malformed::Field("the rest behind fences must be zero"));
        }
        Ok(Self { store, run, membership, sequence, unnamed, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(count: usize) -> Fences {
        let fence = |slot| Fence { slot, incarnation: 7, block: 90 + slot };
        let named = (0..count as u32).map(fence).collect();
        Fences { store: [7; 16], run: 5, membership: 4, sequence: 9, unnamed: 32, named }
    }

    #[test]
    fn fences_read_back_and_nothing_else_does() {
        assert_eq!(Fences::from_block(&fences(MOST_FENCES).to_block()), Ok(fences(MOST_FENCES)));
        let block = fences(2).to_block();
        assert_eq!(Fences::from_block(&block), Ok(fences(2)));
        assert_eq!(blake3::hash(&block).to_hex().as_str(), "3d35a0331753ad032aafa0feb5f9a4ced651d3a7a016b80eee41f61f8c30adc9");
        for i in 0..BLOCK {
            let mut bad = block;
            bad[i] ^= 0x10;
            assert!(Fences::from_block(&bad).is_err(), "byte {i} may be changed");
        }
        // More named than the count says, and a count that the block doesn't hold, sealed anew.
        for count in [1, 300] {
            let mut bad = block;
            bad[FIXED - 2..FIXED].copy_from_slice(&u16::to_le_bytes(count));
            seal(&mut bad);
            assert!(Fences::from_block(&bad).is_err());
        }
    }

    #[test]
    fn two_records_and_superblocks_never_share_a_block() {
        let mut all = [fences_at(0), fences_at(1), fences_at(2)].concat();
        all.extend(super::super::superblock::AT);
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((distinct.len(), fences_at(0), all.iter().all(|b| *b < super::super::FRONT_BLOCKS)), (8, fences_at(2), true));
    }
}
