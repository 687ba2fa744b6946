//! The firmware's variables, as OVMF keeps them in its second flash: Secure Boot on, with keys of
//! one's own.
//!
//! Promises: the store that it writes is one that OVMF reads; nothing else is in it. It knows no
//! more of the format than what the tests need: an empty template, and variables behind it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// `gEfiAuthenticatedVariableGuid`: how a store of authenticated variables begins.
const STORE: [u8; 16] = guid(0xaaf3_2c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);
/// `EFI_GLOBAL_VARIABLE`: PK and KEK.
const GLOBAL: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`: db.
const DATABASE: [u8; 16] = guid(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
/// `EFI_CERT_X509_GUID`.
const X509: [u8; 16] = guid(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
/// Whose keys they are: any name does.
const OWNER: [u8; 16] = guid(0x686f_6964, 0x6c61, 0x4d76, [0x80, 0, 0, 0, 0, 0, 0, 1]);
/// Kept in flash, seen at boot and after, changed only by who has signed and when.
const ATTRIBUTES: u32 = 0x27;
/// 2024-01-01, as `EFI_TIME`.
const WHEN: [u8; 16] = [0xe8, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// One list of one certificate.
fn signature_list(certificate: &[u8]) -> Vec<u8> {
    let size = 16 + certificate.len() as u32;
    let mut out = X509.to_vec();
    out.extend((28 + size).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(OWNER);
    out.extend(certificate);
    out
}

/// A variable with its head; the next begins at a multiple of four.
fn variable(name: &str, vendor: &[u8; 16], data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut out = vec![0xaa, 0x55, 0x3f, 0]; // begins; added
    out.extend(ATTRIBUTES.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(WHEN);
    out.extend(0u32.to_le_bytes());
    out.extend((name.len() as u32).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(vendor);
    out.extend(name);
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0xff);
    out
}

/// An empty template with these certificates (DER) as its owner's and as whose images may start.
pub fn with_keys(template: &[u8], owner: &[u8], may_start: &[&[u8]]) -> Result<Vec<u8>> {
    let mut out = template.to_vec();
    let head = usize::from(u16::from_le_bytes(*out.get(48..50).and_then(|b| b.first_chunk()).context("no firmware volume")?));
    ensure!(out.get(head..head + 16) == Some(&STORE[..]), "not a store of authenticated variables");
    let first = head + 28;
    let db: Vec<u8> = may_start.iter().flat_map(|c| signature_list(c)).collect();
    let list = signature_list(owner);
    let all = [variable("PK", &GLOBAL, &list), variable("KEK", &GLOBAL, &list), variable("db", &DATABASE, &db)].concat();
    let place = out.get_mut(first..first + all.len()).context("no room for the keys")?;
    ensure!(place.iter().all(|b| *b == 0xff), "the template is not empty");
    place.copy_from_slice(&all);
    Ok(out)
}

/// The same, from file to file.
pub fn write(template: &Path, to: &Path, owner: &[u8], may_start: &[&[u8]]) -> Result<()> {
    let bytes = std::fs::read(template).with_context(|| format!("{} cannot be read", template.display()))?;
    Ok(std::fs::write(to, with_keys(&bytes, owner, may_start)?)?)
}
