//! How a store lies on its disks: which of them hold a slot, and where.
//!
//! Promises: the copies of a slot lie on as many different disks; each disk holds as many
//! as any other, give or take one. It is arithmetic, so it can't be lost: copy `i` of slot
//! `s` is number `s * copies + i`; it lies on disk `number % places`, in row
//! `number / places`. With a copy on every disk, row and slot are the same number.

use super::{BLOCK, FRONT_BLOCKS};
use crate::Malformed;

/// How a store is divided; the same on all its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Disks of the store, present or not: 1 to [`Geometry::MOST_PLACES`].
    pub places: u8,
    /// Copies of each slot, on as many disks: 1 to `places`.
    pub copies: u8,
    /// Blocks of a segment: 16 to 2^20.
    pub segment_blocks: u32,
    /// Blocks of each catalogue area.
    pub catalogue_blocks: u32,
    /// Segments of the store: 2 to 2^28.
    pub slots: u32,
}

impl Geometry {
    /// The most places.
    pub const MOST_PLACES: u8 = 64;

    /// The places that hold a copy of a slot: bit 0 is place 0.
    pub fn holders(&self, slot: u32) -> u64 {
        (0..self.copies).fold(0, |mask, i| mask | 1 << (self.number(slot, i) % u64::from(self.places)))
    }

    /// The first block of a segment on a disk; none if that disk holds no copy of it.
    pub fn segment_at(&self, slot: u32, place: u8) -> Option<u64> {
        let numbers = (0..self.copies).map(|i| self.number(slot, i));
        let row = numbers.into_iter().find(|n| n % u64::from(self.places) == u64::from(place))? / u64::from(self.places);
        Some(self.catalogue_at(2) + row * u64::from(self.segment_blocks))
    }

    fn number(&self, slot: u32, copy: u8) -> u64 {
        u64::from(slot) * u64::from(self.copies) + u64::from(copy)
    }

    /// Whether some slot has a copy on the disks of `from` and none on those of `to`.
    pub fn loses(&self, from: u64, to: u64) -> bool {
        // The holders repeat after as many slots as there are places.
        let mut holders = (0..self.slots.min(u32::from(self.places))).map(|slot| self.holders(slot));
        holders.any(|h| h & from != 0 && h & to == 0)
    }

    /// The first block of a catalogue area (0 or 1).
    pub fn catalogue_at(&self, area: u64) -> u64 {
        FRONT_BLOCKS + area * u64::from(self.catalogue_blocks)
    }

    /// Segments on each disk, at most.
    pub fn rows(&self) -> u64 {
        self.number(self.slots, 0).div_ceil(u64::from(self.places))
    }

    /// The blocks that a disk must have.
    pub fn disk_blocks(&self) -> u64 {
        self.catalogue_at(2) + self.rows() * u64::from(self.segment_blocks)
    }

    /// The bytes that a disk must have.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_blocks() * BLOCK as u64
    }

    /// All places: bit 0 is place 0.
    pub fn everywhere(&self) -> u64 {
        u64::MAX >> (64 - u32::from(self.places))
    }

    /// Refuses what no store has.
    pub fn check(self) -> Result<Self, Malformed> {
        let fits = (1..=Self::MOST_PLACES).contains(&self.places)
            && (1..=self.places).contains(&self.copies)
            && (16..=1 << 20).contains(&self.segment_blocks)
            && (1..=1 << 24).contains(&self.catalogue_blocks)
            && (2..=1 << 28).contains(&self.slots);
        if fits { Ok(self) } else { Err(Malformed::Field("a geometry that no store has")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(places: u8, copies: u8) -> Geometry {
        Geometry { places, copies, segment_blocks: 16, catalogue_blocks: 1, slots: 101 }
    }

    #[test]
    fn copies_lie_on_different_disks_and_never_on_another_segment() {
        for places in 1..=9 {
            for copies in 1..=places {
                let g = geometry(places, copies).check().unwrap();
                let mut taken = std::collections::HashSet::new();
                for slot in 0..g.slots {
                    let holders = g.holders(slot);
                    assert_eq!(holders.count_ones(), u32::from(copies));
                    for place in 0..places {
                        let at = g.segment_at(slot, place);
                        assert_eq!(at.is_some(), holders >> place & 1 == 1);
                        if let Some(at) = at {
                            assert!(taken.insert((place, at)), "two segments in one place");
                            assert!(at >= g.catalogue_at(2) && at + 16 <= g.disk_blocks(), "on the disk");
                        }
                    }
                }
                assert!(u64::from(places) * g.rows() - taken.len() as u64 <= u64::from(places), "no room is lost");
            }
        }
    }

    #[test]
    fn losing_fewer_disks_than_copies_uncovers_nothing() {
        for places in 1..=6u8 {
            for copies in 1..=places {
                let g = geometry(places, copies);
                for mask in 1..=g.everywhere() {
                    let lost = u32::from(places) - mask.count_ones();
                    let naive = (0..g.slots).any(|s| g.holders(s) & mask == 0);
                    assert_eq!(g.loses(g.everywhere(), mask), naive);
                    assert!(!g.loses(mask, mask), "what was lost before is not lost again");
                    assert!(lost >= u32::from(copies) || !naive);
                }
            }
        }
    }

    #[test]
    fn a_copy_on_every_disk_is_the_same_place_on_each() {
        let g = geometry(3, 3);
        assert_eq!(g.segment_at(7, 0), g.segment_at(7, 2));
        assert_eq!(g.segment_at(7, 1), Some(g.catalogue_at(2) + 7 * 16));
    }

    #[test]
    fn more_copies_than_disks_or_none_are_refused() {
        for (places, copies) in [(0, 0), (2, 3), (2, 0), (65, 2)] {
            assert!(geometry(places, copies).check().is_err());
        }
    }
}
