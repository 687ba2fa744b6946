//! A boot disk: two slots, and the state of its appliance.
//!
//! ```text
//!   0 MiB   GUID partition table
//!   1 MiB   slot a
//!  36 MiB   slot b
//!  71 MiB   state (docs/formats/state.md)
//! 103 MiB   nothing, up to the partition table again at the end
//! ```
//!
//! Promises: [`find`] knows a disk only by exactly these partitions, wherever the disk ends; the
//! names of its slots tell one disk from another. It doesn't read what is in them.

use std::{
    fmt::Debug,
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
};

use gpt::{
    GptConfig,
    mbr::ProtectiveMBR,
    partition_types::{self, Type},
};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::{MediumError, SECTOR, slot};

const MIB: u64 = 1 << 20;
/// Bytes of the state's partition.
const STATE_LENGTH: u64 = 32 * MIB;
/// The least bytes of a boot disk.
pub const LEAST: u64 = 104 * MIB;

/// One partition of a boot disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Slot a.
    A,
    /// Slot b.
    B,
    /// The appliance's state.
    State,
}

impl Part {
    /// In their order on the disk.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::State];

    /// Its name in the partition table.
    pub fn name(self) -> &'static str {
        ["hoidla-a", "hoidla-b", "hoidla-state"][self as usize]
    }

    /// Its number in the partition table, from 1 on.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }

    /// Where it lies, in bytes.
    pub fn range(self) -> Range<u64> {
        let slot = slot::LENGTH as u64;
        match self {
            Self::A => MIB..MIB + slot,
            Self::B => MIB + slot..MIB + 2 * slot,
            Self::State => MIB + 2 * slot..MIB + 2 * slot + STATE_LENGTH,
        }
    }

    fn kind(self) -> Type {
        if self == Self::State { partition_types::LINUX_FS } else { partition_types::EFI }
    }
}

/// The name of a boot disk, from which those of its partitions follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootDisk(Uuid);

impl BootDisk {
    /// By 16 bytes that no other disk has.
    pub fn named(by: [u8; 16]) -> Self {
        Self(Builder::from_custom_bytes(by).into_uuid())
    }

    /// The name of a partition, as firmware knows it.
    pub fn guid(&self, part: Part) -> Uuid {
        let hash = Sha256::new().chain_update("hoidla boot disk ").chain_update(part.name()).chain_update(self.0.as_bytes()).finalize();
        Builder::from_custom_bytes(*hash.first_chunk().expect("shorter than a hash")).into_uuid()
    }
}

/// Writes the partition table of a boot disk. What was in its partitions stays.
///
/// # Errors
/// If the disk is too small, or takes no writes.
pub fn lay_out(mut device: impl Read + Write + Seek + Debug, disk: BootDisk) -> Result<(), MediumError> {
    let size = size(&mut device)?;
    if size < LEAST {
        return Err(MediumError::Strange(format!("this disk has {} MiB; a boot disk needs {} MiB", size / MIB, LEAST / MIB)));
    }
    let sectors = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut device).map_err(MediumError::table)?;
    let mut table = GptConfig::new().writable(true).create_from_device(device, Some(disk.0)).map_err(MediumError::table)?;
    for part in Part::ALL {
        let range = part.range();
        let (first, sectors) = (range.start / SECTOR, (range.end - range.start) / SECTOR);
        table.add_partition_at(part.name(), part.number(), first, sectors, part.kind(), 0).map_err(MediumError::table)?;
    }
    let mut partitions = table.take_partitions();
    for part in Part::ALL {
        if let Some(partition) = partitions.get_mut(&part.number()) {
            partition.part_guid = disk.guid(part);
        }
    }
    table.update_partitions(partitions).map_err(MediumError::table)?;
    table.write().map_err(MediumError::table)?;
    Ok(())
}

/// The boot disk that this is, if it is one.
pub fn find(device: impl Read + Write + Seek + Debug) -> Option<BootDisk> {
    let table = GptConfig::new().writable(false).open_from_device(device).ok()?;
    let disk = BootDisk(*table.guid());
    let is_part = |part: &Part| {
        table.partitions().get(&part.number()).is_some_and(|p| {
            let range = part.range();
            let place = (p.first_lba * SECTOR, (p.last_lba + 1) * SECTOR) == (range.start, range.end);
            place && p.name == part.name() && p.part_guid == disk.guid(*part) && p.part_type_guid == part.kind()
        })
    };
    (table.partitions().len() == Part::ALL.len() && Part::ALL.iter().all(is_part)).then_some(disk)
}

fn size(device: &mut impl Seek) -> Result<u64, MediumError> {
    device.seek(SeekFrom::End(0)).map_err(MediumError::io("the disk"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn laid(size: u64, by: u8) -> Cursor<Vec<u8>> {
        let mut device = Cursor::new(vec![0xa5; size as usize]);
        lay_out(&mut device, BootDisk::named([by; 16])).unwrap();
        device
    }

    #[test]
    fn a_boot_disk_is_known_by_its_partitions() {
        for size in [LEAST, LEAST + 13 * SECTOR] {
            let mut device = laid(size, 7);
            let disk = find(&mut device).unwrap();
            assert_eq!(disk, BootDisk::named([7; 16]));
            assert_eq!(device.get_ref()[Part::A.range().start as usize], 0xa5, "what was there stays");
        }
        let guids = |by: u8| Part::ALL.map(|p| BootDisk::named([by; 16]).guid(p));
        assert!(guids(7).iter().all(|g| !guids(8).contains(g)));
    }

    #[test]
    fn another_disk_is_none_of_ours() {
        assert_eq!(find(Cursor::new(vec![0; 1 << 20])), None);
        assert!(lay_out(Cursor::new(vec![0; LEAST as usize - 512]), BootDisk::named([1; 16])).unwrap_err().to_string().contains("104 MiB"));
        let device = laid(LEAST, 7);
        let mut table = GptConfig::new().writable(true).open_from_device(device).unwrap();
        let mut partitions = table.take_partitions();
        partitions.get_mut(&2).unwrap().name = "other".into();
        table.update_partitions(partitions).unwrap();
        assert_eq!(find(table.write().unwrap()), None);
    }

    #[test]
    fn places_follow_one_another() {
        assert_eq!((Part::A.range().end, Part::B.range().end), (Part::B.range().start, Part::State.range().start));
        assert_eq!(Part::State.range().end, 103 * MIB);
    }
}
