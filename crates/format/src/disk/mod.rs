//! What stands on a disk of the store.
//!
//! ```text
//! block 0, 16, 32, 48     superblock, four copies                     [superblock]
//! block 8, 24, 40, 56     how far segments were written, two by two      [fences]
//! block 64                two catalogue areas of equal size           [catalogue]
//! then                    segments of equal size, by slot from 0
//!   block 0 of each       segment header                              [segment]
//!   then                  batches, the last of a closed one its index [batch]
//! ```
//!
//! Promises: each layout carries a BLAKE3 hash over all of itself right after its
//! header ([`seal`]), so a torn or rotten one is told from a whole one. It does not
//! say whether a whole one is the right one: that is the chain's and the engine's.
//! Batches lie among bytes that agents choose: their seals have a key ([`SealKey`]).

pub mod batch;
pub mod catalogue;
pub mod fences;
mod geometry;
pub mod segment;
pub mod superblock;
#[cfg(test)]
mod tests;

pub use geometry::Geometry;

use crate::{Hash32, Malformed};

/// The unit of every place and length on a disk.
pub const BLOCK: usize = 4096;
/// The version of all layouts on a disk.
pub const VERSION: u8 = 1;
/// The blocks of a disk before its first catalogue area.
pub const FRONT_BLOCKS: u64 = 64;

/// What the seals of a store's batches are keyed with: 32 random bytes, drawn when it is
/// formatted. They stand in the superblock, plain for whoever holds the disks; no agent knows
/// them, so no record can be mistaken for a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealKey(pub [u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Where a layout's own hash stands.
const SEAL: std::ops::Range<usize> = 8..40;

/// How many whole blocks hold `len` bytes.
pub const fn blocks(len: usize) -> usize {
    len.div_ceil(BLOCK)
}

/// Writes the hash of all other bytes into bytes 8 to 40, and returns it.
pub fn seal(layout: &mut [u8]) -> Hash32 {
    put_seal(layout, blake3::Hasher::new())
}

/// The same, keyed.
pub fn seal_keyed(layout: &mut [u8], key: &SealKey) -> Hash32 {
    put_seal(layout, blake3::Hasher::new_keyed(&key.0))
}

/// Checks what [`seal`] wrote.
pub fn check_seal(layout: &[u8]) -> Result<Hash32, Malformed> {
    look_at_seal(layout, blake3::Hasher::new())
}

/// Checks what [`seal_keyed`] wrote.
pub fn check_seal_keyed(layout: &[u8], key: &SealKey) -> Result<Hash32, Malformed> {
    look_at_seal(layout, blake3::Hasher::new_keyed(&key.0))
}

fn put_seal(layout: &mut [u8], hasher: blake3::Hasher) -> Hash32 {
    let hash = seal_of(layout, hasher);
    layout[SEAL].copy_from_slice(&hash.0);
    hash
}

fn look_at_seal(layout: &[u8], hasher: blake3::Hasher) -> Result<Hash32, Malformed> {
    let found = layout.get(SEAL).ok_or(Malformed::Truncated { wanted: SEAL.end, left: layout.len() })?;
    let hash = seal_of(layout, hasher);
    if hash.0[..] == *found { Ok(hash) } else { Err(Malformed::Field("damaged: its hash does not match")) }
}

fn seal_of(layout: &[u8], mut h: blake3::Hasher) -> Hash32 {
    h.update(&layout[..SEAL.start]).update(&layout[SEAL.end..]);
    Hash32(h.finalize().into())
}
