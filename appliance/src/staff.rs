//! What host staff are told: the same on the console and on the host's port.
//!
//! Promises: it names no dataset, no agent, no grant and nobody; it fits a screen of 80 by 24
//! with eight trays; every state has a sentence that says what to do.

use std::fmt::Write as _;

use hoidla_cli::Screen;
use hoidla_format::Moment;

use crate::{daemon::Panel, pid1::sensors::Reading};

/// How long after the last growth of the log copying in counts as going on, in seconds.
const GOES_ON: u64 = 30;

/// When the log last grew, as the console saw it.
#[derive(Clone, Copy, Debug)]
pub struct Copying {
    leaves: u64,
    grew: Option<Moment>,
    since: Moment,
}

impl Copying {
    /// From now on.
    pub fn watch(now: Moment) -> Self {
        Self { leaves: 0, grew: None, since: now }
    }

    /// The log has so many leaves now.
    pub fn look(&mut self, leaves: u64, now: Moment) {
        if leaves > self.leaves && self.leaves > 0 {
            self.grew = Some(now);
        }
        self.leaves = leaves.max(1);
    }

    /// Whether something is copied in.
    pub fn goes_on(&self, now: Moment) -> bool {
        self.grew.is_some_and(|grew| now.seconds().saturating_sub(grew.seconds()) < GOES_ON)
    }

    fn words(&self, now: Moment) -> String {
        match self.grew {
            Some(_) if self.goes_on(now) => "yes, now".into(),
            Some(grew) => format!("not now; last at {grew}"),
            None => format!("not since the start at {}", self.since),
        }
    }
}

/// What is known of the machine around the appliance.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Whether a cable is in the door's network port, if the port says so.
    pub cable: Option<bool>,
    /// The release of an update that did not come up.
    pub failed_update: Option<String>,
    /// How many boot disks it has.
    pub boot_disks: usize,
    /// The numbers of those that don't work.
    pub broken: Vec<usize>,
    /// What its sensors say.
    pub readings: Vec<Reading>,
}

/// The page.
pub fn screen(panel: &Panel, machine: &Machine, copying: &Copying, now: Moment) -> String {
    let mut s = Screen::new();
    let (how, kind) = (
        if panel.openings == 0 { "SEALED" } else { "OPEN for a quorum's grant" },
        if panel.development { ", for drills only" } else { "" },
    );
    s.heading(&format!("Hoidla {}: {how}{kind}", panel.appliance));
    match (machine.cable, &panel.wrong_clock) {
        (Some(false), _) => s.field("copying in", "not possible: NO CABLE is in the door's network port, or its other end is off"),
        (_, Some(why)) => s.field("copying in", &format!("not possible: {why}")),
        _ => s.field("copying in", &copying.words(now)),
    };
    s.field("switch off", switching_off(panel));
    s.field("disks", &format!("{} of {} are whole", panel.disks.1, panel.disks.0));
    for tray in &panel.trays {
        s.field(&format!("tray {}", tray.tray), &tray.says);
    }
    s.field("boot disks", &boot_disks(machine));
    for (kind, name) in [("temp", "temperatures"), ("fan", "fans"), ("power", "power")] {
        let all: Vec<String> = machine.readings.iter().filter(|r| r.kind == kind).map(said).collect();
        if !all.is_empty() {
            s.field(name, &all.join(", "));
        }
    }
    if let Some(release) = &machine.failed_update {
        s.field("update", &format!("{release} FAILED, the one before goes on: tell the field engineer"));
    }
    let troubles = panel.alarms + panel.damaged;
    s.field("alarms", &if troubles == 0 { "none".into() } else { format!("{troubles}: tell the field engineer") });
    s.text().to_owned()
}

