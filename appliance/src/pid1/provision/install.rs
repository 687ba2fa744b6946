//! An image put onto the boot disks of a machine.
//!
//! Promises: a disk with something on it is overwritten only after its own word was typed; both
//! slots of each disk are read back; an enrolment that is there stays. Broken off, it is begun
//! anew: a disk that is half written is none, and the other stays as it was until its turn.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
};

use anyhow::{Context, ensure};
use hoidla_cli::Screen;
use hoidla_medium::{
    SECTOR,
    disk::{self, BootDisk, Part},
    slot,
};

use super::{
    Room,
    boot_disks::{Found, Holds, NOT_AGREED, agreed},
    page,
};
use crate::pid1::{
    entries::{self, Variables},
    slots,
};

/// What is written at once where a disk is emptied.
const PIECE: u64 = 1 << 20;

/// Installs onto these disks what each slot shall hold, a and b, once a person agreed.
pub fn install(room: &mut Room, disks: &[Found], release: &str, images: [&[u8]; 2]) -> anyhow::Result<()> {
    room.person.show(&to_install(disks, release));
    agreed(&mut room.person, disks.iter().filter(|d| !matches!(d.holds, Holds::Slots(_))))?;
    ensure!(room.person.ask("Type install and press Enter:") == "install", "{NOT_AGREED}");
    let named = disks.iter().map(|disk| put(room, disk, images)).collect::<anyhow::Result<Vec<_>>>()?;
    // Tables last, all at once: before, firmware starts from none of them.
    for (disk, named) in disks.iter().zip(named) {
        let device = open(disk)?;
        disk::lay_out(&device, named)?;
        device.sync_all()?;
    }
    register(room)
}

/// Every boot disk of Hoidla's that is there gets its entries with the firmware.
fn register(room: &Room) -> anyhow::Result<()> {
    let all = slots::find(&room.sys, &room.profile);
    ensure!(!all.is_empty(), "no boot disk gives back what was written: put in others, and install again");
    let whole = all.len() == slots::BOTH.len() * room.profile.boot_disks.len();
    entries::register(&Variables::of(&room.sys), &all, whole)
}

fn to_install(disks: &[Found], release: &str) -> Screen {
    let mut s = page("put the image on the boot disks");
    s.field("release", release).gap();
    disks.iter().for_each(|d| _ = s.item(&d.line()));
    s.gap().words("Both slots of each disk get this image, so that either disk may die. What else is on a disk is lost; an enrolment of Hoidla's stays.");
    s
}

/// Writes the slots of a disk; its name.
fn put(room: &mut Room, disk: &Found, images: [&[u8]; 2]) -> anyhow::Result<BootDisk> {
    let named = match disk.holds {
        Holds::Slots(named) => named,
        _ => empty(room, disk)?,
    };
    for (slot, image) in slots::of(number(disk)?, named, &disk.path).iter().zip(images) {
        let mut before = 0;
        room.person.watch(&format!("writing {slot}"), slot::LENGTH as u64, |told| {
            slots::install(slot, image, &mut |done| {
                told((done - before) as u64);
                before = done;
            })
        })?;
        room.person.tell(&format!("{slot} is written and read back."));
    }
    Ok(named)
}

/// Empties the places of a new boot disk's table and state; a name for it.
fn empty(room: &mut Room, found: &Found) -> anyhow::Result<BootDisk> {
    ensure!(found.bytes >= disk::LEAST, "{} is too small to start from: it needs {} MiB; put in another", found.name, disk::LEAST >> 20);
    let device = open(found)?;
    let state = Part::State.range();
    let total = state.end - state.start + 2 * PIECE;
    room.person.watch(&format!("emptying {}", found.name), total, |told| {
        let mut starts = (state.start..state.end).step_by(PIECE as usize).chain([0, found.bytes / SECTOR * SECTOR - PIECE]);
        starts.try_for_each(|at| {
            told(PIECE);
            device.write_all_at(&vec![0; PIECE as usize], at)
        })
    })?;
    device.sync_all().with_context(|| format!("{} takes no writes: replace it", found.name))?;
    let mut name = [0; 16];
    hoidla_crypto::random(&mut name);
    Ok(BootDisk::named(name))
}

