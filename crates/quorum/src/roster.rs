//! Which rosters are sane.
//!
//! Promises: a roster that passes [`check`] has two doors, each with a spare custodian, the
//! recovery door the harder one; names and keys stand once a door and are keys; drill keys
//! are refused in production; and testing every quorum of it at the dealing takes seconds.

use std::collections::BTreeSet;

use hoidla_crypto::envelope::{self, EnvelopeError};
use hoidla_format::{
    Name,
    statements::{Custodian, Door, Roster},
};
use thiserror::Error;

/// The most quorums a door may have, since a dealing tests each of them.
pub const MOST_SUBSETS: u64 = 20_000;

/// Why a roster was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RosterError {
    /// A quorum of one, or without a spare.
    #[error("{quorum} of {count} for the {} door: a quorum is at least 2, and leaves at least one custodian to spare", word(*.door))]
    Threshold {
        /// Which door.
        door: Door,
        /// Shares that open.
        quorum: u8,
        /// Custodians.
        count: usize,
    },
    /// Recovery is the easier door.
    #[error("recovery_quorum {recovery} must be more than quorum {quorum}: recovery needs no TPM, so it needs more people")]
    RecoveryTooEasy {
        /// Shares that open with the TPM.
        quorum: u8,
        /// Shares that open at home.
        recovery: u8,
    },
    /// More quorums than a dealing can test.
    #[error("the {} door has more than {MOST_SUBSETS} quorums to test: use fewer custodians", word(*.0))]
    TooMany(Door),
    /// A custodian or key twice in one door.
    #[error("{custodian} stands twice on the {} door, or shares a key with another custodian", word(*.door))]
    Repeated {
        /// Who.
        custodian: Name,
        /// Which door.
        door: Door,
    },
    /// A card that is none.
    #[error(transparent)]
    Card(#[from] EnvelopeError),
    /// A key file where a card belongs.
    #[error("{0}'s key is kept in a file: such keys are for drills; production rosters take cards only")]
    Drill(Name),
    /// Neither `file` nor `card`.
    #[error("{0}'s key is kept in {1:?}: say \"file\" or \"card\"")]
    KeptIn(Name, String),
}

fn word(door: Door) -> &'static str {
    match door {
        Door::Quorum => "quorum",
        Door::Recovery => "recovery",
    }
}

/// A door's custodians and how many of them open.
pub fn door(roster: &Roster, door: Door) -> (&[Custodian], u8) {
    match door {
        Door::Quorum => (&roster.custodians, roster.quorum),
        Door::Recovery => (&roster.recovery, roster.recovery_quorum),
    }
}

/// Checks a roster.
pub fn check(roster: &Roster, development: bool) -> Result<(), RosterError> {
    if roster.recovery_quorum <= roster.quorum {
        return Err(RosterError::RecoveryTooEasy { quorum: roster.quorum, recovery: roster.recovery_quorum });
    }
    [Door::Quorum, Door::Recovery].into_iter().try_for_each(|d| check_door(roster, d, development))
}

fn check_door(roster: &Roster, which: Door, development: bool) -> Result<(), RosterError> {
    let (custodians, quorum) = door(roster, which);
    let count = custodians.len();
    if quorum < 2 || count <= usize::from(quorum) || count > 255 {
        return Err(RosterError::Threshold { door: which, quorum, count });
    }
    if subsets_of(count, quorum.into()) > MOST_SUBSETS {
        return Err(RosterError::TooMany(which));
    }
    let mut seen = BTreeSet::new();
    for c in custodians {
        check_card(c, development)?;
        let new = [c.name.as_str().as_bytes(), &c.signing.0, &c.ecdh.0, &c.mlkem.0].into_iter().all(|k| seen.insert(k));
        if !new {
            return Err(RosterError::Repeated { custodian: c.name.clone(), door: which });
        }
    }
    Ok(())
}

fn check_card(card: &Custodian, development: bool) -> Result<(), RosterError> {
    envelope::check_card(card)?;
    match card.kept_in.as_str() {
        "card" => Ok(()),
        "file" if development => Ok(()),
        "file" => Err(RosterError::Drill(card.name.clone())),
        other => Err(RosterError::KeptIn(card.name.clone(), other.to_owned())),
    }
}

/// How many subsets of `size` there are among `count`, or `u64::MAX` if they don't fit.
fn subsets_of(count: usize, size: usize) -> u64 {
    let size = size.min(count - size.min(count));
    (0..size as u64).try_fold(1u64, |c, i| Some(c.checked_mul(count as u64 - i)? / (i + 1))).unwrap_or(u64::MAX)
}

/// Calls `visit` with every ascending choice of `size` out of `0..count`, until it fails.
pub(crate) fn each_subset<E>(count: usize, size: usize, mut visit: impl FnMut(&[usize]) -> Result<(), E>) -> Result<(), E> {
    if size > count {
        return Ok(());
    }
    let mut chosen: Vec<usize> = (0..size).collect();
    loop {
        visit(&chosen)?;
        // The last place that can still move up; everything behind it follows closely.
        let Some(at) = (0..size).rev().find(|&i| chosen[i] < count - size + i) else { return Ok(()) };
        chosen[at] += 1;
        for i in at + 1..size {
            chosen[i] = chosen[i - 1] + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subset_is_visited_once() {
        for (count, size) in [(5, 3), (7, 5), (3, 2), (4, 4), (6, 1)] {
            let mut seen = BTreeSet::new();
            each_subset(count, size, |s| {
                assert!(s.windows(2).all(|w| w[0] < w[1]) && s.iter().all(|i| *i < count));
                assert!(seen.insert(s.to_vec()));
                Ok::<_, ()>(())
            })
            .unwrap();
            assert_eq!(seen.len() as u64, subsets_of(count, size), "{size} of {count}");
        }
        assert_eq!(subsets_of(255, 128), u64::MAX);
    }
}
