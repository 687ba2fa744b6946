//! The counter that tells a rolled-back store: in the superblocks, and in the TPM.
//!
//! Promises: the superblocks say the next number, flushed on every current copy, before the
//! counter takes it (the intent); so at opening the superblocks are level with the counter, or
//! one ahead after a crash between. Below it, every disk is older than the store was: it is
//! refused for anything but reading. Raised at each opening and by [`Engine::count`]: images
//! taken between two raises can't be told apart from each other by this alone; nor can old disks
//! from a counter that somebody else raised. If that happens while the store is open, the
//! superblocks catch up at the next raise; while it is closed, it goes on only if whoever opens
//! it vouches for just that count ([`Options::vouched`]), which the opening raises in turn.

use hoidla_format::disk::superblock::Superblock;

use crate::{
    device::Pool,
    engine::Engine,
    options::{Fault, Options},
    types::{Event, Refused, Ticket},
};

/// Why a store on these disks may only be read; none if its number fits the counter's.
pub(crate) fn judge(superblock: &Superblock, stands: u64, options: &Options) -> Option<String> {
    let says = superblock.counter;
    match stands {
        // A machine that never counted for this store, such as one at home after the appliance died.
        0 => None,
        _ if says == stands || says.checked_sub(1) == Some(stands) || options.faulty(Fault::RollbackUnseen) => None,
        _ if says < stands && options.vouched == Some(stands) => None,
        _ if says < stands => Some(format!(
            "all disks are older than this store was: they say {says}, the TPM's counter stands at {stands}; somebody put back old disks or images, or raised the counter by other means than this program"
        )),
        _ => Some(format!(
            "the disks say {says}, the TPM's counter stands at {stands} only: these disks, or this TPM, belong to another machine"
        )),
    }
}

impl<P: Pool> Engine<P> {
    /// Raises the counter, intent first; [`Event::Noted`] tells when it was tried, and
    /// [`counter`](Self::counter) where it stands then.
    pub fn count(&mut self, ticket: Ticket) -> Result<(), Refused> {
        self.check_running()?;
        if self.counting.is_some() {
            return Err(Refused::Busy);
        }
        match self.counted {
            0 => self.events.push_back(Event::Noted { ticket }),
            counted => {
                if self.options.faulty(Fault::CounterBeforeIntent) {
                    _ = self.counters.raise_log_counter(counted + 1);
                }
                self.superblock.counter = counted + 1;
                self.counting = Some(ticket);
            }
        }
        Ok(())
    }

    /// Where the counter in the TPM stands; 0 if this machine has none for this store.
    pub fn counter(&self) -> u64 {
        self.counted
    }

    /// Superblocks with this number are on every current copy.
    pub(crate) fn intent_written(&mut self, written: u64) {
        if written != self.superblock.counter {
            return;
        }
        let Some(ticket) = self.counting.take() else { return };
        match self.counters.raise_log_counter(written) {
            Ok(stands) if stands > written => {
                tracing::error!(
                    "somebody else raised the log's counter in the TPM, from {written} to {stands}: the superblocks catch up; look at the machine"
                );
                (self.superblock.counter, self.counting) = (stands, Some(ticket));
                return;
            }
            Ok(_) => self.counted = written,
            Err(why) => tracing::error!("the log's counter could not be raised; it is tried again next time: {why}"),
        }
        self.events.push_back(Event::Noted { ticket });
    }
}
