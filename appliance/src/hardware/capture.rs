//! A profile of the machine that this program runs on, for a person to look over.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use hoidla_format::{
    Name,
    profile::{
        Assurance, BootDisk, FirmwareEvent, Interface, Must, NetworkPort, PciAddress, Place, Plug, Profile, Role, Sensor, TpmKind, Tray,
        TrustedModule, Watchdog,
    },
};
use hoidla_verify::{eventlog::Log, firmware::Launch};

use super::{Kernel, check::interface};
use crate::pid1::devices;

/// Modules that no device names, and every machine needs; the last three for a keyboard, which
/// somebody may plug in later.
const ALWAYS: &[&str] = &["efivarfs", "button", "evdev", "xhci_pci", "usbhid", "hid_generic"];
/// What a stick needs.
const STICK: &[&str] = &["usb_storage", "sd_mod"];
/// The most sensors that are written down.
const MOST_SENSORS: usize = 16;
/// The part of the memory, in percent, that must be there again: firmware takes some as it likes.
const MEMORY: u32 = 95;

/// Writes down what is there.
pub fn capture(kernel: &Kernel, name: Name, title: &str) -> anyhow::Result<Profile> {
    let interface = interface(kernel).context("there is no TPM whose driver is known: switch it on in the firmware's setup")?;
    let kind = if interface == Interface::Crb { TpmKind::OnDie } else { TpmKind::Discrete };
    // What a TPM is worth is a person's judgement.
    let mut profile = Profile::draft(name, title, TrustedModule { kind, interface, assurance: Assurance::Reduced });
    let mut modules: BTreeSet<String> = ALWAYS.iter().map(|m| (*m).to_owned()).collect();
    disks(kernel, &mut profile, &mut modules)?;
    ports(kernel, &mut profile, &mut modules);
    for watchdog in kernel.class("watchdog") {
        modules.extend(drivers(&kernel.sys.join("class/watchdog").join(&watchdog)));
        profile.watchdog = profile.watchdog.or(kernel.says("watchdog", &watchdog, "identity").map(|identity| Watchdog { identity }));
    }
    sensors(kernel, &mut profile, &mut modules);
    let active = kernel.says("tty", "console", "active").unwrap_or_default();
    profile.consoles = active.split_whitespace().filter_map(|c| c.parse().ok()).collect();
    profile.modules = modules.iter().filter_map(|m| m.parse().ok()).collect();
    profile.stick_modules = STICK.iter().filter(|m| !modules.contains(**m)).filter_map(|m| m.parse().ok()).collect();
    profile.must = Must { memory_mib: kernel.memory_mib().unwrap_or(0) / 100 * MEMORY, ..Must::default() };
    profile.must.iommu = !kernel.class("iommu").is_empty();
    let log = kernel.event_log()?;
    let events = Launch::of(&Log::parse(&log)?, &[]).to_record();
    profile.firmware_events = events.into_iter().map(|(digest, what)| FirmwareEvent { digest, what }).collect();
    Ok(Profile::new(profile)?)
}

/// Disks with a state partition are boot disks; all others that nobody can pull out like a stick are in trays.
fn disks(kernel: &Kernel, profile: &mut Profile, modules: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let mut found: Vec<(Place, String)> = Vec::new();
    for name in kernel.class("block") {
        let fixed = kernel.says("block", &name, "removable").as_deref() == Some("0");
        let empty = kernel.says("block", &name, "size").is_none_or(|s| s == "0");
        if let Some(place) = devices::place_of(&kernel.sys, &name).filter(|_| fixed && !empty) {
            found.push((place, name));
        }
    }
    found.sort();
    for (place, name) in found {
        modules.extend(drivers(&kernel.sys.join("class/block").join(&name)));
        match devices::state_partition(&kernel.sys, &name)? {
            Some(_) => profile.boot_disks.push(BootDisk { place }),
            None => profile.trays.push(Tray { number: profile.trays.len() as u8 + 1, place }),
        }
    }
    Ok(())
}

/// The first port with a cable is the door, the second one the host's.
fn ports(kernel: &Kernel, profile: &mut Profile, modules: &mut BTreeSet<String>) {
    let mut roles = [Role::Door, Role::Health].into_iter();
    let mut found: Vec<(bool, PciAddress, String)> = Vec::new();
    for name in kernel.class("net") {
        if let Some(pci) = devices::pci_of(&kernel.sys.join("class/net").join(&name)) {
            let cable = kernel.says("net", &name, "carrier").as_deref() == Some("1");
            found.push((!cable, pci, name));
        }
    }
    found.sort();
    for (_, pci, name) in found {
        if let Some(role) = roles.next() {
            modules.extend(drivers(&kernel.sys.join("class/net").join(&name)));
            profile.networks.push(NetworkPort { role, plug: Plug::Pci(pci) });
        }
    }
}

