//! Group commit: sealing drafts, writing them to every current copy, flushing,
//! acknowledging in order.
//!
//! Promises: a disk is flushed for a commit once, after all its writes of it have
//! completed in full; a commit is acknowledged when every current copy has flushed
//! and membership stands on all of them; a short write is a failed write; a disk
//! that failed once is not asked again.

use std::{io, sync::Arc};

use hoidla_format::disk::{
    BLOCK,
    batch::{Head, LARGE},
    segment::SegmentHeader,
};

use crate::{
    catalogue::{Part, run_leaf},
    device::{BlocksOf, Buffer, DiskNo, Op, Pool, Request},
    draft::{Draft, Link, Waiter},
    engine::{Engine, places},
    options::Fault,
    source::Source,
    types::{Acknowledged, Event},
};

/// Where one disk stands with a commit or a round of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Writing(usize),
    Flushing,
    Done,
}

/// A commit under way.
pub(crate) struct Flying<P: Pool> {
    pub number: u64,
    pub parts: Vec<Part>,
    pub waiters: Vec<Waiter>,
    pub content: bool,
    pub steps: Vec<Step>,
    pub log: hoidla_log::Frontier,
    pub pool: std::marker::PhantomData<P>,
}

/// What goes to every copy of a segment: slot, first block, bytes.
type Write<P> = (u32, u32, BlocksOf<P>);

/// What a completion is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    pub disk: DiskNo,
    /// Bytes to be written; none for a flush.
    pub write: Option<usize>,
    pub purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Commit(u64),
    Job,
    Prewrite,
    Fences,
}

impl<P: Pool> Engine<P> {
    /// Begins whatever can begin.
    pub(crate) fn move_on(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        self.work_on_fences();
        self.work_on_job();
        self.yield_slot();
        let _ = self.write_tiles(false); // what is refused now is due again at the next turn
        let idle = self.flying.is_empty() && self.building.drafts.is_empty();
        if idle && self.marked < self.content {
            self.begin_mark();
        }
        while self.flying.len() < self.options.depth.max(1) && !self.building.drafts.is_empty() {
            if !self.launch() {
                break;
            }
        }
    }

    /// Seals the commit to be and hands out its writes; false while memory is lacking.
    fn launch(&mut self) -> bool {
        let frontier = self.frontier_len();
        let Some(mut buffers) = self.buffers_for_drafts(frontier) else { return false };
        let building = std::mem::take(&mut self.building);
        let number = self.next_commit;
        self.next_commit += 1;
        let mark = if self.options.faulty(Fault::MarkTooHigh) { number - 1 } else { self.catalogue.commit };
        self.marked = self.marked.max(mark);
        self.since_checkpoint += 1;
        let before = self.frontier.to_bytes();
        let parts_total = building.drafts.len() as u16;
        let content = !building.waiters.is_empty()
            || building.drafts.iter().any(|d| !d.runs.is_empty() || !d.notes.is_empty() || d.retires.is_some());
        let (mut parts, mut writes) = (Vec::new(), Vec::new());
        for (i, draft) in building.drafts.into_iter().enumerate() {
            let (header, front) = buffers.remove(0);
            if let Some(buffer) = header {
                writes.push((draft.slot, 0, self.seal_header(&draft, buffer)));
            }
            let mut head = self.head_of(&draft, number, mark, &before);
            (head.part, head.parts) = (i as u16, parts_total);
            let part = self.seal_part(draft, head, front, &mut writes);
            parts.push(part);
        }
        let mut waiters = building.waiters;
        waiters.iter_mut().for_each(|w| settle_leaf(w, &parts));
        let steps = self.steps_of(&writes);
        let log = self.frontier.clone();
        self.flying.push_back(Flying { number, parts, waiters, content, steps, log, pool: std::marker::PhantomData });
        for (slot, block, blocks) in writes {
            self.write_segment(slot, block, &blocks, Purpose::Commit(number));
        }
        true
    }

    /// What each disk has to do for these writes: a disk that holds none of their slots is done.
    fn steps_of(&self, writes: &[Write<P>]) -> Vec<Step> {
        let geometry = &self.superblock.geometry;
        let count = |d: u8| writes.iter().filter(|w| geometry.holders(w.0) >> d & 1 == 1).count();
        let step = |n| if n == 0 { Step::Done } else { Step::Writing(n) };
        (0..geometry.places).map(|d| step(if self.written() >> d & 1 == 1 { count(d) } else { 0 })).collect()
    }

    /// A buffer for each draft's front, and one for each new segment's header.
    #[allow(clippy::type_complexity)]
    fn buffers_for_drafts(&self, frontier: usize) -> Option<Vec<(Option<P::Buffer>, P::Buffer)>> {
        let one = |d: &Draft<P>| {
            let header = if d.opens { Some(self.pool.take(BLOCK)?) } else { None };
            let index = d.index.as_ref().map_or(0, Vec::len);
            let front = Head::len_of(frontier, d.sum.runs, d.sum.records, d.sum.notes, index) + d.sum.small;
            Some((header, self.pool.take(front)?))
        };
        self.building.drafts.iter().map(one).collect()
    }

