//! The engine: takes records, hands out requests, tells what became of them.
//!
//! Promises: it does no I/O and keeps no more memory than the records it was given,
//! a bounded commit or two and its catalogue; what it acknowledges, every current copy
//! has flushed; requests may be completed in any order; the same calls give the same
//! requests. It needs no clock: a commit gathers what came while the one before it was
//! written. It doesn't read: [`crate::Reader`] does.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use hoidla_format::{
    Hash32, Name, StreamId,
    disk::{
        BLOCK,
        batch::{Entry, Note, What},
        superblock::Superblock,
    },
    frame::{self, Chain},
};
use hoidla_log::Frontier;

use crate::{
    catalogue::Catalogue,
    commit::{Awaited, Flying},
    device::{Counters, DiskNo, Disks, Pool, Request},
    draft::{Building, Payload, Waiter},
    expiry::Kept,
    fence::Line,
    job::Job,
    options::{Fault, Options},
    read::{Place, SegmentRef},
    rebuild::Joining,
    source::Source,
    space::{Open, Space},
    tiles::is_internal,
    types::*,
};

/// The store, running.
pub struct Engine<P: Pool> {
    pub(crate) pool: Arc<P>,
    pub(crate) counters: Box<dyn Counters>,
    pub(crate) options: Options,
    pub(crate) disks: Disks,
    /// The places that are current.
    pub(crate) current: u64,
    /// The disks there, for whoever reads.
    pub(crate) source: Source,
    /// Disks that are being rebuilt: written like current ones, and never believed.
    pub(crate) joining: Vec<Joining>,
    pub(crate) superblock: Superblock,
    /// What is durable.
    pub(crate) catalogue: Catalogue,
    /// What will be, once all that is under way is durable.
    pub(crate) ahead: HashMap<StreamId, Ahead>,
    pub(crate) frontier: Frontier,
    pub(crate) next_commit: u64,
    pub(crate) space: Space,
    pub(crate) building: Building<P>,
    pub(crate) flying: VecDeque<Flying<P>>,
    /// The highest mark that a sealed batch carries.
    pub(crate) marked: u64,
    /// The last acknowledged commit that was more than a mark.
    pub(crate) content: u64,
    pub(crate) requests: VecDeque<Request<P>>,
    pub(crate) awaited: HashMap<u64, Awaited>,
    pub(crate) next_id: u64,
    pub(crate) events: VecDeque<Event>,
    pub(crate) job: Option<Job<P>>,
    /// Membership has changed and isn't on all disks yet: nothing is acknowledged.
    pub(crate) raising: bool,
    pub(crate) since_checkpoint: u64,
    pub(crate) line: Line,
    pub(crate) rewriting: HashSet<u32>,
    /// Powered seconds, as told.
    pub(crate) powered: u64,
    /// Where time went on by the authority's word: from, and to.
    pub(crate) skipped: Vec<(u64, u64)>,
    /// What was said of datasets and isn't in the catalogue yet.
    pub(crate) promised: HashMap<Name, Kept>,
    pub(crate) joins: u64,
    /// Became current with the membership epoch that is being written.
    pub(crate) promoted: u64,
    pub(crate) stopped: Option<String>,
    /// Why it only reads.
    pub(crate) only_reads: Option<String>,
    /// Where the log's counter stands, and who waits for it to be raised.
    pub(crate) counted: u64,
    pub(crate) counting: Option<Ticket>,
}

/// A stream as it will be.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    pub generation: u32,
    pub chain: Chain,
    pub epoch: u32,
    pub closed: u32,
    pub alarm: Option<u64>,
    /// Waiters that will touch it.
    pub pending: u32,
}

impl<P: Pool> Engine<P> {
    /// The disks by place, for readers and verification, and for the driver of [`Request`]s.
    pub fn disks(&self) -> Disks {
        self.disks.clone()
    }

