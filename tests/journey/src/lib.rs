//! The programs together, as their users run them.
#![forbid(unsafe_code)]
