//! Shares, dealing, grants and the ceremony: all that decides who may open, without I/O.
//!
//! Promises: fewer than the quorum learn nothing; a bad share is blamed on the custodian
//! who sent it; an approval counts for one grant and one challenge only. It doesn't speak
//! to a TPM, a disk or a socket: what it needs of them is handed to it.
//!
//! * [`share`]: secrets split into shares, and what shares must hash to;
//! * [`derive`](mod@derive): every key that follows from `K_quorum` and `K_tpm`, and the wraps under them;
//! * [`roster`]: which custodians and thresholds are sane;
//! * [`dealing`]: making a vault at home;
//! * [`fingerprint`]: digits to read out by telephone;
//! * [`grant`]: what a grant may say;
//! * [`intake`]: one ceremony, approval by approval;
//! * [`opening`]: from M shares to data keys wrapped for the reader.
#![forbid(unsafe_code)]

pub mod dealing;
pub mod derive;
pub mod fingerprint;
mod gf256;
pub mod grant;
pub mod intake;
pub mod opening;
mod refusal;
pub mod roster;
pub mod share;