fn open(found: &Found) -> anyhow::Result<File> {
    OpenOptions::new().read(true).write(true).open(&found.path).with_context(|| format!("{} cannot be opened: replace it", found.name))
}

fn number(disk: &Found) -> anyhow::Result<usize> {
    disk.name.rsplit(' ').next().and_then(|n| n.parse().ok()).context("a boot disk has a number")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::{
        super::{Person, boot_disks::tests::found},
        *,
    };
    use crate::hardware::{capture, fake::Machine};

    #[test]
    fn the_page_fits_and_names_every_disk() {
        let other = Holds::Other("a disk with a file system (NTFS)".into());
        let disks = [found("boot disk 1", "S4EVNX0R123456", Holds::Nothing), found("boot disk 2", "S4EVNX0R654321", other)];
        let page = to_install(&disks, "drill");
        super::super::fits(&page);
        for disk in &disks {
            assert!(page.text().contains(&disk.serial), "{}", page.text());
            assert_eq!(number(disk).unwrap().to_string(), disk.name[10..]);
        }
    }

    fn room(folder: &Path, lines: &[&str]) -> Room {
        let profile = capture(&Machine::new().kernel(), "rack".parse().unwrap(), "a rack").unwrap();
        let authority = hoidla_papers::Office::new(1).authority.verifying_key();
        Room { sys: folder.join("sys"), profile, authority, person: Person::who_types(lines) }
    }

    /// Two disks of files, full of somebody's bytes, and a person who types this.
    fn try_it(folder: &Path, lines: &[&str]) -> anyhow::Result<()> {
        let disks = [1, 2].map(|n| {
            let path = folder.join(n.to_string());
            fs::write(&path, vec![0xa5; disk::LEAST as usize]).unwrap();
            let holds = Holds::Other("somebody's".into());
            Found { path, bytes: disk::LEAST, ..found(&format!("boot disk {n}"), &format!("SERIAL00000{n}"), holds) }
        });
        let image = vec![7; slot::LENGTH];
        install(&mut room(folder, lines), &disks, "drill", [&image, &image])
    }

    #[test]
    fn no_byte_is_written_before_all_words_were_typed() {
        let folder = tempfile::tempdir().unwrap();
        for lines in [&["0000 1"][..], &["000001", "000001"], &["000001", "000002", "yes"], &["install"]] {
            assert!(try_it(folder.path(), lines).unwrap_err().to_string().contains("nothing was changed"), "{lines:?}");
            for n in ["1", "2"] {
                assert!(fs::read(folder.path().join(n)).unwrap().iter().all(|b| *b == 0xa5), "{lines:?}");
            }
        }
    }

    #[test]
    fn tables_come_last() {
        let folder = tempfile::tempdir().unwrap();
        // Disk 2 dies while its slots are written: disk 1 must not be one to start from.
        let full = folder.path().join("2");
        symlink("/dev/full", &full).unwrap();
        let good = folder.path().join("1");
        File::create(&good).unwrap().set_len(disk::LEAST).unwrap();
        let disks = [("1", &good), ("2", &full)].map(|(n, path)| Found {
            path: path.clone(),
            bytes: disk::LEAST,
            ..found(&format!("boot disk {n}"), "SERIAL", Holds::Nothing)
        });
        let image = vec![7; slot::LENGTH];
        assert!(install(&mut room(folder.path(), &["install"]), &disks, "drill", [&image, &image]).is_err());
        let on_it = fs::read(&good).unwrap();
        assert_eq!(on_it[Part::A.range().start as usize], 7, "its slots are written");
        assert_eq!(disk::find(std::io::Cursor::new(on_it)), None, "and it is no boot disk yet");
    }
}
