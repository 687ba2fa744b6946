//! How a machine differs from its profile, each difference a sentence with what to do.

use hoidla_format::{
    Hash32,
    profile::{Interface, Place, Profile},
};
use hoidla_verify::{eventlog::Log, firmware::Launch};

use super::Kernel;
use crate::pid1::{devices, sensors::Reading};

/// All differences; none if the machine is what the profile says.
pub fn check(kernel: &Kernel, profile: &Profile) -> Vec<String> {
    let mut out = Vec::new();
    for boot in &profile.boot_disks {
        out.extend(disk(kernel, "boot disk", &boot.place));
    }
    for tray in &profile.trays {
        out.extend(disk(kernel, &format!("tray {}", tray.number), &tray.place));
    }
    for network in &profile.networks {
        match devices::port(&kernel.sys, &network.plug) {
            Ok(Some(_)) => {}
            Ok(None) => out.push(format!(
                "the network port {} ({}) is not there: is its card in, and its module in the profile?",
                network.role, network.plug
            )),
            Err(e) => out.push(e.to_string()),
        }
    }
    out.extend(tpm(kernel, profile));
    out.extend(watchdog(kernel, profile));
    out.extend(must(kernel, profile));
    out.extend(kernel.event_log().and_then(|log| firmware(&log, profile)).unwrap_or_else(|e| vec![format!("{e:#}")]));
    for sensor in &profile.sensors {
        if Reading::of(&kernel.sys, sensor).value.is_none() {
            out.push(format!(
                "the sensor {} ({} of {}) says nothing: is its module in the profile, and is it that chip's?",
                sensor.name, sensor.input, sensor.chip
            ));
        }
    }
    out
}

fn disk(kernel: &Kernel, what: &str, place: &Place) -> Option<String> {
    match devices::disk(&kernel.sys, place) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("{what}: no disk is at {place}: put one in, or correct its place in the profile")),
        Err(e) => Some(format!("{what}: {e}")),
    }
}

fn tpm(kernel: &Kernel, profile: &Profile) -> Option<String> {
    if kernel.says("tpm", "tpm0", "tpm_version_major").as_deref() != Some("2") {
        return Some("there is no TPM 2.0: switch it on in the firmware's setup, or fit one".into());
    }
    let found = interface(kernel);
    (found != Some(profile.tpm.interface)).then(|| {
        let found = found.map_or("something else".into(), |f| f.to_string());
        format!(
            "the TPM speaks {found}, the profile says {}: it is another TPM; if it was replaced on purpose, enrol anew",
            profile.tpm.interface
        )
    })
}

/// How what the firmware did before any program of a disk differs from what the profile has of it.
pub fn firmware(log: &[u8], profile: &Profile) -> anyhow::Result<Vec<String>> {
    let recorded: Vec<Hash32> = profile.firmware_events.iter().map(|e| e.digest).collect();
    Ok(Launch::of(&Log::parse(log)?, &recorded).surprises(&recorded).iter().map(ToString::to_string).collect())
}

/// How the kernel speaks to the TPM.
pub(super) fn interface(kernel: &Kernel) -> Option<Interface> {
    let device = kernel.sys.join("class/tpm/tpm0/device");
    match Kernel::linked(&device, "driver")?.as_str() {
        "tpm_crb" => Some(Interface::Crb),
        "tpm_tis" => Some(Interface::Tis),
        _ => None,
    }
}

fn watchdog(kernel: &Kernel, profile: &Profile) -> Option<String> {
    let wanted = &profile.watchdog.as_ref()?.identity;
    let found: Vec<String> = kernel.class("watchdog").iter().filter_map(|w| kernel.says("watchdog", w, "identity")).collect();
    (!found.contains(wanted)).then(|| format!("the watchdog {wanted:?} is not there (found: {found:?}): is its module in the profile?"))
}

