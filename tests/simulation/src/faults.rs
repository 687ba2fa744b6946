//! What the world does to disks and counter while the store runs. Only what
//! [`Media`] allows.

use std::io;

use hoidla_store::{BLOCK, Op};

use crate::{
    disk::Stray,
    invariants::Broken,
    plan::Media,
    world::{CATALOGUES, World},
};

impl World {
    /// A bit of the weak disk flips.
    pub fn rot(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.plan.weak() else { return Ok(()) };
        let block = self.disks[weak].rot(&mut self.dice);
        self.spoiled |= block.is_some();
        self.tally.count("bits flipped", u64::from(block.is_some()));
        self.say(|| format!("rot: disk {weak}, block {block:?}"));
        Ok(())
    }

    /// Some blocks of the weak disk cannot be read any more.
    pub fn lose_sectors(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.plan.weak() else { return Ok(()) };
        let first = self.dice.below(self.disks[weak].blocks());
        let blocks = first..first + 1 + self.dice.below(40);
        self.say(|| format!("latent errors: disk {weak}, blocks {blocks:?}"));
        self.disks[weak].lose(blocks);
        self.spoiled = true;
        self.tally.count("stretches unreadable", 1);
        Ok(())
    }

    /// The weak disk reports its next write and does something else.
    pub fn lie(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.plan.weak() else { return Ok(()) };
        let stray = if self.dice.one_in(2) {
            Stray::Phantom
        } else {
            let far = if self.dice.one_in(2) { 8 } else { self.disks[weak].blocks() };
            Stray::Misdirected(self.dice.below(2 * far) as i64 - far as i64)
        };
        self.say(|| format!("disk {weak}: its next write is a lie: {stray:?}"));
        self.disks[weak].lie(stray);
        self.spoiled = true;
        let what = if matches!(stray, Stray::Phantom) { "phantom writes" } else { "misdirected writes" };
        self.tally.count(what, 1);
        Ok(())
    }

    /// The weak disk fails a write, writes short, or fails a flush.
    pub fn break_disk(&mut self) -> Result<(), Broken> {
        let all = self.disks.len();
        let Some(weak) = self.plan.weak() else { return Ok(()) };
        let others = self.store().current().iter().filter(|d| usize::from(**d) != weak).count();
        if others + 1 < all {
            return Ok(());
        }
        if self.dice.one_in(2) {
            self.say(|| format!("disk {weak}: its next flush will fail"));
            self.disks[weak].break_flush();
            return Ok(());
        }
        let Some(at) = self.outstanding.iter().position(|r| usize::from(r.disk) == weak) else { return Ok(()) };
        let request = self.outstanding.swap_remove(at);
        let short = matches!(request.op, Op::Write { .. }) && self.dice.one_in(2);
        self.say(|| format!("disk {weak}: #{} fails, short {short}", request.id));
        let outcome = if short { Ok(BLOCK / 2) } else { Err(io::Error::other("broken")) };
        self.store().complete(request.id, outcome);
        self.take_events()
    }

    /// The TPM throttles: the next calls of the counter fail.
    pub fn throttle(&mut self) -> Result<(), Broken> {
        let calls = 1 + self.dice.below(2) as u32;
        self.say(|| format!("the counter fails {calls} times"));
        self.counter.fail(calls);
        Ok(())
    }

    /// The machine is off, and the weak disk comes back as it was a while ago.
    pub fn rewind(&mut self) -> Result<(), Broken> {
        let Some(weak) = self.plan.weak() else { return Ok(()) };
        let now = self.disks[weak].image();
        let Some(then) = self.kept_image.replace(now) else { return Ok(()) };
        self.say(|| format!("disk {weak} comes back as it was a while ago"));
        self.rewound = Some((weak, then));
        self.spoiled = true;
        self.tally.count("disks rewound", 1);
        self.crash(true)
    }

    /// The same block is destroyed on every disk, once: what was kept in it is lost.
    pub fn lose_everywhere(&mut self) -> Result<(), Broken> {
        if self.plan.media != Media::Lost || self.model.lost {
            return Ok(());
        }
        // At rest: the mark that follows a commit is in a block of its own by then.
        self.drain()?;
        let written = self.disks[0].written(CATALOGUES.end);
        let Some(block) = written.get(self.dice.below(written.len() as u64) as usize).copied() else { return Ok(()) };
        self.say(|| format!("block {block} is destroyed on every disk"));
        self.disks.iter().for_each(|d| d.ruin(block..block + 1));
        (self.spoiled, self.model.lost) = (true, true);
        self.tally.count("blocks lost on every disk", 1);
        if self.dice.one_in(2) { self.crash(true) } else { Ok(()) }
    }
}
