//! Which slot a start came from, whether it is an update's first, and what follows from it.
//!
//! Promises: an update becomes what is started first only once the appliance is ready to copy in;
//! until then every restart is one of what was there before, by the firmware's own order. A start
//! whose register 4 cannot be the released one, because firmware tried something else first, is
//! begun again with this slot first, once and never twice in a row. What is noted is for people:
//! nothing is opened or closed by it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::{Name, profile::Profile};
use hoidla_medium::disk::Part;
use serde::{Deserialize, Serialize};

use super::{
    entries::{self, Order, Variables},
    firmware, mirror,
    slots::{self, Slot, letter},
};
use crate::{
    config::{State, replace},
    keep,
};

/// The version of the note.
const VERSION: u16 = 1;

/// The most characters of a reason that is noted.
const MOST_WHY: usize = 400;

/// Whether this start is an update's first.
static ON_TRIAL: AtomicBool = AtomicBool::new(false);

/// Whether this start is an update's first: then the machine soon starts again if it fails.
pub fn on_trial() -> bool {
    ON_TRIAL.load(Ordering::Relaxed)
}

/// The same, as far as the firmware's variables tell before anything else is known.
pub fn look_early(sys: &Path) {
    ON_TRIAL.store(entries::is_once(&Variables::of(sys)).unwrap_or(false), Ordering::Relaxed);
}

/// An update's first start failed: the next one is to say why, if there is a state to note it in.
pub fn gave_up(state: &Path, why: &str) {
    let noted = State::at(state).and_then(|state| {
        let mut note = Note::read(&state);
        note.trial.iter_mut().for_each(|t| t.why = Some(why.chars().filter(|c| !c.is_control()).take(MOST_WHY).collect()));
        note.write(&state)
    });
    if let Err(e) = noted {
        tracing::warn!("why the update failed is not noted: {e:#}");
    }
}

/// The release of an update that did not come up, as long as nobody brought another: what is noted
/// on a machine that serves.
pub fn failed_update(state: &State) -> Option<Name> {
    Note::read(state).trial.map(|trial| trial.release)
}

/// An update that was written into a slot and not yet seen to come up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// `a` or `b`.
    slot: String,
    /// What the image calls itself.
    release: Name,
    /// Why it gave up, if it could say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// `start.toml` in the state folder: what the next start must know of this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u16,
    /// This slot was put first, since firmware tried something else before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
}

impl Default for Note {
    fn default() -> Self {
        Self { version: VERSION, again: false, trial: None }
    }
}

fn path(state: &State) -> PathBuf {
    state.folder().join("start.toml")
}

impl Note {
    /// What was noted; what cannot be read is nothing: it is for people.
    fn read(state: &State) -> Self {
        let text = fs::read_to_string(path(state)).unwrap_or_default();
        toml::from_str(&text).ok().filter(|n: &Self| n.version == VERSION).unwrap_or_default()
    }

    fn write(&self, state: &State) -> anyhow::Result<()> {
        match *self == Self::default() {
            true if !path(state).exists() => return Ok(()),
            true => fs::remove_file(path(state))?,
            false => replace(&path(state), toml::to_string(self)?.as_bytes())?,
        }
        keep::changed()
    }
}

/// What a start is, by what is noted of it and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// As ever.
    Usual,
    /// The first of an update.
    Trial,
    /// An update was tried before, and this isn't it.
    FellBack(Trial),
    /// Firmware tried something else first: to be begun again with this slot first.
    Again,
    /// And it does so each time.
    Hopeless,
}

/// `clean`: firmware tried nothing before. `first`: this slot is the first in its order.
fn kind(note: &Note, part: Part, first: bool, clean: bool) -> Kind {
    match &note.trial {
        // Broken off between being made the first and being noted so, a trial is over.
        Some(trial) if trial.slot == letter(part) && !first => {
            if clean {
                Kind::Trial
            } else {
                Kind::Hopeless
            }
        }
        _ if !clean => {
            if note.again {
                Kind::Hopeless
            } else {
                Kind::Again
            }
        }
        Some(trial) if trial.slot != letter(part) => Kind::FellBack(trial.clone()),
        _ => Kind::Usual,
    }
}

