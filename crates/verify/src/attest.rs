//! TPMS_ATTEST: what a TPM's restricted key signed, a quote ([`Attest`]) or the word that this
//! TPM made an object ([`Created`]).
//!
//! Promises: parsing accepts one form only (32 bytes of qualifying data; a quote over one
//! SHA-256 bank) and marshalling gives back the bytes that were parsed. It doesn't check the
//! signature: [`crate::checkpoint`] and [`crate::identity`] do.

use hoidla_format::Hash32;
use thiserror::Error;

use crate::{
    PublicError, TpmName,
    public::{ALG_SHA256, sha256},
    wire::{Input, sized},
};

/// TPM_GENERATED_VALUE: no restricted key signs outside bytes that begin so.
const MAGIC: u32 = 0xFF54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;
const ST_ATTEST_CREATION: u16 = 0x801A;
const RH_ENDORSEMENT: u32 = 0x4000_000B;

/// Why bytes are no attestation of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttestError {
    /// Cut short, too long, or a field of another length.
    #[error("the attestation is damaged: {0}")]
    Damaged(#[from] PublicError),
    /// Something a TPM signed, but not in this form.
    #[error("not an attestation that Hoidla makes: {0}")]
    Other(&'static str),
}

/// What a TPM says of its clock within a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds the TPM has been powered.
    pub powered_ms: u64,
    /// Resets (power cycles) so far.
    pub resets: u32,
    /// Restarts and resumptions since the last reset.
    pub restarts: u32,
    /// False if the clock may repeat after an unorderly shutdown.
    pub safe: bool,
}

/// One quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// The qualified name of the key that signed: its name and those of all above it.
    pub signer: TpmName,
    /// What the asker gave.
    pub qualifying: [u8; 32],
    /// The TPM's clock.
    pub clock: ClockInfo,
    /// The TPM's firmware version, as its maker counts.
    pub firmware: u64,
    /// Which registers, bit 0 is register 0.
    pub selection: u32,
    /// SHA-256 over those registers, in ascending order.
    pub pcr_digest: Hash32,
}

impl Attest {
    /// Parses exactly one quote.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut input = Input(bytes);
        let (signer, qualifying, clock, firmware) = head(&mut input, ST_ATTEST_QUOTE)?;
        let selection = selection(&mut input)?;
        let pcr_digest = Hash32(input.exactly()?);
        match input.0.len() {
            0 => Ok(Self { signer, qualifying, clock, firmware, selection, pcr_digest }),
            more => Err(PublicError::Trailing(more).into()),
        }
    }

    /// TPMS_ATTEST.
    pub fn marshal(&self) -> Vec<u8> {
        let mut out = put_head(ST_ATTEST_QUOTE, &self.signer, &self.qualifying, &self.clock, self.firmware);
        out.extend([0, 0, 0, 1]);
        out.extend(ALG_SHA256.to_be_bytes());
        out.push(3);
        out.extend(&self.selection.to_le_bytes()[..3]);
        out.extend(sized(&self.pcr_digest.0));
        out
    }

    /// The registers quoted, rising.
    pub fn registers(&self) -> impl Iterator<Item = u8> {
        let selection = self.selection;
        (0..24).filter(move |i| selection >> i & 1 == 1)
    }
}

/// The TPM's word that it made an object itself: neither loaded from outside nor imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The qualified name of the key that signed.
    pub signer: TpmName,
    /// What the asker gave.
    pub qualifying: [u8; 32],
    /// The TPM's clock.
    pub clock: ClockInfo,
    /// The TPM's firmware version, as its maker counts.
    pub firmware: u64,
    /// The name of what was made.
    pub object: TpmName,
    /// A hash over how it was made, as the TPM wrote it down.
    pub creation: Hash32,
}

impl Created {
    /// Parses exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut input = Input(bytes);
        let (signer, qualifying, clock, firmware) = head(&mut input, ST_ATTEST_CREATION)?;
        let object = name(&mut input, "its object's name is not of SHA-256")?;
        let creation = Hash32(input.exactly()?);
        match input.0.len() {
            0 => Ok(Self { signer, qualifying, clock, firmware, object, creation }),
            more => Err(PublicError::Trailing(more).into()),
        }
    }

    /// TPMS_ATTEST.
    pub fn marshal(&self) -> Vec<u8> {
        let mut out = put_head(ST_ATTEST_CREATION, &self.signer, &self.qualifying, &self.clock, self.firmware);
        out.extend([sized(&self.object.0), sized(&self.creation.0)].concat());
        out
    }
}

/// What all attestations begin with.
fn head(input: &mut Input<'_>, kind: u16) -> Result<(TpmName, [u8; 32], ClockInfo, u64), AttestError> {
    if input.u32()? != MAGIC {
        return Err(AttestError::Other("a TPM did not make it"));
    }
    if input.u16()? != kind {
        return Err(AttestError::Other("another kind of attestation"));
    }
    let signer = name(input, "its signer's name is not of SHA-256")?;
    let qualifying = input.exactly()?;
    let clock = ClockInfo { powered_ms: input.u64()?, resets: input.u32()?, restarts: input.u32()?, safe: flag(input)? };
    Ok((signer, qualifying, clock, input.u64()?))
}

