//! Sealing to one public key: HPKE, base mode, one message.
//!
//! Suite: KEM MLKEM1024-P384 (0x0051), HKDF-SHA384 (0x0002), AES-256-GCM (0x0002).
//! Ciphertext: `encapsulated key (1,665) ‖ AES-256-GCM ciphertext ‖ tag (16)`.
//!
//! Promises: opens only with the private key, the same info and the same associated
//! data, and stays secret while either ML-KEM-1024 or P-384 holds. Authenticates
//! nobody: whoever seals may be anyone.

use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha384, kem::MlKem1024P384};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{Secret, secret::then_wipe_stack};

type Kem = MlKem1024P384;

/// The suite in words, as it stands in vault certificates.
pub const SUITE: &str = "MLKEM1024-P384, HKDF-SHA384, AES-256-GCM";
/// Bytes of a public key: ML-KEM-1024 encapsulation key (1,568) ‖ P-384 point, uncompressed (97).
pub const PUBLIC_LEN: usize = 1665;
/// Bytes of an encapsulated key.
pub const ENCAPPED_LEN: usize = 1665;
/// How much longer a ciphertext is than its plaintext.
pub const OVERHEAD: usize = ENCAPPED_LEN + 16;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// Not a public key of the suite.
    #[error("not a public key of {SUITE} (1,665 bytes): fetch the key's file again")]
    Key,
    /// Too short, other key, other binding, or changed.
    #[error("the ciphertext doesn't open: it is for another key or another purpose, or was changed; compare what it was made for")]
    Refused,
}

/// Whom to seal to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(<Kem as hpke::Kem>::PublicKey);

impl PublicKey {
    /// Reads and checks 1,665 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        Deserializable::from_bytes(bytes).map(Self).map_err(|_| HpkeError::Key)
    }

    /// As 1,665 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }
}

/// A key pair, kept as its 32-byte seed.
pub struct KeyPair {
    seed: Secret<32>,
    public: PublicKey,
}

impl KeyPair {
    /// A fresh pair.
    pub fn generate() -> Self {
        Self::from_seed(Secret::random())
    }

    /// The pair of a seed, always the same one.
    pub fn from_seed(seed: Secret<32>) -> Self {
        let public = then_wipe_stack(|| PublicKey(Kem::sk_to_pk(&private(&seed))));
        Self { seed, public }
    }

    /// The seed, to be wrapped or kept.
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// Whom others seal to.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

fn private(seed: &Secret<32>) -> <Kem as hpke::Kem>::PrivateKey {
    Deserializable::from_bytes(seed.expose()).expect("any 32 bytes are a seed")
}

/// Seals to a public key, bound to `info` and `aad`.
pub fn seal(to: &PublicKey, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    seal_with(&mut crate::system_rng(), to, info, aad, plaintext)
}

pub(crate) fn seal_with(rng: &mut impl CryptoRng, to: &PublicKey, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    then_wipe_stack(|| {
        let (enc, ct) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha384, Kem>(&OpModeS::Base, &to.0, info, plaintext, aad, rng)
            .expect("a checked key and a short message seal");
        [&enc.to_bytes()[..], &ct].concat()
    })
}

/// Opens what [`seal`] made with the same `info` and `aad`.
pub fn open(with: &KeyPair, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
    let (enc, ct) = sealed.split_at_checked(ENCAPPED_LEN).ok_or(HpkeError::Refused)?;
    let enc = Deserializable::from_bytes(enc).map_err(|_| HpkeError::Refused)?;
    then_wipe_stack(|| {
        hpke::single_shot_open::<AesGcm256, HkdfSha384, Kem>(&OpModeR::Base, &private(&with.seed), &enc, info, ct, aad)
            .map(Zeroizing::new)
            .map_err(|_| HpkeError::Refused)
    })
}

/// Opens a sealed secret of exactly `N` bytes.
pub fn open_secret<const N: usize>(with: &KeyPair, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Secret<N>, HpkeError> {
    Secret::from_slice_wiping(&mut open(with, info, aad, sealed)?).ok_or(HpkeError::Refused)
}
