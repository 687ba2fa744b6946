//! ECDSA over P-256 with SHA-256, which TPMs speak: whether a signature is good.
//!
//! Promises: both libraries say the same of every signature. As ECDSA has it, a signature has a
//! twin that is good as well: nothing here tells two papers apart by their signatures.

use p256::ecdsa::{Signature, VerifyingKey};

/// Whether `signature` (r ‖ s, 64 bytes) is the key's over `message`.
pub fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|s| is_by(key, message, &s))
}

/// A release has a signature for each vault: by AWS-LC in a quarter of the time.
#[cfg(feature = "fast")]
fn is_by(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.to_sec1_point(false).as_bytes()).verify(message, &signature.to_bytes()).is_ok()
}

#[cfg(not(feature = "fast"))]
fn is_by(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    by_portable_code(key, message, signature)
}

#[cfg(any(test, not(feature = "fast")))]
fn by_portable_code(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    use p256::ecdsa::signature::Verifier;
    key.verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::{SigningKey, signature::Signer};

    use super::*;

    #[test]
    fn both_libraries_say_the_same_of_every_signature() {
        let both = |key: &VerifyingKey, message: &[u8], bytes: &[u8]| {
            let signature = Signature::from_slice(bytes).ok()?;
            assert_eq!(is_by(key, message, &signature), by_portable_code(key, message, &signature), "{bytes:02x?}");
            Some(verify(key, message, bytes))
        };
        let key = |n: u8| SigningKey::from_slice(&[n; 32]).unwrap();
        for n in 1..8u8 {
            let message = vec![n; usize::from(n) * 40];
            let signature: Signature = key(n).sign(&message);
            let (public, good) = (*key(n).verifying_key(), signature.to_bytes());
            assert_eq!(both(&public, &message, &good), Some(true));
            assert_eq!(both(key(n + 1).verifying_key(), &message, &good), Some(false));
            assert_eq!(both(&public, b"another message", &good), Some(false));
            let twin = Signature::from_scalars(signature.r(), -*signature.s()).unwrap();
            assert_eq!(both(&public, &message, &twin.to_bytes()), Some(true));
            for bit in (0..good.len() * 8).step_by(29) {
                let mut changed = good;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(both(&public, &message, &changed), Some(true), "bit {bit}");
            }
            for length in [0, 63, 65] {
                assert!(!verify(&public, &message, &good.iter().copied().cycle().take(length).collect::<Vec<_>>()));
            }
        }
    }
}
