//! `hoidla-image`: from Debian's signed kernel, a hardware profile and `hoidlad` to a boot image,
//! a stick and a manifest; and what such a file holds.
//!
//! Promises: user space only, no clock, no chance: the same inputs give the same bytes, the
//! signature included; every input is named by its hash in the image itself ([`compose`]).
//! The unsigned image is what anybody can build again; the signature is added where the boot key
//! is ([`authenticode`]). Doesn't write to a device, and trusts the kernel's package as far as
//! the hash in the lock file goes.
#![forbid(unsafe_code)]

pub mod archive;
pub mod authenticode;
pub mod boot_key;
mod cli;
pub mod cmdline;
pub mod compose;
pub mod deb;
mod der;
pub mod initramfs;
pub mod inspect;
pub mod libraries;
pub mod lock;
pub mod modules;
pub mod owner;
pub mod uki;

pub use cli::{Arguments, run};
