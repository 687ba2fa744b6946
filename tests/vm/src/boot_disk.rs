//! Boot disks with the state of an appliance on them, written by the appliance's own code.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hoidlad::{keep::Keeper, pid1::devices::STATE_PARTITION};

/// Bytes of a boot disk.
const DISK: u64 = 96 << 20;
/// Bytes of its partition for the state.
const PARTITION: u64 = 32 << 20;
/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Makes boot disks whose partitions hold the files of `state`; none: a blank partition.
pub fn make(disks: &[PathBuf], state: Option<&Path>) -> Result<()> {
    let parts: Vec<PathBuf> = disks.iter().map(|d| d.with_extension("part")).collect();
    for part in &parts {
        File::create(part)?.set_len(PARTITION)?;
    }
    if let Some(state) = state {
        let beside = tempfile::tempdir()?;
        let mut keeper = Keeper::open(beside.path(), &parts)?;
        copy(state, beside.path())?;
        keeper.save()?;
    }
    for (disk, part) in disks.iter().zip(&parts) {
        let at = partition(disk)?;
        OpenOptions::new().write(true).open(disk)?.write_all_at(&fs::read(part)?, at)?;
        fs::remove_file(part)?;
    }
    Ok(())
}

/// Makes a disk with one partition for the state; where that begins.
fn partition(path: &Path) -> Result<u64> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(DISK)?;
    let sectors = u32::try_from(DISK / SECTOR)? - 1;
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut &file)?;
    let mut disk = gpt::GptConfig::new().writable(true).create_from_device(file, None)?;
    let number = disk.add_partition(STATE_PARTITION, PARTITION, gpt::partition_types::LINUX_FS, 0, Some(2048))?;
    let at = disk.partitions().get(&number).context("just made")?.first_lba * SECTOR;
    disk.write()?;
    Ok(at)
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
