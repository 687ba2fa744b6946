//! Protected storage of TPM 2.0 (Library, part 1): what is encrypted so that one TPM's key opens it.
//!
//! Promises: the ECDH, key derivations and outer wrap that `TPM2_Import` and
//! `TPM2_ActivateCredential` undo. Doesn't check whose key it encrypts to.

use aes::cipher::KeyIvInit;
use hmac::{Hmac, KeyInit, Mac};
use hoidla_crypto::Secret;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    TpmName,
    public::{Point, PublicError, sha256},
    wire::sized,
};

/// Bytes of a TPM2B_ENCRYPTED_SECRET's content: the ephemeral point, two coordinates.
pub const SEED: usize = 2 * 34;

/// A fresh key of P-256, for one agreement.
pub(crate) fn ephemeral() -> p256::SecretKey {
    loop {
        if let Ok(key) = p256::SecretKey::from_slice(Secret::<32>::random().expose()) {
            return key;
        }
    }
}

/// One-pass ECDH with a key used once: the seed that `to` derives too, under this label.
pub(crate) fn seed(to: &Point, ephemeral: &p256::SecretKey, label: &[u8]) -> Result<(Zeroizing<[u8; 32]>, Point), PublicError> {
    let shared = ephemeral.diffie_hellman(&to.key()?);
    let mut x = Zeroizing::new([0; 32]);
    x.copy_from_slice(shared.raw_secret_bytes());
    let point = Point::of(&ephemeral.public_key());
    Ok((kdf_e(&x, label, &point.x, &to.x), point))
}

/// Integrity, then the encrypted bytes; `name` is the object they are for.
pub(crate) fn outer_wrap(seed: &[u8; 32], name: &TpmName, mut bytes: Zeroizing<Vec<u8>>) -> Vec<u8> {
    let key = kdf_a(seed, b"STORAGE", &name.0, 128);
    let key: &[u8; 16] = key.first_chunk().expect("half of 32 bytes");
    cfb_mode::Encryptor::<aes::Aes128>::new(key.into(), &[0; 16].into()).encrypt(&mut bytes);
    let integrity = hmac(&kdf_a(seed, b"INTEGRITY", &[], 256), &[&bytes, &name.0]);
    [&sized(&integrity)[..], &bytes].concat()
}

/// KDFe of the library for 256 bits: one block of SHA-256.
fn kdf_e(shared: &[u8; 32], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(sha256(&[&1u32.to_be_bytes(), shared, label, &[0], party_u, party_v]))
}

/// KDFa of the library for at most 256 bits: one block of HMAC-SHA-256.
fn kdf_a(key: &[u8; 32], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(hmac(key, &[&1u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()]))
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    parts.iter().for_each(|p| mac.update(p));
    mac.finalize().into_bytes().into()
}