    fn seal_header(&mut self, draft: &Draft<P>, mut buffer: P::Buffer) -> BlocksOf<P> {
        let header = SegmentHeader {
            store: self.superblock.store,
            slot: draft.slot,
            incarnation: draft.incarnation,
            run: self.superblock.run,
            dense: draft.dense,
            dataset: draft.generation.dataset.clone(),
            generation: draft.generation.number,
        };
        let (block, hash) = header.to_block();
        self.space.links.insert(draft.slot, Link { hash, number: 0 });
        buffer.as_mut()[..BLOCK].copy_from_slice(&block);
        buffer.freeze(BLOCK)
    }

    fn head_of(&mut self, draft: &Draft<P>, commit: u64, mark: u64, frontier: &[u8]) -> Head {
        let link = self.space.links.get(&draft.slot).expect("an open segment has a link");
        let mut head = Head {
            previous: link.hash,
            number: link.number,
            incarnation: draft.incarnation,
            run: self.superblock.run,
            run_first: self.superblock.run_first,
            commit,
            mark,
            checkpoint: self.superblock.checkpoint,
            part: 0,
            parts: 1,
            moved: draft.dense,
            retires: draft.retires,
            tenure: self.tenure_for(&draft.generation.dataset),
            frontier: frontier.to_vec(),
            runs: draft.runs.clone(),
            notes: draft.notes.clone(),
            index: draft.index.clone(),
        };
        if !head.moved && !draft.generation.is_log() {
            for run in &mut head.runs {
                run.leaf = self.frontier.push(run_leaf(&draft.generation, run));
            }
        }
        head
    }

    fn seal_part(&mut self, draft: Draft<P>, head: Head, mut front: P::Buffer, writes: &mut Vec<Write<P>>) -> Part {
        let (bytes, hash) = head.to_bytes(&self.superblock.key);
        let len = head.front_len();
        let out = front.as_mut();
        out[..bytes.len()].copy_from_slice(&bytes);
        let mut large = Vec::new();
        for (payload, place) in draft.payload.into_iter().zip(head.places()) {
            if payload.len < LARGE as usize {
                out[place..place + payload.len].copy_from_slice(payload.bytes());
            } else {
                large.push((draft.slot, draft.block + (place / BLOCK) as u32, payload.blocks));
            }
        }
        writes.push((draft.slot, draft.block, front.freeze(len)));
        writes.extend(large);
        let end = draft.block + head.blocks();
        self.line.reach(draft.slot, draft.incarnation, draft.block, end);
        match draft.index {
            Some(_) => _ = self.space.links.remove(&draft.slot),
            None => _ = self.space.links.insert(draft.slot, Link { hash, number: head.number + 1 }),
        }
        if let Some(open) = self.space.open.values_mut().find(|o| o.slot == draft.slot) {
            open.next = end;
        }
        Part { slot: draft.slot, block: draft.block, generation: Arc::clone(&draft.generation), dense: draft.dense, head, hash }
    }

    /// The disks that segments are written to.
    fn written(&self) -> u64 {
        if self.options.faulty(Fault::ForgetJoining) { self.current } else { self.writers() }
    }

    /// Writes to every copy of a segment.
    pub(crate) fn write_segment(&mut self, slot: u32, block: u32, blocks: &BlocksOf<P>, purpose: Purpose) {
        let geometry = self.superblock.geometry;
        for disk in places(self.written()) {
            if let Some(first) = geometry.segment_at(slot, disk) {
                self.write(disk, (first + u64::from(block)) * BLOCK as u64, blocks.clone(), purpose);
            }
        }
    }

    pub(crate) fn write(&mut self, disk: DiskNo, at: u64, blocks: BlocksOf<P>, purpose: Purpose) {
        let write = Some(blocks.as_ref().len());
        self.request(Awaited { disk, write, purpose }, Op::Write { at, blocks });
    }

    pub(crate) fn request(&mut self, awaited: Awaited, op: Op<P>) {
        let id = self.next_id;
        self.next_id += 1;
        self.awaited.insert(id, awaited);
        self.requests.push_back(Request { id, disk: awaited.disk, op });
    }

    /// What became of a request: the bytes written (0 for a flush), or why not.
    pub fn complete(&mut self, id: u64, outcome: io::Result<usize>) {
        let Some(awaited) = self.awaited.remove(&id) else { return };
        if self.writers() >> awaited.disk & 1 == 0 || self.stopped.is_some() {
            return;
        }
        match (awaited.write, outcome) {
            (Some(wanted), Ok(written)) if wanted != written => {
                self.stop_disk(awaited.disk, format!("it wrote {written} of {wanted} bytes"));
            }
            (None, Err(_)) if self.options.faulty(Fault::IgnoreFailedFlush) => self.step(awaited),
            (_, Err(why)) => self.stop_disk(awaited.disk, why.to_string()),
            _ => self.step(awaited),
        }
        self.acknowledge();
    }

