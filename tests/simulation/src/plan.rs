//! What the world may do to a store in one schedule, and what the store must then stand.
//!
//! The line between what must be survived and what must only be reported is drawn here
//! and nowhere else; `docs/reliability.md` says it in words.

use hoidla_store::{BLOCK, Fault, Options};

use crate::dice::Dice;

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

/// What was thrown before the first step.
pub struct Plan {
    /// Which disks suffer.
    pub media: Media,
    /// A disk whose requests are carried out late.
    pub slow: Option<usize>,
    /// How the engine runs.
    pub options: Options,
    /// How many steps the schedule has.
    pub steps: u32,
}

impl Plan {
    /// The plan of a seed, for a store over so many disks.
    pub fn of(dice: &mut Dice, disks: usize, fault: Option<Fault>) -> Self {
        let mut options = Options {
            commit_bytes: 4096 << dice.below(6),
            depth: 1 + dice.below(3) as usize,
            open_segments: 2 + dice.below(3) as usize,
            checkpoint_commits: 2 << dice.below(6),
            piece: BLOCK,
            resync: true,
            prewrite: dice.one_in(3),
            fault,
        };
        let weak = dice.below(disks as u64) as usize;
        let media = match dice.below(12) {
            0..4 => Media::Away,
            4 => Media::Lost,
            _ => Media::Weak(weak),
        };
        let slow = dice.one_in(4).then(|| dice.below(disks as u64) as usize);
        let steps = 20 + dice.below(100) as u32;
        options.piece <<= dice.below(3);
        Self { media, slow, options, steps }
    }

    /// The disk that may do anything.
    pub fn weak(&self) -> Option<usize> {
        match self.media {
            Media::Weak(disk) => Some(disk),
            Media::Away | Media::Lost => None,
        }
    }
}
