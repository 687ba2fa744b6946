//! A reader's key: made on the laptop that will restore.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    Secret,
    keyfile::{KeyFile, Role},
    keys::ReaderKeys,
};
use hoidla_format::Name;
use hoidla_quorum::fingerprint;

use crate::home::read_bounded;

/// A reader's keys and name.
pub struct Reader {
    /// Its name.
    pub name: Name,
    /// Its keys.
    pub keys: ReaderKeys,
}

/// What was made.
pub struct Made {
    /// The public half, for the grant.
    pub public: PathBuf,
    /// Digits of both public keys; custodians see the same in a grant.
    pub digits: String,
}

/// Makes a reader's key under a passphrase at `out`, and its public half beside it, for the grant.
pub fn new(name: &Name, out: &Path, passphrase: &PassphraseSource) -> Result<Made> {
    let passphrase = passphrase.new_one(&format!("the reader {name}"))?;
    let secret = Secret::random();
    let keys = ReaderKeys::from_seed(&secret);
    let public = keys.public(name);
    let digits = fingerprint::of_reader(&public);
    let public = keys.signing.sign_statement(name.as_str(), &public);
    let beside = out.with_extension("reader");
    create(out, &KeyFile::protect(Role::Reader, name, &secret, passphrase.as_str())?)?;
    create(&beside, public.as_bytes())?;
    Ok(Made { public: beside, digits })
}

fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))
        .next("choose another name; nothing is overwritten")?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

/// Opens a reader's key.
pub fn open(path: &Path, passphrase: &PassphraseSource) -> Result<Reader> {
    let file = KeyFile::parse(&read_bounded(path)?)?.expect(Role::Reader)?;
    let passphrase = passphrase.existing(&format!("the reader {}", file.name()))?;
    Ok(Reader { name: file.name().clone(), keys: ReaderKeys::from_seed(&file.open(passphrase.as_str())?) })
}
