//! What an agent keeps of other appliances' word about this one's log.
//!
//! ```text
//! HOME/audit/SITE-APPLIANCE/witnessed/SITE.APPLIANCE.txt      the last head that this other one signed too
//!                                     SITE.APPLIANCE.tried    when a head was last carried there
//!                                     papers/KIND-HASH.txt    those appliances' papers
//! ```
//! Promises: a head takes the place of a smaller one only, and comes after the papers that vouch
//! for its lines. What was signed elsewhere stays here though the appliance, or the witness, forgets it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use hoidla_format::{Moment, statement::hash};
use hoidla_log::SignedCheckpoint;
use hoidla_verify::known::kind_of;

use super::{
    Kept,
    kept::{MOST_PAPERS, papers_in, write},
};
use crate::home::read_bounded;

/// The most other appliances whose word is kept.
const MOST: usize = 256;

/// A head that another appliance signed too.
pub struct Seen {
    /// Who: `SITE.APPLIANCE`.
    pub witness: String,
    /// The head with its line.
    pub head: SignedCheckpoint,
}

/// `SITE.APPLIANCE` of `hoidla/SITE/APPLIANCE`; no name has a dot.
fn file_of(origin: &str) -> String {
    origin.trim_start_matches("hoidla/").replace('/', ".")
}

impl Kept {
    fn witnessed(&self) -> PathBuf {
        self.dir().join("witnessed")
    }

    /// The last head that each other appliance signed.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let mut seen = vec![];
        for path in files(&self.witnessed())?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "txt")) {
            let damaged = || format!("{}, a head that another appliance signed, is damaged; take it from a copy", path.display());
            let head = SignedCheckpoint::parse(&read_bounded(&path)?).with_context(damaged)?;
            let witness = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            seen.push(Seen { witness, head });
        }
        ensure!(seen.len() <= MOST, "{} holds too many heads", self.witnessed().display());
        Ok(seen)
    }

    /// The papers of those appliances, with their files' names.
    pub fn seen_papers(&self) -> Result<Vec<(String, Vec<u8>)>> {
        papers_in(&self.witnessed().join("papers"))
    }

    /// Keeps a head with another appliance's line, and that one's papers, which were verified.
    pub fn keep_seen(&self, origin: &str, head: &SignedCheckpoint, papers: &[Vec<u8>]) -> Result<()> {
        let folder = self.witnessed().join("papers");
        fs::create_dir_all(&folder).with_context(|| format!("cannot write into {}", folder.display()))?;
        for paper in papers {
            let text = std::str::from_utf8(paper).context("a paper that is no text")?;
            let path = folder.join(format!("{}-{}.txt", kind_of(paper).unwrap_or_default(), &hash(text).to_string()[..16]));
            if !path.exists() {
                ensure!(files(&folder)?.len() < MOST_PAPERS, "{} is full; move old papers away", folder.display());
                write(&path, paper)?;
            }
        }
        let _turn = self.lock()?;
        let held = self.seen()?.into_iter().find(|s| s.witness == file_of(origin));
        if held.is_none_or(|h| h.head.head().size <= head.head().size) {
            write(&self.witnessed().join(format!("{}.txt", file_of(origin))), head.write().as_bytes())?;
        }
        Ok(())
    }

    /// Whether no head was carried to this appliance for so long; from now on, one was.
    pub fn is_due(&self, origin: &str, pause: Duration) -> Result<bool> {
        let path = self.witnessed().join(format!("{}.tried", file_of(origin)));
        let last = path.metadata().and_then(|m| m.modified()).ok();
        // A clock that was set back makes it due: only the pace depends on it.
        if last.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < pause)) {
            return Ok(false);
        }
        fs::create_dir_all(self.witnessed()).with_context(|| format!("cannot write into {}", self.witnessed().display()))?;
        write(&path, format!("{}\n", Moment::now()).as_bytes())?;
        Ok(true)
    }
}

/// The files of a folder, in order; none if it isn't there.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    let entries = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<_> = entries.into_iter().filter(|p| p.is_file()).collect();
    files.sort();
    Ok(files)
}
