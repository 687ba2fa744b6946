//! The USB stick: a GUID partition table, one FAT32 partition, three files.
//!
//! ```text
//! /EFI/BOOT/BOOTX64.EFI   the signed image
//! /HOIDLA/MANIFEST.TXT    the authority's manifest
//! /HOIDLA/BOOT.CRT        the boot key's certificate, for the firmware's setup screen
//! ```
//!
//! Promises: all bytes follow from these files; there is no clock and no chance in it, and
//! names of disk, partition and volume come from the image's hash. [`read`] makes the stick
//! again from what it finds and accepts no other byte, so that nothing can be added to it.

use std::io::{Cursor, Read, Write};

use anyhow::{Context, Result, ensure};
use fatfs::{Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::{GptConfig, mbr::ProtectiveMBR, partition_types};
use sha2::{Digest, Sha256};
use uuid::Builder;

/// The whole stick's bytes: room for an image of 38 MB.
pub const SIZE: usize = 40 << 20;
const BLOCK: usize = 512;
/// The partition begins at 1 MiB and ends at the last one but one.
const FIRST: usize = 1 << 20;
const LENGTH: usize = SIZE - 2 * FIRST;
const NAME: &str = "Hoidla";
const LABEL: [u8; 11] = *b"HOIDLA     ";
/// The most bytes of the two small files.
const MOST_PAPER: usize = 256 << 10;

/// What is on a stick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stick {
    /// The signed image.
    pub image: Vec<u8>,
    /// The signed manifest.
    pub manifest: Vec<u8>,
    /// The boot key's certificate, DER.
    pub certificate: Vec<u8>,
}

const FOLDERS: [(&str, usize); 2] = [("EFI/BOOT", 1), ("HOIDLA", 2)];

impl Stick {
    /// Folder, name and content of each file.
    fn files(&self) -> [(&'static str, &'static str, &[u8]); 3] {
        [
            (FOLDERS[0].0, "BOOTX64.EFI", &self.image),
            (FOLDERS[1].0, "MANIFEST.TXT", &self.manifest),
            (FOLDERS[1].0, "BOOT.CRT", &self.certificate),
        ]
    }

    /// Bytes that name something on the stick, unlike those for another purpose or image.
    fn id<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let hash =
            Sha256::new().chain_update("hoidla stick ").chain_update(purpose).chain_update("\n").chain_update(&self.image).finalize();
        *hash.first_chunk().expect("shorter than a hash")
    }
}

/// The stick as one file.
///
/// # Errors
/// If the image is too long for it.
pub fn write(stick: &Stick) -> Result<Vec<u8>> {
    let all = stick.image.len() + stick.manifest.len() + stick.certificate.len();
    ensure!(all < LENGTH - (1 << 20), "an image of {} bytes doesn't fit on a stick of {SIZE}", stick.image.len());
    let mut bytes = vec![0; SIZE];
    partition(&mut bytes, stick)?;
    fill(&mut bytes[FIRST..FIRST + LENGTH], stick).context("cannot write the stick's file system")?;
    Ok(bytes)
}

fn partition(bytes: &mut [u8], stick: &Stick) -> Result<()> {
    let mut device = Cursor::new(&mut bytes[..]);
    ProtectiveMBR::with_lb_size(u32::try_from(SIZE / BLOCK - 1)?).overwrite_lba0(&mut device)?;
    let guid = |purpose| Builder::from_custom_bytes(stick.id(purpose)).into_uuid();
    let mut disk = GptConfig::new().writable(true).create_from_device(device, Some(guid("disk")))?;
    disk.add_partition_at(NAME, 1, (FIRST / BLOCK) as u64, (LENGTH / BLOCK) as u64, partition_types::EFI, 0)?;
    let mut partitions = disk.take_partitions();
    partitions.get_mut(&1).context("the partition that was just added")?.part_guid = guid("partition");
    disk.update_partitions(partitions)?;
    disk.write()?;
    Ok(())
}

