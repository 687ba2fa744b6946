//! What a custodian has believed once: whose site this is, and how new its site file was.
//!
//! Promises: once [`remember`]ed, a site has one authority, and its serial only rises; the file
//! beside the key is signed with that key, so that nobody edits it unnoticed. It cannot tell that
//! it was deleted: then [`check`] says so, and a person must compare digits anew.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use hoidla_cli::NextStep;
use hoidla_crypto::{
    envelope::CustodianKeys,
    sign::{self, VerifyingKey},
};
use hoidla_format::{Bytes, Hash32, Name, Statement};
use hoidla_quorum::fingerprint;
use serde::{Deserialize, Serialize};

use crate::{
    new::write,
    papers::{Known, read},
};

/// The most sites that one custodian remembers.
const MOST_SITES: usize = 256;

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Who remembers.
    pub custodian: Name,
    /// The sites, each once.
    #[serde(rename = "site", default)]
    pub sites: Vec<TrustedSite>,
}

/// One site as it was last believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedSite {
    /// Its name.
    pub site: Name,
    /// The authority's key: P-384, SEC1, compressed.
    pub authority: Bytes,
    /// The highest serial seen.
    pub serial: u32,
    /// SHA-256 of the site file of that serial.
    pub hash: Hash32,
}

impl Statement for Trust {
    const KIND: &'static str = "trust";
    const TITLE: &'static str = "a custodian's trust file";
}

/// How a site file stands to what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The very file, or a newer one of the same authority.
    Known,
    /// Nothing is remembered of this site: its authority must be compared by a person.
    Unknown,
}

/// Where the trust file of a key file lies.
pub fn beside(key: &Path) -> PathBuf {
    let mut path = OsString::from(key);
    path.push(".trust");
    path.into()
}

/// Holds a site file against what is remembered; a newer one is remembered in its place.
pub fn check(key: &Path, name: &Name, keys: &CustodianKeys, known: &Known) -> Result<Standing> {
    let Some(trust) = load(key, name, keys)? else { return Ok(Standing::Unknown) };
    let site = &known.site.statement;
    let Some(mine) = trust.sites.iter().find(|s| s.site == site.site) else { return Ok(Standing::Unknown) };
    if mine.authority != site.authority {
        let own = VerifyingKey::from_sec1(&mine.authority.0).map(|k| fingerprint::of_key(&k)).unwrap_or_default();
        return Err(anyhow!("this site file is of another authority ({}) than yours ({own})", known.fingerprint())).next(format!(
            "don't go on: who swaps a site file wants your share. Use the one you had. Had the authority truly changed its key, it \
             would tell you in person; only then remove {} and confirm anew",
            beside(key).display()
        ));
    }
    let (theirs, seen) = (site.serial, mine.serial);
    if theirs < seen {
        return Err(anyhow!("this site file has serial {theirs}, and you have seen serial {seen}: it is out of date"))
            .next("fetch the newest site file, from the authority or another custodian");
    }
    if theirs == seen && mine.hash != known.site.hash {
        return Err(anyhow!("this is another site file of serial {theirs} than you have seen"))
            .next("don't go on; ask the authority which is right, and let it sign one with a higher serial");
    }
    if theirs > seen {
        // Keys may lie on a stick that cannot be written: then the old serial goes on to count.
        let _ = remember(key, name, keys, known);
    }
    Ok(Standing::Known)
}

/// Remembers a site's authority, serial and hash, in place of what was remembered of that site.
pub fn remember(key: &Path, name: &Name, keys: &CustodianKeys, known: &Known) -> Result<()> {
    let site = &known.site.statement;
    let mut trust = load(key, name, keys)?.unwrap_or(Trust { custodian: name.clone(), sites: Vec::new() });
    trust.sites.retain(|s| s.site != site.site);
    anyhow::ensure!(trust.sites.len() < MOST_SITES, "{} holds {MOST_SITES} sites already", beside(key).display());
    let entry = TrustedSite { site: site.site.clone(), authority: site.authority.clone(), serial: site.serial, hash: known.site.hash };
    trust.sites.push(entry);
    trust.sites.sort_by(|a, b| a.site.cmp(&b.site));
    let (path, fresh) = (beside(key), beside(&beside(key)).with_extension("new"));
    fs::remove_file(&fresh).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    write(&fresh, keys.signing_key().sign_statement(name.as_str(), &trust).as_bytes(), 0o600)?;
    fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
}

fn load(key: &Path, name: &Name, keys: &CustodianKeys) -> Result<Option<Trust>> {
    let path = beside(key);
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let open = || -> Result<Trust> {
        let trust = sign::open::<Trust>(&read(&path)?, Some(name.as_str()), &keys.signing_key().verifying_key())?.statement;
        anyhow::ensure!(trust.custodian == *name, "it is {}'s", trust.custodian);
        Ok(trust)
    };
    let trust = open().with_context(|| path.display().to_string()).next(
        "this file was damaged or changed, or belongs to another key. Restore your copy of it, or remove it and compare the authority's digits anew",
    )?;
    Ok(Some(trust))
}
