//! Samples: random places of all that receipts cover, asked for whole.
//!
//! The appliance's own listing has no say in where they fall.

use anyhow::{Result, anyhow};
use hoidla_format::StreamId;
use hoidla_log::Receipt;

use super::{Auditor, Head};

/// What samples showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Frames that came whole.
    pub frames: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// The stream and offset of byte `n` of all streams laid end to end.
fn place(streams: &[(StreamId, u64)], mut n: u64) -> Option<(StreamId, u64)> {
    for (stream, bytes) in streams {
        if n < *bytes {
            return Some((*stream, n));
        }
        n -= bytes;
    }
    None
}

/// All their bytes, if a number can hold that.
fn total(streams: &[(StreamId, u64)]) -> Option<u64> {
    streams.iter().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(*bytes))
}

/// A number below `most` (which is not 0), every one as likely as any other but for 2^-64 of it.
fn below(most: u64) -> u64 {
    let mut bytes = [0; 16];
    hoidla_crypto::random(&mut bytes);
    (u128::from_le_bytes(bytes) % u128::from(most)) as u64
}

impl Auditor<'_> {
    /// Asks for frames at `count` random bytes of what the receipts cover; each must be in the log, and whole.
    pub fn sample(&mut self, head: &Head, receipts: &[&Receipt], count: u32, mut tell: impl FnMut(Sampled)) -> Result<Sampled> {
        let streams: Vec<_> = receipts.iter().map(|r| (r.leaf().stream, r.covers().length)).collect();
        let total = total(&streams).ok_or_else(|| anyhow!("the receipts cover more bytes than there can be; tell the authority"))?;
        let mut sampled = Sampled::default();
        for _ in 0..if total == 0 { 0 } else { count } {
            if let Some((stream, offset)) = place(&streams, below(total)) {
                let (_, _, frame) = self.part(head, stream, offset, true)?;
                sampled.frames += 1;
                sampled.bytes += frame.map_or(0, |f| f.len() as u64);
                tell(sampled);
            }
        }
        Ok(sampled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_stream_has_its_place() {
        let stream = |n: u8, bytes| (StreamId([n; 16]), bytes);
        let streams = [stream(1, 3), stream(2, 0), stream(3, 2)];
        let places: Vec<_> = (0..6).map(|n| place(&streams, n).map(|(s, o)| (s.0[0], o))).collect();
        assert_eq!(places, [Some((1, 0)), Some((1, 1)), Some((1, 2)), Some((3, 0)), Some((3, 1)), None]);
        assert_eq!((total(&streams), total(&[stream(1, u64::MAX), stream(2, 1)])), (Some(5), None));
        assert!((0..100).all(|_| below(3) < 3));
    }
}
