//! The appliance: endpoint, store, ceremony.
//!
//! Promises: no plaintext of a dataset is ever here; what is acknowledged is on
//! every current disk; nothing that a peer sends deletes or shortens; keys of
//! vaults exist only in a helper process, for seconds. It parses nothing of a
//! frame that it stores but, in that helper, the wrapped key of an epoch.
#![forbid(unsafe_code)]

pub mod ceremonies;
mod checkpoints;
pub mod config;
pub mod confined;
pub mod counts;
pub mod daemon;
pub mod enrol;
pub mod erase;
pub mod hardware;
pub mod headers;
pub mod helper;
mod hourly;
pub mod identify;
pub mod keep;
pub mod listen;
pub mod machine;
mod measure;
pub mod papers;
pub mod pid1;
pub mod recount;
pub mod scrub;
pub mod scrubber;
pub mod session;
mod settings;
pub mod shares;
pub mod staff;
pub mod time;
pub mod trays;
pub mod update;
mod witness;
