//! Rebuilding a disk while the store runs.
//!
//! Promises: a disk that joins gets every write from then on, and whoever drives the
//! engine copies what its slots held before ([`Engine::to_copy`], [`Reader::copy`]), each
//! byte checked against its hash on the way; a slot that is being copied is not recycled;
//! the disk counts (and is believed) only once all is there and flushed, with a new
//! membership epoch, as one more change of membership. A crash before that leaves a disk
//! whose superblock says that nothing on it counts: rebuilding begins again.
//!
//! What no other copy holds any more cannot be rebuilt: it is said, and not cut. A disk to copy
//! from that takes no repair keeps nothing from being copied.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use hoidla_format::disk::{
    BLOCK,
    superblock::{AT, Superblock, next_membership},
};

use crate::{
    commit::Step,
    copies::{Copies, Copy},
    device::{Disk, DiskNo, MOST_BUFFER, Pool},
    engine::Engine,
    open::{OpenError, read_superblock},
    options::Fault,
    read::{Checked, ReadError, Reader, SegmentRef},
    source::Source,
    stretch::Stretch,
    types::Event,
};

/// A disk that is being rebuilt.
pub(crate) struct Joining {
    pub place: DiskNo,
    id: JoinId,
    /// Commits up to this one may not be on it: they must be acknowledged before it is known
    /// what to copy.
    after: u64,
    /// Slots with their incarnations, once it is known.
    todo: Option<VecDeque<(u32, u64)>>,
    handed: HashSet<u32>,
    blocks: (u64, u64),
    /// All is copied and flushed: it may become current at the next change of membership.
    copied: bool,
}

/// One attempt to rebuild a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinId(u64);

/// Why a disk cannot be rebuilt, or not at this moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The store has no such place.
    #[error("the store has {places} disks, and no place {place}")]
    Place {
        /// What was asked for.
        place: DiskNo,
        /// The store's places.
        places: u8,
    },
    /// There is a disk at that place.
    #[error("the disk at place {0} is in use: take it out of the store before another takes its place")]
    Taken(DiskNo),
    /// It doesn't hold what the others do.
    #[error("disk {name} has {bytes} bytes, this store needs {needed}: use a larger disk")]
    TooSmall {
        /// The disk's name.
        name: String,
        /// Its size.
        bytes: u64,
        /// What it should have.
        needed: u64,
    },
    /// Nothing else holds what it holds.
    #[error("the disk at place {0} holds what no other disk does: it cannot be left alone")]
    Needed(DiskNo),
    /// That attempt is over: the disk failed, or was stopped.
    #[error("the disk at this place is no longer being rebuilt")]
    Over,
    /// No disk is left.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// What is to be copied next.
#[derive(Debug)]
pub enum ToCopy {
    /// This segment, by [`Reader::copy`]; then say [`Engine::copied`].
    Segment(SegmentRef),
    /// Commits that were under way when the disk joined: ask again soon.
    Wait,
    /// Nothing more. When all that was handed out is copied, flush the disk and say
    /// [`Engine::rebuilt`].
    Nothing,
}

/// How far a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilding {
    /// Its place.
    pub place: DiskNo,
    /// The attempt.
    pub id: JoinId,
    /// Bytes copied, and all that are to be copied; 0 while that isn't known.
    pub bytes: (u64, u64),
}

/// What a disk carries while it is rebuilt: whose it is, and that nothing on it counts.
#[derive(Clone, Debug)]
pub struct Mark(Superblock);

impl Mark {
    pub(crate) fn of(superblock: &Superblock, place: DiskNo) -> Self {
        Self(Superblock { place, membership: 0, base: 0, members: 0, ..superblock.clone() })
    }

    /// Writes it, durably; to be done before the disk joins.
    pub fn write<P: Pool>(&self, disk: &dyn Disk, pool: &P) -> Result<(), OpenError> {
        let failed = |why| OpenError::Io { what: format!("marking {} for rebuilding", disk.name()), why };
        let before = read_superblock(disk, pool)?.map_or(0, |s| s.sequence);
        let mark = Superblock { sequence: self.0.sequence.max(before) + 1, ..self.0.clone() };
        let mut buffer = pool.take(BLOCK).ok_or(OpenError::Memory)?;
        buffer.as_mut()[..BLOCK].copy_from_slice(&mark.to_block());
        for pair in AT.chunks(2) {
            for at in pair {
                disk.write(at * BLOCK as u64, &buffer.as_ref()[..BLOCK]).map_err(failed)?;
            }
            disk.flush().map_err(failed)?;
        }
        Ok(())
    }
}

impl<P: Pool> Engine<P> {
    /// What a disk must carry before it may [`join`](Self::join) at a place.
    pub fn mark(&self, place: DiskNo) -> Result<Mark, JoinError> {
        self.check_free(place)?;
        Ok(Mark::of(&self.superblock, place))
    }

