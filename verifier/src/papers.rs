//! The authority's papers, from files, under the digits that the auditor gave.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use hoidla_cli::NextStep;
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{Statement, statement::MOST, statements::Site};
use hoidla_quorum::fingerprint;
use hoidla_verify::{Known, known::kind_of};

/// The most files that are read.
const MOST_FILES: usize = 10_000;

/// What the authority has on record.
pub struct Papers {
    /// Its key.
    pub authority: VerifyingKey,
    /// Appliances and releases.
    pub known: Known,
}

/// A small file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(MOST as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() <= MOST, "{}: too long to be one of Hoidla's papers", path.display());
    Ok(bytes)
}

impl Papers {
    /// From files, and folders one level deep.
    pub fn gather(paths: &[PathBuf], digits: Option<&str>) -> Result<Self> {
        let mut files = vec![];
        for path in paths {
            if path.is_dir() {
                let entries = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
                files.extend(entries.into_iter().filter(|p| p.is_file()));
            } else {
                files.push(path.clone());
            }
        }
        ensure!(files.len() <= MOST_FILES, "too many files: give the papers alone");
        let notes = files.iter().map(|f| read(f)).collect::<Result<Vec<_>>>()?;
        let authority = authority(&notes, digits)?;
        let known = Known::gather(&authority, notes.iter().map(Vec::as_slice))
            .next("give only papers of this authority, unchanged; nothing can be told with these")?;
        Ok(Self { authority, known })
    }
}

/// The papers are another authority's than the auditor's: a no, whatever else they say.
#[derive(Debug)]
pub struct Another(pub String);

impl std::fmt::Display for Another {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key that the site files name, if its digits are those given.
fn authority(notes: &[Vec<u8>], digits: Option<&str>) -> Result<VerifyingKey> {
    let site = notes.iter().find(|n| kind_of(n) == Some(Site::KIND));
    let site =
        site.ok_or_else(|| anyhow!("no site file is among the papers")).next("give it with --papers; everyone at the site has a copy")?;
    let claimed = sign::read_unverified::<Site>(site).context("the site file")?;
    let key = VerifyingKey::from_sec1(&claimed.statement.authority.0).context("the site file's authority key")?;
    let found = fingerprint::of_key(&key);
    let Some(given) = digits else {
        return Err(anyhow!("these papers are of the authority {found}; whether that is the right one, they cannot say themselves"))
            .next(format!("compare these digits with the authority or a custodian, then give them: --authority '{found}'"));
    };
    if !fingerprint::same(given, &found) {
        let why = format!(
            "these papers are of the authority {found}, not of {given}: they prove nothing under the digits that you gave; ask who gave you these files"
        );
        return Err(anyhow::Error::msg(Another(why)));
    }
    Ok(key)
}
