//! A folder as messages, and back: chunk, pack, restore.
#![forbid(unsafe_code)]
