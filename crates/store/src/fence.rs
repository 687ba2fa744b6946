//! Fences: how far each open segment may have been written.
//!
//! Promises: no batch begins at or behind the fence that a record says, before that
//! record is flushed on every current copy; a record names every segment that the last
//! checkpoint calls open or that was opened since. So whoever searches behind damage up
//! to the fence finds all that a search to the segment's end would have found. A record
//! of another run or membership epoch says nothing: then the search goes to the end.

use std::{collections::BTreeMap, io, sync::Arc};

use hoidla_format::disk::{
    BLOCK,
    fences::{Fence, Fences, MOST_FENCES, fences_at},
    superblock::Superblock,
};

use crate::{
    catalogue::Catalogue,
    commit::{Awaited, Purpose, Step},
    device::{Buffer, Disk, Disks, Op, Pool},
    engine::Engine,
    open::OpenError,
    options::{Fault, Options},
};

/// A segment, as far as it was written or is about to be.
#[derive(Clone, Copy)]
struct Reach {
    incarnation: u64,
    /// The first block after the last batch that was sealed.
    end: u32,
    /// Blocks since the last record.
    grown: u32,
    /// Between end and fence in the last record; 0 if it doesn't name the segment.
    room: u32,
}

/// What is said of all segments, and what is being said.
pub(crate) struct Line {
    reached: BTreeMap<u32, Reach>,
    said: Fences,
    saying: Option<Fences>,
    pub steps: Vec<Step>,
}

impl Line {
    /// At the start of a run: what the opening writes before anything else of that run.
    pub fn begin(superblock: &Superblock, catalogue: &Catalogue, sequence: u64, options: &Options) -> Self {
        let named = catalogue.tails.keys().filter_map(|slot| Some((*slot, catalogue.segment(*slot)?)));
        let reached = named.map(|(slot, s)| (slot, Reach { incarnation: s.incarnation, end: s.end, grown: 0, room: 0 })).collect();
        let (run, membership) = (superblock.run, superblock.membership);
        let said = Fences { store: superblock.store, run, membership, sequence, unnamed: 16 * least(options), named: Vec::new() };
        let mut line = Self { reached, said, saying: None, steps: Vec::new() };
        line.said = line.next(|_, _| true, |_| 0, membership, sequence, options);
        line
    }

    pub fn record(&self) -> &Fences {
        &self.said
    }

    /// The next record. `planned`: a block of the segment at which a batch is to begin already.
    fn next(
        &mut self,
        is_open: impl Fn(u32, u64) -> bool,
        planned: impl Fn(u32) -> u32,
        membership: u64,
        sequence: u64,
        options: &Options,
    ) -> Fences {
        let named = self.reached.iter_mut().map(|(slot, r)| {
            let room = (r.grown + r.grown / 2).clamp(least(options), 32 * least(options));
            (r.room, r.grown) = (if is_open(*slot, r.incarnation) { room } else { 0 }, 0);
            Fence { slot: *slot, incarnation: r.incarnation, block: (r.end + r.room).max(planned(*slot)) }
        });
        let named = named.collect();
        Fences { membership, sequence, named, ..self.said.clone() }
    }

    /// The block at or behind which no batch of a segment may begin now.
    fn limit(&self, slot: u32, incarnation: u64) -> u32 {
        let saying = self.saying.as_ref().map_or(u32::MAX, |f| of(f, slot, incarnation).unwrap_or(f.unnamed));
        of(&self.said, slot, incarnation).unwrap_or(self.said.unnamed).min(saying)
    }

    /// A batch was sealed.
    pub fn reach(&mut self, slot: u32, incarnation: u64, block: u32, end: u32) {
        let r = self.reached.entry(slot).or_insert(Reach { incarnation, end: block, grown: 0, room: 0 });
        if r.incarnation != incarnation {
            *r = Reach { incarnation, end: block, grown: 0, room: 0 };
        }
        (r.grown, r.end) = (r.grown + end - r.end.min(end), end);
    }

    /// The segments that a checkpoint of this moment will not call open.
    pub fn over(&self, is_open: impl Fn(u32) -> bool) -> Vec<(u32, u64)> {
        self.reached.iter().filter(|(slot, _)| !is_open(**slot)).map(|(slot, r)| (*slot, r.incarnation)).collect()
    }

    /// That checkpoint counts.
    pub fn forget(&mut self, over: &[(u32, u64)]) {
        self.reached.retain(|slot, r| !over.contains(&(*slot, r.incarnation)));
    }
}

fn least(options: &Options) -> u32 {
    options.fence.max(1)
}

