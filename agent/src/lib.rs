//! The home agent: copies a folder into an embassy, and a granted reader's copy back.
//!
//! ```text
//! push     walk → chunk, compress → pack → seal → spool → TLS → acknowledged
//! audit    checkpoint → consistent with the last → receipts, samples → evidence for an auditor
//! restore  keys re-wrapped → ciphertext → signatures and chain → open → folder
//! ```
//!
//! Promises: nothing leaves this program but sealed; what was sealed is kept until
//! it is acknowledged and sent again byte for byte; no position of a stream is
//! sealed twice under one key; a killed agent goes on from the last
//! acknowledgement. A reader refuses whatever the agent's key did not sign.
//! It doesn't guard the home machine: who rules that reads the registry anyway.
#![forbid(unsafe_code)]

pub mod audit;
mod believed;
pub mod commands;
pub mod fetch;
pub mod home;
pub mod line;
pub mod push;
pub mod reader;
pub mod restore;
pub mod spool;
mod stands;
pub mod state;
mod update;
pub mod writer;

pub use commands::{Arguments, run};
