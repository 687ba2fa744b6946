//! The TPM's own encoding: big-endian numbers, bytes with a 16-bit length before them.

use crate::PublicError;

/// Reads TPM structures from a slice; never past its end.
pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], PublicError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(PublicError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn u16(&mut self) -> Result<u16, PublicError> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    pub fn u32(&mut self) -> Result<u32, PublicError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    pub fn u64(&mut self) -> Result<u64, PublicError> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    /// A TPM2B of exactly `N` bytes.
    pub fn exactly<const N: usize>(&mut self) -> Result<[u8; N], PublicError> {
        let len = usize::from(self.u16()?);
        let bytes = self.take(len)?;
        bytes.try_into().map_err(|_| PublicError::Length { wanted: N, found: len })
    }

    /// Refuses a number other than `wanted`.
    pub fn expect(&mut self, wanted: u16, what: &'static str) -> Result<(), PublicError> {
        if self.u16()? == wanted { Ok(()) } else { Err(PublicError::Unsupported(what)) }
    }
}

/// A TPM2B: 16-bit length, then the bytes.
///
/// # Panics
/// If `bytes` is longer than 65,535: the caller's bound is wrong.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).expect("bounded by the caller").to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}
