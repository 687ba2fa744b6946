//! Keeps house: rewrites sparse segments densely.

use hoidla_store::Refused;

use crate::{
    invariants::Broken,
    world::{Waits, World},
};

impl World {
    /// Raises the log's counter, as is done hourly.
    pub fn count(&mut self) -> Result<(), Broken> {
        let ticket = self.ticket(Waits::Other);
        match self.store().count(ticket) {
            Ok(()) => self.tally.count("counters raised", 1),
            Err(Refused::Busy) => self.void(ticket),
            Err(other) => return Err(("progress", other.to_string())),
        }
        Ok(())
    }

    /// Rewrites one sparse segment, and mostly retires it.
    pub fn rewrite(&mut self) -> Result<(), Broken> {
        let wrong = |e: &dyn std::fmt::Display| ("progress", format!("rewriting: {e}"));
        self.drain()?;
        let Some(segment) = self.store().sparse() else { return Ok(()) };
        self.say(|| format!("rewrite segment {}", segment.number()));
        let (_, _, mut reader) = self.parts();
        let mut moved = Vec::new();
        let gathered = reader.gather(&segment, |m| {
            moved.push(m);
            Ok::<_, Refused>(())
        });
        match gathered {
            Ok(taken) => taken.map_err(|e| wrong(&e))?,
            Err(_) if self.model.lost => {
                self.store().give_up(&segment);
                return Ok(());
            }
            Err(e) => return Err(wrong(&e)),
        }
        for m in &moved {
            loop {
                match self.store().rewrite(m) {
                    Ok(()) => break,
                    Err(Refused::Busy) => self.pump(8)?,
                    Err(Refused::Full) => {
                        self.store().give_up(&segment);
                        return Ok(());
                    }
                    Err(other) => return Err(wrong(&other)),
                }
            }
        }
        drop(moved);
        if self.dice.one_in(4) {
            return Ok(());
        }
        self.drain()?;
        let ticket = self.ticket(Waits::Other);
        match self.store().retire(&segment, ticket) {
            Ok(()) => self.tally.count("segments rewritten", 1),
            Err(Refused::Busy | Refused::Full) => {
                self.void(ticket);
                self.store().give_up(&segment);
            }
            Err(other) => return Err(wrong(&other)),
        }
        Ok(())
    }

    /// Somebody asks for the end of a generation that nothing allows to end.
    pub fn end_early(&mut self) -> Result<(), Broken> {
        let old = self.model.streams.values().find(|s| s.generation.number == 0 && s.acknowledged > 0);
        let Some(dataset) = old.map(|s| s.generation.dataset.clone()) else { return Ok(()) };
        let ticket = self.ticket(Waits::Other);
        let ended = self.store().expire(&dataset, 1, u64::MAX, ticket);
        self.void(ticket);
        self.tally.count("early ends asked for", 1);
        match ended {
            Ok(()) => Err(("retention never shortens", format!("a generation of {dataset} ends that nothing allows to end"))),
            Err(_) => Ok(()),
        }
    }
}
