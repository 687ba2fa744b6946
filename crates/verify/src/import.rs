//! Halves for `TPM2_Import`, made off the TPM.
//!
//! Promises: [`make`] seals a half so that only the TPM with this storage root key can
//! import it, and so that the imported object yields it only under the given policy and
//! auth value (TPM 2.0 Library, part 1, "Protected storage", outer duplication wrap). What
//! it puts out is public. Doesn't check whose the storage root key is: enrolment does.

use hoidla_crypto::Secret;
use hoidla_format::Hash32;
use zeroize::Zeroizing;

use crate::{
    protect::{ephemeral, outer_wrap, seed},
    public::{Public, PublicError, Shape, attribute, sha256},
};

pub use crate::protect::SEED;

const ALG_KEYEDHASH: u16 = 0x0008;

/// What `TPM2_Import` takes. All of it is public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The object's public area.
    pub public: Public,
    /// TPM2B_PRIVATE's content: integrity, then the encrypted sensitive area.
    pub duplicate: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET's content: the ephemeral point.
    pub seed: Vec<u8>,
}

/// Bytes of `duplicate`: HMAC (2 + 32), then 2 + 2 + (2 + at most 32) + (2 + 32) + (2 + 32).
pub const MOST_DUPLICATE: usize = 34 + 2 + 2 + 34 * 3;
/// Seals `secret` to the TPM whose storage root key is `srk`.
///
/// # Errors
/// If `srk` is not a storage root key as Hoidla makes them, or its point is off the curve.
pub fn make(srk: &Public, secret: &Secret<32>, policy: Hash32, auth: &Secret<32>) -> Result<Import, PublicError> {
    if !srk.same_template(&Public::srk_template()) {
        return Err(PublicError::Unsupported("attributes or a shape that no storage root key of Hoidla's has"));
    }
    let parent = srk.point().ok_or(PublicError::Unsupported("no point"))?;
    let obfuscation = Secret::<32>::random();
    let public = sealed_public(sha256(&[obfuscation.expose(), secret.expose()]), policy);
    let (seed, point) = seed(parent, &ephemeral(), b"DUPLICATE")?;
    let duplicate = outer_wrap(&seed, &public.name(), sensitive(secret, &obfuscation, auth));
    Ok(Import { public, duplicate, seed: point.marshal() })
}

/// The public area of a half: usable and administered by policy only, and no wrong try locks it.
fn sealed_public(unique: [u8; 32], policy: Hash32) -> Public {
    Public { attributes: attribute::ADMIN_WITH_POLICY | attribute::NO_DA, policy: Some(policy), shape: Shape::Sealed(unique) }
}

/// Whether a public area is one that [`make`] gives for this policy: what the appliance
/// checks before it imports.
pub fn is_half(public: &Public, policy: Hash32) -> bool {
    matches!(public.shape, Shape::Sealed(unique) if *public == sealed_public(unique, policy))
}

/// An auth value as the TPM keeps it: zeros at its end don't count.
pub fn auth_bytes(auth: &Secret<32>) -> &[u8] {
    let bytes = auth.expose();
    let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    &bytes[..len]
}

/// TPM2B_SENSITIVE.
fn sensitive(secret: &Secret<32>, obfuscation: &Secret<32>, auth: &Secret<32>) -> Zeroizing<Vec<u8>> {
    let mut inner = Zeroizing::new(Vec::with_capacity(MOST_DUPLICATE));
    inner.extend(ALG_KEYEDHASH.to_be_bytes());
    for part in [auth_bytes(auth), obfuscation.expose(), secret.expose()] {
        inner.extend((part.len() as u16).to_be_bytes());
        inner.extend_from_slice(part);
    }
    let mut out = Zeroizing::new(Vec::with_capacity(MOST_DUPLICATE));
    out.extend((inner.len() as u16).to_be_bytes());
    out.extend_from_slice(&inner);
    out
}
