//! Sealing a stream's messages: FLOE (C2SP), one message one segment.
//!
//! A message is `FLOE header (74) ‖ one final segment (32 + plaintext)`, of the
//! 1 MiB segment profile, so that a whole message fits one frame and any FLOE
//! implementation opens it.
//!
//! Promises: a message opens only under its key and associated data (dataset,
//! stream, epoch, offset: [`hoidla_format::frame::message_aad`]), whole or not at
//! all. It hides no length; the packer does what is done about that.

use fast_floe::{
    Header, Key, Parameters, Provider as Floe,
    online::{Decryptor, Encryptor},
};
use hoidla_format::frame;
use thiserror::Error;
use zeroize::Zeroize;

use crate::{Secret, datakey::DataKey};

const PROFILE: Parameters = Parameters::SEGMENT_1_MIB;
const HEADER: usize = 74;
const SEGMENT: usize = 32;

/// How much longer a message is than its plaintext.
pub const OVERHEAD: usize = HEADER + SEGMENT;
/// The most plaintext of one message, so that it fits one frame.
pub const MOST_PLAINTEXT: usize = frame::MOST - frame::HEAD - OVERHEAD;

/// Bytes of a message with this much plaintext.
pub const fn sealed_len(plaintext: usize) -> usize {
    plaintext + OVERHEAD
}

/// Who computes AES-256-GCM and HKDF. All give and take the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// aws-lc-rs: assembler, for speed.
    #[cfg(feature = "fast")]
    AwsLc,
    /// RustCrypto: pure Rust, the second opinion.
    RustCrypto,
}

impl Default for Provider {
    #[cfg(feature = "fast")]
    fn default() -> Self {
        Self::AwsLc
    }

    #[cfg(not(feature = "fast"))]
    fn default() -> Self {
        Self::RustCrypto
    }
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// More plaintext than a message holds.
    #[error("{0} bytes are too many for one message (at most {MOST_PLAINTEXT}): pack them into several")]
    TooLong(usize),
    /// Wrong key, wrong place, or changed bytes.
    #[error("the message doesn't open: it belongs to another place or key, or was changed; verify the stream and repair it from a copy")]
    Refused,
    /// The system had no randomness, or the library failed.
    #[error("sealing failed for want of randomness: try again, then restart the machine")]
    Library,
}

/// Seals and opens messages under one data key.
pub struct Sealer {
    key: Secret<32>,
    provider: Floe,
}

impl Sealer {
    /// Under this data key, computed by this provider.
    pub fn new(key: &DataKey, provider: Provider) -> Self {
        let provider = match provider {
            #[cfg(feature = "fast")]
            Provider::AwsLc => Floe::AWS_LC_RS,
            Provider::RustCrypto => Floe::RUSTCRYPTO,
        };
        Self { key: key.0.duplicate(), provider }
    }

    /// The library's form of the key, wiped when the message is done.
    fn key(&self) -> Key {
        Key::from_bytes_with_provider(*self.key.expose(), self.provider)
    }

    /// The most plaintext of one message, in bytes.
    pub const fn most_plaintext() -> usize {
        MOST_PLAINTEXT
    }

    /// Appends one sealed message to `out`, which stays as it was on an error.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let start = out.len();
        out.resize(start + sealed_len(plaintext.len()), 0);
        self.seal_into(aad, plaintext, &mut out[start..]).inspect_err(|_| out.truncate(start))
    }

    /// Fills `out` with one sealed message; on an error it holds nothing of use.
    ///
    /// # Panics
    /// Unless `out` has just the room: [`sealed_len`] of the plaintext.
    pub fn seal_into(&self, aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<(), SealError> {
        if plaintext.len() > MOST_PLAINTEXT {
            return Err(SealError::TooLong(plaintext.len()));
        }
        assert_eq!(out.len(), sealed_len(plaintext.len()), "a message fills its place");
        let floe = Encryptor::new(&self.key(), aad, PROFILE).map_err(|_| SealError::Library)?;
        out[..HEADER].copy_from_slice(floe.header().as_ref());
        floe.encrypt_final_segment_into(plaintext, &mut out[HEADER..]).map(drop).map_err(|_| SealError::Library)
    }

    /// Appends the plaintext of one sealed message to `out`, which stays as it was on an error.
    pub fn open(&self, aad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let (header, segment) = sealed.split_first_chunk::<HEADER>().ok_or(SealError::Refused)?;
        if segment.len() < SEGMENT || segment.len() > MOST_PLAINTEXT + SEGMENT {
            return Err(SealError::Refused);
        }
        let start = out.len();
        out.resize(start + segment.len() - SEGMENT, 0);
        let opened = self.open_into(aad, header, segment, &mut out[start..]);
        if opened.is_err() {
            out[start..].zeroize();
            out.truncate(start);
        }
        opened
    }

    fn open_into(&self, aad: &[u8], header: &[u8; HEADER], segment: &[u8], out: &mut [u8]) -> Result<(), SealError> {
        let header = Header::from(*header);
        let mut floe = Decryptor::new_with_parameters(&self.key(), aad, PROFILE, &header).map_err(|_| SealError::Refused)?;
        floe.decrypt_segment_into(segment, out).map_err(|_| SealError::Refused)?;
        floe.finish().map_err(|_| SealError::Refused)
    }
}