/// How this start goes on.
#[derive(Debug)]
pub struct Start {
    state: State,
    note: Note,
    order: Option<Order>,
    /// The slot that it came from, and all that there are.
    from: Option<Slot>,
    slots: Vec<Slot>,
}

/// What the disks' slots and the firmware's variables say of this start; mends both.
///
/// # Errors
/// If it cannot become one that the TPM believes; or if it must begin again, which it says.
pub fn settle(sys: &Path, profile: &Profile, state: &State) -> anyhow::Result<Start> {
    let (variables, slots) = (Variables::of(sys), slots::find(sys, profile));
    let mut note = Note::read(state);
    let Some(slot) = entries::started(&variables, &slots)?.cloned() else {
        tracing::warn!("this machine was not started from a slot of its boot disks: pull the stick");
        return Ok(Start { state: state.clone(), note, order: None, from: None, slots });
    };
    let whole = slots.len() == slots::BOTH.len() * profile.boot_disks.len();
    let standing = entries::keep(&variables, &slots, &slot, false, whole)?;
    ON_TRIAL.store(false, Ordering::Relaxed);
    match kind(&note, slot.part, standing.is_first(&slot), firmware::tried_before(sys, profile)? == 0) {
        Kind::Usual => {}
        Kind::Trial => {
            ON_TRIAL.store(true, Ordering::Relaxed);
            tracing::info!("an update is tried: {slot}");
        }
        Kind::FellBack(trial) => tracing::error!(
            "UPDATE FAILED: the release {} in slot {} did not come up ({}); {slot} goes on as before: bring the update once more, or another",
            trial.release,
            trial.slot,
            trial.why.as_deref().unwrap_or("it didn't get so far as to say why")
        ),
        Kind::Again => {
            tracing::warn!("the firmware tried something else before {slot}: it is put first, and the machine starts again");
            entries::keep(&variables, &slots, &slot, true, whole)?;
            note.again = true;
            note.write(state)?;
            super::power::End::Restart.now()
        }
        Kind::Hopeless => {
            note.again = false;
            note.write(state)?;
            bail!(
                "the firmware starts something else before {slot}, so that its TPM believes nothing: in the firmware's setup, put \"Hoidla {}, disk {}\" first and switch off starting from the network",
                letter(slot.part),
                slot.disk
            )
        }
    }
    note.again = false;
    let order = (!standing.is_first(&slot)).then(|| entries::later(&variables, &standing, &slot, &slots)).transpose()?;
    tracing::info!("started from {slot}");
    Ok(Start { state: state.clone(), note, order, from: Some(slot), slots })
}

impl Start {
    /// Whether something of the firmware's is to be written once the machine is ready.
    pub fn writes(&self) -> bool {
        self.order.is_some()
    }

    /// The appliance is ready: this slot is what is started from now on.
    ///
    /// # Errors
    /// If the firmware doesn't take it: then the machine must go back to what it was.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        if let Some(order) = self.order.take() {
            order.write().context("this start cannot be made the usual one")?;
            tracing::info!("from now on the machine starts from this slot");
        }
        if let Some(trial) = self.note.trial.take_if(|t| self.from.as_ref().is_some_and(|f| letter(f.part) == t.slot)) {
            tracing::info!("the update to {} came up", trial.release);
        }
        ON_TRIAL.store(false, Ordering::Relaxed);
        self.note.write(&self.state)
    }

    /// Has the other boot disk hold what runs, a little later.
    pub fn mirror(&self, authority: VerifyingKey) {
        let (Some(from), slots) = (self.from.clone(), self.slots.clone()) else { return };
        std::thread::spawn(move || {
            std::thread::sleep(mirror::AFTER);
            mirror::keep(&from, &slots, &authority);
        });
    }
}

