//! The authority's folder: where everything lies, decided here once.
//!
//! ```text
//! HOME/site.toml                          what the authority edits, and signs as public/site.txt
//! HOME/keys/{authority,release}.key       under a passphrase, mode 0600
//! HOME/endorsements/APPLIANCE.txt         which TPM it must be: recorded before shipping
//! HOME/identities/APPLIANCE.txt           what each appliance's TPM said it is
//! HOME/kept/                              for one appliance's TPM only: goes out in parcels
//!     halves-APPLIANCE.txt  enrolment-APPLIANCE.txt
//! HOME/public/                            signed; give it to appliances, custodians, agents, anyone
//!     site.txt  roster-NAME.txt  release-EPOCH.txt
//!     vault-DATASET-EPOCH.txt  envelopes-DATASET-EPOCH.txt
//!     parcel-APPLIANCE.hoidla  enrolment-APPLIANCE.txt  halves-APPLIANCE.txt
//! HOME/recovery/                          the second door; sealed, but it never leaves home
//!     envelopes-DATASET-EPOCH.txt  recovery-DATASET-EPOCH.txt
//! HOME/agents/DATASET-AGENT/              one bundle an agent, to carry to its institution
//! ```
//!
//! Promises: a file is whole or not there; what was written once is overwritten only by the
//! functions that say so.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    Secret,
    keyfile::{KeyFile, Role},
    keys::{AuthorityKeys, release_scalar},
    sign::{self, Signed, VerifyingKey},
};
use hoidla_format::{
    Name, Statement, statement,
    statements::{ApplianceIdentity, Halves, Release, Roster, Site, Vault},
};
use hoidla_verify::{ReleaseKey, ReleasePublic};

/// The name under which the authority signs.
pub const AUTHORITY: &str = "authority";

/// The authority's folder.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// The authority's two key rings, open.
pub struct Keys {
    /// Statements and the door.
    pub authority: AuthorityKeys,
    /// Releases.
    pub release: ReleaseKey,
}

impl Home {
    /// A folder, whether or not anything is in it.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Vault epochs that were ever retired, `DATASET:EPOCH` a line: a release names only what it approves.
    pub fn retired(&self) -> PathBuf {
        self.0.join("retired.txt")
    }

    /// The site file that a person edits.
    pub fn site_toml(&self) -> PathBuf {
        self.0.join("site.toml")
    }

    /// The signed statements for everyone.
    pub fn public(&self) -> PathBuf {
        self.0.join("public")
    }

    /// The second door, which never leaves home.
    pub fn recovery(&self) -> PathBuf {
        self.0.join("recovery")
    }

    /// The signed site file.
    pub fn site(&self) -> PathBuf {
        self.public().join("site.txt")
    }

    /// A signed roster.
    pub fn roster(&self, name: &Name) -> PathBuf {
        self.public().join(format!("roster-{name}.txt"))
    }

    /// A vault certificate.
    pub fn vault(&self, dataset: &Name, vault_epoch: u32) -> PathBuf {
        self.public().join(format!("vault-{dataset}-{vault_epoch}.txt"))
    }

    /// A vault's envelopes of the quorum door.
    pub fn envelopes(&self, dataset: &Name, vault_epoch: u32) -> PathBuf {
        self.public().join(format!("envelopes-{dataset}-{vault_epoch}.txt"))
    }

    /// A vault's envelopes of the recovery door.
    pub fn recovery_envelopes(&self, dataset: &Name, vault_epoch: u32) -> PathBuf {
        self.recovery().join(format!("envelopes-{dataset}-{vault_epoch}.txt"))
    }

    /// A vault's recovery wrap.
    pub fn recovery_wrap(&self, dataset: &Name, vault_epoch: u32) -> PathBuf {
        self.recovery().join(format!("recovery-{dataset}-{vault_epoch}.txt"))
    }

    /// A release.
    pub fn release(&self, epoch: u64) -> PathBuf {
        self.public().join(format!("release-{epoch}.txt"))
    }

    /// An appliance's halves. They leave home in a parcel, or, in a drill, as [`Home::public_halves`].
    pub fn halves(&self, appliance: &Name) -> PathBuf {
        self.kept().join(format!("halves-{appliance}.txt"))
    }

    /// An appliance's enrolment, likewise.
    pub fn enrolment(&self, appliance: &Name) -> PathBuf {
        self.kept().join(format!("enrolment-{appliance}.txt"))
    }

    fn kept(&self) -> PathBuf {
        self.0.join("kept")
    }

    /// Halves of an appliance whose TPM is trusted on first use.
    pub fn public_halves(&self, appliance: &Name) -> PathBuf {
        self.public().join(format!("halves-{appliance}.txt"))
    }

    /// An enrolment that proves itself, or that nothing proves.
    pub fn public_enrolment(&self, appliance: &Name) -> PathBuf {
        self.public().join(format!("enrolment-{appliance}.txt"))
    }

    /// Halves and enrolment, sealed to the appliance's TPM.
    pub fn parcel(&self, appliance: &Name) -> PathBuf {
        self.public().join(format!("parcel-{appliance}.hoidla"))
    }

