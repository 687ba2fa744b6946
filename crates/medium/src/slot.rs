//! A slot: a partition that holds one image, as firmware starts it.
//!
//! ```text
//! /EFI/BOOT/BOOTX64.EFI   the signed image
//! /HOIDLA/MANIFEST.TXT    the authority's manifest
//! /HOIDLA/BOOT.CRT        the boot key's certificate
//! ```
//!
//! Promises: all bytes of its FAT32 follow from these files; there is no clock and no chance in
//! it, and the volume's name comes from the image's hash. [`read`] makes the slot again from
//! what it finds and accepts no other byte, so that nothing can be added to it.

use std::io::{self, Cursor, Read, Write};

use fatfs::{Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest, Sha256};

use crate::{MediumError, SECTOR};

/// Bytes of a slot: room for an image of 34 MB.
pub const LENGTH: usize = 35 << 20;
/// What is left for the file system itself.
const OVERHEAD: usize = 1 << 20;
const LABEL: [u8; 11] = *b"HOIDLA     ";
/// The most bytes of the two small files.
const MOST_PAPER: usize = 256 << 10;
const FOLDERS: [&str; 2] = ["EFI/BOOT", "HOIDLA"];

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The signed image.
    pub image: Vec<u8>,
    /// The signed manifest.
    pub manifest: Vec<u8>,
    /// The boot key's certificate, DER.
    pub certificate: Vec<u8>,
}

impl Slot {
    /// Folder, name and content of each file.
    fn files(&self) -> [(&'static str, &'static str, &[u8]); 3] {
        [
            (FOLDERS[0], "BOOTX64.EFI", &self.image),
            (FOLDERS[1], "MANIFEST.TXT", &self.manifest),
            (FOLDERS[1], "BOOT.CRT", &self.certificate),
        ]
    }

    /// Bytes that name something that this image lies on, unlike those for another purpose or image.
    pub(crate) fn id<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let hash = Sha256::new().chain_update("hoidla ").chain_update(purpose).chain_update("\n").chain_update(&self.image).finalize();
        *hash.first_chunk().expect("shorter than a hash")
    }
}

/// The slot's bytes, [`LENGTH`] of them.
///
/// # Errors
/// If the image is too long for it.
pub fn write(slot: &Slot) -> Result<Vec<u8>, MediumError> {
    let all = slot.image.len() + slot.manifest.len() + slot.certificate.len();
    if all > LENGTH - OVERHEAD {
        return Err(MediumError::Long("the image", slot.image.len()));
    }
    let mut bytes = vec![0; LENGTH];
    fill(&mut bytes, slot).map_err(MediumError::io("the slot"))?;
    Ok(bytes)
}

fn fill(bytes: &mut [u8], slot: &Slot) -> io::Result<()> {
    let format = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(SECTOR as u32);
    let format = format.volume_id(u32::from_le_bytes(slot.id("volume"))).volume_label(LABEL);
    fatfs::format_volume(Cursor::new(&mut bytes[..]), format)?;
    let system = FileSystem::new(Cursor::new(bytes), FsOptions::new())?;
    let root = system.root_dir();
    root.create_dir("EFI")?;
    for folder in FOLDERS {
        root.create_dir(folder)?;
    }
    for (folder, name, content) in slot.files() {
        root.open_dir(folder)?.create_file(name)?.write_all(content)?;
    }
    drop(root);
    system.unmount()
}

/// What is in a slot that [`write()`] wrote.
///
/// # Errors
/// If a single byte of it is another.
pub fn read(bytes: &[u8]) -> Result<Slot, MediumError> {
    if bytes.len() != LENGTH {
        return Err(MediumError::Strange(format!("this is no slot of Hoidla's: it has {} bytes instead of {LENGTH}", bytes.len())));
    }
    let slot = contents(&mut bytes.to_vec()).map_err(MediumError::io("the slot's file system"))?;
    same("the slot", &write(&slot)?, bytes)?;
    Ok(slot)
}

/// Whether bytes are as they should be.
pub(crate) fn same(what: &str, should: &[u8], are: &[u8]) -> Result<(), MediumError> {
    match should.iter().zip(are).position(|(a, b)| a != b) {
        Some(at) => Err(MediumError::Strange(format!("{what} was changed: byte {at} is not as hoidla-image writes it"))),
        None => Ok(()),
    }
}

fn contents(bytes: &mut [u8]) -> io::Result<Slot> {
    let system = FileSystem::new(Cursor::new(bytes), FsOptions::new().update_accessed_date(false))?;
    let root = system.root_dir();
    Ok(Slot {
        image: file(&root, "EFI/BOOT/BOOTX64.EFI", LENGTH)?,
        manifest: file(&root, "HOIDLA/MANIFEST.TXT", MOST_PAPER)?,
        certificate: file(&root, "HOIDLA/BOOT.CRT", MOST_PAPER)?,
    })
}

fn file(root: &Dir<'_, Cursor<&mut [u8]>>, path: &str, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    root.open_file(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("{path} is too long")));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn slot() -> Slot {
        Slot { image: (0..3_000_000u32).map(|n| (n ^ n >> 7) as u8).collect(), manifest: b"manifest\n".to_vec(), certificate: vec![1; 700] }
    }

    #[test]
    fn a_slot_reads_back_and_is_the_same_each_time() {
        let bytes = write(&slot()).unwrap();
        assert_eq!(bytes, write(&slot()).unwrap());
        assert_eq!(read(&bytes).unwrap(), slot());
    }

    #[test]
    fn names_follow_from_the_image() {
        let (a, mut other) = (slot(), slot());
        other.image[0] ^= 1;
        assert_ne!(a.id::<16>("disk"), other.id::<16>("disk"));
        assert_ne!(a.id::<16>("disk"), a.id::<16>("partition"));
    }

    #[test]
    fn a_slot_with_anything_else_in_it_is_refused() {
        let bytes = write(&slot()).unwrap();
        for at in [0, 3, 600 << 10, LENGTH - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
        }
        let mut more = bytes.clone();
        let system = FileSystem::new(Cursor::new(&mut more[..]), FsOptions::new()).unwrap();
        system.root_dir().create_dir("LOADER").unwrap().create_file("EXTRA.CRE").unwrap().write_all(b"x").unwrap();
        system.unmount().unwrap();
        assert!(read(&more).unwrap_err().to_string().contains("changed"));
        assert!(read(&bytes[..LENGTH - 1]).is_err());
    }

    #[test]
    fn an_image_too_long_for_a_slot_is_refused() {
        assert!(write(&Slot { image: vec![0; LENGTH], ..slot() }).is_err());
    }
}
