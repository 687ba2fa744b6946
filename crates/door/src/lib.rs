//! The one door: who may enter, over TLS 1.3, and how a program at home knocks.
//!
//! Promises: nothing of our own parses a byte of a peer that the handshake has not
//! authenticated; both sides use X25519MLKEM768 with TLS 1.3 and nothing else; no
//! tickets, no resumption, no early data; a peer's [`hoidla_protocol::Role`]
//! follows from its certificate and from what the authority signed. It doesn't
//! check the statements it is given: that is the caller's.
#![forbid(unsafe_code)]

pub mod admission;
pub mod certificate;
pub mod connect;
pub mod error;
pub mod key;
pub mod limits;
pub mod tls;
pub mod wire;

pub use admission::{Admission, AgentNames};
pub use certificate::{AgentRequest, agent_certificate, door_root, node_certificate, self_signed};
pub use connect::{Connection, Identity, TAKEN_AT_ONCE, Target, Tcp, connect};
pub use error::DoorError;
pub use key::{Curve, DoorKey, software_key};
pub use limits::{Limits, Ticket};
pub use tls::{ALPN, server_config};
pub use wire::{MessageReader, MessageWriter};
