//! Secure Boot's variables, as a firmware in setup mode takes them: signed by the boot key itself.
//!
//! Three files beside the key, each EFI_VARIABLE_AUTHENTICATION_2 and a list of one certificate,
//! the boot key's (UEFI 2.10, 8.2.6): `db.auth`, `KEK.auth`, `PK.auth`. The machine takes them in
//! this order; with the last one Secure Boot is on.
//!
//! Promises: the same key gives the same bytes; nothing in them is secret. It doesn't revoke
//! anybody: a firmware that has an owner already takes none of them.

use anyhow::Result;
use hoidla_verify::{boot::signature_list, manifest::OWNER};

use crate::{authenticode, boot_key::BootKey};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: [u8; 16] = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c];
/// EFI_IMAGE_SECURITY_DATABASE_GUID.
const DATABASE: [u8; 16] = [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// EFI_CERT_TYPE_PKCS7_GUID.
const PKCS7: [u8; 16] = [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// Kept in flash, seen at boot and after, changed by who has signed and when.
const ATTRIBUTES: u32 = 0x27;
/// EFI_TIME of 2024-01-01: any time does in a firmware without keys.
const WHEN: [u8; 16] = [0xe8, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// WIN_CERTIFICATE: revision 2.0, a GUID says which.
const REVISION_AND_KIND: [u8; 4] = [0, 2, 0xf1, 0x0e];

/// The variables' names, in the order in which they are set, each with its file.
pub const FILES: [(&str, &str); 3] = [("db", "db.auth"), ("KEK", "KEK.auth"), ("PK", "PK.auth")];

/// The file of a variable.
///
/// # Errors
/// If the key cannot sign.
pub fn variable(name: &str, key: &BootKey) -> Result<Vec<u8>> {
    let vendor = if name == "db" { DATABASE } else { GLOBAL };
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let list = signature_list(&OWNER, key.certificate());
    let signed = [&name[..], &vendor, &ATTRIBUTES.to_le_bytes(), &WHEN, &list].concat();
    let pkcs7 = authenticode::detached(&signed, key)?;
    let length = u32::try_from(8 + PKCS7.len() + pkcs7.len())?.to_le_bytes();
    Ok([&WHEN[..], &length, &REVISION_AND_KIND, &PKCS7, &pkcs7, &list].concat())
}
