//! Ratios against fio and peers.
#![forbid(unsafe_code)]
