//! What the firmware says of how this machine was started.
//!
//! Promises: [`secure_boot`] passes only if Secure Boot was enforced with keys of its own;
//! [`odd`] tells what ran before the image, if the firmware's log fits the TPM's register 4. Both
//! believe the firmware: a forged one is what the measurements are for.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use hoidla_format::{Hash32, profile::Profile};
use hoidla_verify::{eventlog::Log, firmware::Launch};

use super::devices::path_of_log;

/// The GUID of the variables that the UEFI specification defines.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The GUID of Secure Boot's lists of keys.
pub const DATABASE: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

/// Refuses a machine on which anything may start.
pub fn secure_boot(sys: &Path) -> anyhow::Result<()> {
    let (on, setup) = (flag(sys, "SecureBoot")?, flag(sys, "SetupMode")?);
    ensure!(!setup, "the firmware is in setup mode: enrol the site's Secure Boot keys, then start again");
    ensure!(on, "Secure Boot is off, and the TPM is not used without it: switch it on in the firmware's setup");
    Ok(())
}

/// Whether the firmware has no owner yet, and takes keys from anybody.
pub fn in_setup_mode(sys: &Path) -> anyhow::Result<bool> {
    flag(sys, "SetupMode")
}

/// Whose images this firmware starts: the variable `db`, without its attributes; empty if there is none.
pub fn may_start(sys: &Path) -> anyhow::Result<Vec<u8>> {
    match fs::read(sys.join(format!("firmware/efi/efivars/db-{DATABASE}"))) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        bytes => Ok(bytes.context("the firmware's variable db cannot be read")?.get(4..).unwrap_or_default().to_vec()),
    }
}

/// Refuses what was put beside the image on the stick or boot disk: the loader puts it here.
pub fn nothing_added(root: &Path) -> anyhow::Result<()> {
    ensure!(
        !root.join(".extra").exists(),
        "somebody put files beside the image on the boot disk, and the loader handed them over: write the stick again at home; if the machine was started from its own disks, call home"
    );
    Ok(())
}

/// What the firmware did before it started this image, and the profile doesn't have: each a
/// sentence with what to do. Under any of these, register 4 is none that a release approves.
pub fn odd(sys: &Path, profile: &Profile, register: &Hash32) -> anyhow::Result<Vec<String>> {
    let bytes = fs::read(path_of_log(sys)).context("the kernel has no log of what the firmware measured")?;
    let log = Log::parse(&bytes)?;
    ensure!(log.replay().get(&4) == Some(register), "the firmware's log doesn't lead to what the TPM's register 4 holds");
    let recorded = recorded(profile);
    let launch = Launch::of(&log, &recorded);
    Ok([launch.surprises(&recorded), launch.between()].concat().iter().map(ToString::to_string).collect())
}

/// How many other boot entries the firmware tried before the one that started this image.
pub fn tried_before(sys: &Path, profile: &Profile) -> anyhow::Result<usize> {
    let bytes = fs::read(path_of_log(sys)).context("the kernel has no log of what the firmware measured")?;
    Ok(Launch::of(&Log::parse(&bytes)?, &recorded(profile)).came_back())
}

fn recorded(profile: &Profile) -> Vec<Hash32> {
    profile.firmware_events.iter().map(|e| e.digest).collect()
}

/// A variable of four bytes of attributes and one of value.
fn flag(sys: &Path, name: &str) -> anyhow::Result<bool> {
    let path = sys.join(format!("firmware/efi/efivars/{name}-{GLOBAL}"));
    let bytes = fs::read(&path).with_context(|| format!("the firmware has no variable {name}: it knows no Secure Boot"))?;
    match bytes[..] {
        [_, _, _, _, 0] => Ok(false),
        [_, _, _, _, 1] => Ok(true),
        _ => anyhow::bail!("the firmware's variable {name} is no flag"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fake::{AGENT, IMAGE, Machine, USUAL};

    #[test]
    fn secure_boot_must_be_on_and_not_in_setup() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("firmware/efi/efivars");
        fs::create_dir_all(&folder).unwrap();
        let set = |name: &str, bytes: &[u8]| fs::write(folder.join(format!("{name}-{GLOBAL}")), bytes).unwrap();
        let refused = |why: &str| assert!(secure_boot(sys.path()).unwrap_err().to_string().contains(why), "{why}");
        refused("no variable SecureBoot");
        set("SecureBoot", &[6, 0, 0, 0, 1]);
        refused("no variable SetupMode");
        set("SetupMode", &[6, 0, 0, 0, 0]);
        secure_boot(sys.path()).unwrap();
        set("SecureBoot", &[6, 0, 0, 0, 0]);
        refused("Secure Boot is off");
        set("SetupMode", &[6, 0, 0, 0, 1]);
        refused("setup mode");
        for bad in [&[][..], &[1], &[6, 0, 0, 0], &[6, 0, 0, 0, 2], &[6, 0, 0, 0, 1, 0]] {
            set("SetupMode", &[6, 0, 0, 0, 0]);
            set("SecureBoot", bad);
            refused("no flag");
        }
    }

    #[test]
    fn what_the_loader_hands_over_is_refused() {
        let root = tempfile::tempdir().unwrap();
        nothing_added(root.path()).unwrap();
        fs::create_dir(root.path().join(".extra")).unwrap();
        assert!(nothing_added(root.path()).is_err());
    }

    #[test]
    fn what_ran_before_the_image_is_told_if_the_log_is_the_tpms() {
        let machine = Machine::new();
        let sys = machine.kernel().sys;
        let profile = Profile::parse(include_str!("../../../hw-profiles/qemu-q35.toml")).unwrap();
        let register = || Log::parse(&fs::read(path_of_log(&sys)).unwrap()).unwrap().replay()[&4];
        assert_eq!(odd(&sys, &profile, &register()).unwrap(), Vec::<String>::new());
        assert!(odd(&sys, &profile, &Hash32([1; 32])).is_err(), "another register");
        for (before, word) in [(AGENT, "a program of the firmware itself"), (IMAGE, "another program ran before the image")] {
            machine.log(&[USUAL, before, IMAGE].concat());
            let told = odd(&sys, &profile, &register()).unwrap();
            assert!(told.len() == 1 && told[0].contains(word), "{told:?}");
        }
        machine.remove("kernel/security/tpm0");
        assert!(odd(&sys, &profile, &Hash32([1; 32])).is_err());
    }
}
