//! What an agent keeps of an appliance: its papers, its last checkpoint, a receipt a stream, alarms.
//!
//! ```text
//! HOME/audit/SITE-APPLIANCE/checkpoint.txt        the last one that was believed
//!                           papers/KIND-HASH.txt  whose key that is
//!                           receipts/STREAM.txt   the last one of each stream
//!                           alarm-N/              what.txt, kept.txt, shown
//!                           witnessed/            what others signed of its log (see `seen`)
//! ```
//! Promises: the checkpoint is replaced only by one that extends it, whole and synced; evidence
//! is never overwritten, and an alarm is one even if it cannot be written down. Whoever deletes
//! the folder deletes this agent's memory: keep copies.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use hoidla_cli::NextStep;
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{
    Hash32, Moment, Name, Statement, StreamId,
    statement::hash,
    statements::{ApplianceIdentity, Enrolment, ImageManifest, Release, Site},
};
use hoidla_log::{Receipt, SignedCheckpoint};
use hoidla_verify::{Known, known::kind_of};
use nix::fcntl::{Flock, FlockArg};

use super::Alarm;
use crate::home::read_bounded;

/// The most papers that an appliance may show at once, and that are kept.
pub const MOST_PAPERS: usize = 4096;
/// The most bytes of all papers that an appliance may show at once.
pub const MOST_PAPER_BYTES: usize = 16 << 20;
/// What an auditor needs of them.
const WANTED: [&str; 5] = [Site::KIND, Release::KIND, ImageManifest::KIND, Enrolment::KIND, ApplianceIdentity::KIND];
/// The most alarms that are written down; later ones point to the last folder.
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
        let path = self.dir.join("lock");
        // A disk that only reads must not keep a contradiction from being seen.
        let file = File::create(&path).or_else(|e| File::open(&path).map_err(|_| e))?;
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
        let kept = self.papers()?;
        let named: Vec<Hash32> = papers.iter().chain(kept.iter().map(|(_, p)| p)).filter_map(|p| identity_of(p, authority)).collect();
        // Nobody signs an identity: one that no enrolment names is anybody's.
        let wanted = |paper: &&Vec<u8>| match kind_of(paper) {
            Some(ApplianceIdentity::KIND) => std::str::from_utf8(paper).is_ok_and(|text| named.contains(&hash(text))),
            kind => kind.is_some_and(|k| WANTED.contains(&k)),
        };
        let wanted: Vec<&Vec<u8>> = papers.iter().filter(wanted).collect();
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
        papers_in(&self.dir.join("papers"))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An alarm, written down if that can be: what was kept, and what was shown.
    pub fn alarm(&self, what: String, shown: &[u8]) -> Alarm {
        let evidence = self.write_down(&what, shown).map_err(|e| format!("{e:#}"));
        Alarm { origin: self.origin.clone(), what, evidence }
    }

    /// The folder of an alarm: that of the same contradiction, a new one, or the last that there may be.
    fn write_down(&self, what: &str, shown: &[u8]) -> Result<PathBuf> {
        for number in 1..=MOST_ALARMS {
            let dir = self.dir.join(format!("alarm-{number}"));
            match fs::create_dir(&dir) {
                Ok(()) => return self.fill(&dir, what, shown).map(|()| dir),
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e).with_context(|| format!("cannot make {}", dir.display())),
                Err(_) if tells(&dir, what, shown) => return Ok(dir),
                Err(_) => {}
            }
        }
        Ok(self.dir.join(format!("alarm-{MOST_ALARMS}")))
    }

    fn fill(&self, dir: &Path, what: &str, shown: &[u8]) -> Result<()> {
        if let Ok(Some(kept)) = self.checkpoint() {
            write(&dir.join("kept.txt"), kept.write().as_bytes())?;
        }
        write(&dir.join("shown"), shown)?;
        write(&dir.join("what.txt"), format!("{}\n{}\n{what}\n", Moment::now(), self.origin).as_bytes())
    }
}

/// The papers of a folder with their files' names; none if it isn't there.
pub(super) fn papers_in(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut papers = vec![];
    if !folder.exists() {
        return Ok(papers);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            papers.push((name, read_bounded(&path)?));
        }
    }
    papers.sort();
    Ok(papers)
}

/// The identity's hash that the authority's enrolment names, if that is what a paper is.
fn identity_of(paper: &[u8], authority: &VerifyingKey) -> Option<Hash32> {
    let enrolment = (kind_of(paper) == Some(Enrolment::KIND)).then(|| sign::open::<Enrolment>(paper, Some("authority"), authority))?;
    enrolment.ok().map(|e| e.statement.identity)
}

/// Whether a folder tells of just this contradiction.
fn tells(dir: &Path, what: &str, shown: &[u8]) -> bool {
    let told = fs::read_to_string(dir.join("what.txt")).unwrap_or_default();
    let told = told.splitn(3, '\n').nth(2).and_then(|t| t.strip_suffix('\n'));
    told == Some(what) && fs::read(dir.join("shown")).is_ok_and(|s| s == shown)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_cannot_be_written_down_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept { dir: dir.path().join("gone"), origin: "hoidla/lux/lux-1".into() };
        let alarm = kept.alarm("a fork".into(), b"shown");
        assert!(alarm.evidence.is_err() && alarm.to_string().contains("NOT written down"), "{alarm}");
    }

    #[test]
    fn the_same_contradiction_makes_no_new_folder_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept { dir: dir.path().into(), origin: "hoidla/lux/lux-1".into() };
        let of = |what: &str, shown: &[u8]| kept.alarm(what.into(), shown).evidence.unwrap();
        let first = of("a fork\nof two lines", b"shown");
        assert_eq!(of("a fork\nof two lines", b"shown"), first);
        assert_ne!(of("a fork\nof two lines", b"other"), first);
        assert_ne!(of("a fork", b"shown"), first);
        (4..=MOST_ALARMS).for_each(|n| fs::create_dir(dir.path().join(format!("alarm-{n}"))).unwrap());
        assert_eq!(of("a new one", b"shown"), dir.path().join(format!("alarm-{MOST_ALARMS}")));
    }
}
