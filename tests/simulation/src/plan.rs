//! What the world may do to a store in one schedule, and what the store must then stand.
//!
//! The line between what must be survived and what must only be reported is drawn here
//! and nowhere else; `docs/reliability.md` says it in words.

use hoidla_store::{BLOCK, Layout, Options};

use crate::dice::Dice;

/// A deliberate mistake: of the store, or of a session above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the engine, its opening or its reader.
    Store(hoidla_store::Fault),
    /// In a session, on either side.
    Session(hoidla_protocol::Fault),
}

impl Mistake {
    /// The store's, if it is one.
    pub fn store(self) -> Option<hoidla_store::Fault> {
        if let Self::Store(fault) = self { Some(fault) } else { None }
    }

    /// The sessions', if it is one.
    pub fn session(self) -> Option<hoidla_protocol::Fault> {
        if let Self::Session(fault) = self { Some(fault) } else { None }
    }
}

/// Which disks the world is unkind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Any disk may be away at any opening, one after the other. None fails or loses
    /// what it has flushed: the others' copies may be the only ones.
    Away,
    /// This disk may do anything at any time: rot, fail, lie, leave, return as it was
    /// long ago. The others keep what they have flushed and are there.
    Weak(usize),
    /// None suffers by itself, but once, at rest, the same block of every disk is destroyed.
    /// What was in it cannot be had back: it must be reported, and all else must be kept.
    Lost,
}

/// Segments of the store, roughly.
const SLOTS: u64 = 24;
const SEGMENT: u64 = 48 * BLOCK as u64;
/// Bytes of a catalogue area.
pub const CATALOGUE: u64 = 8 * BLOCK as u64;
/// The dice for the number of disks.
const DISKS: u32 = u32::MAX - 1;

/// Often a mirror of two; else copies over more disks, or a single one that nothing may happen to.
fn disks_and_copies(dice: &mut Dice) -> (u8, u8) {
    if dice.one_in(2) {
        return (2, 2);
    }
    let disks = 2 + dice.below(4) as u8;
    (disks, (1 + dice.below(3) as u8).min(disks))
}

fn fills_up(steps: u32) -> bool {
    steps.is_multiple_of(4)
}

/// What was thrown before the first step.
pub struct Plan {
    /// How many disks there are.
    pub disks: u8,
    /// Copies of each segment.
    pub copies: u8,
    /// Which disks suffer.
    pub media: Media,
    /// A disk whose requests are carried out late.
    pub slow: Option<usize>,
    /// How many agents copy in over the network; none: the store is driven by itself.
    pub agents: u64,
    /// How the engine runs.
    pub options: Options,
    /// How many steps the schedule has.
    pub steps: u32,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(dice: &mut Dice, seed: u64, mistake: Option<Mistake>) -> Self {
        let (disks, copies) = disks_and_copies(&mut Dice::new(seed, DISKS));
        let mut options = Options {
            commit_bytes: 4096 << dice.below(6),
            depth: 1 + dice.below(3) as usize,
            open_segments: 2 + dice.below(3) as usize,
            checkpoint_commits: 2 << dice.below(6),
            piece: BLOCK << dice.below(3),
            fence: 1 << dice.below(4),
            openers: 1,
            rebuild: true,
            accept_loss: false,
            vouched: None,
            prewrite: dice.one_in(3),
            tile_height: 2,
            fault: mistake.and_then(Mistake::store),
        };
        let weak = dice.below(u64::from(disks)) as usize;
        let media = match dice.below(12) {
            _ if copies == 1 => Media::Away,
            4 if copies == disks => Media::Lost,
            0..5 => Media::Away,
            _ => Media::Weak(weak),
        };
        let slow = dice.one_in(4).then(|| dice.below(u64::from(disks)) as usize);
        let agents = if dice.one_in(3) { 1 + dice.below(4) } else { 0 };
        let steps = (20 + dice.below(100) as u32) * if agents > 0 { 3 } else { 1 };
        if fills_up(steps) {
            options.tile_height = 8; // so that many hashes wait for their tile
        }
        Self { disks, copies, media, slow, agents, options, steps }
    }

    /// How the store is laid out.
    pub fn layout(&self) -> Layout {
        Layout { segment: SEGMENT, catalogue: CATALOGUE, copies: self.copies }
    }

    /// Bytes of each disk.
    pub fn size(&self) -> u64 {
        let rows = (SLOTS * u64::from(self.copies)).div_ceil(u64::from(self.disks));
        64 * BLOCK as u64 + 2 * CATALOGUE + rows * SEGMENT
    }

    /// Whether the store is filled when the schedule is over, so that what has ended is written over.
    pub fn fills_up(&self) -> bool {
        fills_up(self.steps)
    }

    /// The disk that may do anything.
    pub fn weak(&self) -> Option<usize> {
        match self.media {
            Media::Weak(disk) => Some(disk),
            Media::Away | Media::Lost => None,
        }
    }
}
