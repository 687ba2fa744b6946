//! The boot disks of a machine that is set up: what is in their places, and what it holds.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use hoidla_cli::human;
use hoidla_format::profile::{Place, Profile};
use hoidla_medium::disk::{self, BootDisk};
use hoidla_store::Disk as _;
use hoidla_uring::{
    DiskFile,
    trays::{Seen, look},
};

use super::Person;
use crate::{erase::serial_of, pid1::devices};

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Slots and state of Hoidla's.
    Slots(BootDisk),
    /// Nothing.
    Nothing,
    /// Something of somebody's, in words.
    Other(String),
}

/// A disk, to be known by a person.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is called here: `boot disk 1`, `tray 2`.
    pub name: String,
    /// Where the kernel has it.
    pub path: PathBuf,
    /// Its maker's name for it.
    pub model: String,
    /// Its serial number; empty where it tells none.
    pub serial: String,
    /// Its size.
    pub bytes: u64,
    /// What is on it.
    pub holds: Holds,
}

impl Found {
    /// Looks at a disk; nothing is changed.
    pub fn look(name: String, path: &Path) -> anyhow::Result<Self> {
        let disk = DiskFile::open(path)?;
        let holds = match look(&disk, [0; 16]) {
            Seen::Blank => Holds::Nothing,
            other => match OpenOptions::new().read(true).write(true).open(path).ok().and_then(disk::find) {
                Some(ours) => Holds::Slots(ours),
                None => Holds::Other(other.to_string()),
            },
        };
        Ok(Self { name, path: path.to_owned(), model: model(path), serial: serial_of(path), bytes: disk.size(), holds })
    }

    /// What a person types to agree that all on it is lost: the end of its serial number.
    pub fn word(&self) -> String {
        let tail: String = self.serial.chars().rev().take(6).collect();
        if tail.is_empty() { "erase".into() } else { tail.chars().rev().collect() }
    }

    /// The disk in one line.
    pub fn line(&self) -> String {
        let holds = match &self.holds {
            Holds::Slots(_) => "Hoidla's",
            Holds::Nothing => "blank",
            Holds::Other(what) => what,
        };
        let serial = if self.serial.is_empty() { "no serial number" } else { &self.serial };
        format!("{}: {}, {serial}, {}, {holds}", self.name, self.model, human::bytes(self.bytes))
    }
}

fn model(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    let said = devices::read(Path::new("/sys/class/block").join(name).join("device/model")).unwrap_or_default();
    let said: String = said.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(24).collect();
    if said.trim().is_empty() { "a disk".into() } else { said.trim().to_owned() }
}

/// Said when a word was another.
pub const NOT_AGREED: &str = "not agreed: nothing was changed; type exactly what is asked, small and capital letters too";

/// Has a person agree that all on these disks is lost, each by its own word; a blank one needs none.
///
/// # Errors
/// If a word was not the disk's.
pub fn agreed<'a>(person: &mut Person, disks: impl IntoIterator<Item = &'a Found>) -> anyhow::Result<()> {
    for disk in disks.into_iter().filter(|d| d.holds != Holds::Nothing) {
        let typed = person.ask(&format!("To lose all that is on {}, type {}:", disk.name, disk.word()));
        ensure!(typed == disk.word(), "{NOT_AGREED}");
    }
    Ok(())
}

/// The disks at these places, with their names; places without a disk are left out.
pub fn at<'a>(sys: &Path, places: impl Iterator<Item = (String, &'a Place)>) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (name, place) in places {
        if let Some(disk) = devices::disk(sys, place)? {
            all.push(Found::look(name, &devices::path(&disk))?);
        }
    }
    Ok(all)
}

/// The boot disks that are there.
pub fn boot_disks(sys: &Path, profile: &Profile) -> anyhow::Result<Vec<Found>> {
    at(sys, profile.boot_disks.iter().enumerate().map(|(n, b)| (format!("boot disk {}", n + 1), &b.place)))
}

/// The disks in the trays.
pub fn trays(sys: &Path, profile: &Profile) -> anyhow::Result<Vec<Found>> {
    at(sys, profile.trays.iter().map(|t| (format!("tray {}", t.number), &t.place)))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn found(name: &str, serial: &str, holds: Holds) -> Found {
        let (name, serial) = (name.to_owned(), serial.to_owned());
        Found { name, path: PathBuf::from("/dev/sda"), model: "QEMU HARDDISK".into(), serial, bytes: 480 << 30, holds }
    }

    #[test]
    fn a_disk_is_agreed_to_by_the_end_of_its_own_serial_number() {
        assert_eq!(found("boot disk 1", "S4EVNX0R123456", Holds::Nothing).word(), "123456");
        assert_eq!(found("boot disk 1", "ab", Holds::Nothing).word(), "ab");
        assert_eq!(found("boot disk 1", "", Holds::Nothing).word(), "erase");
    }

    #[test]
    fn nothing_is_agreed_to_but_by_each_disks_own_word() {
        let other = || Holds::Other("a file system (NTFS)".into());
        let disks = [found("tray 1", "AA111111", other()), found("tray 2", "BB222222", Holds::Nothing), found("tray 3", "", other())];
        let agree = |lines: &[&str]| agreed(&mut Person::who_types(lines), &disks);
        agree(&["111111", "erase"]).unwrap();
        for no in [&["111112"][..], &["", "erase"], &["yes"], &["111111", "111111"], &["erase"]] {
            assert!(agree(no).is_err(), "{no:?}");
        }
    }

    #[test]
    fn a_disk_of_a_file_is_looked_at_and_told() {
        let folder = tempfile::Builder::new()
            .tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let path = folder.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(disk::LEAST).unwrap();
        let look = || Found::look("tray 1".into(), &path).unwrap();
        assert_eq!(look().holds, Holds::Nothing);
        let named = BootDisk::named([3; 16]);
        let device = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        disk::lay_out(&device, named).unwrap();
        assert_eq!(look().holds, Holds::Slots(named));
        std::os::unix::fs::FileExt::write_all_at(&device, b"not ours", 1024).unwrap();
        assert!(matches!(look().holds, Holds::Other(_)), "{:?}", look());
        assert!(look().line().starts_with("tray 1: a disk, no serial number, 104"), "{}", look().line());
    }
}
