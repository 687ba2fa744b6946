//! The home agent: push, list, status, restore.
#![forbid(unsafe_code)]
