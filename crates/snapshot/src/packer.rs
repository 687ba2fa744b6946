//! Items to messages: pure, but for whom it hands each full message.

use crate::{
    SnapshotError,
    index::Known,
    pack::{END, HEAD, Message, PLAIN, PackHead, Place, RECORD, ZSTD, bucket},
};

/// Takes a full message and gives back a buffer for the next one (any content).
pub(crate) type Sink<'a> = dyn FnMut(Message) -> Result<Vec<u8>, String> + 'a;

pub(crate) struct Packer<'a> {
    sink: &'a mut Sink<'a>,
    run: u32,
    number: u32,
    size: usize,
    bytes: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// Messages of `size` bytes, from number 0 of `run`.
    pub fn new(run: u32, size: usize, sink: &'a mut Sink<'a>) -> Self {
        Self { sink, run, number: 0, size, bytes: vec![0; HEAD] }
    }

    /// The run.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Messages handed on so far.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A chunk as it is.
    pub fn plain(&mut self, chunk: &[u8]) -> Result<Known, SnapshotError> {
        self.item(&[&[PLAIN], &(chunk.len() as u32).to_le_bytes(), chunk])
    }

    /// A chunk of `raw` bytes under zstd.
    pub fn pressed(&mut self, raw: usize, pressed: &[u8]) -> Result<Known, SnapshotError> {
        self.item(&[&[ZSTD], &(raw as u32).to_le_bytes(), &(pressed.len() as u32).to_le_bytes(), pressed])
    }

    /// The snapshot's record, which ends the run.
    pub fn finish(mut self, record: &[u8]) -> Result<u32, SnapshotError> {
        let known = self.item(&[&[RECORD], &(record.len() as u32).to_le_bytes(), record])?;
        let len = bucket(self.bytes.len(), self.size);
        self.bytes.resize(len, END);
        self.emit(Some(known.place))?;
        Ok(self.number)
    }

    fn item(&mut self, parts: &[&[u8]]) -> Result<Known, SnapshotError> {
        let place = self.here();
        for part in parts {
            self.put(part)?;
        }
        let end = self.here();
        Ok(Known { place, end: (end.number, end.position) })
    }

    fn here(&self) -> Place {
        Place { run: self.run, number: self.number, position: self.bytes.len() as u32 }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let now = bytes.len().min(self.size - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.bytes.len() == self.size {
                self.emit(None)?;
            }
        }
        Ok(())
    }

    fn emit(&mut self, record: Option<Place>) -> Result<(), SnapshotError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[..HEAD].copy_from_slice(&PackHead { run: self.run, number: self.number, record }.write());
        let message = Message { run: self.run, number: self.number, bytes, last: record.is_some() };
        self.bytes = (self.sink)(message).map_err(SnapshotError::Sink)?;
        self.bytes.clear();
        self.bytes.reserve_exact(self.size);
        self.bytes.resize(HEAD, 0);
        self.number = self.number.checked_add(1).ok_or(SnapshotError::Sink("a run of more messages than can be numbered".into()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc};

    use hoidla_crypto::Secret;
    use hoidla_format::Moment;

    use super::*;
    use crate::{
        GenerationKey, Messages, Only,
        chunk::Digest,
        entry::{Body, Entry, Meta, Piece},
        record::Record,
        restore,
    };

    const WORDS: &[u8] = b"some words\n";

    fn meta(name: &[u8], mode: u32) -> Meta {
        Meta { name: name.to_vec(), mode, uid: 1000, gid: 1000, mtime: (1_800_000_000, 5) }
    }

    /// A folder `f` with a file `w`: a hole of 4 KiB, then words.
    fn message() -> Vec<u8> {
        let key = GenerationKey::from_secret(Secret::filled(|b| b.fill(1)));
        let mut out = vec![];
        let mut sink = |m: Message| {
            assert!(m.last);
            out = m.bytes;
            Ok(vec![])
        };
        let mut packer = Packer::new(7, 4096, &mut sink);
        let place = packer.plain(WORDS).unwrap().place;
        let mut digest = Digest::new();
        digest.hole(4096);
        digest.chunk(&key.id(WORDS));
        let size = 4096 + WORDS.len() as u64;
        let pieces = vec![Piece::Hole(4096), Piece::Data { len: WORDS.len() as u64, place, chunks: 1 }];
        let body = Body { size, digest: digest.finish(), pieces };
        let mut tree = vec![];
        let file = Entry::File { meta: meta(b"w", 0o640), changed: false, group: 0, body };
        [Entry::Dir(meta(b"f", 0o750)), file, Entry::Up].iter().for_each(|e| e.write(&mut tree));
        let at = packer.plain(&tree).unwrap().place;
        let taken = (Moment::from_seconds(1_800_000_100), Moment::from_seconds(1_800_000_101));
        let tree = vec![Piece::Data { len: tree.len() as u64, place: at, chunks: 1 }];
        let record = Record { taken, entries: 2, bytes: size, changed: 0, left_out: 0, key, tree };
        assert_eq!(packer.finish(&record.write()).unwrap(), 1);
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.chunks(32).fold(String::new(), |mut out, line| {
            line.iter().for_each(|b| write!(out, "{b:02x}").unwrap());
            out + "\n"
        })
    }

    struct One(Vec<u8>);

    impl Messages for One {
        fn message(&self, run: u32, number: u32) -> Result<Arc<Vec<u8>>, SnapshotError> {
            assert_eq!((run, number), (7, 0));
            Ok(Arc::new(self.0.clone()))
        }
    }

    #[test]
    fn the_vector_is_written_and_read() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/snapshot/message.txt");
        let message = message();
        let used = message.len() - message.iter().rev().take_while(|b| **b == 0).count();
        let vector = fs::read_to_string(path).unwrap();
        assert_eq!(message.len(), 4096, "padded with zeros to 4 KiB");
        assert_eq!(hex(&message[..used]), vector);

        let dir = tempfile::tempdir().unwrap();
        restore(&One(message), (7, 0), dir.path(), &Only::All, &mut |_| {}).unwrap();
        let back = fs::read(dir.path().join("f/w")).unwrap();
        assert_eq!((&back[..4096], &back[4096..]), (&[0; 4096][..], WORDS));
    }
}
