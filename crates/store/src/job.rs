//! What the engine writes besides commits: catalogue checkpoints and superblocks.
//!
//! Promises: a checkpoint goes to the area that the last one doesn't hold, a piece at a
//! time, and counts only when the superblocks say so; superblocks are written two copies, flush, two,
//! flush, so that a power cut leaves one pair whole, the lowest place first; a new membership epoch stands on
//! all remaining disks and in the counter before anything is acknowledged again.

use hoidla_format::disk::{
    BLOCK, blocks,
    catalogue::{self, Pieces},
    superblock::{AT, Superblock},
};

use crate::{
    checkpoint::Items,
    commit::{Purpose, Step},
    device::{Buffer, Pool},
    engine::{Engine, places},
    options::Fault,
};

/// The most slots that may be taken into use between two checkpoints.
const MOST_RESERVE: usize = 64;

/// A checkpoint, a change of membership, or both.
pub(crate) struct Job<P: Pool> {
    checkpoint: Option<Checkpoint>,
    round: Round,
    pub steps: Vec<Step>,
    /// The superblock being written, once it is its turn.
    superblock: Option<Superblock>,
    pool: std::marker::PhantomData<P>,
}

/// A checkpoint that is being written.
struct Checkpoint {
    sequence: u64,
    reserve: Vec<u32>,
    /// Segments that it doesn't call open any more.
    over: Vec<(u32, u64)>,
    items: Items,
    pieces: Pieces,
    /// The next piece, and the block of its area that it goes to; none after the last.
    next: Option<Vec<u8>>,
    block: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    Catalogue,
    /// Superblocks: these two copies, of the lowest place, or of all others.
    Superblocks {
        lead: bool,
        second: bool,
    },
    Over,
}

const FIRST: Round = Round::Superblocks { lead: true, second: false };

impl<P: Pool> Job<P> {
    /// Whether this round ends with a flush.
    pub fn flushes(&self) -> bool {
        self.round != Round::Catalogue || self.checkpoint.as_ref().is_none_or(|c| c.next.is_none())
    }
}

impl Checkpoint {
    fn turn(&mut self, most: usize) {
        self.next = self.pieces.next(&mut self.items, most.clamp(BLOCK, catalogue::MOST_PIECE));
    }
}

impl<P: Pool> Engine<P> {
    /// Begins a job if one is due, and the next round of the one under way.
    pub(crate) fn work_on_job(&mut self) {
        while self.stopped.is_none() {
            if self.job.is_none() {
                self.begin_what_is_due();
            }
            let ready = |job: &Job<P>| places(self.writers()).all(|d| job.steps[usize::from(d)] == Step::Done);
            if !self.job.as_ref().is_some_and(ready) || (!self.next_round() && self.job.is_some()) {
                return;
            }
        }
    }

