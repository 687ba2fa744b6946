//! House rules, held by tests: who may depend on whom, where unsafe code lives, what
//! comes in from outside, how long a file may be, and that documents point at things
//! that exist.
#![forbid(unsafe_code)]

mod arrows;
mod files;
mod pages;
mod supply;
mod tree;
mod unsafety;