    /// The places whose copy is current.
    pub fn current(&self) -> Vec<DiskNo> {
        places(self.current).collect()
    }

    /// The places that are written: current, or being rebuilt.
    pub(crate) fn writers(&self) -> u64 {
        self.joining.iter().fold(self.current, |mask, j| mask | 1 << j.place)
    }

    /// Takes one record. Whatever is refused leaves no trace.
    pub fn append(&mut self, record: Record<P>, ticket: Ticket) -> Result<Appended, Refused> {
        self.check_running()?;
        check_record(&record)?;
        self.check_not_gone(&record.generation)?;
        let known = self.known(record.stream);
        if let Some(a) = &known {
            self.check_belongs(a, &record.generation)?;
        }
        let (chain, epoch, closed) = known.as_ref().map_or((Chain::EMPTY, 0, 0), |a| (a.chain, a.epoch, a.closed));
        if record.offset < chain.length {
            return self.append_again(&record, ticket);
        }
        if record.offset > chain.length {
            return Err(Refused::Gap { offset: record.offset, expected: chain.length });
        }
        if record.epoch < epoch || record.epoch <= closed {
            return Err(Refused::EpochOver { epoch: record.epoch, next: epoch.max(closed.saturating_add(1)) });
        }
        if record.epoch > epoch {
            self.check_catalogue_room()?;
        }
        self.place_record(record, ticket)?;
        Ok(Appended::Pending)
    }

    pub(crate) fn check_running(&self) -> Result<(), Refused> {
        let stopped = self.stopped.as_ref().map(|why| Refused::Stopped(why.clone()));
        let refusal = stopped.or_else(|| self.only_reads.as_ref().map(|why| Refused::OnlyReads(why.clone())));
        refusal.map_or(Ok(()), Err)
    }

    fn check_belongs(&self, a: &Ahead, generation: &Generation) -> Result<(), Refused> {
        if *self.catalogue.generations[a.generation as usize] != *generation {
            return Err(Refused::Foreign);
        }
        a.alarm.map_or(Ok(()), |presented| Err(Refused::Alarmed { presented }))
    }

    /// A stream as it will be, if there is one.
    pub(crate) fn known(&self, stream: StreamId) -> Option<Ahead> {
        self.ahead.get(&stream).cloned().or_else(|| {
            let s = self.catalogue.streams.get(&stream)?;
            let epoch = s.epochs.last().map_or(0, |e| e.0);
            Some(Ahead { generation: s.generation, chain: s.chain, epoch, closed: s.closed, alarm: s.alarm, pending: 0 })
        })
    }

    fn append_again(&mut self, record: &Record<P>, ticket: Ticket) -> Result<Appended, Refused> {
        if let Some(place) = self.locate(record.stream, record.offset) {
            return Ok(Appended::Before(place));
        }
        let lists = self.flying.iter_mut().map(|f| &mut f.waiters).chain([&mut self.building.waiters]);
        for waiters in lists {
            let same_place =
                |w: &&Waiter| matches!(w, Waiter::Record { stream, offset, .. } if (*stream, *offset) == (record.stream, record.offset));
            let Some(found) = waiters.iter().find(same_place) else { continue };
            let mut again = found.clone();
            let Waiter::Record { ticket: t, entry, epoch, .. } = &mut again else { continue };
            let same = *entry == (Entry { len: record.len, hash: record.hash }) && *epoch == record.epoch;
            if !same && !self.options.faulty(Fault::ForkUnseen) {
                break;
            }
            *t = ticket;
            waiters.push(again);
            if let Some(a) = self.ahead.get_mut(&record.stream) {
                a.pending += 1;
            }
            return Ok(Appended::Pending);
        }
        let offset = record.offset;
        let was_stored = self.catalogue.streams.get(&record.stream).is_some_and(|s| offset < s.chain.length);
        Err(if was_stored { Refused::Lost { offset } } else { Refused::Fork { offset } })
    }

