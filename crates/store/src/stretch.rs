//! Going through one copy of a segment in stretches, each checked.
//!
//! Promises: what [`Stretch::check`] lets through is the segment's header, heads that
//! continue the chain, and records that match the hashes in those heads, with zeros
//! between: byte for byte what was written. It keeps one head's list of records.

use std::collections::VecDeque;

use hoidla_format::{
    Hash32,
    disk::{
        BLOCK,
        batch::{Head, LARGE},
        blocks,
        segment::SegmentHeader,
    },
};

use crate::read::SegmentRef;

/// Blocks to read when it isn't known what comes: enough for most heads.
const LITTLE: usize = 16;

/// A walk over one copy.
pub(crate) struct Stretch<'a> {
    segment: &'a SegmentRef,
    /// The next block to be read.
    block: u32,
    /// The seal that the next head names; none before the segment's header.
    previous: Option<Hash32>,
    number: u32,
    /// Large records that come next: length and hash.
    large: VecDeque<(usize, Hash32)>,
    /// The last stretch was too short for what it began with.
    stuck: bool,
}

impl<'a> Stretch<'a> {
    pub fn new(segment: &'a SegmentRef) -> Self {
        Self { segment, block: 0, previous: None, number: 0, large: VecDeque::new(), stuck: false }
    }

    /// What to read next: the first block, and how many, at most `most`. None at the end.
    pub fn next(&self, most: usize) -> Option<(u32, usize)> {
        let left = self.segment.end.checked_sub(self.block).filter(|left| *left > 0)? as usize;
        let mut known = 0;
        for (len, _) in &self.large {
            if known + blocks(*len) > most {
                return Some((self.block, known.min(left)));
            }
            known += blocks(*len);
        }
        // Behind all that is known a head begins: worth reading on, if much of it may fit.
        let count = if self.stuck || known + LITTLE <= most { most } else { known };
        Some((self.block, count.min(left)))
    }

    /// Checks what was read; how many blocks of it are good, at least 1. None if it is bad.
    pub fn check(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut good = 0;
        while let Some(count) = self.piece(&bytes[good * BLOCK..])? {
            good += count;
        }
        self.block += good as u32;
        let was_stuck = std::mem::replace(&mut self.stuck, good == 0);
        if good == 0 && was_stuck { None } else { Some(good) }
    }

    /// The blocks of the next piece, checked; `Some(None)` if it isn't all there, none if it is bad.
    fn piece(&mut self, bytes: &[u8]) -> Option<Option<usize>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let Some(previous) = self.previous else {
            let (header, hash) = SegmentHeader::from_block(bytes.first_chunk()?).ok()?;
            let ours = header.store == self.segment.store && header.slot == self.segment.slot;
            self.previous = Some(hash).filter(|_| ours && header.incarnation == self.segment.incarnation);
            return self.previous.map(|_| Some(1));
        };
        if let Some((len, hash)) = self.large.front() {
            let (len, count) = (*len, blocks(*len));
            let Some(piece) = bytes.get(..count * BLOCK) else { return Some(None) };
            let good = is_record(piece, 0, len, hash) && is_zero(&piece[len..]);
            self.large.pop_front();
            return good.then_some(Some(count));
        }
        let head_blocks = blocks(Head::peek(bytes.get(..BLOCK)?).ok()?);
        let Some(head) = bytes.get(..head_blocks * BLOCK) else { return Some(None) };
        let (head, hash) = Head::read(head, &self.segment.source.key).ok()?;
        let ours = head.incarnation == self.segment.incarnation && head.number == self.number && head.previous == previous;
        let count = blocks(head.front_len());
        let Some(front) = bytes.get(..count * BLOCK) else { return Some(None) };
        let places = head.places();
        let mut small = head.records().zip(&places).filter(|(e, _)| e.len < LARGE);
        if !ours || !is_zero(&front[head.front_len()..]) || !small.all(|(e, at)| is_record(front, *at, e.len as usize, &e.hash)) {
            return None;
        }
        self.large = head.records().filter(|e| e.len >= LARGE).map(|e| (e.len as usize, e.hash)).collect();
        (self.previous, self.number) = (Some(hash), head.number + 1);
        Some(Some(count))
    }
}

fn is_record(bytes: &[u8], at: usize, len: usize, hash: &Hash32) -> bool {
    bytes.get(at..at + len).is_some_and(|record| blake3::hash(record).as_bytes() == &hash.0)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}
