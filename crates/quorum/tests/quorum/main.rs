//! Who may open, tried from outside: the crate's named invariants.
#![forbid(unsafe_code)]
mod dealing;
mod grants;
mod intake;
mod opening;
mod shares;
mod world;