fn of(fences: &Fences, slot: u32, incarnation: u64) -> Option<u32> {
    fences.named.iter().find(|f| (f.slot, f.incarnation) == (slot, incarnation)).map(|f| f.block)
}

/// Up to which block recovery searches a segment, by a record that counts.
pub(crate) fn search_to(fences: Option<&Fences>, slot: u32, incarnation: u64, is_new: bool, segment_blocks: u32) -> u32 {
    let named = fences.and_then(|f| of(f, slot, incarnation).or(is_new.then_some(f.unnamed)));
    named.unwrap_or(segment_blocks).min(segment_blocks)
}

/// The newest record of the run that counts, on any current disk.
pub(crate) fn read<P: Pool>(disks: &Disks, current: u64, superblock: &Superblock, pool: &Arc<P>) -> Result<Option<Fences>, OpenError> {
    let mut buffer = pool.take(BLOCK).ok_or(OpenError::Memory)?;
    let mut best: Option<Fences> = None;
    for disk in (0..).zip(disks).filter(|(i, _)| current >> i & 1 == 1).filter_map(|(_, d)| d.as_ref()) {
        for at in [fences_at(0), fences_at(1)].concat() {
            if disk.read(at * BLOCK as u64, &mut buffer.as_mut()[..BLOCK]).is_err() {
                continue;
            }
            let found = buffer.as_ref().first_chunk::<BLOCK>().and_then(|b| Fences::from_block(b).ok());
            let ours = |f: &Fences| f.store == superblock.store && f.run == superblock.run;
            let newer = |f: &Fences| best.as_ref().is_none_or(|b| b.sequence < f.sequence);
            best = found.filter(|f| ours(f) && newer(f)).or(best);
        }
    }
    Ok(best)
}

/// Writes a record to one disk; whoever calls flushes.
pub(crate) fn write<P: Pool>(disk: &dyn Disk, fences: &Fences, pool: &P) -> io::Result<()> {
    let mut buffer = pool.take(BLOCK).ok_or_else(|| io::Error::other(OpenError::Memory))?;
    buffer.as_mut()[..BLOCK].copy_from_slice(&fences.to_block());
    fences_at(fences.sequence).iter().try_for_each(|at| disk.write(at * BLOCK as u64, &buffer.as_ref()[..BLOCK]))
}

impl<P: Pool> Engine<P> {
    /// Whether the next batch of an open segment has to wait for a record.
    pub(crate) fn is_fenced(&self, slot: u32, incarnation: u64, block: u32) -> bool {
        block >= self.line.limit(slot, incarnation) && !self.options.faulty(Fault::IgnoreFences)
    }

    /// Takes note of a record that is flushed, and begins the next if one is due.
    pub(crate) fn work_on_fences(&mut self) {
        if self.line.saying.is_some() {
            if !self.current().iter().all(|d| self.line.steps[usize::from(*d)] == Step::Done) {
                return;
            }
            if let Some(said) = self.line.saying.take() {
                self.line.said = said;
            }
        }
        let segments = u32::try_from(self.line.reached.len()).unwrap_or(u32::MAX);
        let short = |(slot, r): (&u32, &Reach)| match of(&self.line.said, *slot, r.incarnation) {
            Some(fence) => r.room > 0 && fence <= r.end + r.room / 2,
            None => true,
        };
        let due = self.line.said.membership != self.superblock.membership || self.line.reached.iter().any(short);
        if due && segments as usize <= MOST_FENCES {
            self.say_fences();
        }
    }

    fn say_fences(&mut self) {
        let disks = self.current();
        let Some(mut buffer) = self.pool.take(BLOCK) else { return };
        let open: Vec<_> = self.space.open.values().map(|o| (o.slot, o.incarnation)).collect();
        let (sequence, membership) = (self.line.said.sequence + 1, self.superblock.membership);
        let drafts = &self.building.drafts;
        let planned = |slot| drafts.iter().filter(|d| d.slot == slot).map(|d| d.block + 1).max().unwrap_or(0);
        let is_open = |slot, incarnation| open.contains(&(slot, incarnation));
        let record = self.line.next(is_open, planned, membership, sequence, &self.options);
        buffer.as_mut()[..BLOCK].copy_from_slice(&record.to_block());
        let blocks = buffer.freeze(BLOCK);
        self.line.saying = Some(record);
        self.line.steps = vec![Step::Done; usize::from(self.superblock.geometry.places)];
        for disk in disks {
            self.line.steps[usize::from(disk)] = Step::Writing(2);
            for at in fences_at(sequence) {
                let write = Op::Write { at: at * BLOCK as u64, blocks: blocks.clone() };
                self.request(Awaited { disk, write: Some(BLOCK), purpose: Purpose::Fences }, write);
            }
        }
    }
}
