//! A custodian's key, and the card that tells others of it.
//!
//! Promises: the key file has mode 0600 and a passphrase; the card holds nothing secret and is
//! signed by the key in it; neither overwrites anything.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    keyfile::{KeyFile, Role},
};
use hoidla_format::Name;
use hoidla_quorum::fingerprint;

use crate::trust;

/// Where [`new`] wrote.
pub struct Made {
    /// The key file.
    pub key: PathBuf,
    /// The public card.
    pub card: PathBuf,
    /// The card's digits, for the authority to compare.
    pub digits: String,
}

/// Makes a key file and a card in `folder`.
pub fn new(folder: &Path, name: &Name, passphrase: &PassphraseSource) -> Result<Made> {
    let (key, card) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.txt")));
    for path in [&key, &card, &trust::beside(&key)] {
        ensure!(!path.exists(), "{} is there already; nothing was overwritten", path.display());
    }
    let passphrase = passphrase.new_one(&format!("{name}'s key file"))?;
    let secret = Secret::random();
    let keys = CustodianKeys::from_seed(&secret);
    let public = keys.public_card(name);
    let note = keys.signing_key().sign_statement(name.as_str(), &public);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&key, &KeyFile::protect(Role::Custodian, name, &secret, passphrase.as_str())?, 0o600)?;
    write(&card, note.as_bytes(), 0o644)?;
    Ok(Made { key, card, digits: fingerprint::of_card(&public) })
}

/// Writes a whole file that must not be there yet.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Opens a custodian's key file; refuses another role's before it asks for the passphrase.
pub fn open(path: &Path, passphrase: &PassphraseSource) -> Result<(Name, CustodianKeys)> {
    let bytes = fs::read(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("give your key file with --key; hoidla-custodian new made it")?;
    let file = KeyFile::parse(&bytes).and_then(|f| f.expect(Role::Custodian)).with_context(|| path.display().to_string())?;
    let passphrase = passphrase.existing(file.name().as_str())?;
    let secret = file.open(passphrase.as_str()).with_context(|| path.display().to_string())?;
    Ok((file.name().clone(), CustodianKeys::from_seed(&secret)))
}
