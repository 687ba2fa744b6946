//! The screen for host staff, on every console that the profile names.
//!
//! Promises: it asks for nothing and takes one word, `seal`, which ends every opening; whatever
//! else is typed does nothing. It is drawn when something changed, and once a minute.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hoidla_format::{Moment, profile::Profile};
use tokio::sync::{mpsc, watch};

use super::{devices, sensors::Reading, start, terminal::Terminals};
use crate::{
    config::State,
    daemon::{Daemon, Panel},
    keep,
    staff::{self, Copying, Machine},
};

/// The word.
const SEAL: &str = "seal";
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
    // Full: somebody asked a moment ago already.
    let typed = move |line: String| _ = is_seal(&line).then(|| word.try_send(()));
    let mut screens = Terminals::open(profile, typed);
    let mut copying = Copying::watch(Moment::now());
    let (mut shown, mut drawn) = (String::new(), Instant::now());
    loop {
        if let Some((page, numbers)) = look(sys, profile, state, &mut copying) {
            if page != shown || drawn.elapsed() > AGAIN {
                screens.draw(&format!("{}\n\n{HELP}", page.trim_end()));
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
    let working = keep::working();
    let machine = Machine {
        cable: state.config().ok().and_then(|config| devices::cable(sys, config.port.as_deref()?)),
        failed_update: start::failed_update(state).map(|release| release.to_string()),
        boot_disks: profile.boot_disks.len(),
        broken: (1..=profile.boot_disks.len()).filter(|number| !working.contains(number)).collect(),
        readings: profile.sensors.iter().map(|s| Reading::of(sys, s)).collect(),
    };
    let now = Moment::now();
    copying.look(panel.log_size, now);
    Some((staff::screen(&panel, &machine, copying, now), staff::metrics(&panel, &machine, copying, now)))
}

/// Whether a line is the word.
fn is_seal(line: &str) -> bool {
    line.eq_ignore_ascii_case(SEAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_taken_and_nothing_else() {
        assert!(["seal", "SEAL"].into_iter().all(is_seal));
        assert!(!["unseal", "seal me", "\x1b[Aseal", ""].into_iter().any(is_seal));
    }
}
