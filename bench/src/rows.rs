//! What is printed and written: one row a figure, with its target and spread.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Which way a figure should lie.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Shown for comparison only.
    Shown,
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in `bench.json`.
    pub name: &'static str,
    /// The median over all rounds.
    pub value: f64,
    /// The lowest and highest round.
    pub spread: (f64, f64),
    /// What it should be.
    pub target: Target,
    /// What it was made of, and what limits it.
    pub note: String,
}

impl Row {
    /// The median of these rounds.
    ///
    /// # Panics
    /// If there are none.
    pub fn over(name: &'static str, rounds: &[f64], target: Target, note: String) -> Self {
        let (low, value, high) = low_median_high(rounds);
        Self { name, value, spread: (low, high), target, note }
    }

    fn met(&self) -> Option<bool> {
        match self.target {
            Target::AtLeast(t) => Some(self.value >= t),
            Target::AtMost(t) => Some(self.value <= t),
            Target::Shown => None,
        }
    }

    fn line(&self) -> String {
        let target = match self.target {
            Target::AtLeast(t) => format!(">= {t}"),
            Target::AtMost(t) => format!("<= {t}"),
            Target::Shown => String::new(),
        };
        let met = self.met().map_or("", |m| if m { "met" } else { "MISSED" });
        let (low, high) = self.spread;
        format!("{:24} {:>9.2}  {:>9.2} .. {:<9.2} {target:>8}  {met:6}", self.name, self.value, low, high)
    }
}

/// Lowest, median and highest.
///
/// # Panics
/// If there are none.
pub fn low_median_high(rounds: &[f64]) -> (f64, f64, f64) {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    (sorted[0], middle, sorted[sorted.len() - 1])
}

/// The table, for people.
pub fn print(rows: &[Row]) {
    println!("\n{:24} {:>9}  {:>9} .. {:<9} {:>8}", "", "median", "lowest", "highest", "target");
    for row in rows {
        println!("{}\n    {}", row.line(), row.note);
    }
}

/// The same for programs: a flat object, name to median; rows that were not measured now stay
/// as they were.
pub fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let before = fs::read(path).ok().and_then(|old| serde_json::from_slice::<serde_json::Map<_, _>>(&old).ok());
    let mut all = before.unwrap_or_default();
    all.extend(rows.iter().map(|r| (r.name.to_owned(), serde_json::Value::from((r.value * 1e4).round() / 1e4))));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, serde_json::to_vec_pretty(&all)?).with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_targets() {
        assert_eq!(low_median_high(&[4.0, 2.0]), (2.0, 3.0, 4.0));
        let row = Row::over("r", &[3.0, 1.0, 2.0], Target::AtLeast(2.5), String::new());
        assert_eq!((row.value, row.spread), (2.0, (1.0, 3.0)));
        assert!(row.line().contains("MISSED") && row.met() == Some(false));
        assert_eq!(Row { target: Target::AtMost(2.0), ..row.clone() }.met(), Some(true));
        assert_eq!(Row { target: Target::Shown, ..row }.met(), None);
    }
}
