//! How long the machine was powered, from two clocks that nobody sets.
//!
//! Promises: a second is counted once, and only if the TPM's time since its reset and the
//! machine's time since its boot both passed it; a clock that jumps, stands still or goes back
//! counts nothing for it. What is lost only lengthens what is kept.

use std::time::Duration;

/// The most that one look at the clocks counts: more was no running machine.
const MOST: Duration = Duration::from_secs(600);
/// How far the two may be apart in one look before it is said.
const APART: Duration = Duration::from_secs(5);
/// An hour, in seconds.
pub const HOUR: u64 = 3600;

/// What the two clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The TPM's time since its reset; it cannot be set.
    pub tpm: Duration,
    /// The TPM's resets and restarts.
    pub boots: (u32, u32),
    /// The machine's time since its boot, asleep or not.
    pub machine: Duration,
}

/// One look at the clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What counts.
    pub counted: Duration,
    /// What is odd, in words.
    pub odd: Option<String>,
}

/// The clocks as they were looked at last.
#[derive(Clone, Debug, Default)]
pub struct Powered {
    last: Option<Reading>,
}

impl Powered {
    /// Looks at the clocks: the time since the last look that both agree on.
    pub fn look(&mut self, now: Reading) -> Look {
        let Some(last) = self.last.replace(now) else { return Look { counted: Duration::ZERO, odd: None } };
        let none = |why: &str| Look { counted: Duration::ZERO, odd: Some(format!("{why}; this time is not counted")) };
        if now.boots != last.boots {
            return none("the TPM was restarted under the running machine");
        }
        let (Some(tpm), Some(machine)) = (now.tpm.checked_sub(last.tpm), now.machine.checked_sub(last.machine)) else {
            return none("a clock went back");
        };
        let counted = tpm.min(machine).min(MOST);
        let odd = (tpm.abs_diff(machine) > APART || tpm.max(machine) > MOST).then(|| {
            let [t, m, c] = [tpm, machine, counted].map(|d| d.as_secs());
            format!("the TPM says that {t} s have passed, the machine {m} s; {c} s are counted")
        });
        Look { counted, odd }
    }
}

/// The time that counts for the end of a generation: what the disks say, but not more than the
/// TPM's counter of powered hours allows, the hour that has begun included. Either alone can be
/// forged; neither alone ends anything.
pub fn counts(powered: u64, hours: u64, skipped: u64) -> u64 {
    powered.min(hours.saturating_add(1).saturating_mul(HOUR).saturating_add(skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tpm: u64, machine: u64) -> Reading {
        Reading { tpm: Duration::from_secs(tpm), boots: (1, 0), machine: Duration::from_secs(machine) }
    }

    /// What is counted from (1000, 5000) to `now`, and whether something is said.
    fn counted(now: Reading) -> (u64, bool) {
        let mut powered = Powered::default();
        assert_eq!(powered.look(at(1000, 5000)).counted, Duration::ZERO, "nobody knows when it began");
        let look = powered.look(now);
        (look.counted.as_secs(), look.odd.is_some())
    }

    #[test]
    fn what_both_clocks_passed_is_counted() {
        assert_eq!(counted(at(1060, 5060)), (60, false));
        assert_eq!(counted(at(1060, 5063)), (60, false), "a little apart");
        assert_eq!(counted(at(1000, 5000)), (0, false));
    }

    #[test]
    fn a_jump_of_either_clock_is_said_and_counts_nothing() {
        assert_eq!(counted(at(1_000_000_000, 5060)), (60, true), "the TPM's");
        assert_eq!(counted(at(1060, 1_000_000_000)), (60, true), "the machine's");
        assert_eq!(counted(at(1_000_000_000, 1_000_000_000)), (600, true), "both: no more than one look's worth");
        assert_eq!(counted(at(1000, 5060)), (0, true), "the TPM's stands still");
    }

    #[test]
    fn a_clock_that_goes_back_or_a_reset_counts_nothing() {
        assert_eq!(counted(at(900, 5060)), (0, true));
        assert_eq!(counted(at(1060, 4000)), (0, true));
        assert_eq!(counted(Reading { boots: (2, 0), ..at(1060, 5060) }), (0, true));
        assert_eq!(counted(Reading { boots: (1, 1), ..at(1060, 5060) }), (0, true));
    }

    #[test]
    fn neither_the_disks_nor_the_counter_alone_move_time() {
        let year = 365 * 24;
        assert_eq!(counts(10 * HOUR, 10, 0), 10 * HOUR);
        assert_eq!(counts(year * HOUR, 10, 0), 11 * HOUR, "forged on the disks");
        assert_eq!(counts(10 * HOUR, year, 0), 10 * HOUR, "raised on the bus");
        assert_eq!(counts(100 * HOUR, 10, 90 * HOUR), 100 * HOUR, "the authority's word");
        assert_eq!(counts(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
