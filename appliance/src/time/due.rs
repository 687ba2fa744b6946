//! Which generations are over: the one place where it is decided.
//!
//! Promises: never a dataset's newest generation, nor one that is held, nor one without a
//! promise, nor any above one that stays, nor any of a dataset that an opening covers. The store
//! checks the days once more.

use std::collections::BTreeSet;

use hoidla_format::Name;
use hoidla_store::{Tenure, may_end};

const DAY: u64 = 86_400;

/// The datasets in which something is over, each with the generation below which all is.
/// `tenures` in the order of datasets and numbers; `now` is the time that counts; `covered` are
/// the datasets that an opening reads.
pub fn due(tenures: &[Tenure], now: u64, covered: &BTreeSet<Name>) -> Vec<(Name, u32)> {
    let of_one = tenures.chunk_by(|a, b| a.generation.dataset == b.generation.dataset);
    let first_that_stays = |all: &[Tenure]| {
        let dataset = &all[0].generation.dataset;
        let stays = all.iter().position(|t| t.newest || t.held || !is_over(t, now))?;
        (stays > 0 && !covered.contains(dataset)).then(|| (dataset.clone(), all[stays].generation.number))
    };
    of_one.filter_map(first_that_stays).collect()
}

fn is_over(t: &Tenure, now: u64) -> bool {
    t.days > 0 && may_end(t.last, t.days) <= now
}

/// Days of running for which a generation is kept at least from now on; none while it is the
/// newest, held, or without a promise: then no time ends it.
pub fn days_left(t: &Tenure, now: u64) -> Option<u32> {
    let left = may_end(t.last, t.days).saturating_sub(now).div_ceil(DAY);
    (!t.newest && !t.held && t.days > 0).then(|| u32::try_from(left).unwrap_or(u32::MAX))
}

/// A generation's time in words.
pub fn words(t: &Tenure, now: u64) -> String {
    let what = format!("generation {} of {}", t.generation.number, t.generation.dataset);
    match days_left(t, now) {
        None if t.newest => format!("{what} stays: it is the newest"),
        None if t.days == 0 => format!("{what} stays: no retention was promised for it"),
        None => format!("{what} stays: it is being written, or somebody must look at an alarm"),
        Some(0) => format!("{what} is over and goes as soon as nothing holds it"),
        Some(left) => format!("{what} may go after {left} more days of running"),
    }
}

#[cfg(test)]
mod tests {
    use hoidla_store::Generation;

    use super::*;

    const NOW: u64 = 100 * DAY;

    fn tenure(dataset: &str, number: u32, kind: u32, newest: bool) -> Tenure {
        let last = if kind & 1 == 0 { 0 } else { NOW - DAY };
        let generation = Generation { dataset: dataset.parse().unwrap(), number };
        Tenure { generation, last, days: if kind & 2 == 0 { 30 } else { 0 }, bytes: 1, held: kind & 4 != 0, newest }
    }

    /// The promise, word by word: may this one go, among all of its dataset?
    fn may_go(t: &Tenure, all: &[Tenure], covered: bool) -> bool {
        let alone = |t: &Tenure| !t.newest && !t.held && t.days > 0 && t.last + u64::from(t.days) * DAY + 3600 <= NOW;
        !covered && all.iter().filter(|o| o.generation.number <= t.generation.number).all(alone)
    }

    #[test]
    fn every_case_of_four_generations() {
        let numbers = [1, 2, 7, u32::MAX];
        for kinds in 0..8u32.pow(4) {
            for covered in [false, true] {
                let one = |i: usize| tenure("land", numbers[i], kinds >> (3 * i) & 7, i == 3);
                let all: Vec<Tenure> = (0..4).map(one).collect();
                let set = if covered { BTreeSet::from(["land".parse().unwrap()]) } else { BTreeSet::new() };
                let floor = due(&all, NOW, &set).first().map_or(0, |(_, floor)| *floor);
                for t in &all {
                    assert_eq!(t.generation.number < floor, may_go(t, &all, covered), "{t:?} of {all:?}");
                }
            }
        }
    }

    #[test]
    fn datasets_don_t_concern_each_other() {
        let all = [tenure("land", 1, 0, false), tenure("land", 2, 0, true), tenure("people", 1, 1, false), tenure("people", 2, 1, true)];
        assert_eq!(due(&all, NOW, &BTreeSet::new()), [("land".parse().unwrap(), 2)]);
        assert_eq!(due(&all, NOW, &BTreeSet::from(["people".parse().unwrap()])).len(), 1);
        assert_eq!(due(&[], NOW, &BTreeSet::new()), []);
    }

    #[test]
    fn the_last_second_counts() {
        let all = [tenure("land", 1, 0, false), tenure("land", 2, 0, true)];
        let end = may_end(0, 30);
        assert_eq!((due(&all, end - 1, &BTreeSet::new()).len(), due(&all, end, &BTreeSet::new()).len()), (0, 1));
        assert_eq!((days_left(&all[0], end - 1), days_left(&all[0], end), days_left(&all[0], 0)), (Some(1), Some(0), Some(31)));
    }

    #[test]
    fn words_say_what_holds_it() {
        assert_eq!(words(&tenure("land", 3, 1, false), NOW), "generation 3 of land may go after 30 more days of running");
        assert!(words(&tenure("land", 3, 0, true), NOW).ends_with("it is the newest"));
        assert!(words(&tenure("land", 3, 2, false), NOW).contains("no retention"));
        assert!(words(&tenure("land", 3, 4, false), NOW).contains("alarm"));
    }
}
