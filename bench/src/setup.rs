//! What several measurements share: a scratch folder that is cleaned up, a counter for
//! a store, and a stream's records.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use hoidla_format::{Hash32, StreamId, disk::SealKey};
use hoidla_store::{Buffer as _, Counters, Disk, Generation, MOST_BUFFER, Pool as _};
use hoidla_uring::{Buffer, Buffers, DiskFile, Record};
use nix::sys::resource::{UsageWho, getrusage};

/// What the seals of a store's batches are keyed with: nobody here forges any.
pub const KEY: SealKey = SealKey([6; 32]);

/// A name for a store that no other had: what an earlier one left on the same disks is never taken for its own.
pub fn new_store() -> [u8; 16] {
    let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    now.as_nanos().to_le_bytes()
}

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

/// What copying `bytes` took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// By the clock.
    pub seconds: f64,
    /// CPU seconds of all processes that took part.
    pub cpu: f64,
    /// Bytes of the source.
    pub bytes: u64,
}

impl Cost {
    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// CPU seconds per 10^9 bytes.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu / (self.bytes as f64 / 1e9)
    }
}

/// CPU seconds of all children that have ended.
pub fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// What `/proc` tells of a process that runs: its CPU seconds and the most memory it had, in MiB.
pub fn of_process(pid: u32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let after_name = stat.rsplit_once(')').context("stat has a name")?.1;
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    // The kernel counts in hundredths of a second for programs, whatever its own clock is.
    Ok((ticks / 100.0, peak.context("the kernel tells no peak")? / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen() {
        let (cpu, peak) = of_process(std::process::id()).unwrap();
        assert!(cpu >= 0.0 && peak > 0.5, "{cpu} s, {peak} MiB");
        assert!(of_process(u32::MAX).is_err());
    }
}
