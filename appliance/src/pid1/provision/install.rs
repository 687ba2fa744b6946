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
    boot_disks::{Found, Holds},
    page,
};
use crate::pid1::{
    entries::{self, Variables},
    slots,
};

/// What is written at once where a disk is emptied.
const PIECE: u64 = 1 << 20;

/// Installs onto these disks what each slot shall hold, a and b, once a person agreed.
/// True if it was done.
pub fn install(room: &mut Room, disks: &[Found], release: &str, images: [&[u8]; 2]) -> anyhow::Result<bool> {
    room.person.show(&to_install(disks, release));
    for disk in disks.iter().filter(|d| matches!(d.holds, Holds::Other(_))) {
        if room.person.ask(&format!("To lose all that is on {}, type {}:", disk.name, disk.word())) != disk.word() {
            room.person.tell("Not agreed: nothing was changed.");
            return Ok(false);
        }
    }
    if room.person.ask("Type install and press Enter:") != "install" {
        return Ok(false);
    }
    let named = disks.iter().map(|disk| put(room, disk, images)).collect::<anyhow::Result<Vec<_>>>()?;
    // Tables last, all at once: before, firmware starts from none of them.
    for (disk, named) in disks.iter().zip(named) {
        let device = open(disk)?;
        disk::lay_out(&device, named)?;
        device.sync_all()?;
    }
    register(room)?;
    Ok(true)
}

/// Every boot disk of Hoidla's that is there gets its entries with the firmware.
fn register(room: &Room) -> anyhow::Result<()> {
    let all = slots::find(&room.sys, &room.profile);
    ensure!(!all.is_empty(), "no boot disk gives back what was written: replace them");
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
    use super::{super::boot_disks::tests::found, *};

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
}