    /// The checkpoint must keep room for all segments that may come.
    fn check_catalogue_room(&self) -> Result<(), Refused> {
        let area = self.superblock.geometry.catalogue_blocks as usize * BLOCK;
        let most = self.catalogue.weight
            + self.catalogue.tiles.weight()
            + self.ahead.len() * 256
            + self.superblock.geometry.slots as usize * 67
            + area / 4;
        if most < area { Ok(()) } else { Err(Refused::TooManyStreams) }
    }

    fn place_record(&mut self, record: Record<P>, ticket: Ticket) -> Result<(), Refused> {
        let (stream, offset, epoch) = (record.stream, record.offset, record.epoch);
        let known = self.catalogue.known_generation(&record.generation);
        let generation = self.catalogue.generation(&record.generation);
        let add = crate::draft::Add::record(record.len);
        let draft = self.draft_for(generation, false, add, false).inspect_err(|_| {
            if known.is_none() {
                self.catalogue.vacate(generation);
            }
        })?;
        let entry = Entry { len: record.len, hash: record.hash };
        let run =
            self.add_record(generation, draft, stream, epoch, entry, Payload { blocks: record.blocks, at: 0, len: record.len as usize });
        self.building.waiters.push(Waiter::Record { ticket, stream, draft, run, leaf: 0, offset, entry, epoch });
        Ok(())
    }

    /// Puts a record into a draft that has room for it; in which of its runs.
    pub(crate) fn add_record(
        &mut self,
        generation: u32,
        draft: usize,
        stream: StreamId,
        epoch: u32,
        entry: Entry,
        payload: Payload<P>,
    ) -> usize {
        let before = self.ahead_of(stream, generation).chain;
        let d = &mut self.building.drafts[draft];
        let new_run = d.add(stream, epoch, before, entry, payload);
        let run = d.runs.iter().rposition(|r| r.stream == stream).expect("just added");
        self.building.bytes += entry.len as usize;
        if new_run {
            self.note_in_index(generation, false, stream, before.length, draft);
        }
        let ahead = self.ahead_of(stream, generation);
        ahead.chain = before.then(&entry.hash, entry.len);
        ahead.epoch = epoch;
        ahead.pending += 1;
        run
    }

    pub(crate) fn ahead_of(&mut self, stream: StreamId, generation: u32) -> &mut Ahead {
        let known = self.known(stream);
        let new = || Ahead { generation, chain: Chain::EMPTY, epoch: 0, closed: 0, alarm: None, pending: 0 };
        self.ahead.entry(stream).or_insert_with(|| known.unwrap_or_else(new))
    }

    /// Closes all epochs of a stream up to `epoch`; appends to them are refused from now on.
    /// [`Event::Noted`] says when it is durable.
    pub fn close_epoch(&mut self, stream: StreamId, epoch: u32, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        let known = self.known(stream).ok_or(Refused::Unknown)?;
        if known.closed >= epoch && known.pending == 0 {
            self.events.push_back(Event::Noted { ticket });
            return Ok(());
        }
        self.note(stream, known.generation, What::Closed(epoch), Some(ticket))?;
        let ahead = self.ahead_of(stream, known.generation);
        ahead.closed = ahead.closed.max(epoch);
        Ok(())
    }

