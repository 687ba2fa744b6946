//! Rewriting sparse segments densely. Someone else reads ([`Reader::gather`]), the
//! engine places what was read as moved records, and retires the old segment in the
//! commit that follows all of them.
//!
//! Promises: records and their leaves keep their identity; the old slot is taken into
//! use again only after the rewritten commit is flushed and a checkpoint says that the
//! slot is free; a crash between leaves the old segment, or both. An alarm, or its end, isn't moved:
//! what holds for its stream now is noted anew, so that nothing old is said after it.

use std::collections::BTreeSet;

use hoidla_format::disk::{
    BLOCK,
    batch::{Entry, LARGE, Note, Run, What},
    blocks,
};

use crate::{
    catalogue::Shape,
    copies::{Batch, Copies},
    device::{BlocksOf, Buffer, Pool},
    draft::{Add, Payload, Waiter},
    engine::Engine,
    options::Fault,
    read::{Checked, ReadError, Reader, SegmentRef},
    types::{Event, Refused, Ticket},
};

/// What one batch of a sparse segment holds, read and checked.
pub struct Moved<P: Pool> {
    slot: u32,
    incarnation: u64,
    runs: Vec<(Run, Vec<Payload<P>>)>,
    notes: Vec<Note>,
}

impl<P: Pool> Reader<P> {
    /// Reads the batches of a segment one by one, each checked, for [`Engine::rewrite`].
    /// `each` may fail to go on; what it returned is handed back.
    pub fn gather<E>(&mut self, segment: &SegmentRef, mut each: impl FnMut(Moved<P>) -> Result<(), E>) -> Result<Result<(), E>, ReadError> {
        let copies = self.copies(&segment.source);
        let mut out = Checked::default();
        let mut stopped = Ok(());
        let gathered = copies.each_batch(segment, &mut out, |batch, _| {
            if stopped.is_ok() && !(batch.head.runs.is_empty() && batch.head.notes.is_empty()) {
                stopped = each(read_moved(&copies, batch)?);
            }
            Ok(())
        });
        gathered?;
        match out.damage.first() {
            Some(what) => Err(ReadError::Lost(what.clone())),
            None => Ok(stopped),
        }
    }
}

/// Reads a batch: all small records in one buffer, each large one in its own.
fn read_moved<P: Pool>(copies: &Copies<P>, batch: &Batch) -> Result<Moved<P>, ReadError> {
    let places = batch.head.places();
    let small: Vec<_> = batch.head.records().zip(&places).filter(|(e, _)| e.len < LARGE).map(|(e, at)| (e, *at)).collect();
    let front = read_good(copies, batch, 0, blocks(batch.head.front_len()), &small)?;
    let mut records = batch.head.records().zip(&places);
    let mut runs = Vec::new();
    for run in &batch.head.runs {
        let mut payload = Vec::new();
        for (entry, place) in records.by_ref().take(run.records.len()) {
            let len = entry.len as usize;
            payload.push(match entry.len < LARGE {
                true => Payload { blocks: front.clone(), at: *place, len },
                false => Payload { blocks: read_good(copies, batch, place / BLOCK, blocks(len), &[(entry, 0)])?, at: 0, len },
            });
        }
        runs.push((run.clone(), payload));
    }
    let (slot, incarnation) = (batch.slot, batch.head.incarnation);
    Ok(Moved { slot, incarnation, runs, notes: batch.head.notes.clone() })
}

/// Blocks of a batch from a copy in which all of `records` are good; repairs once if none is.
fn read_good<P: Pool>(
    copies: &Copies<P>,
    batch: &Batch,
    first: usize,
    count: usize,
    records: &[(&Entry, usize)],
) -> Result<BlocksOf<P>, ReadError> {
    for repaired in [false, true] {
        for copy in copies.of(batch.slot) {
            let Some(buffer) = copies.read(&copy, batch.block + first as u32, count)? else { continue };
            let is_good = |(e, at): &(&Entry, usize)| blake3::hash(&buffer.as_ref()[*at..*at + e.len as usize]).as_bytes() == &e.hash.0;
            if records.iter().all(is_good) {
                return Ok(buffer.freeze(count * BLOCK));
            }
        }
        if !repaired {
            copies.reconcile(batch, &mut Checked::default())?;
        }
    }
    Err(ReadError::Lost(format!("segment {}, block {}", batch.slot, batch.block)))
}

