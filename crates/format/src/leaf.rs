//! The log's leaf: what one group commit added to one stream.
//!
//! Promises: one encoding, bounded, refused when anything is out of place.
//! The leaf names the [`Chain`](crate::frame::Chain)'s root *after* the part, so a
//! single leaf covers its stream from the first byte, and the part alone can be
//! checked by whoever knows the root before it. Layout: `docs/formats/log.md`.

use crate::{ByteRange, Hash32, Kind, Malformed, Name, Reader, StreamId, Writer};

/// The version of [`Leaf`].
pub const VERSION: u8 = 1;

/// One stream's part of one group commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The stream's epoch.
    pub epoch: u32,
    /// The bytes of the stream that were added; never empty.
    pub part: ByteRange,
    /// The chain's root after them: BLAKE3 over the BLAKE3 hashes of all frames so far.
    pub root: Hash32,
}

impl Leaf {
    /// The leaf as bytes: what the log's tree hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::Leaf, VERSION);
        w.short(self.dataset.as_str().as_bytes()).put(&self.stream.0).u32(self.epoch);
        w.u64(self.part.at()).u64(self.part.len()).put(&self.root.0);
        w.finish()
    }

    /// Reads exactly what [`to_bytes`](Self::to_bytes) writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::Leaf, VERSION)?;
        let dataset = Name::from_bytes(r.short(Name::MOST, "a dataset's name is at most 64 bytes")?)?;
        let stream = StreamId(r.array()?);
        let epoch = r.u32()?;
        let part = ByteRange::new(r.u64()?, r.u64()?)?;
        if part.is_empty() {
            return Err(Malformed::Field("a leaf that adds nothing"));
        }
        let root = Hash32(r.array()?);
        r.finish()?;
        Ok(Self { dataset, stream, epoch, part, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        let part = ByteRange::new(4096, 1000).unwrap();
        Leaf { dataset: "land-register".parse().unwrap(), stream: StreamId([7; 16]), epoch: 3, part, root: Hash32([9; 32]) }
    }

    #[test]
    fn a_leaf_reads_back_from_its_known_bytes() {
        let bytes = leaf().to_bytes();
        let mut known = b"hoidla\x06\x01\x0d\x00land-register".to_vec();
        known.extend([7; 16]);
        known.extend([3, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0]);
        known.extend([9; 32]);
        assert_eq!(bytes, known);
        assert_eq!(Leaf::from_bytes(&bytes), Ok(leaf()));
    }

    #[test]
    fn every_cut_and_every_excess_is_refused() {
        let bytes = leaf().to_bytes();
        for cut in 0..bytes.len() {
            assert!(Leaf::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Leaf::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed::Trailing(1)));
    }

    #[test]
    fn an_empty_or_overflowing_part_is_refused() {
        let bytes = leaf().to_bytes();
        let length = bytes.len() - 32 - 8;
        let with = |range: std::ops::Range<usize>, value: u64| {
            let mut b = bytes.clone();
            b[range].copy_from_slice(&value.to_le_bytes());
            Leaf::from_bytes(&b)
        };
        assert_eq!(with(length..length + 8, 0), Err(Malformed::Field("a leaf that adds nothing")));
        assert!(with(length - 8..length, u64::MAX).is_err());
    }
}