    /// An agent says up to where it holds acknowledgements, before it sends. If the store has
    /// less it is behind (rewound, or damaged): the stream is refused, durably, until
    /// [`readmit`](Self::readmit). A stream that the store doesn't know at all is refused
    /// each time, without a trace; so is one where the store is too full to note it.
    pub fn present(&mut self, generation: &Generation, stream: StreamId, offset: u64) -> Result<StreamState, Refused> {
        self.check_running()?;
        self.check_not_gone(generation)?;
        if is_internal(generation, stream) {
            return Err(Refused::Foreign);
        }
        let Some(known) = self.known(stream) else {
            return if offset == 0 { Ok(nothing_of(generation)) } else { Err(Refused::Alarmed { presented: offset }) };
        };
        self.check_belongs(&known, generation)?;
        let state = self.catalogue.state(stream).unwrap_or_else(|| nothing_of(generation));
        if offset > state.chain.length {
            match self.note(stream, known.generation, What::Alarmed(offset), None) {
                Ok(()) => self.ahead_of(stream, known.generation).alarm = Some(offset),
                Err(Refused::Busy) => return Err(Refused::Busy),
                Err(_) => {} // no room to write it down: it is one all the same, each time
            }
            return Err(Refused::Alarmed { presented: offset });
        }
        Ok(state)
    }

    /// An operator has looked and takes the stream as it is.
    pub fn readmit(&mut self, stream: StreamId, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        let known = self.known(stream).ok_or(Refused::Unknown)?;
        self.note(stream, known.generation, What::Readmitted, Some(ticket))?;
        self.ahead_of(stream, known.generation).alarm = None;
        Ok(())
    }

    pub(crate) fn note(&mut self, stream: StreamId, generation: u32, what: What, ticket: Option<Ticket>) -> Result<(), Refused> {
        let add = crate::draft::Add { notes: 1, ..Default::default() };
        let draft = self.draft_for(generation, false, add, true)?;
        let d = &mut self.building.drafts[draft];
        d.notes.push(Note { stream, what });
        d.sum = d.sum.and(add);
        self.ahead_of(stream, generation).pending += 1;
        self.building.waiters.push(Waiter::Note { ticket, stream: Some(stream) });
        Ok(())
    }

    /// What is acknowledged of a stream.
    pub fn state(&self, stream: StreamId) -> Option<StreamState> {
        self.catalogue.state(stream)
    }

    /// All streams of a dataset, in order of their ids.
    pub fn streams(&self, dataset: &Name) -> Vec<(StreamId, StreamState)> {
        let ids = self.catalogue.streams.keys();
        ids.filter_map(|id| Some((*id, self.state(*id)?))).filter(|(_, s)| s.generation.dataset == *dataset).collect()
    }

    /// The log as of the last acknowledgement: size and root.
    pub fn log_head(&self) -> (u64, Hash32) {
        (self.catalogue.frontier.size(), self.catalogue.frontier.root())
    }

    /// The log's frontier as of the last acknowledgement.
    pub fn log_frontier(&self) -> &Frontier {
        &self.catalogue.frontier
    }

    /// Where the record that holds `offset` of a stream lies, once it is acknowledged;
    /// it stays there while the place is held.
    pub fn locate(&mut self, stream: StreamId, offset: u64) -> Option<Place> {
        let pin = self.space.pin(self.catalogue.slot_of(stream, offset)?);
        self.catalogue.place(stream, offset, &self.source, pin)
    }

    /// The next segment with number `from` or above that holds something, for verification;
    /// it is not recycled while the reference is held.
    pub fn segment(&mut self, from: u32) -> Option<SegmentRef> {
        let slot = (from..self.superblock.geometry.slots).find(|s| self.catalogue.segment(*s).is_some())?;
        self.segment_at(slot)
    }

    pub(crate) fn segment_at(&mut self, slot: u32) -> Option<SegmentRef> {
        let s = self.catalogue.segment(slot)?;
        let (incarnation, end) = (s.incarnation, s.end);
        let generation = self.catalogue.generations[s.generation as usize].clone();
        let (store, source) = (self.superblock.store, self.source.clone());
        Some(SegmentRef { store, slot, incarnation, end, source, generation, pin: self.space.pin(slot) })
    }

    /// What to do next to a disk; none when all waits for completions or submissions.
    /// Submit all there is before asking: a commit begins here.
    pub fn next_request(&mut self) -> Option<Request<P>> {
        if self.requests.is_empty() {
            self.move_on();
        }
        self.requests.pop_front()
    }

