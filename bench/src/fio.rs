//! What the disk can do, by fio: the best of a committed grid.
//!
//! As many files as the store keeps copies, their blocks written before, io_uring with
//! registered buffers and files, past the page cache, flushed at the store's own cadence.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Block size in KiB and queue depth of each cell of the grid.
pub const GRID: [(u64, u32); 4] = [(128, 8), (128, 32), (1024, 8), (1024, 32)];

/// One way to ask fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Overwrite both files, flushing each after so many bytes.
    Write {
        /// Bytes between two flushes of a file.
        flush_every: u64,
    },
    /// Read all files.
    Read,
    /// Read one file and write another, at the same time; the rate is of the slower.
    Copy,
}

/// What fio answered.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Bytes a second over all files.
    pub rate: f64,
    /// CPU milliseconds per 10^9 bytes.
    pub cpu: f64,
}

/// Every cell of the grid over `files` files of `size` bytes each in `folder`.
pub fn grid(folder: &Path, files: u32, size: u64, direction: Direction) -> Result<Vec<Figure>> {
    GRID.iter().map(|&cell| run(folder, files, size, direction, cell)).collect()
}

fn run(folder: &Path, files: u32, size: u64, direction: Direction, cell: (u64, u32)) -> Result<Figure> {
    let (kib, depth) = cell;
    let mut fio = Command::new("fio");
    fio.current_dir(folder).args(["--name=grid", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1"]);
    fio.args(["--thread", "--group_reporting", "--overwrite=1", "--output-format=json"]);
    fio.args([format!("--bs={kib}k"), format!("--iodepth={depth}"), format!("--size={size}")]);
    let each = [format!("--numjobs={files}"), "--filename_format=fio.$jobnum".into()];
    match direction {
        Direction::Read => fio.args(each).arg("--rw=read"),
        Direction::Copy => {
            fio.args(["--filename=fio.0", "--rw=read", "--name=other", "--filename=fio.1", "--rw=write", "--end_fsync=1"]);
            // A second job begins with the defaults of fio, not with the first one's.
            fio.args([
                "--ioengine=io_uring",
                "--direct=1",
                "--fixedbufs=1",
                "--registerfiles=1",
                "--thread",
                "--group_reporting",
                "--overwrite=1",
            ]);
            fio.args([format!("--bs={kib}k"), format!("--iodepth={depth}"), format!("--size={size}")])
        }
        Direction::Write { flush_every } => {
            let writes = (flush_every / (kib << 10)).max(1);
            fio.args(each).args(["--rw=write", "--end_fsync=1", &format!("--fdatasync={writes}")])
        }
    };
    let done = fio.output().context("fio does not start: install the package fio")?;
    ensure!(done.status.success(), "fio failed: {}", String::from_utf8_lossy(&done.stderr));
    let answer = serde_json::from_slice(&done.stdout)?;
    if direction == Direction::Copy {
        let [read, write] = [Direction::Read, Direction::Write { flush_every: size }].map(|d| figure(&answer, d, size));
        let (read, write) = (read?, write?);
        return Ok(if read.rate < write.rate { read } else { write });
    }
    figure(&answer, direction, u64::from(files) * size)
}

fn figure(answer: &Value, direction: Direction, bytes: u64) -> Result<Figure> {
    let job = &answer["jobs"][0];
    let side = if direction == Direction::Read { &job["read"] } else { &job["write"] };
    let number = |v: &Value, what: &str| v.as_f64().with_context(|| format!("fio's answer has no {what}: is it older than 3.0?"));
    let moved = number(&side["io_bytes"], "io_bytes")?;
    ensure!(moved >= bytes as f64, "fio moved {moved} of {bytes} bytes");
    let rate = number(&side["bw_bytes"], "bw_bytes")?;
    // fio gives CPU use in percent of the jobs' run time, summed over threads by group.
    let busy = number(&job["usr_cpu"], "usr_cpu")? + number(&job["sys_cpu"], "sys_cpu")?;
    let seconds = number(&side["runtime"], "runtime")? / 1e3;
    Ok(Figure { rate, cpu: busy / 100.0 * seconds * 1e3 / (moved / 1e9) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_read_and_a_short_one_refused() {
        let answer = json!({"jobs": [{"write": {"io_bytes": 2e9, "bw_bytes": 1e9, "runtime": 2000}, "usr_cpu": 5.0, "sys_cpu": 5.0}]});
        let write = Direction::Write { flush_every: 1 << 20 };
        let f = figure(&answer, write, 2_000_000_000).unwrap();
        assert_eq!((f.rate, f.cpu), (1e9, 100.0));
        assert!(figure(&answer, write, 2_000_000_001).is_err());
        assert!(figure(&answer, Direction::Read, 1).is_err());
    }
}
