//! Stream frames: what a stream's bytes are made of.
//!
//! A stream is one frame after another, so that it explains itself when nothing
//! else is left. Each is `Header (8) ‖ length of body (u32) ‖ body`:
//!
//! * [`Kind::EpochHeader`]: two signed statements, `agent/1` and `epoch/1`, each
//!   with a 32-bit length before it; the first frame of every epoch;
//! * [`Kind::Message`]: one FLOE ciphertext, bound to dataset, stream, epoch and
//!   the offset of its frame ([`message_aad`]);
//! * [`Kind::StreamRoot`]: a signed `root/1` statement over all frames before it.
//!
//! The appliance stores each frame as one record. The chain over frames
//! ([`Chain`]) is what roots sign and what the next epoch's header names.

use crate::{Hash32, Kind, Malformed, Name, Reader, StreamId, Writer, codec::Header};

/// The version of all three frames.
pub const VERSION: u8 = 1;
/// Bytes before a frame's body.
pub const HEAD: usize = Header::LEN + 4;
/// The most bytes of a frame, head included: 1 MiB, so that it fits one disk buffer.
pub const MOST: usize = 1 << 20;

/// The head of a frame of `body` bytes.
///
/// # Panics
/// If the frame would pass [`MOST`]: the caller's bound is wrong.
pub fn head(kind: Kind, body: usize) -> [u8; HEAD] {
    assert!(body + HEAD <= MOST, "a frame is at most 1 MiB");
    let mut out = [0; HEAD];
    out[..8].copy_from_slice(&Header::bytes(kind, VERSION));
    out[8..].copy_from_slice(&(body as u32).to_le_bytes());
    out
}

/// Splits one frame off the front of `bytes`: its kind, its body, and what follows.
pub fn split(bytes: &[u8]) -> Result<(Kind, &[u8], &[u8]), Malformed> {
    let mut r = Reader::new(bytes);
    let kind = match bytes.get(6) {
        Some(16) => Kind::EpochHeader,
        Some(17) => Kind::Message,
        Some(18) => Kind::StreamRoot,
        Some(_) => return Err(Malformed::Field("not a stream frame")),
        None => return Err(Malformed::Truncated { wanted: HEAD, left: bytes.len() }),
    };
    r.header(kind, VERSION)?;
    let body = r.long(MOST - HEAD, "a frame of more than 1 MiB")?;
    Ok((kind, body, r.rest()))
}

/// The body of an epoch header frame, split: signed `agent/1`, signed `epoch/1`.
pub fn split_epoch_header(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut r = Reader::new(body);
    let agent = r.long(MOST, "an agent's certificate too long")?;
    let epoch = r.long(MOST, "an epoch header too long")?;
    r.finish()?;
    Ok((agent, epoch))
}

/// The body of an epoch header frame.
pub fn join_epoch_header(agent: &[u8], epoch: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.long(agent).long(epoch);
    w.finish()
}

/// What a message is bound to: dataset, stream, epoch, offset of its frame in the stream.
pub fn message_aad(dataset: &Name, stream: StreamId, epoch: u32, offset: u64) -> Vec<u8> {
    let mut w = Writer::with_header(Kind::Message, VERSION);
    w.short(dataset.as_str().as_bytes()).put(&stream.0).u32(epoch).u64(offset);
    w.finish()
}

/// The running hash over a stream's frames, from its first byte, across epochs:
/// `c' = BLAKE3(c ‖ offset ‖ length ‖ BLAKE3(frame))`, beginning with 32 zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The hash so far.
    pub root: Hash32,
    /// The stream's bytes so far.
    pub length: u64,
}

impl Chain {
    /// Of an empty stream.
    pub const EMPTY: Self = Self { root: Hash32([0; 32]), length: 0 };

    /// After one more frame of `len` bytes with this BLAKE3 hash.
    #[must_use]
    pub fn then(self, frame_hash: &Hash32, len: u32) -> Self {
        let mut h = blake3::Hasher::new();
        h.update(&self.root.0).update(&self.length.to_le_bytes()).update(&len.to_le_bytes()).update(&frame_hash.0);
        Self { root: Hash32(h.finalize().into()), length: self.length + u64::from(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_split_and_join() {
        let mut bytes = head(Kind::Message, 3).to_vec();
        bytes.extend(b"abc");
        bytes.extend(b"next");
        let (kind, body, rest) = split(&bytes).unwrap();
        assert_eq!((kind, body, rest), (Kind::Message, &b"abc"[..], &b"next"[..]));
        assert!(split(&bytes[..14]).is_err());
        bytes[7] = 9;
        assert!(matches!(split(&bytes), Err(Malformed::Version { found: 9, .. })));
        let joined = join_epoch_header(b"agent", b"epoch");
        assert_eq!(split_epoch_header(&joined).unwrap(), (&b"agent"[..], &b"epoch"[..]));
    }

    #[test]
    fn the_chain_knows_order_and_length() {
        let (a, b) = (Hash32([1; 32]), Hash32([2; 32]));
        let ab = Chain::EMPTY.then(&a, 5).then(&b, 5);
        assert_ne!(ab, Chain::EMPTY.then(&b, 5).then(&a, 5));
        assert_ne!(ab.root, Chain::EMPTY.then(&a, 4).then(&b, 6).root);
        assert_eq!(ab.length, 10);
    }
}
