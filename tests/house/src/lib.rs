//! The rules of this house are tests: see `tests/house/`. There is nothing to link.
#![forbid(unsafe_code)]
