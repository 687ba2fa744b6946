//! Shares: a 32-byte secret split so that any M of N shares give it back, and what each must hash to.
//!
//! Shamir's scheme over GF(2^8), byte by byte, the secret at x = 0, shares at x = 1..=N.
//! Promises: fewer than M shares are independent of the secret; no coefficient is rejected
//! for being zero (that would leak); arithmetic takes the same time for every value; a share
//! that doesn't match its salted commitment is told apart. It promises nothing about shares
//! that were dealt wrongly: [`crate::dealing`] tests every subset before anything is put out.
//!
//! The encoding and the commitment are written down in `docs/formats/share.md`.

pub use hoidla_crypto::envelope::ShareId;
use hoidla_crypto::{Secret, labels, wrap};
use hoidla_format::{
    Hash32, Header, Kind, Malformed, Name, Reader,
    statements::{Door, Vault},
};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::gf256;

/// Version of a share's encoding.
pub const VERSION: u8 = 1;
/// Bytes of an encoded share.
pub const LEN: usize = Header::LEN + 1 + 32 + 32 + CHECKSUM;
const CHECKSUM: usize = 8;

/// One vault epoch of one dataset of one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultId {
    /// The site.
    pub site: Name,
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch, from 1.
    pub vault_epoch: u32,
}

impl VaultId {
    /// Which vault a certificate is of.
    pub fn of(vault: &Vault) -> Self {
        Self { site: vault.site.clone(), dataset: vault.dataset.clone(), vault_epoch: vault.vault_epoch }
    }

    /// One of its shares.
    pub fn share(&self, door: Door, custodian: &Name, index: u8) -> ShareId {
        let Self { site, dataset, vault_epoch } = self.clone();
        ShareId { site, dataset, vault_epoch, door, custodian: custodian.clone(), index }
    }

    /// The ids as every label binds them: site, dataset, vault epoch (u32, little-endian).
    pub fn ids(&self) -> [Vec<u8>; 3] {
        [self.site.as_str().into(), self.dataset.as_str().into(), self.vault_epoch.to_le_bytes().into()]
    }
}

/// Why a split or a combination was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShareError {
    /// A threshold that no number of shares reaches, or of one.
    #[error("{threshold} of {count} is no quorum: use at least 2, and at most as many as there are shares")]
    Threshold {
        /// Shares that open.
        threshold: u8,
        /// Shares there are.
        count: u8,
    },
    /// Two shares with the same x, or one at zero.
    #[error("share {0} stands twice or cannot be: each custodian's share counts once")]
    Repeated(u8),
    /// Fewer shares than needed.
    #[error("{have} of {need} shares: more custodians are needed")]
    TooFew {
        /// Shares handed in.
        have: usize,
        /// Shares needed.
        need: u8,
    },
}

/// One share with the salt of its commitment.
pub struct Share {
    index: u8,
    value: Secret<32>,
    salt: Secret<32>,
}

impl Share {
    /// Its x coordinate.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// What the vault certificate says it must hash to.
    ///
    /// # Panics
    /// If `id` names another index: the caller mixed up two shares.
    pub fn commitment(&self, id: &ShareId) -> Hash32 {
        assert_eq!(self.index, id.index, "the id of another share");
        let mut h = Sha256::new();
        h.update(wrap::bind(labels::SHARE_COMMITMENT, &[&id.bytes()]));
        h.update(self.value.expose());
        h.update(self.salt.expose());
        Hash32(h.finalize().into())
    }

    /// The encoding that an envelope or an approval seals.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(LEN));
        out.extend_from_slice(&Header::bytes(Kind::Share, VERSION));
        out.push(self.index);
        out.extend_from_slice(self.value.expose());
        out.extend_from_slice(self.salt.expose());
        let sum = Sha256::digest(&out[..]);
        out.extend_from_slice(&sum[..CHECKSUM]);
        out
    }

    /// Reads an encoded share; a typing or copying error is caught by its checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::Share, VERSION)?;
        let index = r.u8()?;
        let (value, salt) = (r.take(32)?, r.take(32)?);
        let sum = r.take(CHECKSUM)?;
        r.finish()?;
        if index == 0 {
            return Err(Malformed::Field("a share at zero would be the secret itself"));
        }
        if sum != &Sha256::digest(&bytes[..LEN - CHECKSUM])[..CHECKSUM] {
            return Err(Malformed::Field("the share's checksum doesn't fit: it was damaged on its way"));
        }
        Ok(Self { index, value: Secret::filled(|b| b.copy_from_slice(value)), salt: Secret::filled(|b| b.copy_from_slice(salt)) })
    }
}

/// Splits `secret` into `count` shares, of which any `threshold` give it back.
pub fn split(secret: &Secret<32>, threshold: u8, count: u8, rng: &mut impl CryptoRng) -> Result<Vec<Share>, ShareError> {
    if threshold < 2 || threshold > count {
        return Err(ShareError::Threshold { threshold, count });
    }
    // Coefficients from the highest to the lowest but the secret itself, for Horner's rule.
    let mut coefficients = Zeroizing::new(vec![[0u8; 32]; usize::from(threshold) - 1]);
    coefficients.iter_mut().for_each(|c| rng.fill_bytes(c));
    Ok((1..=count).map(|x| share_at(x, secret, &coefficients, rng)).collect())
}

fn share_at(x: u8, secret: &Secret<32>, coefficients: &[[u8; 32]], rng: &mut impl CryptoRng) -> Share {
    let value = Secret::filled(|y: &mut [u8; 32]| {
        for c in coefficients.iter().chain([secret.expose()]) {
            for (y, c) in y.iter_mut().zip(c) {
                *y = gf256::mul(*y, x) ^ c;
            }
        }
    });
    Share { index: x, value, salt: Secret::filled(|s| rng.fill_bytes(s)) }
}

/// The secret that at least `threshold` shares give; more shares are fine, wrong ones give a wrong secret.
pub fn combine(shares: &[&Share], threshold: u8) -> Result<Secret<32>, ShareError> {
    if shares.len() < usize::from(threshold) || threshold < 2 {
        return Err(ShareError::TooFew { have: shares.len(), need: threshold.max(2) });
    }
    let mut seen = [false; 256];
    for s in shares {
        if s.index == 0 || std::mem::replace(&mut seen[usize::from(s.index)], true) {
            return Err(ShareError::Repeated(s.index));
        }
    }
    let used = &shares[..usize::from(threshold)];
    Ok(Secret::filled(|out: &mut [u8; 32]| {
        for s in used {
            let weight = weight_at_zero(s.index, used);
            for (out, y) in out.iter_mut().zip(s.value.expose()) {
                *out ^= gf256::mul(*y, weight);
            }
        }
    }))
}

/// Lagrange's weight of the share at `x` for the value at zero.
fn weight_at_zero(x: u8, shares: &[&Share]) -> u8 {
    shares.iter().filter(|s| s.index != x).fold(1, |w, s| gf256::mul(w, gf256::mul(s.index, gf256::inverse(s.index ^ x))))
}
