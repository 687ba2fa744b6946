//! Hardware profiles: what a kind of machine has, and what must hold on it.
//!
//! Promises: a [`Profile`] names each device by where it is plugged in, never by the order in
//! which the kernel found it; trays count from 1 without a gap; no device has two roles; what
//! doesn't fit is refused with the line and what belongs there. It is no statement: it is part
//! of the measured image, which the authority signs as a whole.

mod parts;

pub use parts::{
    Assurance, BootDisk, Console, Digest, FirmwareEvent, Interface, Mac, Module, Must, NetworkPort, PciAddress, Place, Plug, Role, Sensor,
    SensorInput, TpmKind, Tray, TrustedModule, Watchdog,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Name;

/// The version that this program reads and writes.
pub const VERSION: u16 = 1;
/// The most bytes of a profile.
pub const MOST: usize = 64 * 1024;
/// The most entries of each list.
const MOST_ENTRIES: usize = 256;
/// The most trays: the store's bound.
const MOST_TRAYS: usize = 8;

/// Why a profile was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct ProfileError {
    /// The line, from 1; 1 if the whole is meant.
    pub line: usize,
    /// What is wrong, and what belongs there.
    pub why: String,
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    version: u16,
    /// Its name, which is also that of its file.
    pub name: Name,
    /// Its name for people.
    pub title: String,
    /// Where the console is shown.
    pub consoles: Vec<Console>,
    /// Kernel modules to load, as the kernel names them; what they depend on is found when the image is built.
    pub modules: Vec<Module>,
    /// Those that only a stick needs: a machine that serves doesn't load them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stick_modules: Vec<Module>,
    /// The TPM.
    pub tpm: TrustedModule,
    /// What starts the machine again if it hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Watchdog>,
    /// What else must hold.
    #[serde(default)]
    pub must: Must,
    /// The disks that the machine starts from: they carry the image and the appliance's state.
    #[serde(rename = "boot")]
    pub boot_disks: Vec<BootDisk>,
    /// The disks that carry the store.
    #[serde(rename = "tray")]
    pub trays: Vec<Tray>,
    /// Network ports.
    #[serde(rename = "network")]
    pub networks: Vec<NetworkPort>,
    /// What is shown to host staff.
    #[serde(rename = "sensor", default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<Sensor>,
    /// All that this firmware measures into PCR 4 before the image, in order; none if that is what every firmware does.
    #[serde(rename = "firmware_event", default, skip_serializing_if = "Vec::is_empty")]
    pub firmware_events: Vec<FirmwareEvent>,
}

impl Profile {
    /// Reads a profile that a person or [`Self::write`] wrote.
    ///
    /// # Errors
    /// If anything in it doesn't fit.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let whole = |why: String| ProfileError { line: 1, why };
        if text.len() > MOST {
            return Err(whole(format!("a profile has at most {MOST} bytes")));
        }
        check_version(text)?;
        let profile: Self = toml::from_str(text).map_err(|e| at_line(text, &e))?;
        profile.check().map_err(whole)?;
        Ok(profile)
    }

    /// A profile from its parts.
    ///
    /// # Errors
    /// If they don't fit together.
    pub fn new(parts: Self) -> Result<Self, ProfileError> {
        let parts = Self { version: VERSION, ..parts };
        parts.check().map(|()| parts).map_err(|why| ProfileError { line: 1, why })
    }

    /// An empty profile of this name, to be filled and checked with [`Self::new`].
    pub fn draft(name: Name, title: &str, tpm: TrustedModule) -> Self {
        Self {
            version: VERSION,
            name,
            title: title.to_owned(),
            consoles: Vec::new(),
            modules: Vec::new(),
            stick_modules: Vec::new(),
            tpm,
            watchdog: None,
            must: Must::default(),
            boot_disks: Vec::new(),
            trays: Vec::new(),
            networks: Vec::new(),
            sensors: Vec::new(),
            firmware_events: Vec::new(),
        }
    }

    /// As text.
    ///
    /// # Panics
    /// Never: it is a plain table.
    pub fn write(&self) -> String {
        toml::to_string(self).expect("a profile is a plain table")
    }

    /// The network port of a role, if the machine has one.
    pub fn port(&self, role: Role) -> Option<&NetworkPort> {
        self.networks.iter().find(|n| n.role == role)
    }

    fn check(&self) -> Result<(), String> {
        let lists = [
            self.consoles.len(),
            self.modules.len() + self.stick_modules.len(),
            self.boot_disks.len(),
            self.networks.len(),
            self.sensors.len(),
            self.firmware_events.len(),
        ];
        ensure(lists.iter().all(|n| *n <= MOST_ENTRIES), || format!("a list has at most {MOST_ENTRIES} entries"))?;
        ensure(self.title.len() <= 120 && !self.title.chars().any(char::is_control), || "title: one line of at most 120 bytes".into())?;
        ensure((1..=MOST_TRAYS).contains(&self.trays.len()), || {
            format!("a machine has 1 to {MOST_TRAYS} trays: write a [[tray]] for each")
        })?;
        ensure((1..=2).contains(&self.boot_disks.len()), || "write one [[boot]], or two that carry the same".into())?;
        for (n, tray) in self.trays.iter().enumerate() {
            ensure(usize::from(tray.number) == n + 1, || {
                format!("trays count from 1 without a gap: number {} stands in place {}", tray.number, n + 1)
            })?;
        }
        ensure(self.port(Role::Door).is_some(), || "one [[network]] must have the role \"door\"".into())?;
        once("module", self.modules.iter().chain(&self.stick_modules).map(ToString::to_string))?;
        once("role of a network port", self.networks.iter().map(|n| n.role.to_string()))?;
        let disks = self.trays.iter().map(|t| t.place.to_string()).chain(self.boot_disks.iter().map(|b| b.place.to_string()));
        once("device", disks.chain(self.networks.iter().map(|n| n.plug.to_string())))?;
        once("sensor", self.sensors.iter().map(|s| s.name.to_string()))
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Refuses what stands twice.
fn once(what: &str, all: impl Iterator<Item = String>) -> Result<(), String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    match all.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(format!("the {what} {} stands twice", two[0])),
        None => Ok(()),
    }
}

/// Looks at the version alone, since another one may have any other keys.
fn check_version(text: &str) -> Result<(), ProfileError> {
    #[derive(Deserialize)]
    struct Head {
        version: u64,
    }
    let head: Head = toml::from_str(text).map_err(|e| at_line(text, &e))?;
    let why = || format!("version {}; this program knows version {VERSION}: use the release that wrote it, or a newer one", head.version);
    ensure(head.version == u64::from(VERSION), why).map_err(|why| ProfileError { line: 1, why })
}

fn at_line(text: &str, e: &toml::de::Error) -> ProfileError {
    let before = e.span().map_or("", |s| text.get(..s.start).unwrap_or(text));
    ProfileError { line: 1 + before.matches('\n').count(), why: e.message().to_owned() }
}
