//! A boot image's file: a PE32+ program for x86-64, read strictly.
//!
//! Promises: every byte of a parsed [`Image`] is header, a section's or the one signature's, in this
//! order, so that nothing rides along unmeasured; no two sections share a name, since a boot
//! stub would measure one and might use the other; and [`Image::digest`] is what firmware
//! measures and what a signature covers (Authenticode, "Calculating the PE Image Hash").
//! Doesn't check a signature, nor that the program is any good. Other PE files are refused that
//! firmware would run: this reads what `hoidla-image` writes.

use std::ops::Range;

use hoidla_format::Hash32;
use thiserror::Error;

use crate::public::sha256;

/// The most bytes of an image.
pub const MOST: usize = 256 << 20;
const MOST_SECTIONS: usize = 40;
const X86_64: u16 = 0x8664;
const PE32_PLUS: u16 = 0x020b;
/// Bytes of the COFF header, with the signature before it.
const COFF: usize = 24;
/// Bytes of an optional header of PE32+ with all sixteen directories.
const OPTIONAL: usize = 240;
const DIRECTORIES: u32 = 16;
const SECTION: usize = 40;
/// WIN_CERTIFICATE: length, revision 2.0, PKCS#7.
const CERTIFICATE_HEAD: usize = 8;
const REVISION_AND_KIND: [u8; 4] = [0, 2, 2, 0];