/// How many work, and which doesn't.
fn boot_disks(machine: &Machine) -> String {
    let (all, work) = (machine.boot_disks, machine.boot_disks - machine.broken.len());
    let broken: Vec<String> = machine.broken.iter().map(usize::to_string).collect();
    let broken = broken.join(", ");
    if broken.is_empty() {
        format!("{work} of {all} work")
    } else {
        format!("{work} of {all} work, not number {broken}: tell the field engineer")
    }
}

/// Whether, and how.
fn switching_off(panel: &Panel) -> &'static str {
    if panel.openings > 0 {
        "safe, and it ends the opening: press the power button"
    } else if panel.disks.1 < panel.disks.0 {
        "safe, but better when all disks are whole again: press the power button"
    } else {
        "safe at any time: press the power button"
    }
}

fn said(r: &Reading) -> String {
    let value = r.value.map_or("says nothing".into(), |v| format!("{v} {}", r.unit()));
    format!("{} {value}{}", r.name, if r.alarm { " ALARM" } else { "" })
}

/// The page and the same as numbers, in the text format that Prometheus reads: the page as comments.
pub fn metrics(panel: &Panel, machine: &Machine, copying: &Copying, now: Moment) -> String {
    let mut out: String = screen(panel, machine, copying, now).lines().map(|l| format!("# {l}\n")).collect();
    let mut gauge = |name: &str, what: &str, value: i64| {
        let _ = write!(out, "# HELP hoidla_{name} {what}\n# TYPE hoidla_{name} gauge\nhoidla_{name} {value}\n");
    };
    gauge("sealed", "1 if no grant is open", (panel.openings == 0).into());
    gauge("copying_in", "1 if something is copied in", copying.goes_on(now).into());
    gauge("disks", "Disks of the store", panel.disks.0.into());
    gauge("disks_whole", "Disks of the store that are whole", panel.disks.1.into());
    gauge("door_cable", "1 if a cable is in the door's network port", machine.cable.unwrap_or(true).into());
    gauge("clock_fits", "1 if the machine's papers hold by its clock", panel.wrong_clock.is_none().into());
    gauge("boot_disks", "Boot disks", machine.boot_disks as i64);
    gauge("boot_disks_working", "Boot disks that work", (machine.boot_disks - machine.broken.len()) as i64);
    gauge("alarms", "Alarms and damage since the start", (panel.alarms + panel.damaged) as i64);
    gauge("written_seconds", "When this was true, Unix time", panel.written as i64);
    let _ = write!(out, "# HELP hoidla_reading What a sensor says: degrees, turns a minute, watts\n# TYPE hoidla_reading gauge\n");
    for r in &machine.readings {
        if let Some(value) = r.value {
            let _ = writeln!(out, "hoidla_reading{{sensor=\"{}\",kind=\"{}\"}} {value}", r.name, r.kind);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use hoidla_format::statements::Proof;

    use super::*;
    use crate::trays::TrayHealth;

    fn panel() -> Panel {
        let tray = |tray| TrayHealth { tray, path: "/run/trays/1".into(), well: true, says: "whole; it may be taken out".into() };
        Panel {
            pid: 1,
            listen: "198.51.100.7:4460".into(),
            appliance: "lux-1".into(),
            release: "drill".into(),
            development: true,
            tpm_proof: Proof::TrustedOnFirstUse,
            disks: (8, 8),
            used: (1, 2),
            streams: 1,
            log_size: 100,
            damaged: 0,
            alarms: 0,
            standing: vec!["population went back".into()],
            openings: 0,
            connections: 1,
            wrong_clock: None,
            wholeness: Default::default(),
            ages: Default::default(),
            trays: (1..=8).map(tray).collect(),
            troubles: vec!["population, generation 1: gone".into()],
            start_ms: 1,
            written: 1_800_000_000,
        }
    }

    fn machine() -> Machine {
        let reading = |name: &str, kind: &str, value| Reading { name: name.into(), kind: kind.into(), value, alarm: value.is_none() };
        Machine {
            cable: Some(true),
            failed_update: Some("2027-01".into()),
            boot_disks: 2,
            broken: vec![],
            readings: vec![reading("inlet", "temp", Some(24)), reading("rear", "fan", None)],
        }
    }

    #[test]
    fn everything_fits_the_screen_and_names_no_dataset() {
        let now = Moment::from_seconds(1_800_000_000);
        for panel in [panel(), Panel { openings: 1, alarms: 3, disks: (8, 7), ..panel() }] {
            let page = screen(&panel, &machine(), &Copying::watch(now), now);
            assert!(page.lines().count() <= 21, "three lines are the console's own:\n{page}");
            assert!(page.lines().all(|l| l.chars().count() <= 80), "{page}");
            let numbers = metrics(&panel, &machine(), &Copying::watch(now), now);
            assert!(!page.contains("population") && !numbers.contains("population"));
        }
    }

    #[test]
    fn the_boot_disk_that_failed_is_named() {
        assert_eq!(boot_disks(&machine()), "2 of 2 work");
        assert_eq!(boot_disks(&Machine { broken: vec![2], ..machine() }), "1 of 2 work, not number 2: tell the field engineer");
    }

    #[test]
    fn a_cable_that_is_missing_is_said_first() {
        let now = Moment::from_seconds(1_800_000_000);
        let with = |cable| Machine { cable, ..machine() };
        let says = |cable| screen(&panel(), &with(cable), &Copying::watch(now), now).contains("NO CABLE");
        assert!(says(Some(false)) && !says(Some(true)) && !says(None));
        let page = screen(&panel(), &with(Some(false)), &Copying::watch(now), now);
        assert!(page.lines().count() <= 21 && page.lines().all(|l| l.chars().count() <= 80), "{page}");
        assert!(metrics(&panel(), &with(Some(false)), &Copying::watch(now), now).contains("\nhoidla_door_cable 0\n"));
    }

    #[test]
    fn a_wrong_clock_is_said_where_somebody_waits_for_copies() {
        let now = Moment::from_seconds(1_100_000_000);
        let long = "the clock says 2005-01-01, home's papers hold from 2026-11-22 to 2036-11-22: set it in the firmware's setup, in UTC; \
                    if it is right, call home";
        let wrong = Panel { wrong_clock: Some(long.into()), ..panel() };
        let page = screen(&wrong, &machine(), &Copying::watch(now), now);
        assert!(page.contains("not possible: the clock says 2005"), "{page}");
        assert!(page.lines().count() <= 21 && page.lines().all(|l| l.chars().count() <= 80), "{page}");
        assert!(metrics(&wrong, &machine(), &Copying::watch(now), now).contains("\nhoidla_clock_fits 0\n"));
    }

    #[test]
    fn copying_in_is_what_the_log_does() {
        let at = |s: u64| Moment::from_seconds(1_800_000_000 + s);
        let mut copying = Copying::watch(at(0));
        copying.look(100, at(1)); // what was there before
        assert!(!copying.goes_on(at(1)) && copying.words(at(1)).contains("not since the start"));
        copying.look(101, at(5));
        assert!(copying.goes_on(at(6)));
        copying.look(101, at(60));
        assert!(!copying.goes_on(at(60)) && copying.words(at(60)).contains(&at(5).to_string()));
    }

    #[test]
    fn numbers_are_what_the_page_says() {
        let now = Moment::from_seconds(1_800_000_000);
        let numbers = metrics(&Panel { openings: 1, ..panel() }, &machine(), &Copying::watch(now), now);
        for line in ["hoidla_sealed 0", "hoidla_disks_whole 8", "hoidla_reading{sensor=\"inlet\",kind=\"temp\"} 24"] {
            assert!(numbers.lines().any(|l| l == line), "{line} in\n{numbers}");
        }
        assert!(!numbers.contains("sensor=\"rear\""), "no value is no number");
        let odd = numbers.lines().filter(|l| !l.starts_with("# ") && l.split(' ').count() != 2 && *l != "#").count();
        assert_eq!(odd, 0, "{numbers}");
    }
}
