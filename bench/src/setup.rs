//! What several measurements share: a scratch folder that is cleaned up, a counter for
//! a store, and a stream's records.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Buffer as _, Counters, Disk, Generation, MOST_BUFFER, Pool as _};
use hoidla_uring::{Buffer, Buffers, DiskFile, Record};

/// The id of every store made here.
pub const STORE: [u8; 16] = *b"hoidla-bench----";

/// A folder of our own, removed at the end, whatever the end is.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes `folder/hoidla-bench.PID`.
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("hoidla-bench.{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("{} can't be made: name another with --folder", path.display()))?;
        Ok(Self(fs::canonicalize(path)?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A membership counter that lives as long as the bench: the TPM's part is not measured here.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<u64>>);

impl Counters for Memory {
    fn membership(&self) -> io::Result<u64> {
        Ok(*self.0.lock().expect("nobody panics while holding it"))
    }

    fn raise_membership(&mut self, to: u64) -> io::Result<()> {
        let mut now = self.0.lock().expect("nobody panics while holding it");
        *now = to.max(*now);
        Ok(())
    }
}

/// A file of `len` bytes, every block of it written once.
pub fn written_file(path: &Path, len: u64) -> Result<()> {
    let disk = DiskFile::create(path, len)?;
    let mut zeros = Buffers::new(MOST_BUFFER)?.take(MOST_BUFFER).context("a fresh pool has room")?;
    zeros.as_mut().fill(0);
    let mut at = 0;
    while at < disk.size() {
        let n = (disk.size() - at).min(MOST_BUFFER as u64);
        disk.write(at, &zeros.as_ref()[..n as usize])?;
        at += n;
    }
    Ok(disk.flush()?)
}

/// Record number `n` of `stream`, all of one size, made from a buffer and hashed here.
pub fn record(stream: u8, n: u64, mut buffer: Buffer) -> Record {
    let len = buffer.as_ref().len();
    let offset = n * len as u64;
    buffer.as_mut()[..8].copy_from_slice(&offset.to_le_bytes());
    let hash = Hash32(blake3::hash(buffer.as_ref()).into());
    Record {
        generation: generation(stream),
        stream: StreamId([stream; 16]),
        epoch: 1,
        offset,
        len: len as u32,
        hash,
        blocks: buffer.freeze(len),
    }
}

/// Every stream here has a generation of its own.
pub fn generation(stream: u8) -> Generation {
    Generation { dataset: format!("registry-{stream}").parse().expect("a name"), number: 1 }
}
