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

pub mod audit;
pub mod client;
pub mod message;
pub mod refusal;
pub mod request;
pub mod response;
pub mod role;
pub mod server;

pub use audit::{Part, Prove, Witness};
pub use client::ClientSession;
pub use message::{HEAD, HELLO, Handle, Head, Type};
pub use refusal::{Code, Refused};
pub use request::{AppendHead, Open, Read, Request};
pub use response::{DataHead, Epoch, Health, Key, Opened, Progress, Response, StreamEntry, VaultProgress, Welcome};
pub use role::Role;
pub use server::ServerSession;
