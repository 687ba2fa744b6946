//! Every byte layout and version of Hoidla, and nothing that does I/O.
//!
//! Two families, each with one rule:
//!
//! * **Statements** are what people and machines sign: short texts in TOML whose
//!   first line names kind and version, closed by signature lines in the manner of
//!   C2SP's signed notes. A custodian can read what they approve ([`statement`]).
//! * **Binary layouts** are what disks, sockets and ciphertext hold: each begins
//!   with the eight bytes of [`codec::Header`] (`hoidla`, kind, version), numbers
//!   are little-endian, every length is bounded ([`codec`]).
//!
//! Promises: parsing never panics, never allocates more than the input's length
//! allows, refuses unknown versions and trailing bytes, and yields a type that
//! cannot be wrong. It checks no signature: that is `hoidla-crypto`'s.
#![forbid(unsafe_code)]

pub mod codec;
pub mod disk;
pub mod frame;
pub mod ids;
pub mod leaf;
pub mod moment;
pub mod profile;
pub mod state;
pub mod statement;
pub mod statements;
pub mod text;

pub use codec::{Header, Kind, Malformed, Reader, Writer};
pub use ids::{ByteRange, LOG_DATASET, Name, StreamId};
pub use leaf::Leaf;
pub use moment::Moment;
pub use statement::{Note, Statement, StatementError};
pub use text::{Bytes, Hash32, Hash48};