    fn check_free(&self, place: DiskNo) -> Result<(), JoinError> {
        let places = self.superblock.geometry.places;
        if let Some(why) = &self.stopped {
            return Err(JoinError::Stopped(why.clone()));
        }
        if place >= places {
            return Err(JoinError::Place { place, places });
        }
        if self.writers() >> place & 1 == 1 { Err(JoinError::Taken(place)) } else { Ok(()) }
    }

    /// Takes a marked disk in: it gets every write from now on.
    pub fn join(&mut self, place: DiskNo, disk: Arc<dyn Disk>) -> Result<JoinId, JoinError> {
        self.check_free(place)?;
        let needed = self.superblock.geometry.disk_bytes();
        if disk.size() < needed {
            return Err(JoinError::TooSmall { name: disk.name(), bytes: disk.size(), needed });
        }
        self.disks[usize::from(place)] = Some(disk);
        self.joins += 1;
        let id = JoinId(self.joins);
        // Nothing of what is under way is asked of it, not even what its predecessor left undone.
        let under_way = self.flying.iter_mut().map(|f| &mut f.steps).chain(self.job.as_mut().map(|j| &mut j.steps));
        under_way.for_each(|steps| steps[usize::from(place)] = Step::Done);
        self.line.steps.get_mut(usize::from(place)).into_iter().for_each(|step| *step = Step::Done);
        let after = self.next_commit - 1;
        self.joining.push(Joining { place, id, after, todo: None, handed: HashSet::new(), blocks: (0, 0), copied: false });
        Ok(id)
    }

    fn joining(&mut self, id: JoinId) -> Result<&mut Joining, JoinError> {
        self.joining.iter_mut().find(|j| j.id == id).ok_or(JoinError::Over)
    }

    /// What to copy next to a disk that is being rebuilt. Several may be under way at once.
    pub fn to_copy(&mut self, id: JoinId) -> Result<ToCopy, JoinError> {
        let commit = self.catalogue.commit;
        let too_early = self.options.faulty(Fault::CountTooEarly);
        let joining = self.joining(id)?;
        if too_early {
            joining.todo = Some(VecDeque::new());
        }
        if joining.todo.is_none() {
            if commit < joining.after {
                return Ok(ToCopy::Wait);
            }
            let place = joining.place;
            let (todo, blocks) = self.held_by(place);
            let joining = self.joining(id)?;
            (joining.todo, joining.blocks.1) = (Some(todo), blocks);
        }
        while let Some((slot, incarnation)) = self.joining(id)?.todo.as_mut().and_then(VecDeque::pop_front) {
            // A segment that was retired meanwhile needs no copy, and one begun meanwhile has it.
            if self.catalogue.segment(slot).is_some_and(|s| s.incarnation == incarnation)
                && let Some(segment) = self.segment_at(slot)
            {
                self.joining(id)?.handed.insert(slot);
                return Ok(ToCopy::Segment(segment));
            }
        }
        Ok(ToCopy::Nothing)
    }

    /// The segments that belong on a disk and that some current disk has; and their blocks.
    fn held_by(&self, place: DiskNo) -> (VecDeque<(u32, u64)>, u64) {
        let geometry = &self.superblock.geometry;
        let held = self.catalogue.segments.iter().filter(|(slot, _)| geometry.holders(*slot) >> place & 1 == 1 && self.has_copy(*slot));
        let mut blocks = 0;
        let todo = held.map(|(slot, s)| {
            blocks += u64::from(s.end);
            (slot, s.incarnation)
        });
        (todo.collect(), blocks)
    }

    /// A segment that was handed out is copied.
    pub fn copied(&mut self, id: JoinId, segment: &SegmentRef) -> Result<(), JoinError> {
        let joining = self.joining(id)?;
        if joining.handed.remove(&segment.slot) {
            joining.blocks.0 += u64::from(segment.end);
        }
        Ok(())
    }

    /// A segment that was handed out could not be copied: it is to be handed out again.
    pub fn not_copied(&mut self, id: JoinId, segment: &SegmentRef) -> Result<(), JoinError> {
        let joining = self.joining(id)?;
        if joining.handed.remove(&segment.slot)
            && let Some(todo) = &mut joining.todo
        {
            todo.push_back((segment.slot, segment.incarnation));
        }
        Ok(())
    }

    /// Everything was copied and the disk flushed: it becomes current with the next change of
    /// membership, and [`Event::DiskJoined`] tells when. Over if something was not copied.
    pub fn rebuilt(&mut self, id: JoinId) -> Result<(), JoinError> {
        let joining = self.joining(id)?;
        joining.copied = joining.handed.is_empty() && joining.todo.as_ref().is_some_and(VecDeque::is_empty);
        if joining.copied { Ok(()) } else { Err(JoinError::Over) }
    }