impl<P: Pool> Engine<P> {
    /// A closed segment that is worth rewriting, and not yet taken; it is then.
    pub fn sparse(&mut self) -> Option<SegmentRef> {
        let most = u64::from(self.superblock.geometry.segment_blocks) * BLOCK as u64 / 2;
        let sparse = |s: &crate::catalogue::Segment| matches!(s.shape, Shape::Closed(_)) && !s.dense && u64::from(s.payload) * 1024 < most;
        let mut seen = std::collections::HashMap::<u32, (u32, u32)>::new();
        for (slot, s) in self.catalogue.segments.iter().filter(|(slot, s)| sparse(s) && !self.rewriting.contains(slot)) {
            let first = seen.entry(s.generation).or_insert((slot, 0));
            first.1 += 1;
        }
        let dense = |g: &u32| self.space.open.contains_key(&(*g, true));
        let mut worth: Vec<_> = seen.iter().filter(|(g, (_, n))| *n > 1 || dense(g)).map(|(_, (slot, _))| *slot).collect();
        worth.sort_unstable();
        let slot = *worth.first()?;
        self.rewriting.insert(slot);
        self.segment_at(slot)
    }

    /// Takes what a batch of a sparse segment holds into a dense one.
    pub fn rewrite(&mut self, moved: &Moved<P>) -> Result<(), Refused> {
        let Some(segment) = self.catalogue.segment(moved.slot).filter(|s| s.incarnation == moved.incarnation) else { return Ok(()) };
        let generation = segment.generation;
        if self.check_not_gone(&self.catalogue.generations[generation as usize]).is_err() {
            return Ok(());
        }
        if self.options.faulty(Fault::RetireTooEarly) {
            return Ok(());
        }
        let closed: Vec<_> = moved.notes.iter().filter(|n| matches!(n.what, What::Closed(_))).copied().collect();
        let mut add = Add { notes: closed.len(), ..Add::default() };
        for (run, _) in &moved.runs {
            add = run.records.iter().fold(add, |a, e| a.and(Add { runs: 0, ..Add::record(e.len) }));
            add.runs += 1;
        }
        self.note_alarms_anew(moved)?;
        let draft = self.draft_for(generation, true, add, false)?;
        for (run, payload) in &moved.runs {
            let d = &mut self.building.drafts[draft];
            d.runs.push(run.clone());
            d.payload.extend(payload.iter().cloned());
            self.building.bytes += payload.iter().map(|p| p.len).sum::<usize>();
            self.note_in_index(generation, true, run.stream, run.before.length, draft);
        }
        let d = &mut self.building.drafts[draft];
        d.notes.extend(closed);
        d.sum = d.sum.and(add);
        Ok(())
    }

    /// Says of each stream of which a moved batch told an alarm or its end what holds now. Once
    /// more does no harm.
    fn note_alarms_anew(&mut self, moved: &Moved<P>) -> Result<(), Refused> {
        let about: BTreeSet<_> = moved.notes.iter().filter(|n| !matches!(n.what, What::Closed(_))).map(|n| n.stream).collect();
        for stream in about {
            let Some(known) = self.known(stream) else { continue };
            self.note(stream, known.generation, known.alarm.map_or(What::Readmitted, What::Alarmed), None)?;
        }
        Ok(())
    }

    /// All that the segment held was given to [`rewrite`](Self::rewrite) and is durable: the
    /// segment is retired, and [`crate::Event::Noted`] tells when that is durable. Busy while
    /// rewritten records are still under way.
    pub fn retire(&mut self, segment: &SegmentRef, ticket: Ticket) -> Result<(), Refused> {
        let (slot, incarnation) = (segment.slot, segment.incarnation);
        let generation = self.catalogue.segment(slot).filter(|s| s.incarnation == incarnation).map(|s| s.generation);
        let lives = |g: &u32| self.check_not_gone(&self.catalogue.generations[*g as usize]).is_ok();
        let Some(generation) = generation.filter(lives) else {
            self.events.push_back(Event::Noted { ticket });
            return Ok(());
        };
        let streams = self.catalogue.streams.values().filter(|s| s.generation == generation);
        let needed = streams.flat_map(|s| &s.extents).any(|e| e.1 == slot);
        if needed && !self.options.faulty(Fault::RetireTooEarly) {
            let waits = !self.flying.is_empty() || !self.building.drafts.is_empty();
            return Err(if waits { Refused::Busy } else { Refused::NotARecord("the segment holds records that were not rewritten") });
        }
        self.write_tiles(true)?; // the hashes of its leaves, so that a rebuilt catalogue finds them
        let draft = self.draft_for(generation, true, Add::default(), true)?;
        let d = &mut self.building.drafts[draft];
        d.retires = Some((slot, incarnation));
        self.building.waiters.push(Waiter::Note { ticket: Some(ticket), stream: None });
        Ok(())
    }

    /// Gives up rewriting a segment: it may be taken again.
    pub fn give_up(&mut self, segment: &SegmentRef) {
        self.rewriting.remove(&segment.slot);
    }
}
