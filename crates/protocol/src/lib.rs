//! What agent, custodian, reader and appliance say to each other through the door.
//!
//! Promises: no I/O; every message is bounded before a byte of its body is read
//! ([`Head::parse`]), parsed once into a type that cannot be wrong, and refused
//! when the role, the order or the window does not allow it ([`server`],
//! [`client`]). It doesn't know who the peer is: the door says so ([`Role`]),
//! before the first byte that is read here.
//!
//! The layout stands in `docs/formats/protocol.md`.
#![forbid(unsafe_code)]

pub mod answers;
pub mod audit;
pub mod client;
mod fault;
pub mod message;
pub mod outbox;
pub mod refusal;
pub mod request;
pub mod response;
pub mod role;
pub mod server;
pub mod writers;

pub use answers::Answers;
pub use audit::{Part, Prove, Witness};
pub use client::ClientSession;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use fault::Faulty;
pub use message::{HEAD, HELLO, Handle, Head, Type};
pub use outbox::{Framed, Odd, Outbox};
pub use refusal::{Code, Refused};
pub use request::{AppendHead, Open, Read, Request};
pub use response::{DataHead, Epoch, Health, Key, Opened, Progress, Response, StreamEntry, VaultProgress, Welcome};
pub use role::Role;
pub use server::ServerSession;
pub use writers::{Hold, Writers};
