//! Who makes the store work.

mod keeper;
mod rebuilder;
pub(crate) mod writer;
