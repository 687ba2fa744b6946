//! Boot disks as a machine has them once it is set up, written by the appliance's own code.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hoidla_medium::{
    disk::{self, BootDisk, Part},
    slot,
};
use hoidlad::keep::Keeper;

/// Bytes of a boot disk.
pub const DISK: u64 = 128 << 20;

/// Makes boot disks with these slots, and the files of `state`; none: no state at all.
pub fn make(disks: &[PathBuf], a: &[u8], state: Option<&Path>) -> Result<()> {
    let length = Part::State.range().end - Part::State.range().start;
    let parts: Vec<PathBuf> = disks.iter().map(|d| d.with_extension("part")).collect();
    for part in &parts {
        File::create(part)?.set_len(length)?;
    }
    if let Some(state) = state {
        let beside = tempfile::tempdir()?;
        let mut keeper = Keeper::open(beside.path(), &numbered(&parts))?;
        copy(state, beside.path())?;
        keeper.save()?;
    }
    for (n, (path, part)) in disks.iter().zip(&parts).enumerate() {
        let disk = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        disk.set_len(DISK)?;
        disk::lay_out(&disk, BootDisk::named([n as u8 + 1; 16]))?;
        disk.write_all_at(&fs::read(part)?, Part::State.range().start)?;
        fs::remove_file(part)?;
        put(path, Part::A, a)?;
    }
    Ok(())
}

/// Puts bytes into a slot: those of a stick's, or whatever else.
pub fn put(disk: &Path, part: Part, bytes: &[u8]) -> Result<()> {
    assert_eq!(bytes.len(), slot::LENGTH, "a slot's bytes");
    let disk = OpenOptions::new().write(true).open(disk).with_context(|| disk.display().to_string())?;
    Ok(disk.write_all_at(bytes, part.range().start)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => _ = fs::copy(entry.path(), to)?,
        }
    }
    Ok(())
}

fn numbered(parts: &[PathBuf]) -> Vec<(usize, PathBuf)> {
    (1..).zip(parts.iter().cloned()).collect()
}

/// Changes the files of the state on these disks, of a machine that is off.
pub fn change(disks: &[PathBuf], work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let range = Part::State.range();
    let parts: Vec<PathBuf> = disks.iter().map(|d| d.with_extension("part")).collect();
    for (disk, part) in disks.iter().zip(&parts) {
        let mut bytes = vec![0; usize::try_from(range.end - range.start)?];
        File::open(disk)?.read_exact_at(&mut bytes, range.start)?;
        fs::write(part, bytes)?;
    }
    let beside = tempfile::tempdir()?;
    let mut keeper = Keeper::open(beside.path(), &numbered(&parts))?;
    work(beside.path())?;
    keeper.save()?;
    for (disk, part) in disks.iter().zip(&parts) {
        OpenOptions::new().write(true).open(disk)?.write_all_at(&fs::read(part)?, range.start)?;
        fs::remove_file(part)?;
    }
    Ok(())
}
