//! Setting a machine up at its own console: a page, a question, the next page.
//!
//! Promises: it fits a screen of 80 by 24; nothing on a disk is changed before a person typed
//! that disk's own word; whatever was begun may be broken off at any moment and is begun anew
//! or gone on with, by what is found; what is shown, asked, or written to a stick opens nothing.
//! It believes nobody: who the machine is, its TPM proves to home later.

mod boot_disks;
mod enrolment;
mod install;
mod keys;
mod retire;
mod stick;
mod update;
mod visit;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::Context;
use hoidla_cli::{Screen, end::told, human};
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::profile::Profile;

use super::terminal::Terminals;

pub use enrolment::enrol;
pub use keys::offer as offer_keys;
pub use stick::Stick;
pub use visit::visit;

/// How often a bar is drawn.
const BAR: Duration = Duration::from_millis(500);

/// The machine whose pages are shown, and who looks at them.
pub struct Room {
    /// sysfs.
    pub sys: PathBuf,
    /// What the image says of the machine.
    pub profile: Profile,
    /// Whose image it is.
    pub authority: VerifyingKey,
    /// At the consoles.
    pub person: Person,
}

/// Whoever is at the consoles.
pub struct Person {
    screens: Terminals,
    typed: Receiver<String>,
    /// False for a test's, who knows all answers beforehand.
    real: bool,
}

impl Person {
    /// At the consoles of this profile.
    pub fn at(profile: &Profile) -> Self {
        let (line, typed) = channel();
        // Nobody listens any more once the machine serves: then a line is dropped.
        Self { screens: Terminals::open(profile, move |text| _ = line.send(text)), typed, real: true }
    }

    /// Shows a page.
    pub fn show(&mut self, page: &Screen) {
        // What was typed before the page was there answers nothing on it.
        while self.real && self.typed.try_recv().is_ok() {}
        self.screens.draw(page.text());
    }

    /// Adds a sentence to the page.
    pub fn tell(&mut self, what: &str) {
        Screen::new().words(what).text().lines().for_each(|line| self.screens.line(line));
    }

    /// What a person types after this; waits for as long as it takes.
    pub fn ask(&mut self, question: &str) -> String {
        self.screens.prompt(question);
        self.typed.recv().unwrap_or_else(|_| {
            assert!(self.real, "a test's person wasn't told what to answer to {question:?}");
            // No console is left to type at.
            loop {
                std::thread::park();
            }
        })
    }

    /// Says what went wrong, and waits until it was read.
    pub fn trouble(&mut self, why: &anyhow::Error) {
        told(why).lines().for_each(|line| self.tell(line));
        self.ask("Press Enter to look again:");
    }

    /// What a person typed within this time, if anything.
    pub fn typed_within(&mut self, wait: Duration) -> Option<String> {
        self.typed.recv_timeout(wait).ok()
    }

    /// Does something of so many bytes, with a bar.
    pub fn watch<T>(&mut self, what: &str, total: u64, work: impl FnOnce(&mut dyn FnMut(u64)) -> T) -> T {
        let began = Instant::now();
        let (mut drawn, mut done) = (began, 0);
        let result = work(&mut |more| {
            done += more;
            if drawn.elapsed() > BAR {
                self.screens.again(&bar(what, done, total, began.elapsed()));
                drawn = Instant::now();
            }
        });
        self.screens.again("");
        result
    }
}

impl Room {
    /// Puts a file on the stick, however long it takes until there is one that takes it.
    pub fn hand_over(&mut self, name: &str, content: &[u8]) {
        let put = |sys: &Path| Stick::find(sys)?.context("no stick is plugged in: plug it in again")?.put(name, content);
        while let Err(why) = put(&self.sys) {
            self.person.trouble(&why);
        }
    }
}

/// A line that says how far it is: `writing slot a of disk 1  42 %  31.0 MB/s  2 s left`.
fn bar(what: &str, done: u64, total: u64, since: Duration) -> String {
    let rate = human::rate(done, since);
    let left = since.mul_f64(total.saturating_sub(done) as f64 / done.max(1) as f64);
    format!("{what}  {} %  {rate}  {} left", (done * 100 / total.max(1)).min(100), human::duration(left))
}

/// The page's name over every page.
fn page(name: &str) -> Screen {
    let mut page = Screen::new();
    page.heading(&format!("Hoidla: {name}"));
    page
}

#[cfg(test)]
impl Person {
    /// Who types these lines, one to each question.
    fn who_types(lines: &[&str]) -> Self {
        let (line, typed) = channel();
        lines.iter().for_each(|l| line.send((*l).to_owned()).unwrap());
        Self { screens: Terminals::none(), typed, real: false }
    }
}

#[cfg(test)]
fn fits(page: &Screen) {
    assert!(page.text().lines().count() <= 22, "a line for what is asked, and one for the answer:\n{}", page.text());
    assert!(page.text().lines().all(|l| l.chars().count() <= 80), "{}", page.text());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fits_its_line_and_never_passes_the_end() {
        for (done, total) in [(0, 100), (50, 100), (150, 100), (0, 0), (u64::MAX / 200, u64::MAX / 100)] {
            let line = bar("writing slot a of boot disk 2", done, total, Duration::from_secs(3));
            assert!(line.len() <= 79, "{line}");
            assert!(!line.contains("150"), "{line}");
        }
        assert!(bar("x", 50, 100, Duration::from_secs(3)).contains("50 %"));
    }
}