    /// Leaves a disk alone from now on, as if it had failed: one that is to be taken out, or
    /// one that could not be rebuilt.
    pub fn leave(&mut self, place: DiskNo, why: String) -> Result<(), JoinError> {
        if self.writers() >> place & 1 == 0 {
            return Err(JoinError::Over);
        }
        if self.needs(place) {
            return Err(JoinError::Needed(place));
        }
        self.stop_disk(place, why);
        self.acknowledge();
        Ok(())
    }

    /// The disks that are being rebuilt.
    pub fn rebuilding(&self) -> Vec<Rebuilding> {
        let bytes = |blocks: u64| blocks * BLOCK as u64;
        self.joining.iter().map(|j| Rebuilding { place: j.place, id: j.id, bytes: (bytes(j.blocks.0), bytes(j.blocks.1)) }).collect()
    }

    /// Whether losing this disk now would leave something without a copy.
    pub fn needs(&self, place: DiskNo) -> bool {
        self.superblock.geometry.loses(self.current, self.current & !(1 << place))
    }

    /// Gives up rebuilding the disk at a place; whether it was being rebuilt.
    pub(crate) fn stop_joining(&mut self, place: DiskNo) -> bool {
        let before = self.joining.len();
        self.joining.retain(|j| j.place != place);
        self.joining.len() < before
    }

    /// Makes a rebuilt disk a member, if there is one. Whatever it was given is flushed before
    /// its superblock says so, by the checkpoint that follows.
    pub(crate) fn promote(&mut self) -> bool {
        let Some(at) = self.joining.iter().position(|j| j.copied) else { return false };
        let joined = self.joining.remove(at).place;
        self.current |= 1 << joined;
        self.source = Source::new(&self.superblock, &self.disks, self.current);
        self.promoted |= 1 << joined;
        self.begin_epoch();
        true
    }

    /// Begins a membership epoch of the disks that are current now: it is written next.
    pub(crate) fn begin_epoch(&mut self) {
        let s = &mut self.superblock;
        if !self.raising {
            s.base = s.membership;
        }
        s.membership = next_membership(s.membership, self.current, s.geometry.places);
        s.members = self.current;
        self.raising = true;
    }

    /// The membership epoch counts: says which disks became current with it.
    pub(crate) fn tell_promoted(&mut self) {
        let promoted = std::mem::take(&mut self.promoted) & self.current;
        self.events.extend(crate::engine::places(promoted).map(|disk| Event::DiskJoined { disk }));
    }
}

impl<P: Pool> Reader<P> {
    /// Copies a segment to the disk at `place`, which is being rebuilt; every byte is checked.
    /// After each stretch `pace` is told its bytes and may wait, so that other work goes first;
    /// false ends the copying. What no copy holds is said in the result, and which other disk
    /// takes no repair: what it lacks gets to this one all the same.
    pub fn copy(&mut self, segment: &SegmentRef, place: DiskNo, mut pace: impl FnMut(u64) -> bool) -> Result<Checked, ReadError> {
        let good = self.copies(&segment.source);
        let all = self.copies(&segment.source).with_target(self.disks(), place);
        let Some(target) = all.of(segment.slot).find(|c| c.no == place) else { return Ok(Checked::default()) };
        for source in good.of(segment.slot) {
            match copy_whole(&good, &source, &target, segment, &mut pace)? {
                Outcome::Copied => return Ok(Checked { bytes: segment.bytes(), ..Checked::default() }),
                Outcome::Ended => return Err(ReadError::Busy),
                Outcome::Bad => {}
            }
        }
        // No copy is whole by itself: put it together, piece by piece.
        let mut out = Checked::default();
        all.each_batch(segment, &mut out, |batch, out| all.reconcile(batch, out))?;
        let written_here = format!("disk {place},");
        out.repaired.retain(|what| !what.starts_with(&written_here));
        Ok(out)
    }
}

enum Outcome {
    Copied,
    Ended,
    Bad,
}

/// Copies one whole copy in large stretches, each checked before it is written.
fn copy_whole<P: Pool>(
    copies: &Copies<P>,
    source: &Copy<'_>,
    target: &Copy<'_>,
    segment: &SegmentRef,
    pace: &mut impl FnMut(u64) -> bool,
) -> Result<Outcome, ReadError> {
    let mut stretch = Stretch::new(segment);
    while let Some((block, count)) = stretch.next(MOST_BUFFER / BLOCK) {
        let Some(buffer) = copies.read(source, block, count)? else { return Ok(Outcome::Bad) };
        let Some(good) = stretch.check(&buffer.as_ref()[..count * BLOCK]) else { return Ok(Outcome::Bad) };
        let failed = |e: std::io::Error| {
            let what = format!("disk {}, segment {}", target.no, segment.slot);
            ReadError::Repair { disk: target.no, what, why: e.to_string() }
        };
        target.write(block, &buffer.as_ref()[..good * BLOCK]).map_err(failed)?;
        if !pace((good * BLOCK) as u64) {
            return Ok(Outcome::Ended);
        }
    }
    Ok(Outcome::Copied)
}
