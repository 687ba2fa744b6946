//! The USB stick that brings an image to a machine, and papers to and fro.
//!
//! ```text
//!  0 MiB   GUID partition table
//!  1 MiB   the slot: what the machine starts
//! 36 MiB   papers: a FAT12 for people and for the appliance
//! 39 MiB   the partition table again, at the end
//! ```
//!
//! Promises: all but the papers follows from the slot. [`read`] accepts no other byte; what lies
//! among the papers it leaves to [`crate::papers`]. A stick may be longer: the rest isn't used.

use std::{io::Cursor, ops::Range};

use gpt::{GptConfig, mbr::ProtectiveMBR, partition_types};
use uuid::{Builder, Uuid};

use crate::{MediumError, SECTOR, Slot, papers, slot};

/// The whole stick's bytes.
pub const SIZE: usize = 40 << 20;
/// Where the slot lies.
pub const SLOT: Range<usize> = (1 << 20)..(1 << 20) + slot::LENGTH;
/// Where the papers lie.
pub const PAPERS: Range<usize> = SLOT.end..SLOT.end + papers::LENGTH;
/// The names of the partitions.
pub const NAMES: [&str; 2] = ["hoidla-stick", "hoidla-papers"];

/// The stick as one file, without any paper.
///
/// # Errors
/// If the image is too long for it.
pub fn write(on_it: &Slot) -> Result<Vec<u8>, MediumError> {
    let mut bytes = vec![0; SIZE];
    bytes[SLOT].copy_from_slice(&slot::write(on_it)?);
    bytes[PAPERS].copy_from_slice(&papers::blank(u32::from_le_bytes(on_it.id("papers")))?);
    partition(&mut bytes, on_it)?;
    Ok(bytes)
}

fn partition(bytes: &mut [u8], on_it: &Slot) -> Result<(), MediumError> {
    let mut device = Cursor::new(bytes);
    let sectors = (SIZE as u64 / SECTOR - 1) as u32;
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut device).map_err(MediumError::table)?;
    let parts = [(SLOT, partition_types::EFI), (PAPERS, partition_types::BASIC)];
    let mut disk = GptConfig::new().writable(true).create_from_device(device, Some(guid(on_it, "stick"))).map_err(MediumError::table)?;
    for (n, (range, kind)) in parts.into_iter().enumerate() {
        let (first, sectors) = (range.start as u64 / SECTOR, range.len() as u64 / SECTOR);
        disk.add_partition_at(NAMES[n], n as u32 + 1, first, sectors, kind, 0).map_err(MediumError::table)?;
    }
    let mut partitions = disk.take_partitions();
    for (n, partition) in partitions.values_mut().enumerate() {
        partition.part_guid = guid(on_it, NAMES[n]);
    }
    disk.update_partitions(partitions).map_err(MediumError::table)?;
    disk.write().map_err(MediumError::table)?;
    Ok(())
}

fn guid(on_it: &Slot, purpose: &str) -> Uuid {
    Builder::from_custom_bytes(on_it.id(purpose)).into_uuid()
}

/// What the slot of a stick holds that [`write()`] wrote.
///
/// # Errors
/// If a single byte of it is another, but for the papers.
pub fn read(bytes: &[u8]) -> Result<Slot, MediumError> {
    let bytes = bytes.get(..SIZE).ok_or_else(|| MediumError::Strange(format!("this is no stick of Hoidla's: {SIZE} bytes are needed")))?;
    let on_it = slot::read(&bytes[SLOT])?;
    let again = write(&on_it)?;
    slot::same("the stick", &again[..PAPERS.start], &bytes[..PAPERS.start])?;
    slot::same("the stick's end", &again[PAPERS.end..], &bytes[PAPERS.end..])?;
    Ok(on_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::tests::slot;

    #[test]
    fn a_stick_reads_back_and_is_the_same_each_time() {
        let bytes = write(&slot()).unwrap();
        assert!(bytes == write(&slot()).unwrap() && bytes.len() == SIZE);
        assert_eq!(read(&bytes).unwrap(), slot());
        assert_eq!(read(&[bytes, vec![7; 1 << 20]].concat()).unwrap(), slot(), "a longer stick");
    }

    #[test]
    fn papers_may_be_put_on_it_and_nothing_else() {
        let mut bytes = write(&slot()).unwrap();
        papers::put(&mut bytes[PAPERS], "identity.txt", b"who").unwrap();
        assert_eq!(read(&bytes).unwrap(), slot());
        assert_eq!(papers::read(&bytes[PAPERS]).unwrap().len(), 1);
        for at in [0, 446, 512, 1024, SLOT.start, SLOT.end - 1, PAPERS.end, SIZE - 1, SIZE - 512] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
        }
        assert!(read(&bytes[..SIZE - 1]).is_err());
    }
}
