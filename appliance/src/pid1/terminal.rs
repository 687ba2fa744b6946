//! The machine's own terminals: every console that its profile names, as one.
//!
//! Promises: a page is drawn on all of them; a line may be typed on any, and is bounded; a
//! console that takes nothing is none, and what steers a terminal never comes from outside.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use hoidla_cli::screen::plain;
use hoidla_format::profile::Profile;
use nix::libc;

use super::devices;

/// The most characters of a line; the rest of a longer one is dropped, and the line with it.
const LINE: usize = 72;

/// All consoles.
pub struct Terminals(Vec<File>);

impl Terminals {
    /// Opens them; `typed` takes each line, in threads of their own.
    pub fn open(profile: &Profile, typed: impl Fn(String) + Clone + Send + 'static) -> Self {
        let open = |console: &hoidla_format::profile::Console| {
            let path = Path::new("/dev").join(console.device());
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).ok()?;
            let (keys, typed) = (file.try_clone().ok()?, typed.clone());
            std::thread::spawn(move || lines(keys, typed));
            Some(file)
        };
        Self(profile.consoles.iter().filter_map(open).collect())
    }

    #[cfg(test)]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Clears all and draws a page.
    pub fn draw(&mut self, page: &str) {
        self.write(&format!("\x1b[2J\x1b[H{}", page.lines().map(|l| format!("{}\r\n", plain(l))).collect::<String>()));
    }

    /// Writes a line below.
    pub fn line(&mut self, line: &str) {
        self.write(&format!("{}\r\n", plain(line)));
    }

    /// Writes what the next line is typed after.
    pub fn prompt(&mut self, text: &str) {
        self.write(&format!("{} ", plain(text)));
    }

    /// Writes over the line that the cursor is in.
    pub fn again(&mut self, line: &str) {
        self.write(&format!("\r{}\x1b[K", plain(line)));
    }

    fn write(&mut self, text: &str) {
        for screen in &mut self.0 {
            _ = screen.write_all(text.as_bytes());
        }
    }
}

/// Writes a page below what stands there, on every console that the kernel has: there may be no profile.
pub fn on_every_console(page: &str) {
    let names = devices::read("/sys/class/tty/console/active").unwrap_or_default();
    let open = |name| OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(Path::new("/dev").join(name)).ok();
    let mut all = Terminals(names.split_whitespace().filter_map(open).collect());
    page.lines().for_each(|line| all.line(line));
}

/// Hands over each line that is typed.
fn lines(mut keys: impl Read, typed: impl Fn(String)) {
    let (mut line, mut long, mut byte) = (String::new(), false, [0]);
    while keys.read_exact(&mut byte).is_ok() {
        match byte[0] {
            b'\n' | b'\r' => {
                if !std::mem::take(&mut long) {
                    typed(line.trim().to_owned());
                }
                line.clear();
            }
            other if line.len() < LINE => line.push(char::from(other)),
            _ => long = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lines_are_bounded_and_a_longer_one_is_none() {
        let said = |keys: &[u8]| {
            let all = RefCell::new(Vec::new());
            lines(keys, |line| all.borrow_mut().push(line));
            all.into_inner()
        };
        assert_eq!(said(b"seal\n install \r\n\nhalf"), ["seal", "install", "", ""]);
        assert_eq!(said(&[&[b'x'; 100_000][..], b"seal\nseal\n"].concat()), ["seal"]);
    }
}
