//! TLS 1.3 with certificates on both sides: who may enter, and how.
#![forbid(unsafe_code)]
