//! The log: an RFC 6962 Merkle tree over what every group commit added to every stream.
//!
//! Promises: a [`Frontier`] gives the head of the tree after each leaf in memory that
//! grows with the logarithm of its size; [`inclusion`] and [`consistency`] proofs are
//! verified by pure functions that accept nothing but the one right proof; a
//! [`Checkpoint`] has one text; a [`Quote`] has one place below it; a [`Receipt`] proves what
//! its checkpoint's signatures vouch for. It doesn't: store
//! leaves, make quotes (`hoidla-tpm`), or believe them (`hoidla-verify`).
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod frontier;
pub mod proof;
pub mod quote;
pub mod receipt;
pub mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use frontier::Frontier;
pub use hoidla_format::Leaf;
pub use proof::{ProofError, consistency, inclusion, verify_consistency, verify_inclusion};
pub use quote::{Quote, Says, key_id};
pub use receipt::{Extension, Receipt, ReceiptError, SignedCheckpoint};
pub use tree::{Leaves, Nodes, empty_root, leaf_hash, node_hash, raw_leaf_hash, root};
