//! The papers on a stick: a small FAT that people's computers and the appliance write files to.
//!
//! Promises: whatever bytes are there, reading them ends, takes no more memory than the
//! partition twice over, and harms nothing; hidden files, and folders in folders, are passed
//! over. It says nothing of what the files are worth: all that counts in them is signed.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use fatfs::{Dir, FileSystem, FormatVolumeOptions, FsOptions};

use crate::MediumError;

/// Bytes of the partition.
pub const LENGTH: usize = 3 << 20;
/// The most files that are looked at.
const MOST_FILES: usize = 256;
/// What may be read from the partition while it is looked at: its tables are read many times.
const BUDGET: usize = 256 << 20;
const LABEL: [u8; 11] = *b"HOIDLA     ";

/// Files by name; those in a folder as `folder/name`.
pub type Papers = BTreeMap<String, Vec<u8>>;

/// A partition in memory that is read so much and no more: a chain that goes round ends as well.
struct Bounded<'a> {
    bytes: Cursor<&'a mut [u8]>,
    left: usize,
}

impl Read for Bounded<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(out.len().max(1)).ok_or_else(|| io::Error::other("it leads round in circles"))?;
        self.bytes.read(out)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// An empty partition.
///
/// # Errors
/// Never, unless its length is wrong.
pub fn blank(id: u32) -> Result<Vec<u8>, MediumError> {
    let mut bytes = vec![0; LENGTH];
    let format = FormatVolumeOptions::new().volume_id(id).volume_label(LABEL);
    fatfs::format_volume(Cursor::new(&mut bytes[..]), format).map_err(MediumError::io("the stick's papers"))?;
    Ok(bytes)
}

/// All files of a partition.
///
/// # Errors
/// If it has no file system that can be read.
pub fn read(bytes: &[u8]) -> Result<Papers, MediumError> {
    with(&mut bytes.to_vec(), |root| {
        let mut papers = Papers::new();
        gather(root, "", true, &mut papers)?;
        Ok(papers)
    })
}

/// Puts a file there, instead of one of the same name.
///
/// # Errors
/// If there is no room, or no file system.
pub fn put(bytes: &mut [u8], name: &str, content: &[u8]) -> Result<(), MediumError> {
    with(bytes, |root| {
        let mut file = root.create_file(name)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()
    })
}

/// Does something to the file system. The library that reads it is not made for bytes of an
/// enemy: should it fall over, it falls no further than this.
fn with<T>(bytes: &mut [u8], work: impl FnOnce(&Dir<'_, Bounded<'_>>) -> io::Result<T>) -> Result<T, MediumError> {
    let whole = || {
        let bounded = Bounded { bytes: Cursor::new(bytes), left: BUDGET };
        let system = FileSystem::new(bounded, FsOptions::new().update_accessed_date(false))?;
        let done = work(&system.root_dir())?;
        system.unmount()?;
        Ok(done)
    };
    catch_unwind(AssertUnwindSafe(whole))
        .unwrap_or_else(|_| Err(io::Error::other("it is damaged")))
        .map_err(MediumError::io("the stick's papers"))
}

fn gather(folder: &Dir<'_, Bounded<'_>>, before: &str, deeper: bool, papers: &mut Papers) -> io::Result<()> {
    for entry in folder.iter().take(MOST_FILES) {
        let entry = entry?;
        let name = entry.file_name();
        if name.starts_with('.') || papers.len() >= MOST_FILES {
            continue;
        }
        let path = format!("{before}{name}");
        if entry.is_file() {
            let left = LENGTH - papers.values().map(Vec::len).sum::<usize>();
            let mut content = Vec::new();
            entry.to_file().take(left as u64 + 1).read_to_end(&mut content)?;
            if content.len() > left {
                return Err(io::Error::other("its files are longer than it is"));
            }
            papers.insert(path, content);
        } else if deeper {
            gather(&entry.to_dir(), &format!("{path}/"), false, papers)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<u8> {
        let mut bytes = blank(7).unwrap();
        put(&mut bytes, "identity.txt", b"first").unwrap();
        put(&mut bytes, "identity.txt", b"who").unwrap();
        put(&mut bytes, "a longer name.parcel", &[7; 100_000]).unwrap();
        with(&mut bytes, |root| {
            let folder = root.create_dir("from home")?;
            folder.create_dir("deeper")?.create_file("passed over")?.write_all(b"x")?;
            folder.create_file("site.txt")?.write_all(b"site")?;
            root.create_file(".hidden")?.write_all(b"x")
        })
        .unwrap();
        bytes
    }

    #[test]
    fn files_are_found_by_name_and_one_folder_deep() {
        let papers = read(&some()).unwrap();
        assert_eq!(papers.keys().collect::<Vec<_>>(), ["a longer name.parcel", "from home/site.txt", "identity.txt"]);
        assert_eq!(papers["identity.txt"], b"who");
        assert_eq!(papers["a longer name.parcel"], [7; 100_000]);
        assert!(read(&blank(1).unwrap()).unwrap().is_empty());
        assert_eq!(blank(1).unwrap(), blank(1).unwrap());
    }

    #[test]
    fn a_partition_that_is_full_says_so() {
        let mut bytes = blank(7).unwrap();
        assert!(put(&mut bytes, "much", &[0; LENGTH]).unwrap_err().to_string().contains("papers"));
    }

    #[test]
    fn whatever_is_there_reading_ends() {
        std::panic::set_hook(Box::new(|_| {})); // what the library says as it falls over
        assert!(read(&[0; LENGTH]).is_err() && read(&[]).is_err() && read(&[0xff; 4096]).is_err());
        let (good, mut random) = (some(), 1u64);
        for _ in 0..300 {
            let mut bad = good.clone();
            for _ in 0..4 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Tables and folders lie in the first pages.
                bad[(random >> 33) as usize % 40_000] = (random >> 25) as u8;
            }
            _ = read(&bad);
            _ = put(&mut bad, "identity.txt", b"again");
        }
        _ = std::panic::take_hook();
    }

    #[test]
    fn a_chain_that_goes_round_ends() {
        let mut bytes = blank(7).unwrap();
        with(&mut bytes, |root| {
            let folder = root.create_dir("round")?;
            // With `.` and `..` two clusters full of deleted entries, two for each file; the mark of the end is in a third.
            (0..63).try_for_each(|n| folder.create_file(&format!("{n}")).map(drop))?;
            (0..63).try_for_each(|n| folder.remove(&format!("{n}")))
        })
        .unwrap();
        let table = 512 * usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        // Entries of 12 bits: cluster 2 leads to 3, and 3, now, to itself: nothing but deleted entries, for ever.
        assert_eq!(bytes[table + 3..table + 6], [0x03, 0x40, 0x00]);
        bytes[table + 3..table + 6].copy_from_slice(&[0x03, 0x30, 0x00]);
        assert!(read(&bytes).unwrap_err().to_string().contains("papers"));
    }
}
