//! A stage on one machine: home, the embassy and the custodians' laptops are folders,
//! the programs are the real ones, and the TPM is a software TPM behind a socket.
//!
//! Promises: everything runs as its users run it, by command line and files, so that
//! what works here works by hand; every process that a stage starts ends with it; a
//! step that fails names the command and the place of its log. What it does not show:
//! a genuine TPM, measured boot, two buildings.
#![forbid(unsafe_code)]

pub mod compare;
pub mod keeping;
pub mod narrate;
pub mod programs;
pub mod sample;
pub mod search;
pub mod soft_tpm;
pub mod stage;
pub mod story;
pub mod supervisor;

pub use narrate::Narrator;
pub use programs::{Answer, Programs};
pub use soft_tpm::SoftTpm;
pub use stage::Stage;
pub use supervisor::Supervisor;
