//! Watchdog, power button, and how a machine ends.
//!
//! Promises: if this program hangs, the machine starts again; the power button ends everything
//! in order, as soon as drivers are loaded; nothing is asked of anybody.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use hoidla_format::profile;
use nix::sys::reboot::{RebootMode, reboot};
use tokio::sync::watch;

use super::devices::read;

/// How often the watchdog is told that all is well; drivers wait 30 seconds at least.
const PET: Duration = Duration::from_secs(5);
/// How long the start may take, and a person may read why it failed.
const START: Duration = Duration::from_secs(300);
/// How long a person at the console may take, and disks that are erased: hours for each TiB.
const PEOPLE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long this program may be silent once it serves.
const SILENT: Duration = Duration::from_secs(60);

/// A watchdog that runs. A thread tells it that all is well until a time that this program moves on.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Instant>>);

impl Watchdog {
    /// Starts the one that the profile names, if it is there.
    pub fn start(sys: &Path, wanted: &profile::Watchdog) -> anyhow::Result<Option<Self>> {
        for entry in std::fs::read_dir(sys.join("class/watchdog")).into_iter().flatten().flatten() {
            if read(entry.path().join("identity")).is_ok_and(|identity| identity == wanted.identity) {
                let file = OpenOptions::new().write(true).open(Path::new("/dev").join(entry.file_name()));
                let (file, until) = (file.context("the watchdog is in use")?, Arc::new(Mutex::new(Instant::now() + START)));
                let watched = until.clone();
                std::thread::spawn(move || tell(file, &watched));
                return Ok(Some(Self(until)));
            }
        }
        Ok(None)
    }

    /// Waits for people: they may take a month.
    pub fn wait_for_people(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + PEOPLE;
    }

    /// Says for ever that this program serves.
    pub async fn keep(self) {
        loop {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + SILENT;
            tokio::time::sleep(PET).await;
        }
    }
}

/// Tells the watchdog that all is well, as long as it is; after that the machine starts again.
fn tell(mut file: impl Write, until: &Mutex<Instant>) {
    while Instant::now() < *until.lock().unwrap_or_else(PoisonError::into_inner) {
        if let Err(e) = file.write_all(b"\0") {
            tracing::warn!("the watchdog takes no word: {e}");
        }
        std::thread::sleep(PET);
    }
    tracing::error!("nothing was heard of this program for too long: the watchdog starts the machine again");
    // Closed, the watchdog might be stopped.
    std::mem::forget(file);
}

/// Why the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody asked.
    PowerOff,
    /// It shall try again.
    Restart,
}

impl End {
    /// Now. What is on disks was flushed before.
    pub fn now(self) -> ! {
        nix::unistd::sync();
        let mode = if self == Self::PowerOff { RebootMode::RB_POWER_OFF } else { RebootMode::RB_AUTOBOOT };
        let refused = reboot(mode);
        // Only a kernel that is broken comes back: PID 1 ends, it panics, and starts again.
        panic!("the kernel doesn't end: {refused:?}")
    }
}

/// Becomes true once somebody presses the power button.
pub type Pressed = watch::Receiver<bool>;

/// Watches all power buttons.
pub fn watch_buttons(sys: &Path) -> Pressed {
    let (press, pressed) = watch::channel(false);
    let press = Arc::new(press);
    for entry in std::fs::read_dir(sys.join("class/input")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_button = read(entry.path().join("device/name")).is_ok_and(|n| n == "Power Button");
        if let Ok(device) = File::open(Path::new("/dev/input").join(&name))
            && is_button
        {
            let press = press.clone();
            std::thread::spawn(move || follow(device, &press));
        }
    }
    // Without a button nobody holds the sender: then nothing is ever pressed.
    pressed
}

fn follow(mut device: impl Read, press: &watch::Sender<bool>) {
    let mut event = [0; 24];
    while device.read_exact(&mut event).is_ok() {
        if is_press(&event) {
            press.send_replace(true);
        }
    }
}

/// Whether an input event (`struct input_event`: time, type, code, value) is the key going down.
fn is_press(event: &[u8; 24]) -> bool {
    const KEY: [u8; 2] = 1u16.to_le_bytes();
    const POWER: [u8; 2] = 116u16.to_le_bytes();
    event[16..18] == KEY && event[18..20] == POWER && event[20..24] == 1i32.to_le_bytes()
}

/// From now on the button switches the machine off at once: nothing is lost by that.
pub fn end_at_button(button: Pressed) {
    std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
            runtime.block_on(pressed(button));
            End::PowerOff.now()
        }
    });
}

/// Waits until the button is pressed; for ever if there is none.
pub async fn pressed(mut button: Pressed) {
    if button.wait_for(|pressed| *pressed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; 24] {
        let mut out = [7; 24];
        out[16..18].copy_from_slice(&kind.to_le_bytes());
        out[18..20].copy_from_slice(&code.to_le_bytes());
        out[20..].copy_from_slice(&value.to_le_bytes());
        out
    }

    #[test]
    fn only_the_power_key_going_down_ends_the_machine() {
        let (press, pressed) = watch::channel(false);
        let quiet = [event(0, 0, 0), event(1, 116, 0), event(1, 115, 1), event(5, 116, 1), event(1, 116, 2)].concat();
        follow(&quiet[..], &press);
        assert!(!*pressed.borrow());
        follow(&[quiet, event(1, 116, 1).to_vec()].concat()[..], &press);
        assert!(*pressed.borrow());
    }

    #[test]
    fn a_program_that_says_nothing_is_not_said_to_be_well() {
        let mut told = Vec::new();
        tell(&mut told, &Mutex::new(Instant::now()));
        assert!(told.is_empty());
    }

    #[test]
    fn a_watchdog_is_taken_by_name_only() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("class/watchdog/watchdog0")).unwrap();
        std::fs::write(sys.path().join("class/watchdog/watchdog0/identity"), "other\n").unwrap();
        let wanted = profile::Watchdog { identity: "iTCO_wdt".into() };
        assert!(Watchdog::start(sys.path(), &wanted).unwrap().is_none());
        std::fs::write(sys.path().join("class/watchdog/watchdog0/identity"), "iTCO_wdt\n").unwrap();
        assert!(Watchdog::start(sys.path(), &wanted).is_err(), "found, and has no device here");
    }
}
