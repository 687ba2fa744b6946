//! Who makes the store work.

mod keeper;
mod writer;
