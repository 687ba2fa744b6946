//! The clocks that retention counts by: the TPM's and the machine's. Either may jump, stand
//! still, go back or begin anew, and the TPM may be reset under the running machine.
//!
//! What is true is known here: the store must never believe that more time has passed.

use std::time::Duration;

use hoidla_store::powered::{Powered, Reading};

use crate::{dice::Dice, invariants::Broken, world::World};

/// The dice of what time does, apart from those of the steps.
const TIME: u64 = 0x74_69_6d_65;
/// Seconds of ten years: no jump is shy.
const TEN_YEARS: u64 = 315_360_000;

/// See the module.
#[derive(Default)]
pub struct Clocks {
    /// Seconds that the machine really was powered.
    pub truth: u64,
    tpm: u64,
    boots: u32,
    machine: u64,
    powered: Powered,
}

impl Clocks {
    /// The program starts; after a power cut both clocks begin anew.
    pub fn start(&mut self, power: bool) {
        self.powered = Powered::default();
        if power {
            (self.tpm, self.machine, self.boots) = (0, 0, self.boots + 1);
        }
    }

    /// A while passes, and something odd may come with it; the seconds that count.
    fn pass(&mut self, dice: &mut Dice) -> u64 {
        let while_ = 1 + dice.below(300);
        self.truth += while_;
        self.tpm += while_;
        self.machine += while_;
        let far = dice.below(TEN_YEARS);
        match dice.below(10) {
            0 => self.tpm += far,
            1 => self.tpm = self.tpm.saturating_sub(far),
            2 => self.tpm -= while_,
            3 => (self.tpm, self.boots) = (0, self.boots + 1),
            4 => self.machine += far,
            5 => self.machine = self.machine.saturating_sub(far),
            _ => {}
        }
        let [tpm, machine] = [self.tpm, self.machine].map(Duration::from_secs);
        self.powered.look(Reading { tpm, boots: (self.boots, 0), machine }).counted.as_secs()
    }
}

impl World {
    /// Time passes before a step, now and then; the store is told what counts.
    pub fn time_passes(&mut self, seed: u64, step: u32) -> Result<(), Broken> {
        let mut dice = Dice::new(seed ^ TIME, step);
        if !dice.one_in(3) {
            return Ok(());
        }
        let counted = self.clocks.pass(&mut dice);
        let powered = self.store().powered() + counted;
        self.store().tell_powered(powered);
        self.no_more_than_passed()
    }

    /// Retention never shortens: no clock makes the store older than it is.
    pub fn no_more_than_passed(&mut self) -> Result<(), Broken> {
        let (believed, truth) = (self.store().powered(), self.clocks.truth);
        if believed <= truth {
            return Ok(());
        }
        Err(("retention never shortens", format!("the store believes that {believed} s have passed; {truth} s have")))
    }
}
