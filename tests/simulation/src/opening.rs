//! The end of a run and the next opening: which disks are there, what an opening may
//! say, and what it must find.

use std::{collections::BTreeSet, sync::Arc};

use hoidla_store::{BLOCK, Disk, Engine, Layout, OpenError, Opened, Options};

use crate::{
    counter::Counter,
    disk::{Power, SimDisk},
    invariants::{self, Broken},
    memory::Memory,
    world::{CATALOGUES, KEY, POOL, STORE, World, carry_out},
};

impl World {
    /// The power goes, or only the program; what was under way may have been done or not.
    pub fn crash(&mut self, power: bool) -> Result<(), Broken> {
        self.tally.count("crashes", 1);
        self.say(|| format!("crash: {}", if power { "power" } else { "program" }));
        self.current = self.store().current().into_iter().collect();
        for request in std::mem::take(&mut self.outstanding) {
            if self.dice.one_in(2) {
                let _ = carry_out(&self.disks, &request);
            }
        }
        self.engine = None;
        self.keep_for_later();
        self.waits.clear();
        self.sessions.iter_mut().for_each(crate::sessions::Sessions::crash);
        if power && self.dice.one_in(16) {
            self.say(|| "the catalogues are lost on every disk: they are a cache".into());
            self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            self.disks.iter().for_each(|d| d.ruin(CATALOGUES));
        }
        self.reopen(power)
    }

    /// Opens the store again, and again if the power goes meanwhile.
    pub fn reopen(&mut self, mut power: bool) -> Result<(), Broken> {
        let cut = power;
        if let Some((disk, then)) = self.rewound.take() {
            self.disks[disk].restore(then);
        }
        for attempt in 0..16 {
            if power {
                self.disks.iter().for_each(|d| d.power_cycle(&mut self.dice));
            }
            if self.dice.one_in(16) {
                self.swap()?;
            }
            let again = attempt < 3 && self.dice.one_in(4);
            self.power.set(if again { 1 + self.dice.below(60) as i64 } else { i64::MAX });
            let attached = self.attached(attempt);
            let disks: Vec<_> = attached.iter().map(|i| self.disks[usize::from(*i)].clone() as Arc<dyn Disk>).collect();
            let options: Options = self.plan.options.clone();
            let opened = Engine::open(disks, STORE, self.memory.clone(), Box::new(self.counter.clone()), options);
            if self.power.is_gone() {
                self.tally.count("crashes while opening", 1);
                self.say(|| "crash while opening".into());
                power = !self.dice.one_in(3);
                continue;
            }
            self.power.set(i64::MAX);
            match opened {
                Ok((engine, opened)) => {
                    self.say(|| format!("opened with {attached:?}: {opened:?}"));
                    self.engine = Some(engine);
                    self.clocks.start(cut);
                    self.no_more_than_passed()?;
                    return self.settle(&opened);
                }
                Err(e) => self.refused(&attached, &e)?,
            }
            power = false;
        }
        Err(("opens", "it is refused again and again".into()))
    }

    /// An opening was refused: only for a reason.
    fn refused(&mut self, attached: &BTreeSet<u8>, why: &OpenError) -> Result<(), Broken> {
        let lacking = !self.current.is_subset(attached) || self.spoiled;
        match why {
            OpenError::Stale { .. } if lacking => self.tally.count("stale disks refused", 1),
            OpenError::Uncovered { .. } if lacking => self.tally.count("uncovered stores refused", 1),
            // All four superblocks of the weak disk are bad: whoever looks after it takes it out.
            OpenError::NotAStore(disk) if self.plan.weak().is_some_and(|w| self.spoiled && self.disks[w].name() == *disk) => {
                self.tally.count("disks beyond recognition", 1);
                self.taken_out = self.plan.weak();
            }
            OpenError::Io { .. } if self.counter.has_failed() => {}
            _ => return Err(("opens", format!("with {attached:?}: {why}"))),
        }
        self.say(|| format!("refused with {attached:?}: {why}"));
        Ok(())
    }

    /// Which disks are there at this opening; all of them after a few refusals.
    fn attached(&mut self, attempt: u32) -> BTreeSet<u8> {
        let mut all: BTreeSet<u8> = (0..self.plan.disks).collect();
        if self.plan.copies > 1 && attempt < 4 && self.dice.one_in(4) {
            let away = self.plan.weak().map_or_else(|| self.dice.below(u64::from(self.plan.disks)) as u8, |w| w as u8);
            all.remove(&away);
        }
        self.taken_out.into_iter().for_each(|out| _ = all.remove(&(out as u8)));
        all
    }

    /// After an opening: what the model must find, and then believes.
    fn settle(&mut self, opened: &Opened) -> Result<(), Broken> {
        self.tally.count("commits cut", opened.cut);
        self.tally.count("repairs", opened.repaired.len() as u64);
        self.tally.count("catalogues rebuilt", u64::from(opened.rebuilt));
        let engine = self.engine.as_mut().expect("it was opened");
        invariants::opened(engine, &self.model, opened)?;
        self.model.told |= !opened.damage.is_empty();
        self.present_all()?;
        let engine = self.engine.as_mut().expect("it was opened");
        for (id, stream) in &mut self.model.streams {
            stream.cut_to(engine.state(*id).as_ref());
        }
        self.check_all()?;
        self.model.log = Some(self.store().log_head());
        self.current = self.store().current().into_iter().collect();
        self.readmit_all()
    }

    /// Someone puts a disk into a tray that doesn't belong there: it is refused, by name,
    /// and nothing is changed.
    fn swap(&mut self) -> Result<(), Broken> {
        let stranger = Arc::new(SimDisk::new("stranger", self.plan.size(), Power::stays()));
        let all = self.disks.len();
        let tray = self.dice.below(all as u64) as usize;
        let what = match self.dice.below(3) {
            0 => "of another store",
            1 => "blank",
            _ => "copied from another place",
        };
        match what {
            "blank" => {}
            "of another store" => {
                let disk: Arc<dyn Disk> = stranger.clone();
                let layout = Layout { segment: 16 * BLOCK as u64, copies: 0, ..self.plan.layout() };
                let done = Engine::format(&[disk], *b"another store...", KEY, layout, &Memory::new(POOL), &mut Counter::default());
                done.map_err(|e| ("opens", e.to_string()))?;
            }
            _ => stranger.restore(self.disks[(tray + 1) % all].image()),
        }
        self.power.set(i64::MAX);
        let mut disks: Vec<Arc<dyn Disk>> = vec![stranger];
        disks.extend((0..all).filter(|i| *i != tray).map(|i| self.disks[i].clone() as Arc<dyn Disk>));
        let opened = Engine::open(disks, STORE, self.memory.clone(), Box::new(self.counter.clone()), self.plan.options.clone());
        let said = match opened {
            Ok(_) => return Err(("strangers refused", format!("a disk {what} was taken into tray {tray}"))),
            Err(e) => e.to_string(),
        };
        self.tally.count("strange disks refused", 1);
        self.say(|| format!("a disk {what} in tray {tray}: {said}"));
        let named = said.contains("stranger") || (self.spoiled && said.contains("holds no store"));
        if named { Ok(()) } else { Err(("strangers refused", format!("a disk {what} in tray {tray} is not named: {said}"))) }
    }
}
