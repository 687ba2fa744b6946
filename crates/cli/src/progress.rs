//! Progress on a terminal: what, how much, how fast, how long still. Silence elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar or a counter. Clones show the same one; dropping the last clears it.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Over bytes. `draws` comes from [`crate::Output::draws`].
    pub fn bytes(draws: bool, what: impl Into<String>, total: Option<u64>) -> Self {
        let counts = if total.is_some() { "{binary_bytes} of {binary_total_bytes}" } else { "{binary_bytes}" };
        Self::new(draws, what.into(), total, counts, "{binary_bytes_per_sec}")
    }

    /// Over things.
    pub fn count(draws: bool, what: impl Into<String>, total: Option<u64>) -> Self {
        let counts = if total.is_some() { "{human_pos} of {human_len}" } else { "{human_pos}" };
        Self::new(draws, what.into(), total, counts, "{per_sec}")
    }

    /// Nothing is shown; for callers that need one to pass on.
    pub fn silent() -> Self {
        Self(ProgressBar::hidden())
    }

    fn new(draws: bool, what: String, total: Option<u64>, counts: &str, rate: &str) -> Self {
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => format!("{{prefix}} [{{bar:24}}] {counts}, {rate}, {{eta}} left {{wide_msg}}"),
            None => format!("{{prefix}} {{spinner}} {counts}, {rate} {{wide_msg}}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        if draws {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// This much more is done.
    pub fn add(&self, n: u64) {
        self.0.inc(n);
    }

    /// This much is done in all.
    pub fn set(&self, n: u64) {
        self.0.set_position(n);
    }

    /// The total became known, or changed.
    pub fn total(&self, n: u64) {
        self.0.set_length(n);
    }

    /// A word on what happens now, behind the numbers.
    pub fn note(&self, text: impl AsRef<str>) {
        self.0.set_message(crate::screen::plain(text.as_ref()));
    }

    /// How much is done.
    pub fn position(&self) -> u64 {
        self.0.position()
    }

    /// Since when it has run.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// A line above the bar, that stays.
    pub fn line(&self, text: impl AsRef<str>) {
        self.0.println(crate::screen::plain(text.as_ref()));
    }

    /// The end: the bar goes away.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one_that_indicatif_knows() {
        for counts in ["{binary_bytes} of {binary_total_bytes}", "{human_pos} of {human_len}"] {
            let t = format!("{{prefix}} [{{bar:24}}] {counts}, {{eta}} {{wide_msg}}");
            ProgressStyle::with_template(&t).unwrap();
        }
        let p = Progress::bytes(false, "sealing", Some(10));
        p.clone().add(4);
        p.add(3);
        assert_eq!(p.position(), 7);
    }
}
