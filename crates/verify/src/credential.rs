//! `TPM2_MakeCredential`, off the TPM.
//!
//! Promises: [`make`] encrypts a secret so that only the TPM with this endorsement key gives it
//! back, and only while an object of exactly this name is loaded in it (TPM 2.0 Library, part 1,
//! "Credential protection"). What it puts out is public. Doesn't check whose endorsement key it
//! is: home recorded it before shipping, or nobody knows.

use hoidla_crypto::Secret;
use zeroize::Zeroizing;

use crate::{
    TpmName,
    protect::{self, ephemeral, outer_wrap},
    public::{Public, PublicError},
};

pub use crate::protect::SEED;

/// Bytes of `blob`: HMAC (2 + 32), then the encrypted secret (2 + 32).
pub const BLOB: usize = 34 + 34;

/// What `TPM2_ActivateCredential` takes. All of it is public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT's content: integrity, then the encrypted secret.
    pub blob: [u8; BLOB],
    /// TPM2B_ENCRYPTED_SECRET's content: the ephemeral point.
    pub seed: [u8; SEED],
}

/// Encrypts `secret` to the TPM with the endorsement key `ek`, for the object named `object`.
///
/// # Errors
/// If `ek` is not an endorsement key as Hoidla makes them, or its point is off the curve.
pub fn make(ek: &Public, object: &TpmName, secret: &Secret<32>) -> Result<Credential, PublicError> {
    make_with(&ephemeral(), ek, object, secret)
}

fn make_with(ephemeral: &p256::SecretKey, ek: &Public, object: &TpmName, secret: &Secret<32>) -> Result<Credential, PublicError> {
    let point = is_ek(ek)?.point().ok_or(PublicError::Unsupported("no point"))?;
    let (seed, sent) = protect::seed(point, ephemeral, b"IDENTITY")?;
    let mut inner = Zeroizing::new(Vec::with_capacity(34));
    inner.extend([0, 32]);
    inner.extend_from_slice(secret.expose());
    let blob = outer_wrap(&seed, object, inner).try_into().expect("an HMAC and 34 bytes");
    Ok(Credential { blob, seed: sent.marshal().try_into().expect("two coordinates") })
}

/// Refuses a key that no TPM makes from the endorsement key's template.
pub fn is_ek(key: &Public) -> Result<&Public, PublicError> {
    if !key.same_template(&Public::ek_template()) {
        return Err(PublicError::Unsupported("attributes or a shape that no endorsement key of Hoidla's has"));
    }
    key.point().ok_or(PublicError::Unsupported("no point"))?.key()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::{Point, Shape};

    fn vector(name: &str) -> String {
        let all = include_str!("../../../tests/vectors/tpm/structures.txt");
        all.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no vector {name}")).to_owned()
    }

    fn key(byte: u8) -> p256::SecretKey {
        p256::SecretKey::from_slice(&[byte; 32]).unwrap()
    }

    fn ek() -> Public {
        Public { shape: Shape::Storage(Point::of(&key(2).public_key())), ..Public::ek_template() }
    }

    #[test]
    fn the_credential_of_the_vector() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let object = TpmName::of(b"an object");
        let made = make_with(&key(5), &ek(), &object, &Secret::filled(|b| b.fill(6))).unwrap();
        assert_eq!(hex(&made.blob), vector("credential-blob"));
        assert_eq!(hex(&made.seed), vector("credential-seed"));
    }

    #[test]
    fn only_to_endorsement_keys() {
        let (object, secret) = (TpmName::of(b"an object"), Secret::random());
        let again = make(&ek(), &object, &secret).unwrap();
        assert_ne!(make(&ek(), &object, &secret).unwrap(), again, "never the same twice");
        let off_curve = Public { shape: Shape::Storage(Point { x: [1; 32], y: [1; 32] }), ..ek() };
        let srk = Public { shape: ek().shape, ..Public::srk_template() };
        for wrong in [&Public::prover_template(), &srk, &off_curve] {
            assert!(make(wrong, &object, &secret).is_err());
        }
    }
}
