//! The state folder: what this machine was told, and what it keeps between starts.
//!
//! ```text
//! STATE/appliance.toml    written by whoever sets the machine up (this module)
//! STATE/identity.txt      what the TPM said it is (`appliance/1`)
//! STATE/tpm/              the TPM's own blobs, useless elsewhere
//! STATE/papers/           signed statements, as the authority signed them
//! STATE/store.txt         the name of the store on the disks
//! STATE/skips/            the authority's words about time
//! STATE/erased/           certificates of disks that were erased
//! STATE/measured.txt      what register 15 was extended by since the machine's start
//! STATE/checkpoint.txt    the last head of the log that was signed here
//! STATE/start.toml        which update is tried, if one is (an image only)
//! STATE/health.json       written by the running daemon, for the panel
//! ```
//!
//! Nothing in it is secret. The authority's key stands here only until the image
//! carries it: see docs/decisions/0061-authority-key-in-the-config.md.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use hoidla_cli::NextStep;
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::Bytes;
use serde::{Deserialize, Serialize};

use crate::keep;

/// `appliance.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the door listens: `host:port`.
    pub listen: String,
    /// The network port that alone the door is at: set by PID 1 as the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// How the TPM is reached: `device:/dev/tpmrm0` or `swtpm:host=...,port=...`.
    pub tpm: String,
    /// The disks, by tray: block devices, or files that enrolment preallocates.
    pub disks: Vec<PathBuf>,
    /// Copies of everything, on as many disks; two unless told otherwise. Settled at formatting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
    /// The authority's key: P-384, SEC1, compressed, base64, as in the site file.
    pub authority: Bytes,
}

/// The state folder.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// At this folder, which must exist.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            bail!("the state folder {} is not there; create it and put appliance.toml into it", folder.display());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Reads and checks `appliance.toml`.
    pub fn config(&self) -> anyhow::Result<Config> {
        let path = self.folder.join("appliance.toml");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))
            .next("write it with the keys listen, tpm, disks and authority; see README")?;
        let config: Config = toml_error(&path, &text)?;
        if config.disks.is_empty() || config.disks.len() > 8 {
            bail!("{}: disks must list 1 to 8 paths", path.display());
        }
        if config.copies.is_some_and(|n| n == 0 || usize::from(n) > config.disks.len()) {
            bail!("{}: copies must be 1 to the number of disks, {}", path.display(), config.disks.len());
        }
        config.authority_key()?;
        Ok(config)
    }

    /// Whether an enrolment stands here.
    pub fn is_enrolled(&self) -> bool {
        self.papers().read_dir().is_ok_and(|mut papers| papers.next().is_some())
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the TPM's blobs are kept.
    pub fn tpm(&self) -> PathBuf {
        self.folder.join("tpm")
    }

    /// Where signed statements are kept.
    pub fn papers(&self) -> PathBuf {
        self.folder.join("papers")
    }

    /// Where the authority's words about time are kept.
    pub fn skips(&self) -> PathBuf {
        self.folder.join("skips")
    }

    /// Where the name of the store on the disks is kept.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store.txt")
    }

    /// Where the identity is kept.
    pub fn identity(&self) -> PathBuf {
        self.folder.join("identity.txt")
    }

    /// The last head seen of each log that this appliance is a witness of.
    pub fn witnessed(&self) -> PathBuf {
        self.folder.join("witnessed")
    }

    /// What the store held when this machine was begun to be erased, since it leaves for good.
    pub fn leaving(&self) -> PathBuf {
        self.folder.join("leaving.toml")
    }

    /// Where certificates of erased disks are kept.
    pub fn erased(&self) -> PathBuf {
        self.folder.join("erased")
    }

    /// What register 15 was extended by since the machine's start.
    pub fn measured(&self) -> PathBuf {
        self.folder.join("measured.txt")
    }

    /// The last checkpoint that was signed.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint.txt")
    }

    /// Where the daemon writes how it is.
    pub fn health(&self) -> PathBuf {
        self.folder.join("health.json")
    }
}

fn toml_error(path: &Path, text: &str) -> anyhow::Result<Config> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| 1 + text.get(..s.start).unwrap_or("").matches('\n').count());
        anyhow::anyhow!("{}, line {line}: {}", path.display(), e.message())
    })
}

impl Config {
    /// The authority's key, which vouches for everything else.
    pub fn authority_key(&self) -> anyhow::Result<VerifyingKey> {
        VerifyingKey::from_sec1(&self.authority.0).context("appliance.toml: authority is no key; copy it from the site file")
    }
}

/// Writes a file so that after a power cut it is the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))?;
    keep::changed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path()).unwrap();
        assert!(state.config().unwrap_err().to_string().contains("next: write it"));
        fs::write(folder.path().join("appliance.toml"), "listen = \"a:1\"\ntmp = \"x\"\n").unwrap();
        let e = state.config().unwrap_err().to_string();
        assert!(e.contains("line 2") && e.contains("tmp"), "{e}");
        assert!(State::at(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn replacing_leaves_no_half_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
