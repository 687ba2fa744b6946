//! Finding room for what is submitted: which draft of which segment takes it.

use hoidla_format::{
    StreamId,
    disk::batch::{IndexEntry, MOST_FRONTIER},
};

use crate::{
    device::Pool,
    draft::{Add, Draft, closing_blocks},
    engine::Engine,
    options::Fault,
    types::Refused,
};

/// Batches of one commit at most.
const MOST_PARTS: usize = 1024;
/// Open segments at most: with those of a reserve, fences for all of them fit into a block.
const MOST_OPEN: usize = 100;
/// Free slots that are kept for notes, the log, the end of generations and rewriting, so that a
/// full store can go on.
pub(crate) const KEPT_SLOTS: usize = 4;
/// Of those, what notes may not take: agents cause notes, and nothing could end without a slot.
const KEPT_FROM_NOTES: usize = 3;

impl<P: Pool> Engine<P> {
    /// The draft that takes `add`, begun or ended as needed. `privileged`: may use what is
    /// kept back when the store is full.
    pub(crate) fn draft_for(&mut self, generation: u32, dense: bool, add: Add, privileged: bool) -> Result<usize, Refused> {
        self.check_not_gone(&self.catalogue.generations[generation as usize])?;
        if self.building.drafts.len() >= MOST_PARTS || (self.building.bytes >= self.options.commit_bytes && !privileged) {
            return Err(Refused::Busy);
        }
        if let Some(draft) = self.in_open_segment(generation, dense, add, privileged) {
            return Ok(draft);
        }
        self.check_fence((generation, dense))?;
        self.check_fits_alone(add)?;
        self.check_slot(match (privileged || dense, dense || add.notes == 0) {
            (false, _) => KEPT_SLOTS,
            (true, false) => KEPT_FROM_NOTES,
            (true, true) => 0,
        })?;
        if self.space.open.contains_key(&(generation, dense)) {
            self.close_segment((generation, dense));
        }
        while self.space.open.len() >= self.options.open_segments.clamp(1, MOST_OPEN) {
            let Some(key) = self.space.coldest() else { break };
            self.check_fence(key)?;
            self.close_segment(key);
        }
        self.open_segment(generation, dense).ok_or(Refused::Busy)?;
        Ok(self.begin_draft(generation, dense))
    }

    fn check_fits_alone(&self, add: Add) -> Result<(), Refused> {
        let most = self.superblock.geometry.segment_blocks - 1 - closing_blocks(1).unwrap_or(1) - 1;
        match add.blocks(MOST_FRONTIER) {
            Some(blocks) if blocks <= most => Ok(()),
            _ => Err(Refused::NotARecord("it is larger than a segment of this store")),
        }
    }

    /// Whether a slot may be taken of which so many are kept for others.
    fn check_slot(&mut self, kept: usize) -> Result<(), Refused> {
        if self.free_slots() <= kept {
            return Err(Refused::Full);
        }
        if !self.space.can_take() && self.options.faulty(Fault::ReuseBeforeCheckpoint) {
            self.space.reserve = self.next_reserve().into();
        }
        if self.space.can_take() { Ok(()) } else { Err(Refused::Busy) }
    }

    fn in_open_segment(&mut self, generation: u32, dense: bool, add: Add, privileged: bool) -> Option<usize> {
        let used = self.space.touch();
        let frontier = self.frontier_len();
        let open = self.space.open.get_mut(&(generation, dense))?;
        open.used = used;
        let last = self.building.last_of(open.slot).filter(|i| self.building.drafts[*i].retires.is_none());
        let keep = closing_blocks(open.index.len() + add.runs)? + u32::from(!privileged);
        let most = self.superblock.geometry.segment_blocks.checked_sub(keep)?;
        if let Some(i) = last {
            let d = &self.building.drafts[i];
            if d.sum.and(add).blocks(frontier).is_some_and(|b| d.block + b <= most) {
                return Some(i);
            }
        }
        let next = self.next_block(generation, dense)?;
        (next + add.blocks(frontier)? <= most && self.check_fence((generation, dense)).is_ok()).then(|| self.begin_draft(generation, dense))
    }

    /// Busy while the next batch of a segment has to wait until it is said how far it may go.
    fn check_fence(&self, (generation, dense): (u32, bool)) -> Result<(), Refused> {
        let next = self.next_block(generation, dense);
        let open = self.space.open.get(&(generation, dense));
        let fenced = open.zip(next).is_some_and(|(o, next)| self.is_fenced(o.slot, o.incarnation, next));
        if fenced { Err(Refused::Busy) } else { Ok(()) }
    }

    /// Bytes of the log's frontier before the commit to be.
    pub(crate) fn frontier_len(&self) -> usize {
        8 + 32 * self.frontier.size().count_ones() as usize
    }

    /// The first block of an open segment that no draft has.
    fn next_block(&self, generation: u32, dense: bool) -> Option<u32> {
        let frontier = self.frontier_len();
        let open = self.space.open.get(&(generation, dense))?;
        let last = self.building.last_of(open.slot).map(|i| &self.building.drafts[i]);
        Some(last.map_or(open.next, |d| d.block + d.blocks(frontier)))
    }

    fn begin_draft(&mut self, generation: u32, dense: bool) -> usize {
        let block = self.next_block(generation, dense).expect("the segment is open");
        let open = self.space.open.get_mut(&(generation, dense)).expect("the segment is open");
        self.building.drafts.push(Draft {
            slot: open.slot,
            incarnation: open.incarnation,
            generation: self.catalogue.generations[generation as usize].clone(),
            dense,
            block,
            opens: std::mem::take(&mut open.new),
            runs: Vec::new(),
            payload: Vec::new(),
            notes: Vec::new(),
            retires: None,
            index: None,
            sum: Add::default(),
        });
        self.building.drafts.len() - 1
    }

    /// Ends a segment with its index, in the commit to be.
    pub(crate) fn close_segment(&mut self, (generation, dense): (u32, bool)) {
        let draft = self.begin_draft(generation, dense);
        let Some(open) = self.space.open.remove(&(generation, dense)) else { return };
        let mut index = open.index;
        index.sort_unstable();
        self.building.drafts[draft].index = Some(index);
    }

    /// Remembers for the segment's index where a run begins.
    pub(crate) fn note_in_index(&mut self, generation: u32, dense: bool, stream: StreamId, offset: u64, draft: usize) {
        let block = self.building.drafts[draft].block;
        if let Some(open) = self.space.open.get_mut(&(generation, dense)) {
            open.index.push(IndexEntry { stream, offset, block });
        }
    }

    /// A batch that says nothing but the mark, in the segment used last.
    pub(crate) fn begin_mark(&mut self) -> bool {
        let Some((key, _)) = self.space.open.iter().max_by_key(|(_, o)| o.used) else { return false };
        let (generation, dense) = *key;
        self.draft_for(generation, dense, Add::default(), true).is_ok()
    }
}
