//! Segments by slot.
//!
//! Promises: a clone costs a pointer for each 1024 slots; what changes after it is
//! copied then, a stretch at a time. So a checkpoint is written from a clone while the
//! store goes on.

use std::sync::Arc;

use crate::catalogue::Segment;

/// Slots that are copied together.
const STRETCH: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    stretches: Vec<Arc<Vec<Option<Segment>>>>,
    slots: u32,
    used: u32,
}

impl Slots {
    /// So many, all free.
    pub fn new(slots: u32) -> Self {
        let stretch = |i: usize| Arc::new(vec![None; STRETCH.min(slots as usize - i * STRETCH)]);
        Self { stretches: (0..(slots as usize).div_ceil(STRETCH)).map(stretch).collect(), slots, used: 0 }
    }

    /// All of them, free or not.
    pub fn len(&self) -> u32 {
        self.slots
    }

    /// How many are in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    pub fn get(&self, slot: u32) -> Option<&Segment> {
        self.stretches.get(slot as usize / STRETCH)?.get(slot as usize % STRETCH)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Segment> {
        self.entry(slot)?.as_mut()
    }

    /// Puts `segment` there, or nothing; what was there before. None too if there is no such slot.
    pub fn set(&mut self, slot: u32, segment: Option<Segment>) -> Option<Segment> {
        let more = segment.is_some();
        let before = std::mem::replace(self.entry(slot)?, segment);
        self.used = self.used + u32::from(more) - u32::from(before.is_some());
        before
    }

    /// Those in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        (0..).zip(self.stretches.iter().flat_map(|s| s.iter())).filter_map(|(slot, s)| Some((slot, s.as_ref()?)))
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Option<Segment>> {
        Arc::make_mut(self.stretches.get_mut(slot as usize / STRETCH)?).get_mut(slot as usize % STRETCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Shape;

    fn segment(incarnation: u64) -> Segment {
        Segment { incarnation, generation: 0, end: 1, payload: 0, seen: 0, shape: Shape::Open, dense: false }
    }

    #[test]
    fn a_clone_keeps_what_was() {
        let mut slots = Slots::new(2500);
        assert!(slots.set(2499, Some(segment(1))).is_none() && slots.set(2500, Some(segment(9))).is_none());
        let before = slots.clone();
        slots.get_mut(2499).unwrap().incarnation = 2;
        slots.set(7, Some(segment(3)));
        let seen = |s: &Slots| s.iter().map(|(slot, s)| (slot, s.incarnation)).collect::<Vec<_>>();
        assert_eq!((seen(&before), before.used()), (vec![(2499, 1)], 1));
        assert_eq!((seen(&slots), slots.used()), (vec![(7, 3), (2499, 2)], 2));
        assert_eq!(slots.set(7, None).map(|s| s.incarnation), Some(3));
        assert_eq!((slots.used(), slots.len(), slots.get(7).is_none()), (1, 2500, true));
    }
}
