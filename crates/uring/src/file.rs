//! A disk as the kernel gives it: a raw block device, or a preallocated file.
//!
//! Promises: opened past the page cache (`O_DIRECT`), for this process alone (a lock on
//! a file, `O_EXCL` on a block device), and only if 4 KiB alignment suffices. It doesn't
//! know what is written there.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hoidla_store::{BLOCK as ALIGN, Disk};
use nix::fcntl::{FallocateFlags, fallocate};
use thiserror::Error;

/// How long a disk may stay in use: the kernel ends the ring of a killed program in its own time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a disk couldn't be had.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It isn't there, or may not be opened.
    #[error("disk {path}: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("disk {0} is in use by another program: is a second hoidlad running, or is it mounted?")]
    InUse(PathBuf),
    /// The file system can't bypass its cache.
    #[error("disk {0} allows no direct I/O: put the file on ext4 or XFS, or name a block device")]
    NoDirect(PathBuf),
    /// Its blocks are larger than ours.
    #[error("disk {path} wants transfers aligned to {wanted} bytes; this program aligns to 4096: use another disk")]
    Alignment {
        /// Which.
        path: PathBuf,
        /// What it wants.
        wanted: u32,
    },
    /// Neither file nor block device.
    #[error("disk {0} is neither a file nor a block device")]
    Type(PathBuf),
    /// A file to be made exists.
    #[error("disk {0} exists already: a disk is never made over something else; remove it first, or name another")]
    Exists(PathBuf),
    /// There is no room to preallocate it.
    #[error("disk {path} of {len} bytes doesn't fit on its file system: free some room, or make it smaller ({source})")]
    NoRoom {
        /// Which.
        path: PathBuf,
        /// How long it should be.
        len: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open disk; the lock lasts as long as this value.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl DiskFile {
    /// Opens a disk that exists; its length is cut down to whole blocks. Waits a little for a
    /// program that was killed to let go of it.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let began = Instant::now();
        loop {
            match Self::open_now(path) {
                Err(DiskError::InUse(_)) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                other => return other,
            }
        }
    }

    fn open_now(path: &Path) -> Result<Self, DiskError> {
        let at = |source| DiskError::Open { path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(at)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Type(path.to_owned()));
        }
        let alone = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT | alone).open(path);
        let file = file.map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => DiskError::InUse(path.to_owned()),
            Some(libc::EINVAL) => DiskError::NoDirect(path.to_owned()),
            _ => at(e),
        })?;
        lock(&file, path)?;
        check_alignment(&file, path)?;
        let len = if kind.is_block_device() { block_device_len(&file).map_err(at)? } else { file.metadata().map_err(at)?.len() };
        Ok(Self { file, path: path.to_owned(), len: len / ALIGN as u64 * ALIGN as u64 })
    }

    /// Makes a file of `len` bytes (whole blocks), all of it reserved on its file system,
    /// durable before this returns.
    pub fn create(path: &Path, len: u64) -> Result<Self, DiskError> {
        let at = |source| DiskError::Open { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => DiskError::Exists(path.to_owned()),
            _ => at(e),
        })?;
        let len = len / ALIGN as u64 * ALIGN as u64;
        let made = fallocate(&file, FallocateFlags::empty(), 0, len as i64).map_err(io::Error::from).and_then(|()| file.sync_all());
        if let Err(source) = made {
            drop(file);
            std::fs::remove_file(path).map_err(at)?;
            return Err(DiskError::NoRoom { path: path.to_owned(), len, source });
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(at)?;
        drop(file);
        Self::open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to this disk: a pulled one leaves, or another takes its place.
    pub fn is_at_its_path(&self) -> bool {
        let same = |here: Metadata, open: Metadata| (here.dev(), here.ino(), here.rdev()) == (open.dev(), open.ino(), open.rdev());
        std::fs::metadata(&self.path).and_then(|here| Ok(same(here, self.file.metadata()?))).unwrap_or(false)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Disk for DiskFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn size(&self) -> u64 {
        self.len
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::other("a write past the end of the disk"));
        }
        self.file.write_all_at(bytes, at)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // The lock belongs to the open file, which a ring that is ending may hold a little longer.
        let _ = self.file.unlock();
    }
}

fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(DiskError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(DiskError::Open { path: path.to_owned(), source }),
    }
}

fn block_device_len(file: &File) -> io::Result<u64> {
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
    let mut len = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 at the address given, which is `len`'s.
    unsafe { size_in_bytes(file.as_raw_fd(), &mut len) }?;
    Ok(len)
}

/// Asks what alignment direct I/O wants, where the kernel (6.1) and file system say it.
fn check_alignment(file: &File, path: &Path) -> Result<(), DiskError> {
    // SAFETY: statx is plain numbers; all zero is a valid value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path an empty C string, the result ours.
    let done = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut stat) };
    if done != 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(()); // an older kernel: the first transfer will tell
    }
    match stat.stx_dio_mem_align.max(stat.stx_dio_offset_align) {
        0 => Err(DiskError::NoDirect(path.to_owned())),
        wanted if wanted as usize > ALIGN => Err(DiskError::Alignment { path: path.to_owned(), wanted }),
        _ => Ok(()),
    }
}
