//! Who may open, tried from outside: the crate's named invariants.
mod dealing;
mod grants;
mod intake;
mod opening;
mod shares;
mod world;
