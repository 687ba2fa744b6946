//! The custodian's program: key, confirm, review, approve, seal.
#![forbid(unsafe_code)]
