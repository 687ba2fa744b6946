//! The log: Merkle tree, checkpoints, inclusion and consistency.
#![forbid(unsafe_code)]
