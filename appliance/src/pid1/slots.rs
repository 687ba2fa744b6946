//! The slots of the boot disks: where they are, what is in them, and putting another image there.
//!
//! Promises: a slot is found by the profile's place of its disk and by the disk's own partition
//! table, never by the order in which the kernel saw disks; [`install`] is done once what the
//! disk gives back is what was written. Broken off anywhere, it leaves the other slot as it was;
//! a slot that is half written is none ([`hoidla_medium::slot::read`]), and firmware refuses it.
//! It doesn't ask whether an image may be installed: [`super::offer`] does.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use hoidla_format::profile::Profile;
use hoidla_medium::{
    SECTOR,
    disk::{self, BootDisk, Part},
    entry::Partition,
    slot,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::devices;

/// How much is written between two words of progress.
const STEP: usize = 1 << 20;

/// Both slots, in the order of the disk.
pub const BOTH: [Part; 2] = [Part::A, Part::B];

/// A slot of a boot disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The disk's number in the profile, from 1.
    pub disk: usize,
    /// Which of the disk's.
    pub part: Part,
    /// As firmware's boot entries name it.
    pub at: Partition,
    /// The whole disk.
    pub device: PathBuf,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} of boot disk {}", letter(self.part), self.disk)
    }
}

/// What people call it: `a` or `b`.
pub fn letter(part: Part) -> &'static str {
    if part == Part::A { "a" } else { "b" }
}

/// The other slot of the two.
pub fn other(part: Part) -> Part {
    if part == Part::A { Part::B } else { Part::A }
}

/// All slots of the boot disks that are there. What cannot be read is told and passed over.
pub fn find(sys: &Path, profile: &Profile) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (number, boot) in (1..).zip(&profile.boot_disks) {
        match devices::disk(sys, &boot.place).map(|name| name.map(|name| devices::path(&name))) {
            Ok(Some(device)) => slots.extend(on(number, &device).unwrap_or_else(|e| {
                tracing::error!("boot disk {number}, at {}: {e:#}", boot.place);
                Vec::new()
            })),
            Ok(None) => {} // told where its state is looked for
            Err(e) => tracing::error!("boot disk {number}, at {}: {e:#}", boot.place),
        }
    }
    slots
}

/// The slots of one disk.
pub fn on(number: usize, device: &Path) -> anyhow::Result<Vec<Slot>> {
    let file = File::open(device).with_context(|| format!("{} cannot be read", device.display()))?;
    let disk = disk::find(file).context("it isn't laid out as a boot disk: set it up from the stick, or replace it")?;
    Ok(of(number, disk, device).to_vec())
}

/// The slots of a boot disk of this name.
pub fn of(number: usize, disk: BootDisk, device: &Path) -> [Slot; 2] {
    BOTH.map(|part| {
        let range = part.range();
        let (first, blocks) = (range.start / SECTOR, (range.end - range.start) / SECTOR);
        let at = Partition { number: part.number(), first, blocks, guid: disk.guid(part) };
        Slot { disk: number, part, at, device: device.to_owned() }
    })
}

/// A slot's bytes, as they lie on the disk.
///
/// # Errors
/// If the disk cannot be read.
pub fn read(slot: &Slot) -> anyhow::Result<Vec<u8>> {
    let mut file = File::open(&slot.device).with_context(|| format!("{slot} cannot be read"))?;
    // Not what the kernel remembers, but what the disk gives.
    _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    file.seek(SeekFrom::Start(slot.part.range().start))?;
    let mut bytes = vec![0; slot::LENGTH];
    file.read_exact(&mut bytes).with_context(|| format!("{slot} cannot be read: replace the disk"))?;
    Ok(bytes)
}

/// Writes a slot and reads it back. `progress` is told how many bytes are written.
///
/// # Errors
/// If the disk takes or gives other bytes.
pub fn install(slot: &Slot, bytes: &[u8], progress: &mut dyn FnMut(usize)) -> anyhow::Result<()> {
    ensure!(bytes.len() == slot::LENGTH, "a slot has {} bytes, not {}", slot::LENGTH, bytes.len());
    let context = || format!("{slot} takes no writes: replace the disk");
    let mut file = File::options().write(true).open(&slot.device).with_context(context)?;
    file.seek(SeekFrom::Start(slot.part.range().start))?;
    for (n, piece) in bytes.chunks(STEP).enumerate() {
        file.write_all(piece).with_context(context)?;
        progress(n * STEP + piece.len());
    }
    file.sync_all().with_context(context)?;
    drop(file);
    ensure!(read(slot)? == bytes, "{slot} gives back other bytes than were written: replace the disk");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use hoidla_medium::disk::{LEAST, lay_out};

    use super::*;

    /// A disk, laid out and otherwise full of something.
    fn disk(folder: &Path) -> PathBuf {
        let path = folder.join("disk");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(LEAST).unwrap();
        lay_out(&file, BootDisk::named([7; 16])).unwrap();
        path
    }

    #[test]
    fn one_slot_is_written_and_the_rest_of_the_disk_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = disk(folder.path());
        let slots = on(1, &path).unwrap();
        assert_eq!(slots.iter().map(ToString::to_string).collect::<Vec<_>>(), ["slot a of boot disk 1", "slot b of boot disk 1"]);
        let (before, bytes) = (std::fs::read(&path).unwrap(), vec![0xa5; slot::LENGTH]);
        let mut told = Vec::new();
        install(&slots[1], &bytes, &mut |n| told.push(n)).unwrap();
        assert!(told.is_sorted() && told.last() == Some(&slot::LENGTH), "{told:?}");
        let after = std::fs::read(&path).unwrap();
        let range = Part::B.range();
        let range = range.start as usize..range.end as usize;
        assert!(
            after[range.clone()] == bytes && after[..range.start] == before[..range.start] && after[range.end..] == before[range.end..]
        );
        assert_eq!(read(&slots[1]).unwrap(), bytes);
        assert_eq!(read(&slots[0]).unwrap(), vec![0; slot::LENGTH]);
        assert!(install(&slots[0], &bytes[1..], &mut |_| ()).is_err(), "not a slot's bytes");
    }

    #[test]
    fn a_disk_that_gives_back_other_bytes_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let slots = on(1, &disk(folder.path())).unwrap();
        let disk = File::options().write(true).open(&slots[1].device).unwrap();
        let mut forgets = |written: usize| {
            if written == slot::LENGTH {
                disk.write_all_at(&[0], Part::B.range().end - 1).unwrap();
            }
        };
        let said = install(&slots[1], &vec![0xa5; slot::LENGTH], &mut forgets).unwrap_err();
        assert!(said.to_string().contains("gives back other bytes"), "{said:#}");
        let gone = Slot { device: folder.path().join("gone"), ..slots[0].clone() };
        assert!(install(&gone, &vec![0; slot::LENGTH], &mut |_| ()).is_err());
    }

    #[test]
    fn a_disk_of_another_kind_has_no_slots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert!(on(1, &path).unwrap_err().to_string().contains("boot disk"));
    }
}