    /// Which TPM an appliance must have.
    pub fn endorsement(&self, appliance: &Name) -> PathBuf {
        self.0.join("endorsements").join(format!("{appliance}.txt"))
    }

    /// A word about an appliance's time.
    pub fn skip(&self, appliance: &Name, serial: u32) -> PathBuf {
        self.public().join(format!("skip-{appliance}-{serial}.txt"))
    }

    /// A word about a disk of an appliance.
    pub fn disk_word(&self, appliance: &Name, serial: u32) -> PathBuf {
        self.public().join(format!("disk-{appliance}-{serial}.txt"))
    }

    /// A word about the counter of an appliance's log.
    pub fn count_word(&self, appliance: &Name, stands: u64) -> PathBuf {
        self.public().join(format!("count-{appliance}-{stands}.txt"))
    }

    /// What an appliance's TPM said it is.
    pub fn identity(&self, appliance: &Name) -> PathBuf {
        self.0.join("identities").join(format!("{appliance}.txt"))
    }

    /// An agent's bundle.
    pub fn agent(&self, dataset: &Name, agent: &Name) -> PathBuf {
        self.0.join("agents").join(format!("{dataset}-{agent}"))
    }

    /// A key file.
    pub fn key(&self, role: Role) -> PathBuf {
        self.0.join("keys").join(if role == Role::Release { "release.key" } else { "authority.key" })
    }

    /// Opens both key files with one passphrase.
    pub fn keys(&self, passphrase: &PassphraseSource) -> Result<Keys> {
        let read = |role| {
            let path = self.key(role);
            let bytes = fs::read(&path)
                .with_context(|| format!("cannot read {}", path.display()))
                .next("give the authority's folder with --home, or make one with: hoidla-provision site new")?;
            KeyFile::parse(&bytes).and_then(|k| k.expect(role)).with_context(|| path.display().to_string())
        };
        let (authority, release) = (read(Role::Authority)?, read(Role::Release)?);
        let passphrase = passphrase.existing("the authority")?;
        Ok(Keys {
            authority: AuthorityKeys::from_seed(&authority.open(passphrase.as_str())?),
            release: ReleaseKey::from_secret(&release_scalar(&release.open(passphrase.as_str())?))?,
        })
    }

    /// Writes a key file that is not there yet.
    pub fn write_key(&self, role: Role, name: &Name, secret: &Secret<32>, passphrase: &str) -> Result<()> {
        write_secret(&self.key(role), &KeyFile::protect(role, name, secret, passphrase)?)
    }

    /// The signed site file, under the key that stands in it.
    pub fn signed_site(&self) -> Result<Signed<Site>> {
        let path = self.site();
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read {}", path.display()))
            .next(format!("sign the site file first: hoidla-provision --home {} site sign", self.dir().display()))?;
        open_site(&bytes).with_context(|| path.display().to_string())
    }

    /// Everything of one kind in `public/`, in order of file names, checked under the authority's key.
    fn all<S: Statement>(&self, authority: &VerifyingKey) -> Result<Vec<Signed<S>>> {
        let prefix = format!("{}-", S::KIND);
        let mut paths: Vec<PathBuf> = match fs::read_dir(self.public()) {
            Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?,
            Err(_) => Vec::new(),
        };
        paths.retain(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&prefix)));
        paths.sort();
        paths.iter().map(|p| open_signed(p, authority)).collect()
    }

    /// All vault certificates.
    pub fn vaults(&self, authority: &VerifyingKey) -> Result<Vec<Signed<Vault>>> {
        self.all(authority)
    }

    /// All releases, the newest last.
    pub fn releases(&self, authority: &VerifyingKey) -> Result<Vec<Signed<Release>>> {
        let mut all: Vec<Signed<Release>> = self.all(authority)?;
        all.sort_by_key(|r| r.statement.epoch);
        Ok(all)
    }

    /// A roster of the site, as the site file names it by hash.
    pub fn roster_of(&self, site: &Site, name: &Name, authority: &VerifyingKey) -> Result<Signed<Roster>> {
        let roster: Signed<Roster> = open_signed(&self.roster(name), authority)?;
        let named = site.rosters.iter().find(|r| r.name == *name).map(|r| r.hash);
        ensure!(named == Some(roster.hash), "the site file names another roster {name} than {}", self.roster(name).display());
        Ok(roster)
    }

    /// An appliance's halves, if it has any.
    pub fn halves_of(&self, appliance: &Name, authority: &VerifyingKey) -> Result<Option<Signed<Halves>>> {
        let path = self.halves(appliance);
        if path.exists() { open_signed(&path, authority).map(Some) } else { Ok(None) }
    }

    /// What every recorded appliance's TPM said it is.
    pub fn identities(&self, site: &Site) -> Result<Vec<ApplianceIdentity>> {
        site.appliances.iter().filter(|a| self.identity(&a.name).exists()).map(|a| read_identity(&self.identity(&a.name))).collect()
    }

    /// Records an appliance's identity; another one under the same name is refused unless `replace`,
    /// and one of another TPM than the one that home means always.
    pub fn record(&self, file: &Path, site: &Site, replace: bool) -> Result<ApplianceIdentity> {
        let identity = read_identity(file)?;
        ensure!(identity.site == site.site, "{} is of site {}, not {}", file.display(), identity.site, site.site);
        if !site.appliances.iter().any(|a| a.name == identity.name) {
            bail!("the site file names no appliance {}; add it to site.toml, raise the serial and sign it", identity.name);
        }
        crate::endorse::grounds(self, site, &identity).with_context(|| file.display().to_string())?;
        let path = self.identity(&identity.name);
        if path.exists() && read_identity(&path)? != identity && !replace {
            Err(anyhow::anyhow!("another identity of {} is recorded: this is another TPM", identity.name))
                .next("find out why; if the hardware was replaced on purpose, give --replace and deal anew")?;
        }
        write_whole(&path, statement::write(&identity).as_bytes(), 0o644)?;
        Ok(identity)
    }

    /// Writes the public part and the recovery part of one dealing. The vault certificate comes
    /// last and is what makes the dealing count: what an interrupted one left is written over.
    pub fn write_dealing(&self, vault: &Vault, notes: &DealingNotes) -> Result<()> {
        let (d, e) = (&vault.dataset, vault.vault_epoch);
        let certificate = self.vault(d, e);
        ensure!(!certificate.exists(), "{} is there already; nothing was overwritten", certificate.display());
        write_over(&self.recovery_envelopes(d, e), notes.recovery.as_bytes())?;
        write_over(&self.recovery_wrap(d, e), notes.wrap.as_bytes())?;
        write_over(&self.envelopes(d, e), notes.quorum.as_bytes())?;
        write_new(&certificate, notes.vault.as_bytes())
    }
}

