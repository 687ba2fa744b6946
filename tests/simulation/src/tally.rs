//! What happened in schedules, to know that they are worth something.

use std::{collections::BTreeMap, fmt};

/// Counts, by what was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// So many more of `what`.
    pub fn count(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            *self.0.entry(what).or_default() += n;
        }
    }

    /// How many of `what`.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, n)| self.count(what, *n));
    }

    /// Everything that was counted.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, n)| (*what, *n))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (what, n) in self.all() {
            write!(f, "{}{n} {what}", if first { "" } else { ", " })?;
            first = false;
        }
        Ok(())
    }
}
