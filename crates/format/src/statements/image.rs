//! What a boot image is: what the authority signs so that others can hold an image, or a
//! quote of a machine that runs one, against it.

use serde::{Deserialize, Serialize};

use crate::{Bytes, Hash32, Name, statements::PcrValue};

/// One thing an image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// Its name: Debian's package, or `hoidlad`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the package file, or of the program.
    pub hash: Hash32,
}

/// The manifest of a boot image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// The release's name.
    pub name: Name,
    /// True for drills and tests.
    pub development: bool,
    /// The hardware profile it is for.
    pub profile: Name,
    /// SHA-256 of the image before it was signed: what anybody can build again.
    pub unsigned: Hash32,
    /// SHA-256 of the image as machines start it.
    pub signed: Hash32,
    /// The boot key's certificate (X.509, DER), which stands in the machines' Secure Boot variables.
    pub certificate: Bytes,
    /// What the profile's firmware measures into register 4 before the image, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<Hash32>,
    /// Registers 4, 7, 9, 11, 12 and 13 after the image was started (SHA-256 bank).
    #[serde(rename = "pcr")]
    pub pcrs: Vec<PcrValue>,
    /// What it is made of.
    pub software: Vec<Software>,
}

/// What an image says of itself, inside: `/etc/hoidla/release.toml`. No statement: it is
/// measured, and signed with the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseNote {
    /// The format's version: 1.
    pub version: u16,
    /// The release's name.
    pub name: Name,
    /// True for drills and tests.
    pub development: bool,
    /// What it is made of.
    pub software: Vec<Software>,
}

impl ReleaseNote {
    /// The version that this program reads and writes.
    pub const VERSION: u16 = 1;
}
