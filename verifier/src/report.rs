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
    /// What a person or a clock says, and no check here bears out.
    pub said: Vec<String>,
    /// What was not, though one might think so; of a no, why.
    pub not: Vec<String>,
}

impl Report {
    /// A no, for this reason.
    pub fn no(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::No, proven: vec![], said: vec![], not: vec![why.into()] }
    }

    /// For people.
    pub fn text(&self) -> String {
        let list = |title: &str, lines: &[String]| {
            lines.iter().fold(title.to_owned(), |t, l| format!("{t}\n  - {}", hoidla_cli::screen::plain(l)))
        };
        match self.verdict {
            Verdict::Whole => {
                let said = if self.said.is_empty() { String::new() } else { list("\nsaid by the agent, not proven:", &self.said) };
                format!("WHOLE\n{}{said}\n{}", list("proven:", &self.proven), list("not proven:", &self.not))
            }
            Verdict::No => format!("NO\n{}\nkeep all files as they are, and tell the authority", list("why:", &self.not)),
        }
    }

    /// For programs.
    pub fn value(&self) -> Value {
        let whole = self.verdict == Verdict::Whole;
        json!({ "verdict": if whole { "whole" } else { "no" }, "proven": self.proven, "said": self.said, (if whole { "not_proven" } else { "why" }): self.not })
    }
}