fn must(kernel: &Kernel, profile: &Profile) -> Vec<String> {
    let mut out = Vec::new();
    let least = profile.must.memory_mib;
    match kernel.memory_mib() {
        Some(memory) if memory >= least => {}
        Some(memory) => out.push(format!("{memory} MiB of memory, and {least} must be there: look whether a module has failed")),
        None => out.push("the kernel doesn't say how much memory there is".into()),
    }
    if profile.must.iommu && kernel.class("iommu").is_empty() {
        out.push("the IOMMU is off: switch it on in the firmware's setup (VT-d, AMD-Vi)".into());
    }
    let flags = std::fs::read_to_string(kernel.proc.join("cpuinfo")).unwrap_or_default();
    let encrypts = flags.lines().any(|l| l.starts_with("flags") && l.split_whitespace().any(|f| ["sme", "tme"].contains(&f)));
    if profile.must.memory_encryption && !encrypts {
        out.push(
            "the processor encrypts no memory: switch it on in the firmware's setup (SME, TME), or use the machine as reduced assurance"
                .into(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{
        capture,
        fake::{AGENT, IMAGE, Machine, USUAL},
    };
    use hoidla_verify::firmware::{CALLING, RETURNING};

    fn profile(machine: &Machine) -> Profile {
        let mut profile = capture(&machine.kernel(), "new".parse().unwrap(), "").unwrap();
        profile.must.memory_mib = 1024;
        profile
    }

    #[test]
    fn a_machine_is_what_was_written_of_it() {
        let machine = Machine::new();
        assert_eq!(check(&machine.kernel(), &profile(&machine)), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_a_sentence_with_what_to_do() {
        for (gone, sentence) in [
            ("class/block/vdb", "tray 2: no disk is at 0000:00:05.0"),
            ("class/block/nvme0n1", "boot disk: no disk is at 0000:00:06.0"),
            ("class/net/eth0", "the network port door (0000:00:03.0) is not there"),
            ("class/tpm/tpm0", "no TPM 2.0"),
            ("devices/LNXSYSTM:00/MSFT0101:00/driver", "the TPM speaks something else"),
            ("class/watchdog/watchdog0", "the watchdog \"iTCO_wdt\" is not there"),
            ("class/hwmon/hwmon0", "says nothing"),
            ("proc/meminfo", "how much memory"),
            ("kernel/security/tpm0", "what the firmware measured isn't known"),
        ] {
            let machine = Machine::new();
            let profile = profile(&machine);
            machine.remove(gone);
            let found = check(&machine.kernel(), &profile);
            assert!(found.len() == 1 && found[0].contains(sentence), "{gone}: {found:?}");
        }
        let machine = Machine::new();
        let mut profile = profile(&machine);
        machine.file("proc/meminfo", "MemTotal:        1048575 kB\n");
        (profile.must.iommu, profile.must.memory_encryption) = (true, true);
        let found = check(&machine.kernel(), &profile).join("\n");
        for part in ["1023 MiB", "IOMMU is off", "encrypts no memory"] {
            assert!(found.contains(part), "{found}");
        }
        machine.file("class/iommu/dmar0/x", "");
        machine.file("proc/cpuinfo", "flags\t\t: fpu tme\n");
        machine.file("proc/meminfo", "MemTotal:        1048576 kB\n");
        assert_eq!(check(&machine.kernel(), &profile), Vec::<String>::new());
    }

    #[test]
    fn what_the_firmware_did_is_held_against_what_was_recorded() {
        let machine = Machine::new();
        let plain = profile(&machine);
        machine.log(&[USUAL, AGENT, IMAGE].concat());
        let with_agent = profile(&machine);
        assert_eq!(check(&machine.kernel(), &with_agent), Vec::<String>::new(), "recorded");
        let found = check(&machine.kernel(), &plain);
        assert!(found.len() == 1 && found[0].contains("a program of the firmware itself"), "unexplained: {found:?}");
        machine.log(&[USUAL, IMAGE].concat());
        let found = check(&machine.kernel(), &with_agent);
        assert!(found.len() == 1 && found[0].contains("no longer does"), "missing: {found:?}");
        machine.log(&[USUAL, &[(0x8000_0007, RETURNING, b""), (0x8000_0007, CALLING, b"")], IMAGE].concat());
        let found = check(&machine.kernel(), &plain);
        assert!(found.len() == 1 && found[0].contains("tried 1 other boot entry first"), "{found:?}");
    }
}
