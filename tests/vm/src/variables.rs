//! The firmware's variables, as OVMF keeps them in its second flash: Secure Boot with keys of
//! one's own, and what the firmware starts.
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
/// `gEfiSecureBootEnableDisableGuid`: OVMF's own switch.
const SWITCH: [u8; 16] = guid(0xf0a3_0bc7, 0xaf08, 0x4556, [0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44]);
/// Whose keys they are: any name does.
const OWNER: [u8; 16] = guid(0x686f_6964, 0x6c61, 0x4d76, [0x80, 0, 0, 0, 0, 0, 0, 1]);
/// Kept in flash, seen at boot and after, changed only by who has signed and when.
const SIGNED: u32 = 0x27;
/// Kept in flash, seen at boot and after, changed by anybody.
const PLAIN: u32 = 0x07;
/// Kept in flash, seen at boot only.
const EARLY: u32 = 0x03;
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
fn variable(name: &str, vendor: &[u8; 16], attributes: u32, data: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let mut out = vec![0xaa, 0x55, 0x3f, 0]; // begins; added
    out.extend(attributes.to_le_bytes());
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

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// These certificates (DER) as the machine's owner's and as whose images may start: Secure Boot is on.
pub fn keys(owner: &[u8], may_start: &[&[u8]]) -> Vec<u8> {
    let db: Vec<u8> = may_start.iter().flat_map(|c| signature_list(c)).collect();
    let list = signature_list(owner);
    [variable("PK", &GLOBAL, SIGNED, &list), variable("KEK", &GLOBAL, SIGNED, &list), variable("db", &DATABASE, SIGNED, &db)].concat()
}

/// Somebody switched Secure Boot off in the firmware's setup, and left the keys where they are.
pub fn secure_boot_off() -> Vec<u8> {
    variable("SecureBootEnable", &SWITCH, EARLY, &[0])
}

/// A boot entry before all others: a file on a partition of a GPT, and what the program there is told.
pub fn boot_entry(title: &str, partition: &Partition, file: &str, told: &str) -> Vec<u8> {
    let (mut drive, file) = (vec![4, 1, 42, 0], utf16(file));
    drive.extend(partition.number.to_le_bytes());
    drive.extend(partition.first.to_le_bytes());
    drive.extend(partition.blocks.to_le_bytes());
    drive.extend(partition.guid);
    drive.extend([2, 2]); // of a GPT, named by a GUID
    let mut path = drive;
    path.extend([4, 4]);
    path.extend((4 + file.len() as u16).to_le_bytes());
    path.extend(file);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut option = 1u32.to_le_bytes().to_vec(); // active
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(title));
    option.extend(path);
    option.extend(utf16(told));
    [variable("Boot0000", &GLOBAL, PLAIN, &option), variable("BootOrder", &GLOBAL, PLAIN, &[0, 0])].concat()
}

/// A partition, as a boot entry names it.
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first block.
    pub first: u64,
    /// How many it has.
    pub blocks: u64,
    /// Its own GUID, as it lies on the disk.
    pub guid: [u8; 16],
}

impl Partition {
    /// Of a disk or a disk's file.
    pub fn of(disk: &Path, number: u32) -> Result<Self> {
        let table = gpt::GptConfig::new().open(disk)?;
        let found = table.partitions().get(&number).context("the disk has no such partition")?;
        let blocks = found.last_lba + 1 - found.first_lba;
        Ok(Self { number, first: found.first_lba, blocks, guid: found.part_guid.to_bytes_le() })
    }
}

/// An empty template with these variables in it, one after the other.
pub fn with(template: &[u8], variables: &[u8]) -> Result<Vec<u8>> {
    let mut out = template.to_vec();
    let head = usize::from(u16::from_le_bytes(*out.get(48..50).and_then(|b| b.first_chunk()).context("no firmware volume")?));
    ensure!(out.get(head..head + 16) == Some(&STORE[..]), "not a store of authenticated variables");
    let first = head + 28;
    let place = out.get_mut(first..first + variables.len()).context("no room for the variables")?;
    ensure!(place.iter().all(|b| *b == 0xff), "the template is not empty");
    place.copy_from_slice(variables);
    Ok(out)
}

/// The same, from file to file.
pub fn write(template: &Path, to: &Path, variables: &[u8]) -> Result<()> {
    let bytes = std::fs::read(template).with_context(|| format!("{} cannot be read", template.display()))?;
    Ok(std::fs::write(to, with(&bytes, variables)?)?)
}
