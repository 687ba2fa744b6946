//! Every parser of bytes from outside, as a target for hostile input.
//!
//! Each [`Target`] takes any bytes. It must not panic, and what it accepts must
//! write back to the very same bytes where the format promises one encoding. It
//! returns whether it accepted, so that a test can see that its corpus is not all
//! refused. The same functions run under cargo-fuzz (`tests/fuzz`) and, over the
//! committed corpus and seeded mutations of it, in the ordinary test run.
#![forbid(unsafe_code)]

mod audit;
mod binary;
mod sessions;
mod statements;

/// The keys and ids that the corpus was made with.
pub mod fixed {
    pub use crate::binary::{custodian, sealer, share_id};
    pub use crate::sessions::{client_seeds, server_seeds};
    pub use crate::statements::signer;
}

use std::{fs, path::PathBuf};

/// One parser.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus's folder.
    pub name: &'static str,
    /// Takes any bytes; whether they were accepted.
    pub run: fn(&[u8]) -> bool,
    /// How many mutations of it are quick.
    pub mutations: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("note", statements::note, 3000),
    target("statement", statements::statement, 3000),
    target("signed", statements::signed, 300),
    target("checkpoint", statements::checkpoint, 3000),
    target("signed_checkpoint", audit::signed_checkpoint, 3000),
    target("attest", audit::attest, 3000),
    target("created", audit::created, 3000),
    target("parcel", binary::parcel, 3000),
    target("erased", audit::erased, 3000),
    target("boot_image", audit::boot_image, 3000),
    target("event_log", audit::event_log, 300),
    target("receipt", audit::receipt, 3000),
    target("extension", audit::extension, 3000),
    target("frame", binary::frame, 3000),
    target("epoch_header", binary::epoch_header, 3000),
    target("codec", binary::codec, 3000),
    target("leaf", binary::leaf, 3000),
    target("frontier", binary::frontier, 3000),
    target("superblock", binary::superblock, 3000),
    target("fences", binary::fences, 3000),
    target("segment", binary::segment, 3000),
    target("batch", binary::batch, 3000),
    target("catalogue", binary::catalogue, 3000),
    target("request", binary::request, 3000),
    target("response", binary::response, 3000),
    target("append", binary::append, 3000),
    target("server_session", sessions::server_session, 20_000),
    target("client_session", sessions::client_session, 20_000),
    target("key_file", binary::key_file, 3000),
    target("envelope", binary::envelope, 100),
    target("sealed_message", binary::sealed_message, 2000),
    target("hpke_public_key", binary::hpke_public_key, 500),
    target("share", binary::share, 3000),
    target("tpm_public", binary::tpm_public, 3000),
    target("pack_head", binary::pack_head, 3000),
    target("state", binary::state, 3000),
    target("profile", statements::profile, 3000),
    target("boot_entry", binary::boot_entry, 3000),
];

const fn target(name: &'static str, run: fn(&[u8]) -> bool, mutations: u32) -> Target {
    Target { name, run, mutations }
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn by_name(name: &str) -> Target {
    *TARGETS.iter().find(|t| t.name == name).expect("a target of this name")
}

impl Target {
    /// The folder of its committed inputs.
    pub fn corpus(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(self.name)
    }

    /// Its committed inputs, by name.
    ///
    /// # Panics
    /// If the folder cannot be read.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let folder = self.corpus();
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = entries.map(|e| e.expect("a folder's entry").path()).collect();
        paths.sort();
        paths.iter().map(|p| fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()))).collect()
    }
}