/// The signed statements of one dealing.
pub struct DealingNotes {
    /// `vault/1`.
    pub vault: String,
    /// `envelopes/1` of the quorum door.
    pub quorum: String,
    /// `envelopes/1` of the recovery door.
    pub recovery: String,
    /// `recovery/1`.
    pub wrap: String,
}

impl Keys {
    /// The public half of the statements' key.
    pub fn verifying(&self) -> VerifyingKey {
        self.authority.statements.verifying_key()
    }

    /// The release key as TPMs know it.
    pub fn release_public(&self) -> ReleasePublic {
        self.release.public()
    }

    /// Signs a statement as the authority; refuses one that would be too long to be read again.
    pub fn sign<S: Statement>(&self, statement: &S) -> Result<String> {
        let note = self.authority.statements.sign_statement(AUTHORITY, statement);
        let (long, most) = (note.len(), statement::MOST);
        ensure!(long <= most, "{} would have {long} bytes, and nobody reads one of more than {most}", S::TITLE);
        Ok(note)
    }

    /// The authority's digits, to read out by telephone.
    pub fn fingerprint(&self) -> String {
        hoidla_quorum::fingerprint::of_key(&self.verifying())
    }

    /// Refuses to sign for a site that names other keys than these.
    pub fn expect_site(&self, site: &Site) -> Result<()> {
        ensure!(site.authority.0 == self.verifying().to_sec1(), "this authority key is not the one in the site file");
        ensure!(site.release_key.0 == self.release_public().to_sec1(), "this release key is not the one in the site file");
        Ok(())
    }

    /// The key that signs X.509 certificates, as the door takes it.
    pub fn door(&self) -> Result<std::sync::Arc<dyn hoidla_door::DoorKey>> {
        Ok(hoidla_door::software_key(&self.authority.door.to_pkcs8())?)
    }
}

/// Opens a signed site file under the authority key that stands in it.
pub fn open_site(bytes: &[u8]) -> Result<Signed<Site>> {
    let claimed = sign::read_unverified::<Site>(bytes)?.statement;
    Ok(sign::open_edited(bytes, Some(AUTHORITY), &VerifyingKey::from_sec1(&claimed.authority.0)?)?)
}

/// Opens a file that the authority signed.
pub fn open_signed<S: Statement>(path: &Path, authority: &VerifyingKey) -> Result<Signed<S>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    sign::open(&bytes, Some(AUTHORITY), authority).with_context(|| path.display().to_string())
}

fn read_identity(path: &Path) -> Result<ApplianceIdentity> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("fetch the file that hoidlad identify wrote at the appliance")?;
    statement::parse(&text).with_context(|| path.display().to_string())
}

/// Writes a public file that must not be there with other content.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() && fs::read(path)? != bytes {
        bail!("{} is there already, with other content; nothing was overwritten", path.display());
    }
    write_whole(path, bytes, 0o644)
}

/// Writes a public file over an older one.
pub fn write_over(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes, 0o644)
}

/// Writes a secret file, mode 0600, that must not be there.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    ensure!(!path.exists(), "{} is there already; nothing was overwritten", path.display());
    write_whole(path, bytes, 0o600)
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = path.with_extension("new");
        fs::remove_file(&beside).or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
