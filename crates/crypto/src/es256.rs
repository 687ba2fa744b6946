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
    use crate::second_opinion::holds;

    #[test]
    fn both_libraries_say_the_same_of_every_signature() {
        let both = |key: &VerifyingKey, message: &[u8], bytes: &[u8]| {
            let signature = Signature::from_slice(bytes).ok()?;
            Some((is_by(key, message, &signature), by_portable_code(key, message, &signature)))
        };
        let key = |n: u8| SigningKey::from_slice(&[n; 32]).unwrap();
        for n in 1..8u8 {
            let message = vec![n; usize::from(n) * 40];
            let signature: Signature = key(n).sign(&message);
            let (public, good) = (*key(n).verifying_key(), signature.to_bytes());
            let twin = Signature::from_scalars(signature.r(), -*signature.s()).unwrap().to_bytes();
            holds([&public, key(n + 1).verifying_key()], &message, [&good, &twin], both);
            assert!(verify(&public, &message, &good) && verify(&public, &message, &twin));
            for length in [0, 63, 65] {
                assert!(!verify(&public, &message, &good.iter().copied().cycle().take(length).collect::<Vec<_>>()));
            }
        }
    }
}
