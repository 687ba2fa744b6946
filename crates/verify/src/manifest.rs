//! An image held against its manifest, and what a machine's registers must be.
//!
//! Promises: [`registers`] are computed from the file and nothing else; [`check`] accepts a
//! file only if every hash and register in the manifest follows from it. Whose signature
//! the manifest carries is checked before ([`hoidla_crypto::sign`]); whether the image's own
//! signature holds, firmware and `hoidla-image` check.

use hoidla_format::{
    Hash32,
    statements::{ImageManifest, PcrValue},
};
use thiserror::Error;

use crate::{
    boot::{self, SecureBootKeys, signature_entry, signature_list},
    pe::{Image, PeError},
    public::sha256,
};

/// Who put Hoidla's certificates into Secure Boot's variables: 8c1f3a52-6d0e-4f7b-9b1c-484f49444c41.
pub const OWNER: [u8; 16] = [0x52, 0x3a, 0x1f, 0x8c, 0x0e, 0x6d, 0x7b, 0x4f, 0x9b, 0x1c, 0x48, 0x4f, 0x49, 0x44, 0x4c, 0x41];

/// The digits of a boot key's certificate (DER), as home and machine show them: the first 12 bytes
/// of the file's SHA-256, in groups of four digits.
pub fn boot_key_digits(certificate: &[u8]) -> String {
    let hex: String = sha256(&[certificate]).iter().take(12).map(|b| format!("{b:02x}")).collect();
    hex.as_bytes().chunks(4).map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Why an image is not the manifest's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Not an image.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// Another file, or the same one signed by another key.
    #[error("this is not the image that the authority's manifest names: its SHA-256 is {0}")]
    OtherFile(Hash32),
    /// The manifest contradicts itself.
    #[error("the manifest is wrong about its own image ({0}): ask the authority, and do not use it")]
    Wrong(&'static str),
}

/// Machines in which one certificate is platform key, key exchange key and the only one allowed
/// to sign, and nothing is on the list of what is refused.
pub fn own_keys(certificate: &[u8]) -> SecureBootKeys {
    let list = signature_list(&OWNER, certificate);
    SecureBootKeys { pk: list.clone(), kek: list.clone(), db: list, dbx: Vec::new() }
}

/// Registers 4, 7, 9, 11, 12 and 13 once a machine has started this image: with these programs
/// of its firmware before it, and [`own_keys`] in its variables.
pub fn registers(image: &Image<'_>, certificate: &[u8], firmware: &[Hash32]) -> Result<Vec<PcrValue>, ManifestError> {
    let section = |name| image.section(name).ok_or(PeError::Strange("it has no command line or no initramfs"));
    let cmdline = std::str::from_utf8(section(".cmdline")?.content).map_err(|_| PeError::Strange("its command line is no text"))?;
    let used = signature_entry(&OWNER, certificate);
    let mut all = boot::approved(firmware, image);
    all.push(PcrValue { index: 7, value: boot::secure_boot(&own_keys(certificate), &used) });
    all.push(PcrValue { index: 9, value: boot::kernel_arguments(cmdline, section(".initrd")?.content) });
    all.sort_by_key(|p| p.index);
    Ok(all)
}

/// Whether a signed image is the manifest's.
pub fn check(manifest: &ImageManifest, file: &[u8]) -> Result<(), ManifestError> {
    let signed = Hash32(sha256(&[file]));
    if signed != manifest.signed {
        return Err(ManifestError::OtherFile(signed));
    }
    let image = Image::parse(file)?;
    if Hash32(sha256(&[&image.unsigned()])) != manifest.unsigned {
        return Err(ManifestError::Wrong("the unsigned file's hash"));
    }
    if registers(&image, &manifest.certificate.0, &manifest.firmware)? != manifest.pcrs {
        return Err(ManifestError::Wrong("the registers"));
    }
    Ok(())
}