    /// Requests handed out or waiting, of which no completion is known.
    pub fn under_way(&self) -> usize {
        self.awaited.len()
    }

    /// Whether something that was taken isn't durable yet.
    pub fn is_waiting(&self) -> bool {
        !self.flying.is_empty() || !self.building.drafts.is_empty()
    }

    /// The next thing to tell.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes of segments still free, and of all segments, each counted once.
    pub fn room(&self) -> (u64, u64) {
        let g = &self.superblock.geometry;
        let segment = u64::from(g.segment_blocks) * BLOCK as u64;
        (self.free_slots() as u64 * segment, u64::from(g.slots) * segment)
    }

    /// Bytes of segments that each dataset has, on each disk.
    pub fn used(&self) -> std::collections::BTreeMap<Name, u64> {
        let segment = u64::from(self.superblock.geometry.segment_blocks) * BLOCK as u64;
        let mut used = std::collections::BTreeMap::new();
        for (_, s) in self.catalogue.segments.iter() {
            let dataset = &self.catalogue.generations[s.generation as usize].dataset;
            *used.entry(dataset.clone()).or_default() += segment;
        }
        used
    }

    /// Bytes of a segment, and the generations for which one is open.
    pub fn open_generations(&self) -> (u64, Vec<Generation>) {
        let open = self.space.open.keys().filter(|(_, dense)| !dense);
        let open = open.map(|(g, _)| (*self.catalogue.generations[*g as usize]).clone()).collect();
        (u64::from(self.superblock.geometry.segment_blocks) * BLOCK as u64, open)
    }

    pub(crate) fn free_slots(&self) -> usize {
        let segments = &self.catalogue.segments;
        if self.superblock.geometry.loses(u64::MAX, self.current) {
            let free = |s: &u32| segments.get(*s).is_none() && !self.space.ahead.contains(s) && self.has_copy(*s);
            return (0..segments.len()).filter(free).count();
        }
        let ahead = self.space.ahead.iter().filter(|s| segments.get(**s).is_none()).count();
        (segments.len() - segments.used()) as usize - ahead
    }

    /// Whether a current disk holds the slot.
    pub(crate) fn has_copy(&self, slot: u32) -> bool {
        self.superblock.geometry.holders(slot) & self.current != 0
    }

    /// Opens a segment for a generation; its slot must be there.
    pub(crate) fn open_segment(&mut self, generation: u32, dense: bool) -> Option<()> {
        let (geometry, writers) = (self.superblock.geometry, self.writers());
        let slot = self.space.take(|slot| geometry.holders(slot) & !writers == 0)?;
        let incarnation = self.space.next_incarnation;
        self.space.next_incarnation += 1;
        let used = self.space.touch();
        self.space.open.insert((generation, dense), Open { slot, incarnation, next: 1, index: Vec::new(), new: true, used });
        Some(())
    }
}

/// The places of a mask, lowest first.
pub(crate) fn places(mask: u64) -> impl Iterator<Item = DiskNo> {
    (0..64).filter(move |d| mask >> d & 1 == 1)
}

fn nothing_of(generation: &Generation) -> StreamState {
    StreamState { generation: generation.clone(), epoch: 0, closed: 0, chain: Chain::EMPTY, epochs: Vec::new(), alarm: None }
}

fn check_record<P: Pool>(r: &Record<P>) -> Result<(), Refused> {
    if is_internal(&r.generation, r.stream) {
        return Err(Refused::Foreign);
    }
    if r.epoch == 0 {
        return Err(Refused::NotARecord("epochs count from 1"));
    }
    if r.len == 0 || r.len as usize > frame::MOST || r.blocks.as_ref().len() < r.len as usize {
        return Err(Refused::NotARecord("a record has 1 byte to 1 MiB"));
    }
    if r.offset > 1 << 61 {
        return Err(Refused::NotARecord("no stream is that long"));
    }
    Ok(())
}