    fn step(&mut self, awaited: Awaited) {
        let disk = usize::from(awaited.disk);
        let no_flush = self.options.faulty(Fault::NoFlush) && awaited.purpose != Purpose::Job;
        let mid_job = awaited.purpose == Purpose::Job && !self.job.as_ref().is_some_and(|j| j.flushes());
        let step = match awaited.purpose {
            Purpose::Commit(number) => self.flying.iter_mut().find(|f| f.number == number).map(|f| &mut f.steps[disk]),
            Purpose::Job => self.job.as_mut().map(|j| &mut j.steps[disk]),
            Purpose::Fences => self.line.steps.get_mut(disk),
            Purpose::Prewrite => None,
        };
        let Some(step) = step else { return };
        *step = match *step {
            Step::Writing(n) if n > 1 => Step::Writing(n - 1),
            Step::Writing(_) if no_flush || mid_job => Step::Done,
            Step::Writing(_) => Step::Flushing,
            Step::Flushing | Step::Done => Step::Done,
        };
        if *step == Step::Flushing {
            self.request(Awaited { write: None, ..awaited }, Op::Flush);
        }
    }

    /// Acknowledges, in order, what every current copy has flushed.
    pub(crate) fn acknowledge(&mut self) {
        while !self.raising && self.stopped.is_none() && self.flying.front().is_some_and(|f| self.is_durable(f)) {
            let Some(done) = self.flying.pop_front() else { return };
            self.catalogue.apply(&done.parts, true);
            self.rewriting.retain(|slot| self.catalogue.segment(*slot).is_some());
            for part in &done.parts {
                self.space.ahead.remove(&part.slot);
            }
            if done.content {
                self.content = done.number;
            }
            let (log_size, log_root) = (done.log.size(), done.log.root());
            for waiter in done.waiters {
                match waiter {
                    Waiter::Record { ticket, stream, leaf, offset, entry, .. } => {
                        self.settle(stream);
                        let end = offset + u64::from(entry.len);
                        self.events.push_back(Event::Acknowledged(Acknowledged { ticket, stream, end, leaf, log_size, log_root }));
                    }
                    Waiter::Note { ticket, stream } => {
                        stream.into_iter().for_each(|s| self.settle(s));
                        self.events.extend(ticket.map(|ticket| Event::Noted { ticket }));
                    }
                }
            }
        }
    }

    fn is_durable(&self, f: &Flying<P>) -> bool {
        let enough = |s: &Step| match s {
            Step::Done => true,
            Step::Flushing => self.options.faulty(Fault::AcknowledgeBeforeFlush),
            Step::Writing(_) => false,
        };
        let mut steps = places(self.writers()).map(|d| &f.steps[usize::from(d)]);
        if self.options.faulty(Fault::OneCopyIsEnough) { steps.any(enough) } else { steps.all(enough) }
    }

    fn settle(&mut self, stream: hoidla_format::StreamId) {
        if let Some(a) = self.ahead.get_mut(&stream) {
            a.pending -= 1;
            if a.pending == 0 {
                self.ahead.remove(&stream);
            }
        }
    }

    /// Leaves a disk alone for good, and raises the membership epoch on the others.
    pub(crate) fn stop_disk(&mut self, disk: DiskNo, why: String) {
        let joining = self.stop_joining(disk);
        if !joining && self.needs(disk) {
            // It stays a member: nothing was acknowledged without it, and it may work again.
            return self.stop(format!("disk {disk} failed, and no other holds what it holds: {why}"));
        }
        self.current &= !(1 << disk);
        self.disks[usize::from(disk)] = None;
        self.source = Source::new(&self.superblock, &self.disks, self.current);
        self.requests.retain(|r| r.disk != disk);
        self.awaited.retain(|_, a| a.disk != disk);
        self.events.push_back(Event::DiskStopped { disk, why });
        if joining {
            return;
        }
        if self.options.faulty(Fault::KeepMembership) {
            return;
        }
        self.begin_epoch();
    }

    pub(crate) fn stop(&mut self, why: String) {
        self.requests.clear();
        self.awaited.clear();
        self.events.push_back(Event::Stopped { why: why.clone() });
        self.stopped = Some(why);
    }

    pub(crate) fn settle_membership(&mut self) {
        self.raising = false;
        self.tell_promoted();
        self.acknowledge();
    }
}

/// The leaf's index is known once the commit is sealed.
fn settle_leaf(waiter: &mut Waiter, parts: &[Part]) {
    if let Waiter::Record { draft, run, leaf, .. } = waiter {
        *leaf = parts[*draft].head.runs[*run].leaf;
    }
}