    fn begin_what_is_due(&mut self) {
        if self.raising {
            self.begin_job(None);
        } else if self.promote() {
            self.begin_checkpoint();
            if self.job.is_none() {
                self.begin_job(None);
            }
        } else if self.checkpoint_is_due() {
            self.begin_checkpoint();
        }
        if self.job.is_none() && self.counting.is_some() {
            self.begin_job(None);
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let most = MOST_RESERVE.min(self.superblock.geometry.slots as usize);
        // The slot that is being written with zeros comes back by itself: for it alone, one checkpoint would follow another.
        let known = self.space.reserve.len() + usize::from(self.space.prewriting.is_some());
        let low = self.space.reserve.len() < most / 2 && self.next_reserve().len() > known;
        (low && (self.since_checkpoint > 0 || !self.space.outgrown)) || self.since_checkpoint >= self.options.checkpoint_commits
    }

    /// The slots to open next: those still in reserve, then recycled ones, then fresh ones.
    pub(crate) fn next_reserve(&self) -> Vec<u32> {
        let free = |s: &u32| {
            self.catalogue.segment(*s).is_none() && !self.space.ahead.contains(s) && !self.space.reserve.contains(s) && self.has_copy(*s)
        };
        let prewriting = self.space.prewriting.map(|p| p.0);
        let others = (0..self.superblock.geometry.slots).filter(free);
        self.space.reserve.iter().copied().chain(prewriting).chain(others.filter(|s| Some(*s) != prewriting)).take(MOST_RESERVE).collect()
    }

    fn begin_checkpoint(&mut self) {
        // Slots whose first commit is under way must be looked at too, should it have been flushed.
        let reserve = self.next_reserve();
        let looked_at: Vec<_> = reserve.iter().chain(&self.space.ahead).copied().collect();
        if looked_at.len() > catalogue::MOST_RESERVE {
            return;
        }
        let sequence = self.superblock.checkpoint + 1;
        let items = self.catalogue.items(self.superblock.run, self.superblock.run_first, looked_at);
        self.since_checkpoint = 0;
        self.space.taken.clear();
        let over = self.line.over(|slot| self.space.ahead.contains(&slot) || self.catalogue.tails.contains_key(&slot));
        let mut checkpoint = Checkpoint { sequence, reserve, over, items, pieces: Pieces::new(sequence), next: None, block: 0 };
        checkpoint.turn(self.options.piece);
        self.begin_job(Some(checkpoint));
    }

    fn begin_job(&mut self, checkpoint: Option<Checkpoint>) {
        let round = if checkpoint.is_none() { FIRST } else { Round::Catalogue };
        let steps = vec![Step::Done; usize::from(self.superblock.geometry.places)];
        // `Done` at the start: the first round begins as if one had ended before it.
        self.job = Some(Job { checkpoint, round, steps, superblock: None, pool: std::marker::PhantomData });
    }

    /// Hands out the next round's writes; false while memory is lacking or nothing is left.
    fn next_round(&mut self) -> bool {
        let Some(mut job) = self.job.take() else { return false };
        let more = match job.round {
            Round::Catalogue => match &mut job.checkpoint {
                Some(c) if c.next.is_some() => {
                    if !self.has_room_for(c) {
                        self.space.outgrown = true;
                        tracing::error!("the catalogue has outgrown its area; no more segments can be opened");
                        return false;
                    }
                    self.write_piece(c, &mut job.steps)
                }
                done => {
                    self.superblock.checkpoint = done.as_ref().map_or(self.superblock.checkpoint, |c| c.sequence);
                    job.round = FIRST;
                    true
                }
            },
            Round::Superblocks { lead, second } => {
                self.write_pair(&mut job, lead, second) && {
                    job.round = match (lead, second) {
                        (_, false) => Round::Superblocks { lead, second: true },
                        (true, true) => Round::Superblocks { lead: false, second: false },
                        (false, true) => Round::Over,
                    };
                    true
                }
            }
            Round::Over => {
                self.end_job(&job);
                return true;
            }
        };
        self.job = Some(job);
        more
    }

    fn has_room_for(&self, c: &Checkpoint) -> bool {
        let len = c.next.as_ref().map_or(0, Vec::len);
        c.block + blocks(len) as u64 <= u64::from(self.superblock.geometry.catalogue_blocks)
    }

    fn write_piece(&mut self, c: &mut Checkpoint, steps: &mut [Step]) -> bool {
        let Some(bytes) = &c.next else { return true };
        let Some(mut buffer) = self.pool.take(bytes.len()) else { return false };
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        let blocks = buffer.freeze(bytes.len());
        let at = (self.superblock.geometry.catalogue_at(c.sequence % 2) + c.block) * BLOCK as u64;
        c.block += (blocks.as_ref().len() / BLOCK) as u64;
        c.turn(self.options.piece);
        for disk in places(self.writers()) {
            steps[usize::from(disk)] = Step::Writing(1);
            self.write(disk, at, blocks.clone(), Purpose::Job);
        }
        true
    }

    fn write_pair(&mut self, job: &mut Job<P>, lead: bool, second: bool) -> bool {
        if job.superblock.is_none() {
            self.superblock.sequence += 1;
            job.superblock = Some(self.superblock.clone());
        }
        let Some(mut superblock) = job.superblock.clone() else { return false };
        let lowest = self.current.trailing_zeros();
        let disks: Vec<_> = places(self.current).filter(|d| (u32::from(*d) == lowest) == lead).collect();
        let Some(buffers) = disks.iter().map(|_| self.pool.take(BLOCK)).collect::<Option<Vec<_>>>() else { return false };
        for (disk, mut buffer) in disks.into_iter().zip(buffers) {
            superblock.place = disk;
            buffer.as_mut()[..BLOCK].copy_from_slice(&superblock.to_block());
            let blocks = buffer.freeze(BLOCK);
            job.steps[usize::from(disk)] = Step::Writing(2);
            for at in &AT[2 * usize::from(second)..][..2] {
                self.write(disk, at * BLOCK as u64, blocks.clone(), Purpose::Job);
            }
        }
        true
    }

    fn end_job(&mut self, job: &Job<P>) {
        let written = job.superblock.as_ref().map_or(0, |s| s.membership);
        if let Some(c) = job.checkpoint.as_ref().filter(|_| !self.options.faulty(Fault::ReuseBeforeCheckpoint)) {
            self.space.outgrown = false;
            self.line.forget(&c.over);
            let taken = std::mem::take(&mut self.space.taken);
            self.space.reserve =
                c.reserve.iter().copied().filter(|s| !taken.contains(s) && self.space.prewriting.is_none_or(|p| p.0 != *s)).collect();
        }
        self.intent_written(job.superblock.as_ref().map_or(0, |s| s.counter));
        if self.raising && written == self.superblock.membership {
            match self.counters.raise_membership(written) {
                Ok(()) => self.settle_membership(),
                Err(why) => self.stop(format!("the membership counter could not be raised: {why}")),
            }
        }
    }
}
