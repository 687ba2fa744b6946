//! Text for a terminal of 80 columns: headings, wrapped words, rows.

use std::fmt::Write as _;

/// The width everything fits.
pub const WIDTH: usize = 80;

/// `text` with nothing in it that moves a cursor, changes a colour or reverses the
/// direction of reading. What people approve is what they see.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

fn harmless(c: char) -> bool {
    let steers = c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c == '\n' || !steers
}

/// A page in the making.
#[derive(Clone, Debug, Default)]
pub struct Screen(String);

impl Screen {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// A heading, underlined.
    pub fn heading(&mut self, text: &str) -> &mut Self {
        let text = line(text);
        self.gap();
        let _ = writeln!(self.0, "{text}\n{}", "=".repeat(text.chars().count().min(WIDTH)));
        self
    }

    /// A paragraph, wrapped between words.
    pub fn words(&mut self, text: &str) -> &mut Self {
        self.wrapped(&plain(text), "", "")
    }

    /// A list item.
    pub fn item(&mut self, text: &str) -> &mut Self {
        self.wrapped(&plain(text), "  - ", "    ")
    }

    /// A name and its value; values begin in one column and wrap there.
    pub fn field(&mut self, name: &str, value: &str) -> &mut Self {
        let first = format!("  {:<16}", line(name));
        let rest = " ".repeat(first.chars().count().max(18));
        self.wrapped(&plain(value), &first, &rest)
    }

    /// An empty line.
    pub fn gap(&mut self) -> &mut Self {
        if !self.0.is_empty() && !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
        self
    }

    /// Rows under headings. Columns in which every cell is one word that begins with a digit align right.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> &mut Self {
        let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| line(c)).collect()).collect();
        let width = |i: usize| {
            rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).chain([headings[i].chars().count()]).max().unwrap_or(0)
        };
        let number = |c: &String| c.starts_with(|d: char| d.is_ascii_digit()) && !c.contains(' ');
        let right = |i: usize| !rows.is_empty() && rows.iter().all(|r| r.get(i).is_some_and(number));
        let all: Vec<(usize, bool)> = (0..headings.len()).map(|i| (width(i), right(i))).collect();
        self.row(headings, &all);
        self.row(&all.iter().map(|(w, _)| "-".repeat(*w)).collect::<Vec<_>>(), &all);
        for r in &rows {
            self.row(r, &all);
        }
        self
    }

    fn row<S: AsRef<str>>(&mut self, cells: &[S], columns: &[(usize, bool)]) {
        let mut out = String::from(" ");
        for (cell, (width, right)) in cells.iter().zip(columns) {
            let cell = cell.as_ref();
            let _ = if *right { write!(out, " {cell:>width$}") } else { write!(out, " {cell:<width$}") };
            out.push(' ');
        }
        let _ = writeln!(self.0, "{}", out.trim_end());
    }

    fn wrapped(&mut self, text: &str, first: &str, rest: &str) -> &mut Self {
        let mut lead = first;
        for paragraph in text.split('\n') {
            let mut out = String::from(lead);
            let mut empty = true;
            for word in paragraph.split_whitespace() {
                for piece in pieces(word, WIDTH - rest.chars().count()) {
                    if !empty && out.chars().count() + 1 + piece.chars().count() > WIDTH {
                        let _ = writeln!(self.0, "{out}");
                        out = String::from(rest);
                        empty = true;
                    }
                    if !empty {
                        out.push(' ');
                    }
                    out += &piece;
                    empty = false;
                }
            }
            let _ = writeln!(self.0, "{}", out.trim_end());
            lead = rest;
        }
        self
    }

    /// The page.
    pub fn text(&self) -> &str {
        self.0.trim_end_matches('\n')
    }
}

/// `text` on a single line.
fn line(text: &str) -> String {
    plain(text).replace('\n', " ")
}

/// A word in pieces that fit `most` columns.
fn pieces(word: &str, most: usize) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    chars.chunks(most.max(1)).map(|c| c.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let mut s = Screen::new();
        s.heading("A grant").words(&"word ".repeat(60)).field("reader", &"a".repeat(200)).item(&"b c ".repeat(50));
        assert!(s.text().lines().all(|l| l.chars().count() <= WIDTH), "{}", s.text());
        assert_eq!(s.text().matches('a').count(), 200 + "grant reader".matches('a').count(), "nothing is lost");
    }

    #[test]
    fn hostile_text_cannot_steer_the_terminal() {
        let mut s = Screen::new();
        s.field("purpose", "a drill\u{1b}[2J\u{202e}evil\r\u{200b}");
        assert!(s.text().chars().all(|c| c == '\n' || harmless(c)));
        assert!(s.text().contains("\u{fffd}"));
        assert_eq!(plain("tõlge, γλώσσα"), "tõlge, γλώσσα");
    }

    #[test]
    fn tables_line_up() {
        let mut s = Screen::new();
        s.table(&["disk", "bytes"], &[vec!["a".into(), "1".into()], vec!["bbbbb".into(), "1,000".into()]]);
        assert_eq!(s.text(), "  disk   bytes\n  -----  -----\n  a          1\n  bbbbb  1,000");
    }
}
