//! Swaps disks while the store runs, and rebuilds them: as the daemon does, in pieces that
//! a crash, another loss or new records may come between.

use std::sync::Arc;

use hoidla_store::{JoinError, ReadError, ToCopy};

use crate::{disk::SimDisk, invariants::Broken, world::World};

impl World {
    /// A disk that is away or has failed comes back as it was left, or a blank one comes in its place.
    pub fn swap_in(&mut self) -> Result<(), Broken> {
        let lost = (0..self.disks.len()).find(|d| !self.is_written(*d));
        let Some(place) = lost.filter(|d| self.plan.weak().is_none_or(|weak| weak == *d)) else { return Ok(()) };
        let blank = self.dice.one_in(2);
        if blank {
            let size = self.disks[place].blocks() * hoidla_store::BLOCK as u64;
            self.disks[place] = Arc::new(SimDisk::new(&format!("new disk {place}"), size, self.power.clone()));
            self.kept_image = None;
        }
        self.say(|| format!("disk {place} is put in, blank {blank}"));
        let wrong = |why: String| ("progress", format!("disk {place} cannot join: {why}"));
        self.taken_out = None;
        let disk = self.disks[place].clone();
        let mark = self.store().mark(place as u8).map_err(|e| wrong(e.to_string()))?;
        if mark.write(&*disk, &*self.memory).is_err() {
            return Ok(()); // it fails again: it stays out
        }
        self.store().join(place as u8, disk).map_err(|e| wrong(e.to_string()))?;
        self.tally.count(if blank { "blank disks put in" } else { "disks put back" }, 1);
        Ok(())
    }

    fn is_written(&mut self, place: usize) -> bool {
        let place = place as u8;
        let engine = self.store();
        engine.current().contains(&place) || engine.rebuilding().iter().any(|r| r.place == place)
    }

    /// Copies some segments to a disk that is being rebuilt; once all are there it may count.
    pub fn rebuild(&mut self) -> Result<(), Broken> {
        let segments = 1 + self.dice.below(6);
        self.rebuild_some(segments).map(|_| ())
    }

    /// Rebuilds until there is nothing to rebuild.
    pub fn rebuild_all(&mut self) -> Result<(), Broken> {
        for _ in 0..100 {
            self.drain()?;
            if !self.rebuild_some(u64::MAX)? {
                return Ok(());
            }
        }
        Err(("progress", "a disk is never rebuilt".into()))
    }

    /// Whether a disk was being rebuilt.
    fn rebuild_some(&mut self, segments: u64) -> Result<bool, Broken> {
        let Some(rebuilding) = self.store().rebuilding().first().copied() else { return Ok(false) };
        let wrong = |why: String| ("progress", format!("rebuilding: {why}"));
        for _ in 0..segments {
            match self.store().to_copy(rebuilding.id).map_err(|e| wrong(e.to_string()))? {
                ToCopy::Wait => return Ok(true),
                ToCopy::Segment(segment) => {
                    let (_, _, mut reader) = self.parts();
                    let copied = reader.copy(&segment, rebuilding.place, |_| true);
                    self.say(|| format!("copied segment {} to disk {}: {copied:?}", segment.number(), rebuilding.place));
                    match copied {
                        Ok(checked) if checked.damage.is_empty() || self.model.lost => {
                            for (disk, _) in checked.unrepaired {
                                _ = self.store().leave(disk, "it takes no repair".into()); // refused if it is needed
                            }
                            self.take_events()?;
                        }
                        Ok(checked) => return Err(("damage never cut", format!("while rebuilding: {:?}", checked.damage))),
                        Err(ReadError::Repair { disk, .. }) => return self.leave(disk),
                        Err(other) => return Err(wrong(other.to_string())),
                    }
                    self.store().copied(rebuilding.id, &segment).map_err(|e| wrong(e.to_string()))?;
                }
                ToCopy::Nothing => {
                    if hoidla_store::Disk::flush(&*self.disks[usize::from(rebuilding.place)]).is_err() {
                        return self.leave(rebuilding.place);
                    }
                    self.store().rebuilt(rebuilding.id).map_err(|e| wrong(e.to_string()))?;
                    self.pump(4)?;
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    fn leave(&mut self, place: u8) -> Result<bool, Broken> {
        match self.store().leave(place, "it failed while it was rebuilt".into()) {
            Ok(()) | Err(JoinError::Over) => self.take_events().map(|()| true),
            Err(other) => Err(("progress", other.to_string())),
        }
    }
}