/// Writes an image into the slots that don't run, and has the firmware start it once.
/// `progress` is told how many bytes of how many are written.
///
/// # Errors
/// If no boot disk takes it; then everything is as it was.
pub fn update(
    sys: &Path,
    profile: &Profile,
    state: &State,
    slot: &[u8],
    release: &Name,
    progress: &mut dyn FnMut(usize, usize),
) -> anyhow::Result<()> {
    let (variables, slots) = (Variables::of(sys), slots::find(sys, profile));
    // A firmware that was told to start the stick may have dropped them.
    entries::register(&variables, &slots, slots.len() == slots::BOTH.len() * profile.boot_disks.len())?;
    let running = running(&variables, &slots)?;
    let into = entries::not_running(&slots, running);
    let all = slot.len() * into.len();
    let mut written = Vec::new();
    for (n, to) in into.iter().enumerate() {
        match slots::install(to, slot, &mut |done| progress(n * slot.len() + done, all)) {
            Ok(()) => written.push(*to),
            Err(e) => tracing::error!("{e:#}"),
        }
    }
    let first = written.first().context(
        "no boot disk took the update: switch off and on; if it comes again, call home, and never replace both boot disks at once",
    )?;
    let note =
        Note { trial: Some(Trial { slot: letter(first.part).to_owned(), release: release.clone(), why: None }), ..Note::read(state) };
    note.write(state)?;
    entries::once(&variables, first)
}

/// The slot whose image is to stay: the one that runs, or, from a stick, the one that is started first.
fn running<'a>(variables: &Variables, slots: &'a [Slot]) -> anyhow::Result<&'a Slot> {
    if let Some(slot) = entries::started(variables, slots)? {
        return Ok(slot);
    }
    let entries = entries::Entries::read(variables)?;
    entries.first_of(slots).context("no boot entry leads to a slot of this machine: set it up from the stick")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(again: bool, trial: Option<&str>) -> Note {
        Note {
            again,
            trial: trial.map(|slot| Trial { slot: slot.into(), release: "2026-12".parse().unwrap(), why: None }),
            ..Note::default()
        }
    }

    #[test]
    fn an_update_is_on_trial_until_it_is_first_and_failed_when_another_slot_starts() {
        let (a, b) = (note(false, Some("a")), note(false, Some("b")));
        assert_eq!(kind(&note(false, None), Part::A, true, true), Kind::Usual);
        assert_eq!(kind(&b, Part::B, false, true), Kind::Trial);
        assert_eq!(kind(&b, Part::B, true, true), Kind::Usual, "it came up, and a power cut came before it was noted");
        assert_eq!(kind(&b, Part::A, true, true), Kind::FellBack(b.trial.clone().unwrap()));
        assert_eq!(kind(&a, Part::B, false, true), Kind::FellBack(a.trial.clone().unwrap()));
        assert_eq!(kind(&b, Part::B, false, false), Kind::Hopeless, "a trial is never made the usual start to mend it");
    }

    #[test]
    fn what_firmware_tried_before_is_mended_once_and_not_again() {
        for first in [true, false] {
            assert_eq!(kind(&note(false, None), Part::A, first, false), Kind::Again);
            assert_eq!(kind(&note(true, None), Part::A, first, false), Kind::Hopeless);
            assert_eq!(kind(&note(true, None), Part::A, first, true), Kind::Usual);
            // An update whose image firmware refused: the former comes back clean, and then says so.
            assert_eq!(kind(&note(false, Some("b")), Part::A, first, false), Kind::Again);
        }
    }

    #[test]
    fn what_is_noted_is_read_back_and_nothing_noted_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path()).unwrap();
        assert_eq!(Note::read(&state), Note::default());
        let noted = note(true, Some("b"));
        noted.write(&state).unwrap();
        assert_eq!(Note::read(&state), noted);
        gave_up(folder.path(), &format!("no\x1bdisk{}", "x".repeat(1000)));
        let why = Note::read(&state).trial.unwrap().why.unwrap();
        assert!(why.starts_with("nodiskxxx") && why.len() == MOST_WHY, "{why}");
        Note::default().write(&state).unwrap();
        gave_up(folder.path(), "no update was tried");
        assert!(!path(&state).exists());
        for bad in ["", "version = 2", "version = 1\nmore = 1", "x"] {
            fs::write(path(&state), bad).unwrap();
            assert_eq!(Note::read(&state), Note::default(), "{bad}");
        }
    }
}
