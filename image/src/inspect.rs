//! What an image file is: taken apart, checked, and told.
//!
//! Promises: every statement about a file was computed from its bytes here. A file is whole
//! only if all that it carries fits: signature, manifest, registers, and each byte of a
//! stick. Whose the manifest is, only the authority's digits tell, which a person brings.

use anyhow::{Context, Result, bail, ensure};
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{
    Bytes, Hash32, Name,
    profile::Profile,
    statements::{ImageManifest, PcrValue, ReleaseNote},
};
use hoidla_medium::{Slot, stick};
use hoidla_verify::{manifest, pe::Image};
use sha2::{Digest, Sha256};

use crate::{
    authenticode,
    initramfs::{self, AUTHORITY, Contents, ORDER, PROFILE, RELEASE, STICK},
};

/// Under which name the authority signs.
pub const AUTHORITY_NAME: &str = "authority";

/// An image, taken apart.
#[derive(Clone, Debug)]
pub struct Inside {
    /// What it says of itself.
    pub note: ReleaseNote,
    /// The machine it is for.
    pub profile: Profile,
    /// Whose it is: the authority's key, SEC1, compressed.
    pub authority: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Modules in the order in which they are loaded.
    pub modules: Vec<String>,
    /// Those that follow if a stick is to be read.
    pub stick_modules: Vec<String>,
    /// SHA-256 of the file before it was signed.
    pub unsigned: Hash32,
    /// SHA-256 of the file, if it is signed.
    pub signed: Option<Hash32>,
    /// Whose signature it carries: a certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// Its registers; 7 only if it is signed.
    pub pcrs: Vec<PcrValue>,
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(bytes).into())
}

fn text<'a>(contents: &'a Contents, path: &str) -> Result<&'a str> {
    let bytes = contents.get(path).with_context(|| format!("the image has no {path}"))?;
    std::str::from_utf8(bytes).with_context(|| format!("{path} is no text"))
}

/// What a profile's firmware measures into register 4 before the image.
fn firmware(profile: &Profile) -> Vec<Hash32> {
    profile.firmware_events.iter().map(|e| e.digest).collect()
}

impl Inside {
    /// Takes an image apart.
    ///
    /// # Errors
    /// If it is none of Hoidla's, or was changed after it was signed.
    pub fn of(file: &[u8]) -> Result<Self> {
        let image = Image::parse(file)?;
        let certificate = image.signature().map(|_| authenticode::check(&image)).transpose()?.map(<[u8]>::to_vec);
        let section = |name: &str| image.section(name).map(|s| s.content).with_context(|| format!("the image has no section {name}"));
        let contents = initramfs::read(section(".initrd")?)?;
        let note: ReleaseNote = toml::from_str(text(&contents, RELEASE)?).context(RELEASE)?;
        ensure!(note.version == ReleaseNote::VERSION, "{RELEASE} is of version {}: use a newer hoidla-image", note.version);
        let profile = Profile::parse(text(&contents, PROFILE)?).context(PROFILE)?;
        let key: Bytes = text(&contents, AUTHORITY)?.trim_end().parse().map_err(anyhow::Error::msg).context(AUTHORITY)?;
        let mut pcrs = manifest::registers(&image, certificate.as_deref().unwrap_or_default(), &firmware(&profile))?;
        let names = |list| Ok::<_, anyhow::Error>(text(&contents, list)?.split_whitespace().map(str::to_owned).collect());
        pcrs.retain(|p| p.index != 7 || certificate.is_some());
        Ok(Self {
            note,
            authority: VerifyingKey::from_sec1(&key.0)?.to_sec1(),
            cmdline: std::str::from_utf8(section(".cmdline")?)?.to_owned(),
            modules: names(ORDER)?,
            stick_modules: names(STICK)?,
            profile,
            unsigned: hash(&image.unsigned()),
            signed: certificate.is_some().then(|| hash(file)),
            certificate,
            pcrs,
        })
    }

    /// The manifest that the authority signs.
    ///
    /// # Errors
    /// If the image isn't signed yet.
    pub fn manifest(&self) -> Result<ImageManifest> {
        let (Some(signed), Some(certificate)) = (self.signed, &self.certificate) else {
            bail!("the image is not signed yet: hoidla-image sign comes first");
        };
        Ok(ImageManifest {
            name: self.note.name.clone(),
            development: self.note.development,
            profile: self.profile.name.clone(),
            unsigned: self.unsigned,
            signed,
            certificate: Bytes(certificate.clone()),
            firmware: firmware(&self.profile),
            pcrs: self.pcrs.clone(),
            software: self.note.software.clone(),
        })
    }

    /// Whether a manifest, signed by the authority that stands in the image, is this image's.
    ///
    /// # Errors
    /// If it is another's, was changed, or isn't signed by it.
    pub fn expect_manifest(&self, note: &[u8], file: &[u8]) -> Result<()> {
        let key = VerifyingKey::from_sec1(&self.authority)?;
        let found = sign::open::<ImageManifest>(note, Some(AUTHORITY_NAME), &key).context("the manifest")?.statement;
        manifest::check(&found, file)?;
        ensure!(found == self.manifest()?, "the manifest says other things of the image than the image itself");
        Ok(())
    }

    /// The release's name.
    pub fn name(&self) -> &Name {
        &self.note.name
    }
}

/// A file of one of the kinds that this program writes.
#[derive(Clone, Debug)]
pub enum File {
    /// An image by itself.
    Image(Vec<u8>),
    /// A stick.
    Stick(Slot),
}

impl File {
    /// Tells which, and reads a stick.
    ///
    /// # Errors
    /// If it is neither, or the stick holds anything else.
    pub fn read(bytes: Vec<u8>) -> Result<Self> {
        if bytes.starts_with(b"MZ") {
            Ok(Self::Image(bytes))
        } else if bytes.get(512..520) == Some(b"EFI PART") {
            Ok(Self::Stick(stick::read(&bytes)?))
        } else {
            bail!("this is neither an image nor a stick of Hoidla's")
        }
    }

    /// The image.
    pub fn image(&self) -> &[u8] {
        match self {
            Self::Image(bytes) => bytes,
            Self::Stick(slot) => &slot.image,
        }
    }
}
