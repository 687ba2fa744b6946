//! Who makes the store work.

mod keeper;
mod rebuilder;
mod writer;
