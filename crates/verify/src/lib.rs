//! TPM structures computed and checked without a TPM: any laptop, no libtss2.
//!
//! Promises: public areas are parsed once, bounded, into a type that marshals to exactly
//! the bytes it came from ([`public`]); names and policy digests are those a TPM computes
//! ([`policy`]); a release is believed only under the release key, and gives the node and
//! each vault epoch an approval of its own ([`release`]); a half is sealed to one TPM's
//! storage root key so that only that TPM imports it ([`import`]). All of TPM 2.0 Library,
//! revision 1.59, in the one suite that Hoidla uses: P-256, SHA-256, AES-128-CFB.
//!
//! Doesn't: talk to a TPM (`hoidla-tpm`), judge whether a TPM is genuine (provisioning).
#![forbid(unsafe_code)]

pub mod import;
pub mod policy;
pub mod public;
pub mod release;
mod wire;

pub use import::Import;
pub use policy::{Policy, RELEASE_COUNTER, TpmName};
pub use public::{Public, PublicError};
pub use release::{Approved, PolicyRef, ReleaseError, ReleaseKey, ReleasePublic, Terms};
