//! The peers: restic and Borg copy the same folder to the same disk, encrypted. They keep one
//! copy, on the same machine, without TLS, and acknowledge nothing on the way; so they have
//! less to do.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::setup::{Cost, children_cpu};

/// A program that copies folders into encrypted repositories.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The row that it is compared in.
    pub row: &'static str,
    /// How many times its rate a push should reach, if that is a goal.
    pub goal: Option<f64>,
    /// The program, and what Debian calls its package.
    pub program: &'static str,
    package: &'static str,
    /// What makes a repository, and what copies, after the program's name.
    init: &'static [&'static str],
    copy: &'static [&'static str],
    /// Where the repository is told; with an archive's name at its end where one is needed.
    archive: &'static str,
}

/// Both.
pub const PEERS: [Peer; 2] = [
    Peer {
        row: "push_vs_restic",
        goal: Some(3.0),
        program: "restic",
        package: "restic",
        init: &["--quiet", "init", "--repo"],
        copy: &["--quiet", "backup", "--repo"],
        archive: "",
    },
    Peer {
        row: "push_vs_borg",
        goal: None,
        program: "borg",
        package: "borgbackup",
        init: &["init", "--encryption", "repokey-blake2"],
        copy: &["create"],
        archive: "::all",
    },
];

impl Peer {
    /// Whether it is installed.
    pub fn installed(&self) -> bool {
        Command::new(self.program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    }

    /// Copies `source` of `bytes` into a fresh repository in `scratch`, flushed at the end.
    pub fn copy(&self, scratch: &Path, source: &Path, bytes: u64) -> Result<Cost> {
        let folder = scratch.join("peer");
        fs::create_dir_all(&folder)?;
        let repository = folder.join("repository").display().to_string();
        let run = |args: &[&str], more: &[&str]| -> Result<()> {
            let mut command = Command::new(self.program);
            command.args(args).args(more).envs([("RESTIC_PASSWORD", "bench"), ("BORG_PASSPHRASE", "bench")]);
            command.env("RESTIC_CACHE_DIR", folder.join("cache")).env("BORG_BASE_DIR", folder.join("base"));
            let done =
                command.output().with_context(|| format!("{} does not start: install the package {}", self.program, self.package))?;
            ensure!(done.status.success(), "{} failed: {}", self.program, String::from_utf8_lossy(&done.stderr));
            Ok(())
        };
        run(self.init, &[&repository])?;
        let (began, cpu) = (Instant::now(), children_cpu()?);
        run(self.copy, &[&format!("{repository}{}", self.archive), &source.to_string_lossy()])?;
        ensure!(Command::new("sync").arg("--file-system").arg(&repository).status()?.success(), "sync failed");
        let cost = Cost { seconds: began.elapsed().as_secs_f64(), cpu: children_cpu()? - cpu, bytes };
        fs::remove_dir_all(&folder)?;
        Ok(cost)
    }
}
