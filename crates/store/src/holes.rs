//! What is missing of streams after the catalogue was made anew from segments.
//!
//! Promises: a stretch of a stream that ends before the stream's end, and that no segment holds, is
//! told: its segment's header was lost with the catalogue, and nothing else would tell. What is
//! missing at a stream's end its agent tells, who holds more.

use std::collections::BTreeMap;

use hoidla_format::StreamId;

use crate::catalogue::{Catalogue, Part};

/// Which bytes of which stream some batch holds.
#[derive(Default)]
pub(crate) struct Holes {
    /// By stream: slot and incarnation, from and to.
    held: BTreeMap<StreamId, Vec<(u64, u64, u32, u64)>>,
}

impl Holes {
    /// A batch that was kept.
    pub fn found(&mut self, part: &Part) {
        for run in &part.head.runs {
            let held = (run.before.length, run.end(), part.slot, part.head.incarnation);
            self.held.entry(run.stream).or_default().push(held);
        }
    }

    /// What no segment of the catalogue holds, in words.
    pub fn told(mut self, catalogue: &Catalogue) -> Vec<String> {
        let mut told = Vec::new();
        for (id, stream) in &catalogue.streams {
            let lives = |slot, incarnation| catalogue.segment(slot).is_some_and(|s| s.incarnation == incarnation);
            let mut held = self.held.remove(id).unwrap_or_default();
            held.retain(|(_, _, slot, incarnation)| lives(*slot, *incarnation));
            held.sort_unstable();
            let mut end = 0;
            for (from, to, ..) in held.into_iter().chain([(stream.chain.length, stream.chain.length, 0, 0)]) {
                if from > end {
                    told.push(format!("stream {id}: the bytes from {end} to {from} are in no segment that was found"));
                }
                end = end.max(to);
            }
        }
        told
    }
}
