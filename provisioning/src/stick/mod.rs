//! Sticks: written to devices and read back, and what the rack wrote on them taken home.
//!
//! Promises: nothing is written to a disk that is mounted, a part of another, or not one to pull
//! out unless somebody says so, nor before its model, serial number and size were confirmed; a
//! disk that doesn't keep what it is given, or has less room than it says, is found out before
//! the image is on it; a stick that was written was compared byte for byte with what the device
//! itself gives back. What is read from a stick is bounded, and nothing that is there already is
//! overwritten. Whose an image is, `hoidla-image inspect` says.

pub mod commands;
pub mod device;
pub mod facts;
mod home;
pub mod write;

pub use commands::StickCommand;
