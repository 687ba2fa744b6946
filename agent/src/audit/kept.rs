//! What an agent keeps of an appliance: its papers, its last checkpoint, a receipt a stream, alarms.
//!
//! ```text
//! HOME/audit/SITE-APPLIANCE/checkpoint.txt        the last one that was believed
//!                           papers/KIND-HASH.txt  whose key that is
//!                           receipts/STREAM.txt   the last one of each stream
//!                           alarm-N/              what.txt, kept.txt, shown
//! ```
//! Promises: the checkpoint is replaced only by one that extends it, whole and synced; evidence
//! is never overwritten. Whoever deletes the folder deletes this agent's memory: keep copies.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use hoidla_cli::NextStep;
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::{
    Moment, Name, Statement, StreamId,
    statement::hash,
    statements::{ApplianceIdentity, Enrolment, Release, Site},
};
use hoidla_log::{Receipt, SignedCheckpoint};
use hoidla_verify::{Known, known::kind_of};
use nix::fcntl::{Flock, FlockArg};

use super::Alarm;
use crate::home::read_bounded;

/// The most papers that an appliance may show at once, and that are kept.
pub const MOST_PAPERS: usize = 4096;
/// What an auditor needs of them.
const WANTED: [&str; 4] = [Site::KIND, Release::KIND, Enrolment::KIND, ApplianceIdentity::KIND];
/// The most alarms that are written down; more add nothing.
const MOST_ALARMS: u32 = 1000;

/// See the module.
pub struct Kept {
    dir: PathBuf,
    origin: String,
}

impl Kept {
    /// Of one appliance, in an agent's folder.
    pub fn of(home: &Path, site: &Name, appliance: &Name) -> Result<Self> {
        let dir = home.join("audit").join(format!("{site}-{appliance}"));
        for folder in ["papers", "receipts"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("cannot write into {}", dir.display()))?;
        }
        Ok(Self { dir, origin: format!("hoidla/{site}/{appliance}") })
    }

    /// Whose log: `hoidla/SITE/APPLIANCE`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Waits until no other run of this agent compares checkpoints.
    pub fn lock(&self) -> Result<Flock<File>> {
        let file = File::create(self.dir.join("lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| anyhow!("{} cannot be locked: {e}", self.dir.display()))
    }

    /// The last checkpoint that was believed.
    pub fn checkpoint(&self) -> Result<Option<SignedCheckpoint>> {
        let path = self.dir.join("checkpoint.txt");
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            found => found.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let kept = SignedCheckpoint::parse(&read_bounded(&path)?)
            .with_context(|| format!("{}, the last checkpoint that this agent believed, is damaged", path.display()))
            .next("take it from a backup or a receipt. Without it, nobody here can tell whether the appliance went back since")?;
        Ok(Some(kept))
    }

    /// Keeps a checkpoint that extends the last one.
    pub fn keep_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<()> {
        write(&self.dir.join("checkpoint.txt"), checkpoint.write().as_bytes())
    }

    fn receipt_path(&self, stream: StreamId) -> PathBuf {
        self.dir.join("receipts").join(format!("{stream}.txt"))
    }

    /// Keeps a receipt in place of the stream's former one.
    pub fn keep_receipt(&self, receipt: &Receipt) -> Result<()> {
        write(&self.receipt_path(receipt.leaf().stream), receipt.write().as_bytes())
    }

    /// Takes papers in, those that an auditor needs, if they are the authority's.
    pub fn add_papers(&self, authority: &VerifyingKey, papers: &[Vec<u8>]) -> Result<()> {
        let wanted: Vec<&Vec<u8>> = papers.iter().filter(|p| kind_of(p).is_some_and(|k| WANTED.contains(&k))).collect();
        Known::gather(authority, wanted.iter().map(|p| p.as_slice()))
            .context("the appliance showed papers that are not the authority's")
            .next("tell the authority; nothing of it was kept")?;
        for paper in wanted {
            let text = std::str::from_utf8(paper).context("a paper that is no text")?;
            let name = format!("{}-{}.txt", kind_of(paper).unwrap_or_default(), &hash(text).to_string()[..16]);
            let path = self.dir.join("papers").join(name);
            if !path.exists() {
                ensure!(self.papers()?.len() < MOST_PAPERS, "{} is full; move old papers away", self.dir.join("papers").display());
                write(&path, paper)?;
            }
        }
        Ok(())
    }

    /// The papers with their files' names.
    pub fn papers(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut papers = vec![];
        for entry in fs::read_dir(self.dir.join("papers"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "txt") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                papers.push((name, read_bounded(&path)?));
            }
        }
        papers.sort();
        Ok(papers)
    }

    /// Writes an alarm down: what was kept, and what was shown.
    pub fn alarm(&self, what: String, shown: &[u8]) -> Result<Alarm> {
        let mut number = 1;
        let evidence = loop {
            let dir = self.dir.join(format!("alarm-{number}"));
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                Err(e) if e.kind() == ErrorKind::AlreadyExists && number < MOST_ALARMS => number += 1,
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("ALARM: {}: {what}; and it cannot be written down in {}", self.origin, dir.display()));
                }
            }
        };
        if let Ok(Some(kept)) = self.checkpoint() {
            write(&evidence.join("kept.txt"), kept.write().as_bytes())?;
        }
        write(&evidence.join("shown"), shown)?;
        write(&evidence.join("what.txt"), format!("{}\n{}\n{what}\n", Moment::now(), self.origin).as_bytes())?;
        Ok(Alarm { origin: self.origin.clone(), what, evidence })
    }
}

/// Writes a file so that after a power cut it is the old one or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