/// Why a file is no boot image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeError {
    /// It ends before what it announces.
    #[error("this image is cut short: copy it again")]
    Truncated,
    /// Not such a program at all.
    #[error("this is no boot image: {0}")]
    Other(&'static str),
    /// Such a program, with something in it that `hoidla-image` never writes.
    #[error("this image was changed or is not one of Hoidla's: {0}")]
    Strange(&'static str),
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name, without the zeros after it.
    pub name: &'a str,
    /// Where it lies in memory.
    pub address: u32,
    /// What it holds: as many bytes as it has in memory, without padding.
    pub content: &'a [u8],
}

/// A parsed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    bytes: &'a [u8],
    optional: usize,
    sections: Vec<Section<'a>>,
    /// Where the program ends and its signature begins, if it has one.
    end: usize,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], PeError> {
    let part = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(PeError::Truncated)?;
    Ok(*part)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PeError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PeError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn size_at(bytes: &[u8], at: usize) -> Result<usize, PeError> {
    Ok(u32_at(bytes, at)? as usize)
}

impl<'a> Image<'a> {
    /// Reads a whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.len() > MOST {
            return Err(PeError::Other("it is longer than 256 MiB"));
        }
        let optional = optional_header(bytes)?;
        let count = usize::from(u16_at(bytes, optional - COFF + 6)?);
        if count == 0 || count > MOST_SECTIONS {
            return Err(PeError::Strange("it has no sections, or too many"));
        }
        let headers = size_at(bytes, optional + 60)?;
        if headers < optional + OPTIONAL + count * SECTION {
            return Err(PeError::Strange("its headers are longer than they say"));
        }
        let mut image = Self { bytes, optional, sections: Vec::new(), end: headers };
        for i in 0..count {
            image.take_section(optional + OPTIONAL + i * SECTION)?;
        }
        image.take_certificate()?;
        Ok(image)
    }

    /// Sections follow one another without a gap, in the file and upwards in memory.
    fn take_section(&mut self, at: usize) -> Result<(), PeError> {
        let head = self.bytes.get(at..at + SECTION).ok_or(PeError::Truncated)?;
        let name = std::str::from_utf8(&head[..8]).map_err(|_| PeError::Strange("a section's name is no text"))?.trim_end_matches('\0');
        let (size, address) = (size_at(head, 8)?, u32_at(head, 12)?);
        let (raw, offset) = (size_at(head, 16)?, size_at(head, 20)?);
        let above = self.sections.last().map_or(0, |s| u64::from(s.address) + s.content.len() as u64);
        if offset != self.end || size > raw || u64::from(address) < above {
            return Err(PeError::Strange("its sections don't follow one another"));
        }
        if name.is_empty() || name.contains('\0') || self.section(name).is_some() {
            return Err(PeError::Strange("two sections have one name, or one has none"));
        }
        self.end = offset.checked_add(raw).ok_or(PeError::Truncated)?;
        let content = self.bytes.get(offset..self.end).ok_or(PeError::Truncated)?.get(..size).ok_or(PeError::Truncated)?;
        // The bytes of `head` live as long as the file.
        self.sections.push(Section { name, address, content });
        Ok(())
    }

    /// After the sections comes one certificate or nothing.
    fn take_certificate(&self) -> Result<(), PeError> {
        let (offset, size) = (size_at(self.bytes, self.directory())?, size_at(self.bytes, self.directory() + 4)?);
        let left = self.bytes.len() - self.end;
        if (offset, size) == (0, 0) && left == 0 {
            return Ok(());
        }
        if offset != self.end || !(offset | left).is_multiple_of(8) || size != left {
            return Err(PeError::Strange("there are bytes after its last section that are not its signature"));
        }
        let length = size_at(self.bytes, offset)?;
        let kind: [u8; 4] = array(self.bytes, offset + 4)?;
        let padding = self.bytes.get(offset.saturating_add(length)..).ok_or(PeError::Truncated)?;
        if length < CERTIFICATE_HEAD || kind != REVISION_AND_KIND || padding.len() >= 8 || padding.iter().any(|b| *b != 0) {
            return Err(PeError::Strange("its signature is not one of PKCS#7, alone and to the end of the file"));
        }
        Ok(())
    }

    /// Where the certificate table's directory entry stands.
    fn directory(&self) -> usize {
        self.optional + 112 + 4 * 8
    }

    /// All sections, in order.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The section of a name.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The file without its signature: where it ends, and the same bytes as before it was signed.
    pub fn unsigned(&self) -> Vec<u8> {
        let mut out = self.bytes[..self.end].to_vec();
        out[self.directory()..self.directory() + 8].fill(0);
        out
    }

    /// The PKCS#7 structure of its signature.
    pub fn signature(&self) -> Option<&'a [u8]> {
        let certificate = self.bytes.get(self.end..).filter(|c| !c.is_empty())?;
        let length = size_at(certificate, 0).ok()?;
        certificate.get(CERTIFICATE_HEAD..length)
    }

    /// The same program with this signature (PKCS#7, DER) instead of its own.
    pub fn with_signature(&self, pkcs7: &[u8]) -> Vec<u8> {
        let mut out = self.unsigned();
        let at = u32::try_from(out.len()).expect("an image's length is bounded");
        let length = u32::try_from(CERTIFICATE_HEAD + pkcs7.len()).expect("a signature is short");
        out.extend(length.to_le_bytes());
        out.extend(REVISION_AND_KIND);
        out.extend(pkcs7);
        out.resize(out.len().next_multiple_of(8), 0);
        let size = u32::try_from(out.len()).expect("an image's length is bounded") - at;
        let entry = self.directory();
        out[entry..entry + 4].copy_from_slice(&at.to_le_bytes());
        out[entry + 4..entry + 8].copy_from_slice(&size.to_le_bytes());
        out
    }

    /// What firmware measures and a signature covers: everything but the checksum, the
    /// directory entry of the signature, and the signature.
    pub fn digest(&self) -> Hash32 {
        let part = |r: Range<usize>| &self.bytes[r];
        let checksum = self.optional + 64;
        Hash32(sha256(&[part(0..checksum), part(checksum + 4..self.directory()), part(self.directory() + 8..self.end)]))
    }
}

/// Where the optional header of an x86-64 UEFI program begins.
fn optional_header(bytes: &[u8]) -> Result<usize, PeError> {
    if !bytes.starts_with(b"MZ") {
        return Err(PeError::Other("it doesn't begin like a program for UEFI"));
    }
    let at = size_at(bytes, 60)?;
    if at > 4096 || array(bytes, at)? != *b"PE\0\0" {
        return Err(PeError::Other("it is no PE file"));
    }
    let optional = at + COFF;
    let fits = u16_at(bytes, at + 4)? == X86_64
        && u16_at(bytes, optional)? == PE32_PLUS
        && usize::from(u16_at(bytes, at + 20)?) == OPTIONAL
        && u32_at(bytes, optional + 108)? == DIRECTORIES;
    if fits { Ok(optional) } else { Err(PeError::Other("it is not a 64-bit program for x86")) }
}
