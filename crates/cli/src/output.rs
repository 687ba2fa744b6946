//! The flags that say how a program talks, and the one way it does.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use crate::Progress;

/// How to talk. Flatten it into a program's arguments.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Output {
    /// Write the result as one JSON object on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Write nothing but the result and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Output {
    /// A line for people: standard output, unless `--json` or `--quiet`.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.json && !self.quiet {
            emit(line.as_ref());
        }
    }

    /// The result: as JSON under `--json`, else the text, even when quiet.
    ///
    /// # Errors
    /// If `value` cannot be JSON.
    pub fn result(&self, value: &impl Serialize, text: impl AsRef<str>) -> anyhow::Result<()> {
        if self.json {
            emit(&serde_json::to_string(value)?);
        } else {
            emit(text.as_ref());
        }
        Ok(())
    }

    /// Whether progress is drawn: somebody watches, and asked for no silence.
    pub fn draws(&self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }

    /// A bar over bytes; without a total, a counter.
    pub fn bytes(&self, what: impl Into<String>, total: Option<u64>) -> Progress {
        Progress::bytes(self.draws(), what, total)
    }

    /// A bar over things; without a total, a counter.
    pub fn count(&self, what: impl Into<String>, total: Option<u64>) -> Progress {
        Progress::count(self.draws(), what, total)
    }
}

/// One line on standard output. A reader that has gone away is no error of ours.
fn emit(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
