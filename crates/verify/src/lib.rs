//! TPM structures computed and checked without a TPM: any laptop, no libtss2.
//!
//! Promises: public areas are parsed once, bounded, into a type that marshals to exactly
//! the bytes it came from ([`public`]); names and policy digests are those a TPM computes
//! ([`policy`]); a release is believed only under the release key, and gives the node and
//! each vault epoch an approval of its own ([`release`]); a half is sealed to one TPM's
//! storage root key so that only that TPM imports it ([`import`]); a quote is parsed strictly
//! ([`attest`]), and a checkpoint believed under the attestation key that the authority has
//! on record ([`known`], [`checkpoint`]), as are the word that a disk was erased ([`erased`])
//! and the challenge of a ceremony ([`opening`]), under the papers that register 15 tells of ([`measured`]). An
//! identity's keys are all in one TPM ([`identity`]), and a parcel opens in no other than the
//! one whose endorsement key was recorded ([`credential`], [`parcel`]). A boot image is read strictly ([`pe`]), what
//! registers hold after it was started is computed ([`boot`]), a firmware's log is replayed
//! ([`eventlog`]) and what it did before the image is told ([`firmware`]). All of TPM 2.0 Library,
//! revision 1.59, in the one suite that Hoidla uses: P-256, SHA-256, AES-128-CFB.
//!
//! Doesn't: talk to a TPM (`hoidla-tpm`), say which endorsement key is the right one (provisioning).
#![forbid(unsafe_code)]

pub mod attest;
pub mod boot;
pub mod checkpoint;
pub mod credential;
pub mod erased;
pub mod eventlog;
pub mod firmware;
pub mod identity;
pub mod import;
pub mod known;
pub mod manifest;
pub mod measured;
pub mod opening;
pub mod parcel;
pub mod pe;
pub mod policy;
mod protect;
pub mod public;
pub mod release;
mod wire;

pub use attest::{Attest, AttestError, ClockInfo, Created};
pub use checkpoint::{Doubt, Refusal, Verified, Vouched};
pub use credential::Credential;
pub use erased::{Certificate, ErasedError};
pub use identity::IdentityError;
pub use import::Import;
pub use known::{Attester, Known, KnownError};
pub use opening::Unattested;
pub use parcel::{Parcel, ParcelError};
pub use policy::{Policy, RELEASE_COUNTER, TpmName};
pub use public::{Public, PublicError};
pub use release::{Approved, PolicyRef, ReleaseError, ReleaseKey, ReleasePublic, Terms};
