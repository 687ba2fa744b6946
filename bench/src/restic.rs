//! The peer: restic copies the same folder to the same disk. It keeps one copy, on the
//! same machine, without TLS, and acknowledges nothing on the way; so it has less to do.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::setup::{Cost, children_cpu};

/// Whether it is installed.
pub fn installed() -> bool {
    Command::new("restic").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Copies `source` of `bytes` into a fresh repository in `scratch`, flushed at the end.
pub fn copy(scratch: &Path, source: &Path, bytes: u64) -> Result<Cost> {
    let (repository, cache) = (scratch.join("restic"), scratch.join("restic-cache"));
    let run = |args: &[&str]| -> Result<()> {
        let mut restic = Command::new("restic");
        restic.args(["--quiet", "--repo"]).arg(&repository).arg("--cache-dir").arg(&cache).args(args);
        let done = restic.env("RESTIC_PASSWORD", "bench").output().context("restic does not start: install the package restic")?;
        ensure!(done.status.success(), "restic failed: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    run(&["init"])?;
    let (began, cpu) = (Instant::now(), children_cpu()?);
    run(&["backup", &source.to_string_lossy()])?;
    ensure!(Command::new("sync").arg("--file-system").arg(&repository).status()?.success(), "sync failed");
    let cost = Cost { seconds: began.elapsed().as_secs_f64(), cpu: children_cpu()? - cpu, bytes };
    [repository, cache].iter().try_for_each(fs::remove_dir_all)?;
    Ok(cost)
}