fn sensors(kernel: &Kernel, profile: &mut Profile, modules: &mut BTreeSet<String>) {
    for hwmon in kernel.class("hwmon") {
        let at = kernel.sys.join("class/hwmon").join(&hwmon);
        let Some(chip) = kernel.says("hwmon", &hwmon, "name") else { continue };
        let mut inputs: Vec<String> =
            std::fs::read_dir(&at).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        inputs.sort();
        for input in inputs.iter().filter_map(|i| i.strip_suffix("_input")?.parse::<hoidla_format::profile::SensorInput>().ok()) {
            let name = format!("{chip}-{}-{input}", hwmon.trim_start_matches("hwmon")).to_lowercase().replace('_', "-");
            let most = devices::read(at.join(format!("{input}_max"))).ok().and_then(|m| m.parse::<u32>().ok());
            let most = most.filter(|_| input.kind() == "temp").map(|m| m / 1000).filter(|m| *m > 0);
            if let (Ok(name), true) = (name.parse(), profile.sensors.len() < MOST_SENSORS) {
                modules.extend(drivers(&at));
                profile.sensors.push(Sensor { name, chip: chip.clone(), input, least: None, most });
            }
        }
    }
}

/// The modules of the drivers of a device and of all that it hangs on.
fn drivers(device: &Path) -> BTreeSet<String> {
    let at = std::fs::canonicalize(device).unwrap_or_default();
    at.ancestors().filter_map(|a| Kernel::linked(&a.join("driver"), "module")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fake::{AGENT, IMAGE, Machine, USUAL};

    #[test]
    fn what_a_firmware_starts_of_its_own_is_written_down_in_its_order() {
        let machine = Machine::new();
        let captured = || capture(&machine.kernel(), "new".parse().unwrap(), "").unwrap();
        assert_eq!(captured().firmware_events, [], "what is usual needs no word");
        machine.log(&[USUAL, AGENT, IMAGE].concat());
        let profile = captured();
        let what: Vec<&str> = profile.firmware_events.iter().map(|e| e.what.as_str()).collect();
        assert_eq!(what, ["the call of the boot entry", "the end of the firmware's own part", "a program of the firmware itself"]);
        assert_eq!(Profile::parse(&profile.write()).unwrap(), profile, "it can be read by an image");
    }

    #[test]
    fn what_is_there_is_written_down_by_where_it_is_plugged_in() {
        let machine = Machine::new();
        let profile = capture(&machine.kernel(), "new".parse().unwrap(), "A new machine").unwrap();
        let trays: Vec<String> = profile.trays.iter().map(|t| format!("{} {}", t.number, t.place)).collect();
        assert_eq!(trays, ["1 0000:00:04.0", "2 0000:00:05.0"], "no stick, no boot disk");
        assert_eq!(profile.boot_disks[0].place.to_string(), "0000:00:06.0");
        assert_eq!(profile.port(Role::Door).unwrap().plug.to_string(), "0000:00:03.0");
        let modules: Vec<&str> = profile.modules.iter().map(|m| m.as_str()).collect();
        assert_eq!(modules, ["button", "efivarfs", "evdev", "hid_generic", "nvme", "usbhid", "virtio_blk", "virtio_net", "xhci_pci"]);
        assert_eq!(profile.stick_modules.iter().map(|m| m.as_str()).collect::<Vec<_>>(), STICK, "no stick is plugged in, and one will be");
        assert_eq!(profile.watchdog.as_ref().unwrap().identity, "iTCO_wdt");
        assert_eq!((profile.tpm.kind, profile.tpm.assurance), (TpmKind::OnDie, Assurance::Reduced));
        assert_eq!(profile.sensors[0].name.as_str(), "coretemp-0-temp1");
        assert_eq!(profile.sensors[0].most, Some(90));
        assert_eq!(Profile::parse(&profile.write()).unwrap(), profile, "it can be read by an image");
    }

    #[test]
    fn a_machine_without_what_must_be_there_has_no_profile() {
        for gone in ["class/tpm/tpm0", "class/net/eth0", "class/block/nvme0n1", "kernel/security/tpm0"] {
            let machine = Machine::new();
            machine.remove(gone);
            assert!(capture(&machine.kernel(), "new".parse().unwrap(), "").is_err(), "{gone}");
        }
    }
}
