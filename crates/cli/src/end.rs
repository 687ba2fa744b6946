//! How a program ends: 0 done, 1 verified and the answer is no, 2 error.

use std::{fmt, process::ExitCode};

/// What a program that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked, or what it checked is true. Exit code 0.
    Done,
    /// It checked, and the answer is no. The program has said why. Exit code 1.
    No,
}

/// Runs a program's body and turns its result into an exit code.
///
/// An error is printed on standard error with its causes and its next step, and
/// the code is 2.
pub fn main_with(body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Err(error) => {
            eprint!("{}", told(&error));
            ExitCode::from(2)
        }
    }
}

/// The advice that belongs to an error, as a link of its chain.
#[derive(Debug)]
struct Next(String);

const NEXT: &str = "next: ";

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NEXT}{}", self.0)
    }
}

/// Adds to an error what its reader should do about it.
pub trait NextStep<T> {
    /// `step` is an imperative sentence without "next:".
    fn next(self, step: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> NextStep<T> for Result<T, E> {
    fn next(self, step: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Next(step.into())))
    }
}

/// An error as people read it: what failed, each cause, and the next steps last.
pub fn told(error: &anyhow::Error) -> String {
    let links: Vec<String> = error.chain().map(|e| crate::screen::plain(&e.to_string())).collect();
    let (steps, causes): (Vec<&String>, Vec<&String>) = links.iter().partition(|l| l.starts_with(NEXT));
    let mut out = String::new();
    for (i, cause) in causes.iter().enumerate() {
        // Many libraries repeat their source in their own text.
        if i > 0 && causes[i - 1].contains(cause.as_str()) {
            continue;
        }
        out += if i == 0 { "error: " } else { "  because: " };
        out += cause;
        out.push('\n');
    }
    for step in steps {
        out += &format!("  {step}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn an_error_is_told_with_its_causes_and_its_next_step_last() {
        let r: anyhow::Result<()> = Err(anyhow!("connection refused"));
        let e = r.next("check that hoidlad runs").context("cannot reach the appliance").unwrap_err();
        assert_eq!(told(&e), "error: cannot reach the appliance\n  because: connection refused\n  next: check that hoidlad runs\n");
    }

    #[test]
    fn a_cause_is_not_said_twice_and_cannot_move_the_cursor() {
        let r: anyhow::Result<()> = Err(anyhow!("bad\u{1b}[2Jname"));
        let e = r.with_context(|| "cannot read: bad\u{1b}[2Jname").unwrap_err();
        let text = told(&e);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
