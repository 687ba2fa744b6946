//! Sealing, HPKE, envelopes, signatures and secret memory.
//!
//! One room for every use of cryptography, so that nobody else chooses an
//! algorithm: callers say *what* is protected and *what it is bound to*.
//!
//! | module | protects | with |
//! | --- | --- | --- |
//! | [`secret`] | keys in memory | own locked page, wiped |
//! | [`sign`] | statements | ECDSA P-384, SHA-384, deterministic |
//! | [`es256`] | what a TPM or its release key signed | ECDSA P-256, SHA-256; checks only |
//! | [`hpke`] | what is sealed to one key | MLKEM1024-P384, HKDF-SHA384, AES-256-GCM |
//! | [`datakey`] | a stream epoch's key | the above, bound to where it belongs |
//! | [`sealing`] | a stream's messages | FLOE |
//! | [`envelope`] | a share on its way to a custodian | P-384 and ML-KEM-1024, both needed |
//! | [`keyfile`] | a private key at rest | Argon2id, AES-256-GCM |
//! | [`wrap`] | a key under a key | HKDF-SHA384, AES-256-GCM |
//!
//! Promises: no secret has `Debug`, `Clone` or `Serialize`, stands in an error, or
//! outlives its use; every derived key has a label of its own ([`labels`]).
//! It doesn't promise to hide from a kernel, a hypervisor or a cold-boot attack.
#![forbid(unsafe_code)]

pub mod datakey;
pub mod envelope;
pub mod es256;
pub mod hpke;
pub mod keyfile;
pub mod keys;
pub mod labels;
pub mod sealing;
pub mod secret;
pub mod sign;
pub mod wrap;

#[cfg(test)]
mod second_opinion;
#[cfg(test)]
mod vectors;

pub use secret::Secret;
pub use zeroize::Zeroizing;

/// Fills `out` with the system's randomness.
///
/// # Panics
/// If the system has none to give: nothing safe can be done without it.
pub fn random(out: &mut [u8]) {
    getrandom::fill(out).expect("the system gives randomness");
}

/// The system's randomness as the trait that other crates take.
pub(crate) fn system_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
