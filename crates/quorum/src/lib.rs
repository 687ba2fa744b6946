//! Shares, dealing, grants and the ceremony; no I/O.
#![forbid(unsafe_code)]
