//! The agent's folder at home: the papers that the authority gave it, and its key.
//!
//! Papers are told by their first line, not by their file's name: one `site/1`, one
//! `agent/1`, `vault/1` of its dataset (the newest epoch counts), one key file, one
//! certificate (`*.der` or `*.crt`). All are checked against the authority's key,
//! which stands in the site file; and that one is the authority that this machine has
//! believed before, and no older than what it has seen.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    hpke::PublicKey,
    keyfile::{KeyFile, Role},
    keys::AgentKeys,
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::{Identity, Target, software_key};
use hoidla_format::{
    Header, Kind, Moment, Name,
    statement::MOST,
    statements::{AgentCertificate, Site, Vault},
};
use hoidla_quorum::fingerprint;

use crate::believed;

/// The file in which an unattended agent finds its passphrase.
pub const PASSPHRASE: &str = "passphrase";

/// What is needed to copy in.
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
    /// The site file.
    pub site: Signed<Site>,
    /// Who this agent is.
    pub agent: Signed<AgentCertificate>,
    /// What it seals to.
    pub vault: Signed<Vault>,
    /// The vault's public key.
    pub vault_key: PublicKey,
    /// Its keys.
    pub keys: AgentKeys,
    certificate: Vec<u8>,
}

impl Home {
    /// Reads and checks a folder.
    pub fn open(dir: &Path, passphrase: &PassphraseSource) -> Result<Self> {
        let papers = Papers::collect(dir)?;
        let site_note = papers.one("site", "the signed site file")?;
        let (site, authority) = open_site(site_note)?;
        believed::check(dir, &site)?;
        let name = site.statement.site.clone();
        let agent: Signed<AgentCertificate> = sign::open(papers.one("agent", "the agent's certificate")?, Some("authority"), &authority)
            .context("the agent's certificate (agent/1) is not of this site's authority")
            .next("fetch the agent's papers again from the authority")?;
        ensure!(agent.statement.site == name, "the agent's certificate is for the site {}, the site file for {name}", agent.statement.site);
        check_validity(&agent.statement, &site.statement)?;
        let dataset = &agent.statement.dataset;
        let vault = newest_vault(papers.all("vault"), dataset, &name, &authority)?;
        let vault_key = PublicKey::from_bytes(&vault.statement.public_key.0).context("the vault certificate's public key")?;
        let keys = open_key(&papers.key, dir, passphrase)?;
        ensure!(
            keys.signing.verifying_key().to_sec1() == agent.statement.key.0,
            "the key file is another agent's than the certificate (agent/1) names; put the right one into {}",
            dir.display()
        );
        // Told here rather than by a failed handshake; the door checks it in earnest.
        let point = keys.signing.verifying_key().to_sec1_uncompressed();
        ensure!(
            papers.certificate.windows(point.len()).any(|w| w == point),
            "the X.509 certificate in {} is for another key than the key file's; put the right one there",
            dir.display()
        );
        believed::remember(dir, &site)?;
        Ok(Self { dir: dir.to_owned(), site, agent, vault, vault_key, keys, certificate: papers.certificate })
    }

    /// The authority's digits, to be compared by telephone.
    pub fn authority(&self) -> String {
        of_authority(&self.site.statement)
    }

    /// The dataset it copies in.
    pub fn dataset(&self) -> &Name {
        &self.agent.statement.dataset
    }

    /// The appliance to copy to: the named one, or the site's first.
    pub fn target(&self, appliance: Option<&Name>) -> Result<Target> {
        target(&self.site.statement, appliance)
    }

    /// With what it enters the door.
    pub fn identity(&self) -> Result<Identity> {
        Ok(Identity::agent(self.certificate.clone(), Arc::clone(&software_key(&self.keys.signing.to_pkcs8())?)))
    }
}

/// Opens a site file by the authority's key that stands in it: whoever gave the file vouches for it.
pub fn open_site(note: &[u8]) -> Result<(Signed<Site>, VerifyingKey)> {
    let claimed = sign::read_unverified::<Site>(note).context("the site file")?;
    let key = VerifyingKey::from_sec1(&claimed.statement.authority.0).context("the site file's authority key")?;
    let site = sign::open_edited::<Site>(note, Some("authority"), &key)
        .context("the site file's signature doesn't fit")
        .next("fetch the signed site file again")?;
    Ok((site, key))
}

/// The digits of a site's authority.
pub(crate) fn of_authority(site: &Site) -> String {
    VerifyingKey::from_sec1(&site.authority.0).map(|key| fingerprint::of_key(&key)).unwrap_or_default()
}

