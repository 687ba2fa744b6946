//! Between our types and libtss2's structures.

use hoidla_verify::Public;
use tss_esapi_sys as tss;

use super::{ALG_SHA256, check};
use crate::TpmError;

/// A TPM2B structure of libtss2 from bytes.
macro_rules! sized {
    ($t:ty, $field:ident, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        let mut out = <$t>::default();
        out.$field[..bytes.len()].copy_from_slice(bytes);
        out.size = bytes.len() as u16;
        out
    }};
}

/// The bytes of a TPM2B structure, never more than its buffer holds.
macro_rules! bytes {
    ($b:expr, $field:ident) => {{
        let b = &$b;
        &b.$field[..usize::from(b.size).min(b.$field.len())]
    }};
}

/// TPML_PCR_SELECTION of the SHA-256 bank.
pub(super) fn selection(indices: &[u8]) -> tss::TPML_PCR_SELECTION {
    let bits = indices.iter().filter(|i| **i < 24).fold(0u32, |bits, i| bits | 1 << i).to_le_bytes();
    let mut out = tss::TPML_PCR_SELECTION { count: 1, ..Default::default() };
    out.pcrSelections[0] = tss::TPMS_PCR_SELECTION { hash: ALG_SHA256, sizeofSelect: 3, pcrSelect: bits };
    out
}

/// Our public area as libtss2's structure, through the bytes that both agree on.
pub(super) fn to_tss(public: &Public) -> Result<tss::TPM2B_PUBLIC, TpmError> {
    let bytes = public.marshal();
    let mut out = tss::TPM2B_PUBLIC::default();
    let mut offset = 0;
    // SAFETY: reads at most `bytes.len()` bytes and writes one structure that is ours.
    let code = unsafe { tss::Tss2_MU_TPMT_PUBLIC_Unmarshal(bytes.as_ptr(), bytes.len() as _, &mut offset, &mut out.publicArea) };
    check("unmarshalling of a public area", code)?;
    Ok(out)
}

/// libtss2's structure as our public area.
pub(super) fn from_tss(public: &tss::TPM2B_PUBLIC) -> Result<Public, TpmError> {
    let mut bytes = [0; size_of::<tss::TPMT_PUBLIC>()];
    let mut offset = 0;
    // SAFETY: writes at most `bytes.len()` bytes; the structure was filled by libtss2.
    let code = unsafe { tss::Tss2_MU_TPMT_PUBLIC_Marshal(&public.publicArea, bytes.as_mut_ptr(), bytes.len() as _, &mut offset) };
    check("marshalling of a public area", code)?;
    Ok(Public::parse(bytes.get(..offset as usize).ok_or(TpmError::Answer("a public area"))?)?)
}

pub(super) use {bytes, sized};