fn name(input: &mut Input<'_>, why: &'static str) -> Result<TpmName, AttestError> {
    TpmName::from_bytes(&input.exactly::<34>()?).ok_or(AttestError::Other(why))
}

fn put_head(kind: u16, signer: &TpmName, qualifying: &[u8; 32], clock: &ClockInfo, firmware: u64) -> Vec<u8> {
    let mut out = [&MAGIC.to_be_bytes()[..], &kind.to_be_bytes()].concat();
    out.extend([sized(&signer.0), sized(qualifying)].concat());
    out.extend(clock.powered_ms.to_be_bytes());
    out.extend([clock.resets.to_be_bytes(), clock.restarts.to_be_bytes()].concat());
    out.push(clock.safe.into());
    out.extend(firmware.to_be_bytes());
    out
}

/// The qualified name of a primary key in the endorsement hierarchy.
pub fn endorsed(key: &TpmName) -> TpmName {
    let mut out = TpmName([0; 34]);
    out.0[..2].copy_from_slice(&ALG_SHA256.to_be_bytes());
    out.0[2..].copy_from_slice(&sha256(&[&RH_ENDORSEMENT.to_be_bytes(), &key.0]));
    out
}

fn flag(input: &mut Input<'_>) -> Result<bool, AttestError> {
    match input.take(1)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(AttestError::Other("a clock that is neither safe nor unsafe")),
    }
}

/// One bank, SHA-256, three bytes of registers, at least one of them.
fn selection(input: &mut Input<'_>) -> Result<u32, AttestError> {
    if input.u32()? != 1 {
        return Err(AttestError::Other("registers of other than one bank"));
    }
    if input.u16()? != ALG_SHA256 || input.take(1)? != [3] {
        return Err(AttestError::Other("registers of another bank than SHA-256"));
    }
    let bits: [u8; 3] = input.take(3)?.try_into().expect("three bytes");
    match u32::from_le_bytes([bits[0], bits[1], bits[2], 0]) {
        0 => Err(AttestError::Other("a quote over no register")),
        some => Ok(some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attest() -> Attest {
        Attest {
            signer: TpmName::of(b"a key"),
            qualifying: [5; 32],
            clock: ClockInfo { powered_ms: 6, resets: 7, restarts: 8, safe: true },
            firmware: 9,
            selection: 1 << 4 | 1 << 7 | 1 << 15,
            pcr_digest: Hash32([10; 32]),
        }
    }

    #[test]
    fn a_quote_reads_back_to_the_same_bytes() {
        let bytes = attest().marshal();
        assert_eq!(bytes.len(), 145);
        assert_eq!(Attest::parse(&bytes), Ok(attest()));
        assert_eq!(attest().registers().collect::<Vec<_>>(), [4, 7, 15]);
    }

    #[test]
    fn the_word_of_a_creation_reads_back_and_no_other_form_does() {
        let Attest { signer, qualifying, clock, firmware, .. } = attest();
        let created = Created { signer, qualifying, clock, firmware, object: TpmName::of(b"made"), creation: Hash32([3; 32]) };
        let bytes = created.marshal();
        assert_eq!(Created::parse(&bytes), Ok(created));
        for cut in 0..bytes.len() {
            assert!(Created::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Created::parse(&[&bytes[..], &[0]].concat()), Err(PublicError::Trailing(1).into()));
        assert!(matches!(Created::parse(&attest().marshal()), Err(AttestError::Other(_))), "a quote");
        assert!(matches!(Attest::parse(&bytes), Err(AttestError::Other(_))), "no quote");
    }

    #[test]
    fn every_cut_excess_and_other_form_is_refused() {
        let bytes = attest().marshal();
        for cut in 0..bytes.len() {
            assert!(Attest::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Attest::parse(&[&bytes[..], &[0]].concat()), Err(PublicError::Trailing(1).into()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                // Whatever it parses to, it says something else.
                assert!(Attest::parse(&other).map(|a| a.marshal()) != Ok(bytes.clone()));
                if let Ok(read) = Attest::parse(&other) {
                    assert_eq!(read.marshal(), other);
                }
            }
        }
        let with = |at: usize, byte: u8| {
            let mut other = bytes.clone();
            other[at] = byte;
            Attest::parse(&other)
        };
        assert!(matches!(with(0, 0), Err(AttestError::Other(_))), "not of a TPM");
        assert!(matches!(with(5, 0x17), Err(AttestError::Other(_))), "a certificate, not a quote");
        assert!(matches!(with(92, 2), Err(AttestError::Other(_))), "a flag of 2");
        assert!(matches!(with(104, 2), Err(AttestError::Other(_))), "two banks");
        assert!(matches!(with(106, 4), Err(AttestError::Other(_))), "SHA-1");
    }
}
