//! What a TPM's registers hold after an image was started: computed from files alone.
//!
//! Promises: the values that firmware, systemd's boot stub of version 252 and the kernel's
//! EFI stub give registers 4, 7, 9, 11, 12 and 13 of the SHA-256 bank; a register is
//! `H(register ‖ digest)` for each event, from zero. Firmware that measures other things
//! than usual is told about ([`launch`]'s `recorded`). Doesn't say which registers mean something: 11 is
//! extended by software and proves little alone, 7 hangs on the keys in the machine.

use hoidla_format::{Hash32, statements::PcrValue};

use crate::{
    firmware::{SEPARATOR, before_image},
    pe::Image,
    public::sha256,
};

/// The order in which the stub of version 252 measures sections into register 11.
const MEASURED: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];
/// EFI_GLOBAL_VARIABLE, as bytes.
const GLOBAL: [u8; 16] = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// EFI_IMAGE_SECURITY_DATABASE, as bytes.
const DATABASE: [u8; 16] = [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// EFI_CERT_X509, as bytes.
const X509: [u8; 16] = [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];

/// A register after these digests, from zero.
pub fn extended(events: impl IntoIterator<Item = Hash32>) -> Hash32 {
    extended_from(Hash32([0; 32]), events)
}

/// A register after these digests, from a value.
pub fn extended_from(start: Hash32, events: impl IntoIterator<Item = Hash32>) -> Hash32 {
    events.into_iter().fold(start, |register, event| Hash32(sha256(&[&register.0, &event.0])))
}

/// Register 4: the image, started by firmware. `recorded` is all that this firmware measures
/// before it, as its profile has it; empty if that is what is usual.
pub fn launch(recorded: &[Hash32], image: &Image<'_>) -> Hash32 {
    extended(before_image(recorded).into_iter().chain([image.digest()]))
}

/// Register 9: the kernel's command line and initramfs, as its EFI stub measures them.
pub fn kernel_arguments(cmdline: &str, initrd: &[u8]) -> Hash32 {
    let utf16: Vec<u8> = cmdline.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    extended([Hash32(sha256(&[&utf16])), Hash32(sha256(&[initrd]))])
}

/// Register 11: the image's sections, as its stub measures them.
pub fn sections(image: &Image<'_>) -> Hash32 {
    let present = MEASURED.iter().filter_map(|name| image.section(name));
    extended(present.flat_map(|s| [Hash32(sha256(&[s.name.as_bytes(), &[0]])), Hash32(sha256(&[s.content]))]))
}

/// The four registers that a release approves: 4, 11, and 12 and 13, which stay zero unless
/// something was added to the image from outside.
pub fn approved(recorded: &[Hash32], image: &Image<'_>) -> Vec<PcrValue> {
    let zero = Hash32([0; 32]);
    let values = [(4, launch(recorded, image)), (11, sections(image)), (12, zero), (13, zero)];
    values.into_iter().map(|(index, value)| PcrValue { index, value }).collect()
}

/// Secure Boot's variables as they stand in a machine: EFI_SIGNATURE_LISTs, empty where the
/// variable is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecureBootKeys {
    /// The platform key.
    pub pk: Vec<u8>,
    /// Who may change db and dbx.
    pub kek: Vec<u8>,
    /// Who may sign images.
    pub db: Vec<u8>,
    /// What is refused.
    pub dbx: Vec<u8>,
}

/// EFI_SIGNATURE_DATA: a certificate (DER) and who put it there.
pub fn signature_entry(owner: &[u8; 16], certificate: &[u8]) -> Vec<u8> {
    [owner, certificate].concat()
}

/// EFI_SIGNATURE_LIST with one certificate (DER).
///
/// # Panics
/// If the certificate is longer than 4 GiB.
pub fn signature_list(owner: &[u8; 16], certificate: &[u8]) -> Vec<u8> {
    let entry = signature_entry(owner, certificate);
    let size = u32::try_from(entry.len()).expect("a certificate is short");
    let mut out = X509.to_vec();
    out.extend((28 + size).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(entry);
    out
}

/// Whether a variable of signature lists, as firmware has it, names this certificate (DER).
pub fn lists(mut variable: &[u8], certificate: &[u8]) -> bool {
    // EFI_SIGNATURE_LIST: type, its bytes, those of its own head, those of each entry.
    while let Some((head, _)) = variable.split_first_chunk::<28>() {
        let length = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let Some((list, rest)) = variable.split_at_checked(length(16)) else { return false };
        let entries = 28usize.checked_add(length(20)).and_then(|at| list.get(at..)).unwrap_or_default();
        let named = |entry: &[u8]| entry.len() == length(24) && entry.get(16..) == Some(certificate);
        if head[..16] == X509 && length(24) > 16 && entries.chunks(length(24)).any(named) {
            return true;
        }
        if list.is_empty() {
            return false;
        }
        variable = rest;
    }
    false
}

/// Register 7: Secure Boot on, these keys, and the entry of db (see [`signature_entry`]) under
/// which the image was believed.
pub fn secure_boot(keys: &SecureBootKeys, used: &[u8]) -> Hash32 {
    let variables = [
        variable(&GLOBAL, "SecureBoot", &[1]),
        variable(&GLOBAL, "PK", &keys.pk),
        variable(&GLOBAL, "KEK", &keys.kek),
        variable(&DATABASE, "db", &keys.db),
        variable(&DATABASE, "dbx", &keys.dbx),
        Hash32(sha256(&[SEPARATOR])),
        variable(&DATABASE, "db", used),
    ];
    extended(variables)
}

/// SHA-256 of UEFI_VARIABLE_DATA.
fn variable(guid: &[u8; 16], name: &str, data: &[u8]) -> Hash32 {
    let utf16: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = |n: usize| (n as u64).to_le_bytes();
    Hash32(sha256(&[guid, &length(name.len()), &length(data.len()), &utf16, data]))
}
