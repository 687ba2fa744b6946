//! Signed statements, from files or from the appliance, all under the authority's key.
//!
//! Promises: what is in [`Papers`] was signed by the authority that the custodian's own site
//! file names, and belongs to that site.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, files};
use hoidla_crypto::sign::{self, Signed, VerifyingKey, open_self_signed};
use hoidla_format::{
    Name, Note, Statement, statement,
    statements::{ApplianceIdentity, Enrolment, Envelopes, Grant, ImageManifest, Reader, Release, Site, Vault},
};
use hoidla_quorum::grant;

/// The name under which the authority signs.
const AUTHORITY: &str = "authority";

/// A site file, and the key in it under which all else is checked.
pub struct Known {
    /// The site.
    pub site: Signed<Site>,
    /// The authority's key.
    pub authority: VerifyingKey,
}

impl Known {
    /// Reads a site file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path).next("give the site file with --site; anyone of the site has a copy")?;
        Self::open(&bytes).with_context(|| path.display().to_string())
    }

    fn open(bytes: &[u8]) -> Result<Self> {
        let claimed = sign::read_unverified::<Site>(bytes)?.statement;
        let authority = VerifyingKey::from_sec1(&claimed.authority.0)?;
        Ok(Self { site: sign::open_edited(bytes, Some(AUTHORITY), &authority)?, authority })
    }

    /// The authority's digits, to compare by telephone.
    pub fn fingerprint(&self) -> String {
        hoidla_quorum::fingerprint::of_key(&self.authority)
    }

    /// Opens what the authority signed.
    pub fn open_signed<S: Statement>(&self, bytes: &[u8]) -> Result<Signed<S>> {
        Ok(sign::open(bytes, Some(AUTHORITY), &self.authority)?)
    }
}

/// Vaults, their envelopes, enrolments and releases.
#[derive(Default)]
pub struct Papers {
    /// Vault certificates.
    pub vaults: Vec<Signed<Vault>>,
    /// Envelopes of either door.
    pub envelopes: Vec<Signed<Envelopes>>,
    /// Enrolments.
    pub enrolments: Vec<Signed<Enrolment>>,
    /// Releases.
    pub releases: Vec<Signed<Release>>,
    /// What tells of an appliance's TPM, as it came: site files, releases, manifests, enrolments, identities.
    notes: Vec<Vec<u8>>,
}

impl Papers {
    /// From files, and folders one level deep; other kinds of files are passed over.
    pub fn gather(known: &Known, paths: &[PathBuf]) -> Result<Self> {
        let mut papers = Self::default();
        for file in files::gather(paths)? {
            papers.add(known, &read(&file)?).with_context(|| file.display().to_string())?;
        }
        Ok(papers)
    }

    /// Adds one statement, if it is of a kind that is kept here.
    pub fn add(&mut self, known: &Known, bytes: &[u8]) -> Result<()> {
        if let Some(Site::KIND | Release::KIND | ImageManifest::KIND | Enrolment::KIND | ApplianceIdentity::KIND) = kind(bytes) {
            self.notes.push(bytes.to_vec());
        }
        match kind(bytes) {
            Some(Vault::KIND) => {
                let vault = known.open_signed::<Vault>(bytes)?;
                ensure!(vault.statement.site == known.site.statement.site, "a vault certificate of site {}", vault.statement.site);
                self.vaults.push(vault);
            }
            Some(Envelopes::KIND) => self.envelopes.push(known.open_signed(bytes)?),
            Some(Release::KIND) => self.releases.push(known.open_signed(bytes)?),
            Some(Enrolment::KIND) => self.enrolments.push(known.open_signed(bytes)?),
            _ => {}
        }
        Ok(())
    }

    /// What the authority has on record of the site's appliances, as far as it is here.
    pub fn attesters(&self, known: &Known) -> Result<hoidla_verify::Known> {
        Ok(hoidla_verify::Known::gather(&known.authority, self.notes.iter().map(Vec::as_slice))?)
    }

    /// Whether a vault epoch may be opened, as far as one can tell: the newest release approves it.
    pub fn may_open(&self, dataset: &Name, vault_epoch: u32) -> bool {
        let newest = self.releases.iter().max_by_key(|r| r.statement.epoch);
        newest.is_none_or(|r| r.statement.vaults.iter().any(|v| v.dataset == *dataset && v.vault_epoch == vault_epoch))
    }
}

/// What a statement's first line says it is.
fn kind(bytes: &[u8]) -> Option<&str> {
    let first = bytes.split(|b| *b == b'\n').next()?;
    Some(std::str::from_utf8(first).ok()?.strip_prefix("hoidla = \"")?.split_once('/')?.0)
}

/// Reads a file that is small enough to be a statement.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let len = fs::metadata(path).with_context(context)?.len();
    ensure!(len <= hoidla_format::statement::MOST as u64, "{} is too long to be a statement", path.display());
    fs::read(path).with_context(context)
}

/// Reads a grant and checks all that needs no vault at hand. Who signed it doesn't matter:
/// the custodians' approvals are what counts.
pub fn read_grant(path: &Path, known: &Known) -> Result<Signed<Grant>> {
    let read = || -> Result<Signed<Grant>> {
        let bytes = read(path)?;
        // Exactly what a program wrote: no comment tells a reader of the file something else.
        statement::parse::<Grant>(&Note::parse(&bytes)?.text)?;
        Ok(sign::read_unverified(&bytes)?)
    };
    let grant = read().with_context(|| path.display().to_string())?;
    let (site, g) = (&known.site.statement, &grant.statement);
    if g.site != site.site {
        Err(grant::GrantError::Site { wanted: site.site.clone(), found: g.site.clone() })?;
    }
    if !site.appliances.iter().any(|a| a.name == g.appliance) {
        Err(grant::GrantError::Appliance(g.appliance.clone()))?;
    }
    grant::check_alone(g).with_context(|| path.display().to_string())?;
    Ok(grant)
}

/// Reads a reader's public key file, signed by itself.
pub fn read_reader(path: &Path) -> Result<Reader> {
    let reader = open_self_signed::<Reader>(&read(path)?)
        .with_context(|| path.display().to_string())
        .next("ask the reader for the file that hoidla-agent reader new wrote")?;
    grant::check_reader(&reader.statement)?;
    Ok(reader.statement)
}
