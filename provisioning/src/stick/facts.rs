//! What the kernel says of a disk, before anything is written to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::{NextStep, human};

/// A disk, as its label and the kernel have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's name of it.
    pub name: String,
    /// Vendor and model.
    pub model: String,
    /// The serial number, if it tells one.
    pub serial: String,
    /// How many bytes it says it has.
    pub bytes: u64,
    /// Whether its kind is pulled out.
    pub removable: bool,
    /// The whole disk that it is a part of.
    pub part_of: Option<String>,
    /// Where it, or a part of it, is mounted.
    pub mounted: Vec<PathBuf>,
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Facts {
    /// Of the device at this path.
    ///
    /// # Errors
    /// If it is no disk.
    pub fn of(device: &Path) -> Result<Self> {
        let at = fs::canonicalize(device).with_context(|| format!("{} is not there", device.display())).next("see its name with lsblk")?;
        let name = at.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(at.parent() == Some(Path::new("/dev")), "{} is no disk: name one like /dev/sdb", device.display());
        Self::read(Path::new("/sys"), Path::new("/proc/self/mountinfo"), &name)
    }

    /// The same, from these folders of the kernel's.
    ///
    /// # Errors
    /// If it knows no such disk.
    pub fn read(sys: &Path, mountinfo: &Path, name: &str) -> Result<Self> {
        let at = fs::canonicalize(sys.join("class/block").join(name)).with_context(|| format!("{name} is no disk: see lsblk"))?;
        let blocks: u64 = line(at.join("size")).and_then(|s| s.parse().ok()).context("the kernel tells no size")?;
        let part_of = at.join("partition").exists().then(|| at.parent().and_then(Path::file_name).unwrap_or_default());
        let own = at.join("device");
        let model = [line(own.join("vendor")), line(own.join("model"))].into_iter().flatten().collect::<Vec<_>>().join(" ");
        // A stick's number is that of the USB device that it belongs to.
        let serial = line(own.join("serial")).or_else(|| at.ancestors().skip(1).find_map(|a| line(a.join("serial"))));
        Ok(Self {
            name: name.to_owned(),
            model,
            serial: serial.unwrap_or_default(),
            bytes: blocks * 512,
            removable: line(at.join("removable")).as_deref() == Some("1"),
            part_of: part_of.map(|p| p.to_string_lossy().into_owned()),
            mounted: mounted(&at, &fs::read_to_string(mountinfo).context("it isn't known what is mounted")?),
        })
    }

    /// Refuses what nobody should write to. `any`: also a disk that is not one to pull out.
    ///
    /// # Errors
    /// With what to do.
    pub fn check(&self, any: bool) -> Result<()> {
        if let Some(whole) = &self.part_of {
            bail!("{} is a part of a disk: name the whole one, /dev/{whole}", self.name);
        }
        if let Some(first) = self.mounted.first() {
            bail!("{} is mounted at {}: unmount it, after a look at what is on it", self.name, first.display());
        }
        ensure!(
            self.removable || any,
            "{} ({}) is not a disk to pull out: see with lsblk that you mean it, and say --not-removable",
            self.name,
            self.label()
        );
        Ok(())
    }

    /// Model, serial number and size.
    pub fn label(&self) -> String {
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        format!("{}, {}, {}", or(&self.model, "no model"), or(&self.serial, "no serial number"), human::bytes(self.bytes))
    }

    /// What is typed to say that this is the one.
    pub fn word(&self) -> String {
        [self.name.as_str(), &self.serial].join("/").trim_end_matches('/').to_owned()
    }
}

/// Where a disk and its parts are mounted, by their numbers.
fn mounted(disk: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let parts = fs::read_dir(disk).into_iter().flatten().flatten().map(|e| e.path());
    let numbers: Vec<String> = parts.chain([disk.to_owned()]).filter_map(|p| line(p.join("dev"))).collect();
    let fields = mountinfo.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.len() > 4 && numbers.iter().any(|n| n == f[2])).map(|f| PathBuf::from(f[4])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A kernel with a stick `sdb` with one part, and a built-in disk.
    fn kernel() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let stick = "devices/usb2/2-1/host6/block/sdb";
        for (file, text) in [("size", "15633408\n"), ("removable", "1\n"), ("dev", "8:16\n"), ("device/vendor", "Kingston\n")] {
            put(&format!("{stick}/{file}"), text);
        }
        put(&format!("{stick}/device/model"), "DataTraveler 3.0\n");
        put("devices/usb2/2-1/serial", "E0D55E\n");
        put(&format!("{stick}/sdb1/partition"), "1\n");
        put(&format!("{stick}/sdb1/size"), "2048\n");
        put(&format!("{stick}/sdb1/dev"), "8:17\n");
        let disk = "devices/pci/nvme0n1";
        for (file, text) in [("size", "4096\n"), ("removable", "0\n"), ("dev", "259:0\n"), ("device/serial", "S1\n")] {
            put(&format!("{disk}/{file}"), text);
        }
        fs::create_dir_all(sys.path().join("class/block")).unwrap();
        for (name, at) in [("sdb", stick.to_owned()), ("sdb1", format!("{stick}/sdb1")), ("nvme0n1", disk.to_owned())] {
            symlink(sys.path().join(at), sys.path().join("class/block").join(name)).unwrap();
        }
        put("mounts", "36 35 98:0 / / rw - ext4 /dev/root rw\n");
        sys
    }

    fn facts(sys: &tempfile::TempDir, name: &str) -> Facts {
        Facts::read(sys.path(), &sys.path().join("mounts"), name).unwrap()
    }

    #[test]
    fn a_stick_is_known_by_its_label() {
        let sys = kernel();
        let stick = facts(&sys, "sdb");
        assert_eq!((stick.model.as_str(), stick.serial.as_str(), stick.bytes), ("Kingston DataTraveler 3.0", "E0D55E", 15_633_408 * 512));
        assert_eq!((stick.word().as_str(), stick.check(false).is_ok()), ("sdb/E0D55E", true));
        assert!(Facts::read(sys.path(), &sys.path().join("mounts"), "sdz").is_err());
    }

    #[test]
    fn what_nobody_should_write_to_is_refused_with_what_to_do() {
        let sys = kernel();
        let refused = |name: &str, any, why: &str| {
            let said = facts(&sys, name).check(any).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        };
        refused("sdb1", true, "name the whole one, /dev/sdb");
        refused("nvme0n1", false, "--not-removable");
        facts(&sys, "nvme0n1").check(true).unwrap();
        for number in ["8:16", "8:17"] {
            fs::write(sys.path().join("mounts"), format!("40 35 {number} / /media/x rw - vfat /dev/whatever rw\n")).unwrap();
            refused("sdb", true, "mounted at /media/x");
        }
    }
}
