//! A key under a key, and a key out of a key.
//!
//! Promises: [`derive`] gives unrelated keys for different labels or contexts, and
//! a wrapped key opens only under the same key and the same associated data.
//! Wrapped key: `nonce (12) ‖ AES-256-GCM ciphertext (32) ‖ tag (16)`.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{AeadInOut, Nonce, Tag},
};
use hkdf::HkdfExtract;
use hoidla_format::Writer;
use sha2::Sha384;
use thiserror::Error;

use crate::{Secret, labels::Label, random, secret::then_wipe_stack};

/// Bytes of a wrapped 32-byte key.
pub const WRAPPED_LEN: usize = 12 + 32 + 16;

/// Why a wrapped key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WrapError {
    /// Not the length of a wrapped key.
    #[error("a wrapped key has {WRAPPED_LEN} bytes, this has {0}: fetch the original file again")]
    Length(usize),
    /// Wrong key, wrong ids, or changed bytes.
    #[error("the wrapped key doesn't open: it belongs to another vault, appliance or epoch, or was changed; compare the ids of both files")]
    Refused,
}

/// HKDF-SHA384 over the secrets one after another (each of a length fixed by the
/// label), with `info = label ‖ each context with a 32-bit length before it`.
pub fn derive<const N: usize>(label: Label, secrets: &[&[u8]], context: &[&[u8]]) -> Secret<N> {
    let info = bind(label, context);
    then_wipe_stack(|| {
        let mut extract = HkdfExtract::<Sha384>::new(None);
        secrets.iter().for_each(|s| extract.input_ikm(s));
        let (_, hkdf) = extract.finalize();
        Secret::filled(|out| hkdf.expand(&info, out).expect("a key is far shorter than HKDF's limit"))
    })
}

/// A label and ids as one unambiguous string of bytes: `label ‖ each id with a
/// 32-bit length before it`. Used as HKDF info, HPKE info and associated data.
pub fn bind(label: Label, ids: &[&[u8]]) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(label.as_bytes());
    for id in ids {
        w.long(id);
    }
    w.finish()
}

/// Wraps a key under another, bound to `aad` (make it with [`bind`]).
pub fn wrap_key(under: &Secret<32>, aad: &[u8], key: &Secret<32>) -> Vec<u8> {
    let mut nonce = [0; 12];
    random(&mut nonce);
    wrap_key_with(nonce, under, aad, key)
}

pub(crate) fn wrap_key_with(nonce: [u8; 12], under: &Secret<32>, aad: &[u8], key: &Secret<32>) -> Vec<u8> {
    // Encrypted in its own locked memory, so that no plain copy is made.
    let mut tag = Tag::<Aes256Gcm>::default();
    let sealed = Secret::<32>::filled(|b| {
        b.copy_from_slice(key.expose());
        tag = then_wipe_stack(|| {
            cipher(under)
                .encrypt_inout_detached(&Nonce::<Aes256Gcm>::from(nonce), aad, b.as_mut_slice().into())
                .expect("32 bytes are within AES-GCM's limit")
        });
    });
    [&nonce[..], sealed.expose(), &tag].concat()
}

/// Unwraps what [`wrap_key`] made.
pub fn unwrap_key(under: &Secret<32>, aad: &[u8], wrapped: &[u8]) -> Result<Secret<32>, WrapError> {
    let fixed: &[u8; WRAPPED_LEN] = wrapped.try_into().map_err(|_| WrapError::Length(wrapped.len()))?;
    let (nonce, rest) = fixed.split_first_chunk::<12>().expect("longer than a nonce");
    let (sealed, tag) = rest.split_first_chunk::<32>().expect("longer than a key");
    let tag = Tag::<Aes256Gcm>::try_from(tag).expect("16 bytes are left");
    Secret::try_filled(|b| {
        b.copy_from_slice(sealed);
        then_wipe_stack(|| {
            cipher(under)
                .decrypt_inout_detached(&Nonce::<Aes256Gcm>::from(*nonce), aad, b.as_mut_slice().into(), &tag)
                .map_err(|_| WrapError::Refused)
        })
    })
}

/// Seals bytes under a key that seals nothing else, ever: so the nonce is zero. Appends the tag.
pub fn seal_once(key: Secret<32>, aad: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
    let tag = then_wipe_stack(|| {
        cipher(&key)
            .encrypt_inout_detached(&Nonce::<Aes256Gcm>::default(), aad, bytes.as_mut_slice().into())
            .expect("far shorter than AES-GCM's limit")
    });
    bytes.extend_from_slice(&tag);
    bytes
}

/// Opens what [`seal_once`] made.
pub fn open_once(key: &Secret<32>, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, WrapError> {
    let (bytes, tag) = sealed.split_last_chunk::<16>().ok_or(WrapError::Refused)?;
    let (mut bytes, tag) = (bytes.to_vec(), Tag::<Aes256Gcm>::from(*tag));
    then_wipe_stack(|| {
        cipher(key)
            .decrypt_inout_detached(&Nonce::<Aes256Gcm>::default(), aad, bytes.as_mut_slice().into(), &tag)
            .map_err(|_| WrapError::Refused)
    })?;
    Ok(bytes)
}

pub(crate) fn cipher(key: &Secret<32>) -> Aes256Gcm {
    Aes256Gcm::new(key.expose().into())
}
