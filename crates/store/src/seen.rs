//! When each segment was last seen whole.
//!
//! Promises: a segment counts as seen when it was written, and again when every byte of it was
//! read back whole on every current copy. Only a scrub says so, and only of the incarnation that
//! it read. It stands in checkpoints: one that is lost costs checking again, never a false word.

use crate::{catalogue::minutes, device::Pool, engine::Engine, read::SegmentRef};

impl<P: Pool> Engine<P> {
    /// Segments that were last seen whole before `powered` seconds, the longest unseen first, at
    /// most `most` of them: their numbers, for [`segment`](Self::segment).
    pub fn unseen(&self, powered: u64, most: usize) -> Vec<u32> {
        let before = minutes(powered);
        let all = self.catalogue.segments.iter().map(|(slot, s)| (s.seen, slot));
        let mut first = std::collections::BinaryHeap::new();
        for unseen in all.filter(|(seen, _)| *seen < before) {
            first.push(unseen);
            if first.len() > most {
                first.pop();
            }
        }
        first.into_sorted_vec().into_iter().map(|(_, slot)| slot).collect()
    }

    /// Every byte of a segment was read back whole on every copy, at `powered` seconds.
    pub fn seen_whole(&mut self, segment: &SegmentRef, powered: u64) {
        let same = |s: &&mut crate::catalogue::Segment| s.incarnation == segment.incarnation && self.source == segment.source;
        if let Some(s) = self.catalogue.segments.get_mut(segment.slot).filter(same) {
            s.seen = s.seen.max(minutes(powered));
        }
    }

    /// The powered seconds since which every byte was seen whole at least once, but for the
    /// segments `without`; none if nothing is stored.
    pub fn seen_since(&self, without: &[u32]) -> Option<u64> {
        let all = self.catalogue.segments.iter().map(|(slot, s)| (slot, s.seen));
        all.filter(|(slot, _)| !without.contains(slot)).map(|(_, seen)| u64::from(seen) * 60).min()
    }
}
