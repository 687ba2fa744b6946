//! The authority's word that a disk with something on it may be erased and used.
//!
//! Promises: a word counts only if the authority signed it for this appliance and tray, if
//! what is on the disk is byte for byte what was seen when home was asked (its ends and its
//! size), and if its serial is above every one that was used: each counts once, as long as the file `used` beside it stays.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{
    Hash32,
    statements::{ApplianceIdentity, DiskWord},
};

use crate::{
    config::{State, replace},
    keep,
};

/// Who signs.
const AUTHORITY: &str = "authority";

/// Where words are, and who may have signed them.
pub struct Words {
    folder: PathBuf,
    authority: VerifyingKey,
    identity: ApplianceIdentity,
}

impl Words {
    /// In the state folder.
    pub fn new(state: &State, authority: VerifyingKey, identity: ApplianceIdentity) -> Self {
        Self { folder: state.folder().join("disks"), authority, identity }
    }

    /// Takes a word: the running appliance uses it when it looks at the trays next.
    pub fn take(&self, note: &[u8]) -> anyhow::Result<DiskWord> {
        let word = self.check(note)?;
        fs::create_dir_all(&self.folder)?;
        replace(&self.folder.join("word.txt"), note)?;
        Ok(word)
    }

    /// The serial of the word that allows to erase the disk in a tray.
    pub fn allows(&self, tray: u8, seen: Hash32) -> Option<u32> {
        let note = fs::read(self.folder.join("word.txt")).ok()?;
        let word = self.check(&note).inspect_err(|e| tracing::warn!("a word about disks counts nothing: {e:#}")).ok()?;
        (word.tray == tray && word.seen == seen).then_some(word.serial)
    }

    /// The word is used: it never counts again.
    pub fn use_up(&self, serial: u32) -> anyhow::Result<()> {
        replace(&self.folder.join("used"), serial.to_string().as_bytes())?;
        fs::remove_file(self.folder.join("word.txt"))?;
        keep::changed()
    }

    fn check(&self, note: &[u8]) -> anyhow::Result<DiskWord> {
        let word = sign::open::<DiskWord>(note, Some(AUTHORITY), &self.authority).context("the word about a disk")?.statement;
        let (site, name) = (&self.identity.site, &self.identity.name);
        ensure!(
            word.site == *site && word.appliance == *name,
            "this word is for {} of {}, this is {name} of {site}",
            word.appliance,
            word.site
        );
        let used = self.used()?;
        ensure!(word.serial > used, "this word has serial {}, and {used} was used already: ask home for a new one", word.serial);
        Ok(word)
    }

    fn used(&self) -> anyhow::Result<u32> {
        let path = self.folder.join("used");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} is no number", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
        }
    }
}
