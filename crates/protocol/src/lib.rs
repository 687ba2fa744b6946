//! Messages and sessions of the one port; no I/O.
#![forbid(unsafe_code)]
