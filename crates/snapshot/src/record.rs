//! A snapshot's record: the one item from which all else of it is found.

use hoidla_format::{Malformed, Moment, Reader, Writer};

use crate::{GenerationKey, entry::Piece, pack::Place};

/// The most bytes of a record: a tree of some 350 GB.
pub const MOST: usize = 64 << 20;

/// What a snapshot says of itself.
pub struct Record {
    /// When reading began and ended, as the agent's clock claimed.
    pub taken: (Moment, Moment),
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Files that changed while they were read.
    pub changed: u64,
    /// Things that were left out, each of which the agent named.
    pub left_out: u64,
    pub(crate) key: GenerationKey,
    pub(crate) tree: Vec<Piece>,
}

impl Record {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(self.taken.0.seconds()).u64(self.taken.1.seconds());
        w.u64(self.entries).u64(self.bytes).u64(self.changed).u64(self.left_out);
        w.put(self.key.secret().expose()).u32(self.tree.len() as u32);
        for piece in &self.tree {
            let Piece::Data { len, place, chunks } = piece else { unreachable!("a tree has no holes") };
            w.u64(*len);
            place.write(&mut w);
            w.u32(*chunks);
        }
        w.finish()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let moment = |r: &mut Reader| r.u64().map(Moment::from_seconds);
        let taken = (moment(&mut r)?, moment(&mut r)?);
        let (entries, total, changed, left_out) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let mut key: [u8; 32] = r.array()?;
        let key = GenerationKey::from_secret(hoidla_crypto::Secret::from_bytes_wiping(&mut key));
        let count = r.u32()? as usize;
        let mut tree = Vec::with_capacity(count.min(r.left() / 24));
        for _ in 0..count {
            let (len, place, chunks) = (r.u64()?, Place::read(&mut r)?, r.u32()?);
            if len == 0 || chunks == 0 {
                return Err(Malformed::Field("an empty piece of the tree"));
            }
            tree.push(Piece::Data { len, place, chunks });
        }
        r.finish()?;
        Ok(Self { taken, entries, bytes: total, changed, left_out, key, tree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_nonsense_is_refused() {
        let place = Place { run: 1, number: 2, position: 24 };
        let now = Moment::from_seconds(7);
        let record = Record {
            taken: (now, now),
            entries: 1,
            bytes: 2,
            changed: 3,
            left_out: 4,
            key: GenerationKey::random(),
            tree: vec![Piece::Data { len: 9, place, chunks: 1 }],
        };
        let bytes = record.write();
        let back = Record::parse(&bytes).unwrap();
        assert_eq!((back.write(), back.tree.len()), (bytes.clone(), 1));
        for cut in 0..bytes.len() {
            assert!(Record::parse(&bytes[..cut]).is_err());
        }
        assert!(Record::parse(&[&bytes[..], &[0]].concat()).is_err());
        let mut huge = bytes;
        huge[80..84].fill(255);
        assert!(Record::parse(&huge).is_err(), "a count that the bytes can't hold");
    }
}
