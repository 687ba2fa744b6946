//! A disk as bytes: written, settled, and read from the medium itself.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result};
use hoidla_cli::NextStep;
use nix::libc;

/// What direct reads begin and end at; no disk's sectors are longer.
pub const ALIGNED: usize = 4096;

/// Something to write to.
pub trait Device {
    /// How many bytes it says it has.
    fn bytes(&self) -> u64;
    /// Writes all of it.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once all that was written is on the medium, as far as it tells.
    fn settle(&mut self) -> io::Result<()>;
    /// Reads from the medium, not from this machine's memory; place and length are multiples of [`ALIGNED`].
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

/// A disk of this machine.
#[derive(Debug)]
pub struct Disk {
    written: File,
    /// The same, past the page cache.
    read: File,
    bytes: u64,
}

impl Disk {
    /// Opens a whole disk for this program alone.
    ///
    /// # Errors
    /// If it is in use, or cannot be read past the page cache.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = || format!("{} cannot be written", path.display());
        // A device that something else of the kernel holds is not opened with this flag.
        let mut written = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(path)
            .with_context(cannot)
            .next("be root, and see with lsblk that nothing uses it")?;
        let bytes = written.seek(SeekFrom::End(0)).with_context(cannot)?;
        let read = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
        let read = read.with_context(|| format!("{} cannot be read back past this machine's memory", path.display()))?;
        Ok(Self { written, read, bytes })
    }
}

impl Device for Disk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.written.write_all_at(bytes, at)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.written.sync_all()
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut room = vec![0; out.len() + ALIGNED];
        let first = room.as_ptr().align_offset(ALIGNED);
        let part = &mut room[first..first + out.len()];
        self.read.read_exact_at(part, at)?;
        out.copy_from_slice(part);
        Ok(())
    }
}