/// Where an appliance of the site listens.
pub fn target(site: &Site, appliance: Option<&Name>) -> Result<Target> {
    let found = match appliance {
        Some(name) => site.appliances.iter().find(|a| a.name == *name),
        None => site.appliances.first(),
    };
    let names = || site.appliances.iter().map(|a| a.name.to_string()).collect::<Vec<_>>().join(", ");
    let found = found.ok_or_else(|| anyhow!("the site file has no such appliance; it has: {}", names()))?;
    Ok(Target { address: found.address.clone(), site: site.site.clone(), appliance: found.name.clone(), root: site.door_root.0.clone() })
}

fn check_validity(agent: &AgentCertificate, site: &Site) -> Result<()> {
    if agent.not_after < Moment::now() {
        return Err(anyhow!("the agent's certificate expired on {}", agent.not_after))
            .next("ask the authority for a new one (hoidla-provision agent), and check this machine's clock");
    }
    if site.revoked_agents.contains(&agent.agent) {
        return Err(anyhow!("the site file revokes the agent {}", agent.agent)).next("ask the authority");
    }
    Ok(())
}

fn newest_vault(notes: &[Vec<u8>], dataset: &Name, site: &Name, authority: &VerifyingKey) -> Result<Signed<Vault>> {
    let mut newest: Option<Signed<Vault>> = None;
    for note in notes {
        let vault: Signed<Vault> = sign::open(note, Some("authority"), authority)
            .context("a vault certificate is not of this site's authority; nothing was sealed to it")
            .next("remove it, and fetch the vault certificate again from the authority")?;
        let fits = vault.statement.dataset == *dataset && vault.statement.site == *site;
        if fits && newest.as_ref().is_none_or(|n| n.statement.vault_epoch < vault.statement.vault_epoch) {
            newest = Some(vault);
        }
    }
    newest
        .ok_or_else(|| anyhow!("there is no vault certificate of the dataset {dataset}"))
        .next("fetch it from the authority, who deals it")
}

fn open_key(bytes: &[u8], dir: &Path, passphrase: &PassphraseSource) -> Result<AgentKeys> {
    let file = KeyFile::parse(bytes)?.expect(Role::Agent)?;
    let kept = dir.join(PASSPHRASE);
    let source = match &passphrase.passphrase_file {
        None if kept.exists() => PassphraseSource { passphrase_file: Some(kept) },
        _ => passphrase.clone(),
    };
    let passphrase = source.existing(&format!("the agent {}", file.name()))?;
    Ok(AgentKeys::from_seed(&file.open(passphrase.as_str())?))
}

/// The files of a folder, by what they are.
struct Papers {
    dir: PathBuf,
    notes: Vec<(String, Vec<Vec<u8>>)>,
    key: Vec<u8>,
    certificate: Vec<u8>,
}

impl Papers {
    fn collect(dir: &Path) -> Result<Self> {
        let mut papers = Self { dir: dir.to_owned(), notes: vec![], key: vec![], certificate: vec![] };
        for folder in [dir.to_owned(), dir.join("vaults")] {
            let Ok(entries) = fs::read_dir(&folder) else {
                if folder == dir {
                    bail!("{}: no such folder; `hoidla-provision agent` makes an agent's folder", dir.display());
                }
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_file() {
                    papers.sort_in(&path, read_bounded(&path)?);
                }
            }
        }
        let missing = |what: &str| anyhow!("{}: there is no {what}; `hoidla-provision agent` makes an agent's folder", dir.display());
        ensure!(!papers.key.is_empty(), missing("key file"));
        ensure!(!papers.certificate.is_empty(), missing("certificate (*.der or *.crt)"));
        Ok(papers)
    }

    fn sort_in(&mut self, path: &Path, bytes: Vec<u8>) {
        let kind = std::str::from_utf8(&bytes).ok().and_then(|t| t.strip_prefix("hoidla = \"")).and_then(|t| t.split_once('/'));
        if let Some((kind, _)) = kind {
            let kind = kind.to_owned();
            match self.notes.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, notes)) => notes.push(bytes),
                None => self.notes.push((kind, vec![bytes])),
            }
        } else if bytes.get(..7) == Some(&Header::bytes(Kind::KeyFile, 0)[..7]) {
            self.key = bytes;
        } else if path.extension().is_some_and(|e| e == "der" || e == "crt") {
            self.certificate = bytes;
        }
    }

    fn all(&self, kind: &str) -> &[Vec<u8>] {
        self.notes.iter().find(|(k, _)| k == kind).map_or(&[], |(_, n)| n)
    }

    fn one(&self, kind: &str, what: &str) -> Result<&[u8]> {
        match self.all(kind) {
            [one] => Ok(one),
            [] => bail!("{}: {what} ({kind}/1) is missing; `hoidla-provision agent` makes an agent's folder", self.dir.display()),
            _ => bail!("{}: there are several files of {what} ({kind}/1); keep the newest", self.dir.display()),
        }
    }
}

/// A small file, refused beyond the bound of a statement.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(MOST as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() <= MOST, "{}: too long for a Hoidla paper", path.display());
    Ok(bytes)
}
