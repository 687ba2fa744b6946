//! The committed list of schedules that once broke an invariant: `seed`, or
//! `seed: step step ...` for one that was made small; `#` begins a comment.

use crate::schedule::Schedule;

/// The list that stands in the repository.
pub const KEPT: &str = include_str!("../seeds.txt");

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.seed)?;
        let Some(steps) = &self.steps else { return Ok(()) };
        write!(f, ":")?;
        steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = |e: std::num::ParseIntError| format!("`{s}` is no schedule ({e}): write a seed, or a seed, a colon and its steps");
        let (seed, steps) = match s.split_once(':') {
            Some((seed, steps)) => (seed, Some(steps.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(wrong)?)),
            None => (s, None),
        };
        Ok(Self { seed: seed.trim().parse().map_err(wrong)?, steps })
    }
}

/// The schedules of a list.
pub fn parse(list: &str) -> Result<Vec<Schedule>, String> {
    let lines = list.lines().map(|l| l.split('#').next().unwrap_or_default().trim());
    lines.filter(|l| !l.is_empty()).map(str::parse).collect()
}
