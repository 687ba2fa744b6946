//! Images from Debian's real packages: the same each time, as firmware and others judge them.
//! What boots, and what must not, `tests/vm` shows.
#![forbid(unsafe_code)]

mod contents;
mod program;
mod signature;
mod world;
