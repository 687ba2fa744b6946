//! The custodian's program: one person, one key, one share of each vault.
//!
//! Promises: a share leaves the key file's owner only sealed to the one-time key of the
//! challenge on the screen, after a typed yes; everything shown or opened was checked under the
//! authority's key first, which is the one remembered beside the key; nothing else from home is needed. It doesn't promise
//! that the laptop it runs on shows what it signs: for that, custodians compare hashes by voice.
//!
//! [`new`](mod@new) makes a key; [`confirm`] tries one's own envelopes; [`trust`] remembers whose
//! site it was; [`grant`] writes one;
//! [`review`] puts a grant and a challenge into clear words; [`ceremony`] approves, seals and
//! asks how things stand.
#![forbid(unsafe_code)]

pub mod ceremony;
pub mod cli;
pub mod confirm;
pub mod grant;
pub mod me;
pub mod new;
pub mod papers;
pub mod review;
pub mod share;
pub mod trust;
