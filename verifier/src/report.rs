//! What was found, in sentences.

use serde_json::{Value, json};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check passed.
    Whole,
    /// Something contradicts what it should prove.
    No,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// What was proven; of a no, what was proven before it failed.
    pub proven: Vec<String>,
    /// What was not, though one might think so; of a no, why.
    pub not: Vec<String>,
}

impl Report {
    /// A no, for this reason.
    pub fn no(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::No, proven: vec![], not: vec![why.into()] }
    }

    /// For people.
    pub fn text(&self) -> String {
        let list = |title: &str, lines: &[String]| {
            lines.iter().fold(title.to_owned(), |t, l| format!("{t}\n  - {}", hoidla_cli::screen::plain(l)))
        };
        match self.verdict {
            Verdict::Whole => format!("WHOLE\n{}\n{}", list("proven:", &self.proven), list("not proven:", &self.not)),
            Verdict::No => format!("NO\n{}\nkeep all files as they are, and tell the authority", list("why:", &self.not)),
        }
    }

    /// For programs.
    pub fn value(&self) -> Value {
        let whole = self.verdict == Verdict::Whole;
        json!({ "verdict": if whole { "whole" } else { "no" }, "proven": self.proven, (if whole { "not_proven" } else { "why" }): self.not })
    }
}
