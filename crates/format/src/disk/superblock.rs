//! The superblock: whose disk this is, and what may be trusted on it.

use super::{BLOCK, Geometry, SealKey, VERSION, check_seal, seal};
use crate::{Kind, Malformed, Reader, Writer};

/// The blocks at which the four copies stand.
pub const AT: [u64; 4] = [0, 16, 32, 48];

/// The most that a superblock's numbers may be: one step more is never too many.
const MOST_NUMBER: u64 = 1 << 62;

/// One disk's identity and membership. The valid copy with the highest sequence counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The store's random name.
    pub store: [u8; 16],
    /// What the seals of batches are keyed with.
    pub key: SealKey,
    /// The disk's place in the store, from 0.
    pub place: u8,
    /// How the store is divided.
    pub geometry: Geometry,
    /// Raised with each rewrite of the superblock.
    pub sequence: u64,
    /// Raised whenever the set of members changes: [`next_membership`].
    pub membership: u64,
    /// The membership epoch that counted when this one was begun. Until the counter
    /// says that this one counts, the disk is as good as those of `base`.
    pub base: u64,
    /// The places that are current: bit 0 is place 0. A disk whose own bit is missing is being
    /// rebuilt: nothing on it counts.
    pub members: u64,
    /// Raised with each opening of the store, from 1.
    pub run: u64,
    /// The first commit of that run: what an earlier run wrote from it on was cut.
    pub run_first: u64,
    /// The catalogue checkpoint that counts; it or the next one must be found.
    pub checkpoint: u64,
    /// Where the TPM's counter for the log stands, or is about to: written before it is raised.
    pub counter: u64,
}

/// The membership epoch after `after` that `members` of a store with so many places may
/// begin: congruent to their lowest place. So two halves of a store that don't see each
/// other never begin the same epoch, as long as the lowest place is written and flushed
/// before the others.
pub fn next_membership(after: u64, members: u64, places: u8) -> u64 {
    let places = u64::from(places.max(1));
    let lead = u64::from(members.trailing_zeros()) % places;
    let next = after + 1;
    next + (lead + places - next % places) % places
}

impl Superblock {
    /// Whether the disk that carries this is a member.
    pub fn is_member(&self) -> bool {
        self.members >> self.place & 1 == 1
    }

    /// As one block.
    pub fn to_block(&self) -> [u8; BLOCK] {
        let mut w = Writer::with_header(Kind::Superblock, VERSION);
        w.put(&[0; 32]).put(&self.store).put(&self.key.0).u8(self.place).u8(self.geometry.places).u8(self.geometry.copies);
        w.u32(self.geometry.segment_blocks).u32(self.geometry.catalogue_blocks).u32(self.geometry.slots);
        w.u64(self.sequence).u64(self.membership).u64(self.base).u64(self.members);
        w.u64(self.run).u64(self.run_first).u64(self.checkpoint).u64(self.counter);
        let mut block = [0; BLOCK];
        let bytes = w.finish();
        block[..bytes.len()].copy_from_slice(&bytes);
        seal(&mut block);
        block
    }

    /// Reads one copy.
    pub fn from_block(block: &[u8; BLOCK]) -> Result<Self, Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::Superblock, VERSION)?;
        check_seal(block)?;
        r.take(32)?;
        let (store, key) = (r.array()?, SealKey(r.array()?));
        let (place, places, copies) = (r.u8()?, r.u8()?, r.u8()?);
        let geometry = Geometry { places, copies, segment_blocks: r.u32()?, catalogue_blocks: r.u32()?, slots: r.u32()? }.check()?;
        let (sequence, membership, base) = (r.u64()?, r.u64()?, r.u64()?);
        let (members, run, run_first, checkpoint) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let counter = r.u64()?;
        if place >= places || members & !geometry.everywhere() != 0 {
            return Err(Malformed::Field("a place that the store doesn't have"));
        }
        if [sequence, membership, run, run_first, checkpoint, counter].iter().any(|n| *n > MOST_NUMBER) {
            return Err(Malformed::Field("a number that no store reaches"));
        }
        if r.rest().iter().any(|b| *b != 0) {
            return Err(Malformed::Field("a superblock's rest must be zero"));
        }
        Ok(Self { store, key, place, geometry, sequence, membership, base, members, run, run_first, checkpoint, counter })
    }
}
