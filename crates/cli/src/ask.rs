//! Questions to the person at the keyboard: passphrases and typed confirmations.

use std::{
    fs::File,
    io::{BufRead, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use zeroize::Zeroizing;

use crate::NextStep;

/// The most bytes of a passphrase.
pub const MOST_PASSPHRASE: usize = 1024;
/// The fewest characters of a new one.
pub const LEAST_NEW: usize = 12;

/// A passphrase; wiped when dropped, never printed.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The text, for a key file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn checked(text: Zeroizing<String>) -> Result<Self> {
        ensure!(!text.is_empty(), "the passphrase is empty");
        ensure!(text.len() <= MOST_PASSPHRASE, "the passphrase is longer than {MOST_PASSPHRASE} bytes");
        Ok(Self(text))
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// If it cannot be read, is empty, not UTF-8, or has a first line of more than [`MOST_PASSPHRASE`] bytes.
    pub fn from_file(path: &Path) -> Result<Self> {
        let whose = || format!("cannot take the passphrase from {}", path.display());
        let file = File::open(path).with_context(whose)?;
        if file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0) {
            eprintln!("warning: {} can be read by others on this machine; chmod 600 it", path.display());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_PASSPHRASE + 2));
        file.take(MOST_PASSPHRASE as u64 + 2).read_to_end(&mut bytes).with_context(whose)?;
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| anyhow!("it is not UTF-8 text")).with_context(whose)?;
        Self::checked(Zeroizing::new(text.to_owned())).with_context(whose)
    }
}

/// Where a passphrase comes from. Flatten it into a program's arguments.
#[derive(Args, Clone, Debug, Default)]
pub struct PassphraseSource {
    /// Take the passphrase from the first line of FILE instead of asking.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl PassphraseSource {
    /// The passphrase of an existing key file.
    ///
    /// # Errors
    /// If there is neither a file nor a terminal to ask at.
    pub fn existing(&self, whose: &str) -> Result<Passphrase> {
        match &self.passphrase_file {
            Some(path) => Passphrase::from_file(path),
            None => typed(&format!("passphrase of {whose}: ")),
        }
    }

    /// A new passphrase, typed twice.
    ///
    /// # Errors
    /// As [`Self::existing`]; besides, if it has fewer than [`LEAST_NEW`] characters or was not typed the same twice.
    pub fn new_one(&self, whose: &str) -> Result<Passphrase> {
        let passphrase = match &self.passphrase_file {
            Some(path) => Passphrase::from_file(path)?,
            None => {
                let first = typed(&format!("new passphrase for {whose}: "))?;
                ensure!(first.as_str() == typed("the same again: ")?.as_str(), "the two passphrases differ; nothing was written");
                first
            }
        };
        long_enough(&passphrase).next("take several words that only you would put together")?;
        Ok(passphrase)
    }
}

fn long_enough(passphrase: &Passphrase) -> Result<()> {
    ensure!(passphrase.as_str().chars().count() >= LEAST_NEW, "a new passphrase needs at least {LEAST_NEW} characters");
    Ok(())
}

fn typed(prompt: &str) -> Result<Passphrase> {
    let text = rpassword::prompt_password(prompt)
        .context("there is no terminal to ask for the passphrase at")
        .next("run it at a terminal, or give --passphrase-file FILE")?;
    Passphrase::checked(Zeroizing::new(text))
}

/// Asks `question` on standard error and takes only `word` on standard input for a yes.
///
/// # Errors
/// If standard input cannot be read. Any other word, or the end of input, is `Ok(false)`.
pub fn confirm_typed(question: &str, word: &str) -> Result<bool> {
    eprint!("{question}\nType {word} to go on, anything else to stop: ");
    std::io::stderr().flush().ok();
    confirms(&mut std::io::stdin().lock(), word)
}

fn confirms(input: &mut impl BufRead, word: &str) -> Result<bool> {
    let mut line = String::new();
    input.take(256).read_line(&mut line).context("cannot read the answer")?;
    Ok(line.trim() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Passphrase> {
        // A pipe needs no scratch file: `from_file` reads any path.
        let (reader, mut writer) = std::io::pipe()?;
        writer.write_all(bytes)?;
        drop(writer);
        use std::os::fd::AsRawFd;
        Passphrase::from_file(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd())))
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_its_file() {
        assert_eq!(of(b"drei rote Schiffe\nnever this\n").unwrap().as_str(), "drei rote Schiffe");
        assert_eq!(of(b"windows line\r\n").unwrap().as_str(), "windows line");
        assert_eq!(of(&[b'x'; MOST_PASSPHRASE]).unwrap().as_bytes().len(), MOST_PASSPHRASE);
        for bad in [&b""[..], b"\n", b"\xff\xfe\n", &[b'x'; MOST_PASSPHRASE + 1]] {
            assert!(of(bad).is_err());
        }
    }

    #[test]
    fn a_short_new_passphrase_is_refused() {
        assert!(long_enough(&of(b"elevenchars").unwrap()).is_err());
        assert!(long_enough(&of(b"twelve chars").unwrap()).is_ok());
    }

    #[test]
    fn only_the_word_itself_confirms() {
        assert!(confirms(&mut &b"approve\n"[..], "approve").unwrap());
        for no in [&b"approv\n"[..], b"yes\n", b"", b"approve it\n"] {
            assert!(!confirms(&mut &no[..], "approve").unwrap());
        }
    }
}
