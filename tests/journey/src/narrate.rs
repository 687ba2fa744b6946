//! Telling the story: headings, sentences, commands, results, all within 80 columns.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

use hoidla_cli::{Progress, Screen, human};

/// Columns of a row of what a program wrote longer than a screen.
const QUOTED: usize = 74;

/// A line of a program: as it is if the program fitted it to a screen, or in rows, the others set in.
fn rows(line: &str) -> Vec<String> {
    if line.chars().count() <= 80 {
        return vec![line.to_owned()];
    }
    let indent = line.chars().take_while(|c| *c == ' ').count();
    let mut rows = vec![" ".repeat(indent)];
    for (at, word) in line[indent..].split(' ').enumerate() {
        let row = rows.last_mut().expect("there is always one");
        if at > 0 && row.chars().count() + 1 + word.chars().count() > QUOTED {
            rows.push(format!("{}{word}", " ".repeat(indent + 2)));
        } else {
            row.push_str(if at > 0 { " " } else { "" });
            row.push_str(word);
        }
    }
    rows
}

/// A voice; silent in tests.
#[derive(Debug)]
pub struct Narrator {
    aloud: bool,
    bold: (&'static str, &'static str),
    dim: (&'static str, &'static str),
    scene: u32,
    begun: Instant,
}

impl Narrator {
    /// One that speaks on standard output, with bold headings on a terminal.
    pub fn aloud() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (bold, dim) = if colours { (("\x1b[1m", "\x1b[0m"), ("\x1b[2m", "\x1b[0m")) } else { (("", ""), ("", "")) };
        Self { aloud: true, bold, dim, scene: 0, begun: Instant::now() }
    }

    /// One that says nothing.
    pub fn silent() -> Self {
        Self { aloud: false, bold: ("", ""), dim: ("", ""), scene: 0, begun: Instant::now() }
    }

    fn put(&self, text: &str) {
        if self.aloud {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }

    /// The next scene.
    pub fn scene(&mut self, title: &str) {
        self.scene += 1;
        self.begun = Instant::now();
        self.put(&format!("\n{}{}. {title}{}", self.bold.0, self.scene, self.bold.1));
    }

    /// Some sentences.
    pub fn say(&self, text: &str) {
        self.put(Screen::new().words(text).text());
    }

    /// A command that is run.
    pub fn command(&self, line: &str) {
        let mut rows = vec![String::from("  $")];
        for word in line.split(' ') {
            let row = rows.last_mut().expect("there is always one");
            if row.chars().count() + word.chars().count() > 77 {
                row.push_str(" \\");
                rows.push(format!("     {word}"));
            } else {
                row.push(' ');
                row.push_str(word);
            }
        }
        self.put(&format!("{}{}{}", self.dim.0, rows.join("\n"), self.dim.1));
    }

    /// What a step showed.
    pub fn shown(&self, text: &str) {
        self.put(Screen::new().item(text).text());
    }

    /// What a program wrote for people, set in.
    pub fn quote(&self, text: &str) {
        for line in text.lines().flat_map(rows) {
            self.put(&format!("{}    | {line}{}", self.dim.0, self.dim.1));
        }
    }

    /// The scene's end, with its time.
    pub fn done(&self) {
        self.put(&format!("{}  ({}){}", self.dim.0, human::duration(self.begun.elapsed()), self.dim.1));
    }

    /// A bar over bytes, on a terminal.
    pub fn bytes(&self, what: &str, total: u64) -> Progress {
        Progress::bytes(self.draws(), format!("    {what}"), Some(total))
    }

    /// A bar over things, on a terminal.
    pub fn count(&self, what: &str, total: u64) -> Progress {
        Progress::count(self.draws(), format!("    {what}"), Some(total))
    }

    /// Whether somebody watches.
    pub fn draws(&self) -> bool {
        self.aloud && std::io::stderr().is_terminal()
    }

    /// A table.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) {
        self.put(&format!("\n{}", Screen::new().table(headings, rows).text()));
    }
}
