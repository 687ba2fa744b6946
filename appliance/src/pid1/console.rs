//! The screen for host staff, on every console that the profile names.
//!
//! Promises: it asks for nothing and takes one word, `seal`, which ends every opening; whatever
//! else is typed does nothing. It is drawn when something changed, and once a minute.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hoidla_format::{Moment, profile::Profile};
use nix::libc;
use tokio::sync::{mpsc, watch};

use super::sensors::Reading;
use crate::{
    config::State,
    daemon::{Daemon, Panel},
    keep,
    staff::{self, Copying, Machine},
};

/// The word.
const SEAL: &[u8] = b"seal";
/// How often it is looked whether something changed.
const LOOK: Duration = Duration::from_secs(3);
/// How often it is drawn anyway.
const AGAIN: Duration = Duration::from_secs(60);
/// Below the page.
const HELP: &str = "Type seal and press Enter: whatever is open is sealed at once.";

/// What host staff are told now, as a page and as numbers.
pub type Told = watch::Sender<(String, String)>;

/// Draws and listens, for ever.
pub async fn keep(sys: &Path, profile: &Profile, state: &State, appliance: Arc<Daemon>, told: Told) {
    let (word, mut words) = mpsc::channel(1);
    let mut screens: Vec<File> = profile.consoles.iter().filter_map(|c| open(c.device(), &word)).collect();
    let mut copying = Copying::watch(Moment::now());
    let (mut shown, mut drawn) = (String::new(), Instant::now());
    loop {
        if let Some((page, numbers)) = look(sys, profile, state, &mut copying) {
            if page != shown || drawn.elapsed() > AGAIN {
                screens.iter_mut().for_each(|screen| draw(screen, &page));
                (shown, drawn) = (page.clone(), Instant::now());
            }
            told.send_replace((page, numbers));
        }
        tokio::select! {
            Some(()) = words.recv() => {
                let ended = appliance.seal_now();
                tracing::info!("sealed at the console: {ended} grants ended");
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn look(sys: &Path, profile: &Profile, state: &State, copying: &mut Copying) -> Option<(String, String)> {
    let panel: Panel = serde_json::from_slice(&std::fs::read(state.health()).ok()?).ok()?;
    let machine = Machine {
        boot_disks: (keep::working(), profile.boot_disks.len()),
        readings: profile.sensors.iter().map(|s| Reading::of(sys, s)).collect(),
    };
    let now = Moment::now();
    copying.look(panel.log_size, now);
    Some((staff::screen(&panel, &machine, copying, now), staff::metrics(&panel, &machine, copying, now)))
}

/// Clears a screen and writes the page. A console that takes nothing is none.
fn draw(screen: &mut File, page: &str) {
    let lines: String = page.lines().map(|l| format!("{l}\r\n")).collect();
    _ = screen.write_all(format!("\x1b[2J\x1b[H{lines}\r\n{HELP}\r\n").as_bytes());
}

/// A console to draw on; what is typed there is listened to.
fn open(device: &str, word: &mpsc::Sender<()>) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(Path::new("/dev").join(device)).ok()?;
    let (typed, word) = (file.try_clone().ok()?, word.clone());
    std::thread::spawn(move || listen(typed, &word));
    Some(file)
}

fn listen(mut typed: impl Read, word: &mpsc::Sender<()>) {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while typed.read_exact(&mut byte).is_ok() {
        match byte[0] {
            b'\n' | b'\r' => {
                if line == SEAL {
                    // Full: somebody asked a moment ago already.
                    _ = word.try_send(());
                }
                line.clear();
            }
            // A line longer than the word is not the word.
            other if line.len() <= SEAL.len() => line.push(other.to_ascii_lowercase()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_taken_and_nothing_else() {
        let said = |typed: &[u8]| {
            let (word, mut words) = mpsc::channel(1);
            listen(typed, &word);
            words.try_recv().is_ok()
        };
        for yes in [&b"seal\n"[..], b"SEAL\r", b"what?\n\nseal\n"] {
            assert!(said(yes), "{yes:?}");
        }
        let long = [&[b'x'; 100_000][..], b"seal\n"].concat();
        for no in [&b"seal"[..], b"unseal\n", b"seal me\n", b" seal\n", b"\x1b[Aseal\n", &long] {
            assert!(!said(no), "{no:?}");
        }
    }
}
