//! The boot key: RSA, since that is what every firmware knows, kept at home beside the authority's.
//!
//! A folder with `boot.key` (PKCS#8 under a passphrase, PEM; openssl reads it), `boot.crt` (its
//! X.509 certificate, DER), and that certificate as machines take it for their Secure Boot
//! variables ([`owner`]).
//!
//! Promises: the key file is never written without a passphrase; wrong passphrase and wrong
//! certificate are told apart. It decides what firmware starts, and opens nothing: what a TPM
//! releases hangs on the release key and the registers.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_format::Name;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument, der::pem::PemLabel};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_RSA_SHA256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::owner;

/// The key's file.
const KEY: &str = "boot.key";
/// The certificate's file.
const CERTIFICATE: &str = "boot.crt";

/// A boot key, open.
pub struct BootKey {
    key: RsaKeyPair,
    certificate: Vec<u8>,
}

impl BootKey {
    /// A fresh key in `folder`, under a new passphrase.
    ///
    /// # Errors
    /// If there is one already.
    pub fn generate(folder: &Path, name: &Name, passphrase: &PassphraseSource) -> Result<Self> {
        for path in [key_file(folder), certificate_file(folder)] {
            ensure!(!path.exists(), "{} is there already; nothing was overwritten", path.display());
        }
        let passphrase = passphrase.new_one("the boot key")?;
        let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("cannot make an RSA key"))?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| anyhow!("an RSA key without an encoding"))?;
        let closed = PrivateKeyInfoRef::try_from(der.as_ref()).and_then(|k| k.encrypt(passphrase.as_bytes()));
        let closed = closed.map_err(|e| anyhow!("cannot close the key file: {e}"))?;
        let pem = closed.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|e| anyhow!("{e}"))?;
        let certificate = certify(der.as_ref(), name)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
        write(&key_file(folder), pem.as_bytes(), 0o600)?;
        write(&certificate_file(folder), &certificate, 0o644)?;
        let made = Self { key, certificate };
        for (variable, file) in owner::FILES {
            write(&folder.join(file), &owner::variable(variable, &made)?, 0o644)?;
        }
        Ok(made)
    }

    /// The key of a folder.
    ///
    /// # Errors
    /// If the passphrase doesn't open it, or the certificate is another key's.
    pub fn open(folder: &Path, passphrase: &PassphraseSource) -> Result<Self> {
        let read = |path: PathBuf| {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
            bytes.next("give the folder of the boot key with --boot-key, or make one with: hoidla-image key FOLDER")
        };
        let (pem, certificate) = (read(key_file(folder))?, read(certificate_file(folder))?);
        let not_a_key = || format!("{} is no key under a passphrase (PKCS#8, PEM)", key_file(folder).display());
        let pem = String::from_utf8(pem).with_context(not_a_key)?;
        let (label, closed) = SecretDocument::from_pem(&pem).map_err(|e| anyhow!("{e}")).with_context(not_a_key)?;
        ensure!(label == EncryptedPrivateKeyInfoRef::PEM_LABEL, not_a_key());
        let closed = EncryptedPrivateKeyInfoRef::try_from(closed.as_bytes()).map_err(|e| anyhow!("{e}")).with_context(not_a_key)?;
        let passphrase = passphrase.existing("the boot key")?;
        let open = closed.decrypt(passphrase.as_bytes()).map_err(|_| anyhow!("the passphrase doesn't open the boot key"));
        let key = RsaKeyPair::from_pkcs8(open.next("type it again")?.as_bytes()).map_err(|_| anyhow!("the boot key is no RSA key"))?;
        let (_, parsed) = X509Certificate::from_der(&certificate).context("boot.crt is no certificate in DER")?;
        let same = parsed.public_key().subject_public_key.data.as_ref() == key.public_key().as_ref();
        ensure!(same, "{} is the certificate of another key", certificate_file(folder).display());
        Ok(Self { key, certificate })
    }

    /// Its certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// RSA PKCS#1 v1.5 with SHA-256: the same bytes each time.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map_err(|_| anyhow!("the boot key cannot sign")).map(|()| signature)
    }
}

fn key_file(folder: &Path) -> PathBuf {
    folder.join(KEY)
}

/// Where a folder's certificate is.
pub fn certificate_file(folder: &Path) -> PathBuf {
    folder.join(CERTIFICATE)
}

/// A certificate for itself. Firmware looks at no dates and no chain.
fn certify(key: &[u8], name: &Name) -> Result<Vec<u8>> {
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), &PKCS_RSA_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Hoidla boot key {name}"));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    Ok(params.self_signed(&key)?.der().to_vec())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all())).with_context(|| format!("cannot write {}", path.display()))
}