fn fill(partition: &mut [u8], stick: &Stick) -> std::io::Result<()> {
    let format = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(BLOCK as u32);
    let format = format.volume_id(u32::from_le_bytes(stick.id("volume"))).volume_label(LABEL);
    fatfs::format_volume(Cursor::new(&mut partition[..]), format)?;
    let system = FileSystem::new(Cursor::new(partition), FsOptions::new())?;
    let root = system.root_dir();
    root.create_dir("EFI")?;
    for (folder, _) in FOLDERS {
        root.create_dir(folder)?;
    }
    for (folder, name, content) in stick.files() {
        root.open_dir(folder)?.create_file(name)?.write_all(content)?;
    }
    drop(root);
    system.unmount()
}

/// What is on a stick that [`write()`] wrote.
///
/// # Errors
/// If a single byte of it is another.
pub fn read(bytes: &[u8]) -> Result<Stick> {
    ensure!(bytes.len() == SIZE, "this is no stick of Hoidla's: it has {} bytes instead of {SIZE}", bytes.len());
    let mut partition = bytes[FIRST..FIRST + LENGTH].to_vec();
    let stick = contents(&mut partition).context("the stick's file system cannot be read")?;
    let again = write(&stick)?;
    let other = again.iter().zip(bytes).position(|(a, b)| a != b);
    ensure!(other.is_none(), "the stick was changed: byte {} is not as hoidla-image writes it", other.unwrap_or_default());
    Ok(stick)
}

fn contents(partition: &mut [u8]) -> Result<Stick> {
    let system = FileSystem::new(Cursor::new(partition), FsOptions::new().update_accessed_date(false))?;
    let root = system.root_dir();
    Ok(Stick {
        image: file(&root, "EFI/BOOT/BOOTX64.EFI", LENGTH)?,
        manifest: file(&root, "HOIDLA/MANIFEST.TXT", MOST_PAPER)?,
        certificate: file(&root, "HOIDLA/BOOT.CRT", MOST_PAPER)?,
    })
}

fn file(root: &Dir<'_, Cursor<&mut [u8]>>, path: &str, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = root.open_file(path).with_context(|| format!("{path} is not on it"))?;
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() <= most, "{path} is too long");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick() -> Stick {
        Stick {
            image: (0..3_000_000u32).map(|n| (n ^ n >> 7) as u8).collect(),
            manifest: b"manifest\n".to_vec(),
            certificate: vec![1; 700],
        }
    }

    #[test]
    fn a_stick_reads_back_and_is_the_same_each_time() {
        let bytes = write(&stick()).unwrap();
        assert_eq!(bytes, write(&stick()).unwrap());
        assert_eq!(read(&bytes).unwrap(), stick());
        assert!(bytes.len() <= 40 << 20);
    }

    #[test]
    fn names_follow_from_the_image() {
        let (a, mut other) = (stick(), stick());
        other.image[0] ^= 1;
        assert_ne!(a.id::<16>("disk"), other.id::<16>("disk"));
        assert_ne!(a.id::<16>("disk"), a.id::<16>("partition"));
    }

    #[test]
    fn a_stick_with_anything_else_on_it_is_refused() {
        let bytes = write(&stick()).unwrap();
        for at in [0, 446, 512, 1024, FIRST, FIRST + 3, FIRST + (600 << 10), FIRST + LENGTH - 1, SIZE - 1, SIZE - 512] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
        }
        let mut more = bytes.clone();
        let system = FileSystem::new(Cursor::new(&mut more[FIRST..FIRST + LENGTH]), FsOptions::new()).unwrap();
        system.root_dir().create_dir("LOADER").unwrap().create_file("EXTRA.CRE").unwrap().write_all(b"x").unwrap();
        system.unmount().unwrap();
        assert!(read(&more).unwrap_err().to_string().contains("changed"));
        assert!(read(&bytes[..SIZE - 1]).is_err());
    }

    #[test]
    fn an_image_too_long_for_a_stick_is_refused() {
        assert!(write(&Stick { image: vec![0; LENGTH], ..stick() }).is_err());
    }
}
