//! The TPM through libtss2: import, seal policy, node key, counters.
//!
//! Promises: every operation opens a context of its own, runs, and flushes what it loaded on
//! every path, errors too; whatever a killed predecessor left behind is swept. The storage
//! root key is pinned by name, and every session that carries a secret or an auth value is
//! salted to that very key and encrypted, so that an interposer on the bus sees neither
//! ([`Tpm`]). A half is released only for a release that names its vault epoch, while the
//! release counter permits it, *and* for the auth value that the quorum yields. Unsealing
//! and all that follows from it happens in a short-lived process ([`opening`]).
//!
//! Who the TPM is, and that its keys are in it, is proven by [`identity`]. Doesn't: keep libtss2 from leaving an unsealed half on its heap: unseal in a short-lived process.

mod blob;
mod error;
mod esys;
pub mod identity;
pub mod opening;
mod quote;
pub mod swtpm;
mod tcti;
mod tpm;

pub use blob::Blob;
pub use error::TpmError;
pub use esys::silence_libtss2;
pub use quote::QUOTED;
pub use swtpm::Swtpm;
pub use tcti::Tcti;
pub use tpm::{Clock, Counter, Tpm};
