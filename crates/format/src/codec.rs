//! The binary codec: a bounded reader and a writer for little-endian layouts.
//!
//! Promises: [`Reader`] never reads past its input, never allocates, and
//! [`Reader::finish`] refuses trailing bytes. It doesn't know any layout.

use thiserror::Error;

/// What each binary layout is. The number stands on disk and on the wire for
/// ever; a retired one is never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One of four copies of a disk's identity and membership.
    Superblock = 1,
    /// The first block of a segment.
    Segment = 2,
    /// What one group commit wrote into one segment.
    Batch = 3,
    /// The index at the end of a closed segment.
    SegmentIndex = 4,
    /// The cache of all that recovery would otherwise search for.
    Catalogue = 5,
    /// What one group commit added to one stream: a leaf of the log.
    Leaf = 6,
    /// How far each open segment may have been written.
    Fences = 7,
    /// One entry of the state that the boot disks keep.
    State = 8,
    /// Stream frame: the signed header of an epoch.
    EpochHeader = 16,
    /// Stream frame: one sealed message.
    Message = 17,
    /// Stream frame: the signed root so far.
    StreamRoot = 18,
    /// Inside a message: entries and chunks of a snapshot.
    Pack = 32,
    /// A private key under a passphrase.
    KeyFile = 48,
    /// A share sealed to one custodian.
    Envelope = 49,
    /// A share in clear, as only an envelope or an approval seals it.
    Share = 50,
    /// A TPM object as the appliance keeps it: public area and wrapped private area.
    TpmObject = 51,
    /// An appliance's papers, sealed to its TPM.
    Parcel = 52,
    /// The first bytes either side sends through the door.
    Hello = 64,
    /// The agent's record of what it has sealed and not seen acknowledged.
    Spool = 80,
    /// What the appliance asks of its opening helper, over a pipe.
    OpeningRequest = 96,
    /// What the opening helper answers.
    OpeningReply = 97,
}

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The input ended before the layout did.
    #[error("cut short: {wanted} more bytes were expected, {left} are left")]
    Truncated {
        /// Bytes the next field needs.
        wanted: usize,
        /// Bytes left in the input.
        left: usize,
    },
    /// The input went on after the layout's end.
    #[error("{0} bytes too many at the end")]
    Trailing(usize),
    /// The first six bytes are not `hoidla`.
    #[error("not a Hoidla file or block")]
    Magic,
    /// Another kind of block than the one that belongs here.
    #[error("a block of kind {found} where kind {wanted:?} belongs")]
    WrongKind {
        /// What belongs here.
        wanted: Kind,
        /// The kind's number as read.
        found: u8,
    },
    /// A version that this program doesn't know.
    #[error("{kind:?} of version {found}; this program knows version {known}: use the release that wrote it, or a newer one")]
    Version {
        /// What was read.
        kind: Kind,
        /// The version as read.
        found: u8,
        /// The only version known.
        known: u8,
    },
    /// A field's value lies outside what its layout allows.
    #[error("{0}")]
    Field(&'static str),
}

/// The first eight bytes of every binary layout: `hoidla`, kind, version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Which version of it.
    pub version: u8,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 8;
    const MAGIC: &'static [u8; 6] = b"hoidla";

    /// A header as bytes.
    pub const fn bytes(kind: Kind, version: u8) -> [u8; 8] {
        let m = Self::MAGIC;
        [m[0], m[1], m[2], m[3], m[4], m[5], kind as u8, version]
    }
}

/// Reads one layout from a slice, field by field.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { left: input }
    }

    /// Reads the header and refuses any other kind or version.
    pub fn header(&mut self, kind: Kind, known: u8) -> Result<(), Malformed> {
        let head: [u8; 8] = self.array()?;
        if &head[..6] != Header::MAGIC {
            return Err(Malformed::Magic);
        }
        if head[6] != kind as u8 {
            return Err(Malformed::WrongKind { wanted: kind, found: head[6] });
        }
        if head[7] != known {
            return Err(Malformed::Version { kind, found: head[7], known });
        }
        Ok(())
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let Some((head, rest)) = self.left.split_at_checked(len) else {
            return Err(Malformed::Truncated { wanted: len, left: self.left.len() });
        };
        self.left = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// A 16-bit number, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit number, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes with a 16-bit length before them, at most `most` long.
    pub fn short(&mut self, most: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let len = usize::from(self.u16()?);
        if len > most {
            return Err(Malformed::Field(field));
        }
        self.take(len)
    }

    /// Bytes with a 32-bit length before them, at most `most` long.
    pub fn long(&mut self, most: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        if len > most {
            return Err(Malformed::Field(field));
        }
        self.take(len)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// How much is left.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Refuses trailing bytes.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.left.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.left.len())) }
    }
}

/// Writes one layout into a growing vector.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer, for layouts without a header (fields of others).
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that has begun with a header.
    pub fn with_header(kind: Kind, version: u8) -> Self {
        Self(Header::bytes(kind, version).to_vec())
    }

    /// Raw bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.put(&[v])
    }

    /// A 16-bit number, little-endian.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    /// A 32-bit number, little-endian.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    /// A 64-bit number, little-endian.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    /// Bytes with a 16-bit length before them.
    ///
    /// # Panics
    /// If `bytes` is longer than 65,535: the caller's bound is wrong.
    pub fn short(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).expect("bounded by the caller")).put(bytes)
    }

    /// Bytes with a 32-bit length before them.
    ///
    /// # Panics
    /// If `bytes` is 4 GiB or longer: the caller's bound is wrong.
    pub fn long(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).expect("bounded by the caller")).put(bytes)
    }

    /// Bytes written so far.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What has been written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_reads_back() {
        let mut w = Writer::with_header(Kind::Pack, 1);
        w.u8(1).u16(2).u32(3).u64(4).short(b"short").long(b"long");
        let bytes = w.finish();
        let mut r = Reader::new(&bytes);
        r.header(Kind::Pack, 1).unwrap();
        assert_eq!((r.u8(), r.u16(), r.u32(), r.u64()), (Ok(1), Ok(2), Ok(3), Ok(4)));
        assert_eq!(r.short(5, "s").unwrap(), b"short");
        assert_eq!(r.long(4, "l").unwrap(), b"long");
        r.finish().unwrap();
    }

    #[test]
    fn wrong_magic_kind_version_and_length_are_told_apart() {
        let good = Header::bytes(Kind::Batch, 1);
        let mut bad = good;
        bad[0] = b'H';
        assert_eq!(Reader::new(&bad).header(Kind::Batch, 1), Err(Malformed::Magic));
        assert!(matches!(Reader::new(&good).header(Kind::Pack, 1), Err(Malformed::WrongKind { found: 3, .. })));
        assert!(matches!(Reader::new(&good).header(Kind::Batch, 2), Err(Malformed::Version { found: 1, .. })));
        assert!(matches!(Reader::new(&good[..7]).header(Kind::Batch, 1), Err(Malformed::Truncated { .. })));
        assert_eq!(Reader::new(&good).finish(), Err(Malformed::Trailing(8)));
        assert_eq!(Reader::new(&[9, 0, 1]).short(8, "too long"), Err(Malformed::Field("too long")));
    }
}
