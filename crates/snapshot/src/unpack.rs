//! Messages to items. Every length is checked before it is believed.

use std::{
    io::{self, Read},
    sync::Arc,
};

use hoidla_format::{Hash32, Malformed};

use crate::{
    GenerationKey, SnapshotError, chunk,
    entry::Piece,
    pack::{END, HEAD, PLAIN, PackHead, Place, RECORD, ZSTD},
    record::{self, Record},
};

/// Opened messages, any of them at any time.
pub trait Messages {
    /// The plaintext of one message, authenticated.
    fn message(&self, run: u32, number: u32) -> Result<Arc<Vec<u8>>, SnapshotError>;
}

/// Reads items from a place onwards, over the borders of messages.
pub(crate) struct Unpacker<'m> {
    messages: &'m dyn Messages,
    zstd: zstd::bulk::Decompressor<'static>,
    current: Option<(u32, u32, Arc<Vec<u8>>)>,
    position: usize,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl<'m> Unpacker<'m> {
    pub fn new(messages: &'m dyn Messages) -> Result<Self, SnapshotError> {
        let zstd = zstd::bulk::Decompressor::new().map_err(SnapshotError::io("zstd"))?;
        Ok(Self { messages, zstd, current: None, position: 0, stored: vec![], raw: vec![0; chunk::MOST] })
    }

    /// Goes to where an item begins.
    pub fn seek(&mut self, place: Place) -> Result<(), SnapshotError> {
        self.load(place.run, place.number)?;
        self.position = place.position as usize;
        if self.position < HEAD || self.position >= self.left().len() + self.position {
            return Err(Malformed::Field("a place outside its message").into());
        }
        Ok(())
    }

    fn load(&mut self, run: u32, number: u32) -> Result<(), SnapshotError> {
        if self.current.as_ref().is_some_and(|(r, n, _)| (*r, *n) == (run, number)) {
            return Ok(());
        }
        let bytes = self.messages.message(run, number)?;
        let head = PackHead::parse(&bytes)?;
        if (head.run, head.number) != (run, number) {
            return Err(SnapshotError::Message {
                run,
                number,
                why: format!("another one stands there: {} of run {}", head.number, head.run),
            });
        }
        self.current = Some((run, number, bytes));
        self.position = HEAD;
        Ok(())
    }

    fn left(&self) -> &[u8] {
        self.current.as_ref().and_then(|(_, _, b)| b.get(self.position..)).unwrap_or(&[])
    }

    fn next_message(&mut self) -> Result<(), SnapshotError> {
        let (run, number, _) = self.current.as_ref().ok_or(Malformed::Field("no place was sought"))?;
        let next = number.checked_add(1).ok_or(Malformed::Field("a run past its last number"))?;
        self.load(*run, next)
    }

    fn take(&mut self, mut len: usize, mut out: impl FnMut(&[u8])) -> Result<(), SnapshotError> {
        while len > 0 {
            if self.left().is_empty() {
                self.next_message()?;
            }
            let now = len.min(self.left().len());
            if now == 0 {
                return Err(Malformed::Field("an empty message").into());
            }
            out(&self.left()[..now]);
            self.position += now;
            len -= now;
        }
        Ok(())
    }

    fn u32(&mut self) -> Result<usize, SnapshotError> {
        let mut bytes = Vec::with_capacity(4);
        self.take(4, |b| bytes.extend_from_slice(b))?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four were taken")) as usize)
    }

    fn bytes(&mut self, len: usize) -> Result<(), SnapshotError> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        let done = self.take(len, |b| stored.extend_from_slice(b));
        self.stored = stored;
        done
    }

    fn tag(&mut self) -> Result<u8, SnapshotError> {
        let mut tag = END;
        self.take(1, |b| tag = b[0])?;
        Ok(tag)
    }

    /// The next item, which must be a chunk.
    pub fn chunk(&mut self) -> Result<&[u8], SnapshotError> {
        let tag = self.tag()?;
        let bounded = |len: usize| if (1..=chunk::MOST).contains(&len) { Ok(len) } else { Err(Malformed::Field("a chunk out of bounds")) };
        match tag {
            PLAIN => {
                let len = bounded(self.u32()?)?;
                self.bytes(len)?;
                Ok(&self.stored)
            }
            ZSTD => {
                let (raw, len) = (bounded(self.u32()?)?, bounded(self.u32()?)?);
                self.bytes(len)?;
                match self.zstd.decompress_to_buffer(&self.stored, &mut self.raw[..raw]) {
                    Ok(n) if n == raw => Ok(&self.raw[..raw]),
                    _ => Err(Malformed::Field("a chunk that doesn't decompress to its length").into()),
                }
            }
            _ => Err(Malformed::Field("no chunk where one belongs").into()),
        }
    }

    fn record(&mut self) -> Result<Record, SnapshotError> {
        if self.tag()? != RECORD {
            return Err(Malformed::Field("no record where one belongs").into());
        }
        let len = self.u32()?;
        if len > record::MOST {
            return Err(Malformed::Field("a record out of bounds").into());
        }
        self.bytes(len)?;
        Ok(Record::parse(&self.stored)?)
    }
}

/// The record of the snapshot that ends with this message.
pub fn record_of(messages: &dyn Messages, run: u32, number: u32) -> Result<Record, SnapshotError> {
    let bytes = messages.message(run, number)?;
    let place = PackHead::parse(&bytes)?.record.ok_or(Malformed::Field("no snapshot ends with this message"))?;
    let mut unpacker = Unpacker::new(messages)?;
    unpacker.seek(place)?;
    unpacker.record()
}

/// Calls `each` with every chunk of a piece; refuses other than exactly `len` bytes.
pub(crate) fn piece_chunks(
    unpacker: &mut Unpacker,
    key: &GenerationKey,
    (len, place, chunks): (u64, Place, u32),
    mut each: impl FnMut(&[u8], Hash32) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    unpacker.seek(place)?;
    let mut left = len;
    for _ in 0..chunks {
        let chunk = unpacker.chunk()?;
        left = left.checked_sub(chunk.len() as u64).ok_or(Malformed::Field("chunks longer than their piece"))?;
        each(chunk, key.id(chunk))?;
    }
    if left == 0 { Ok(()) } else { Err(Malformed::Field("chunks shorter than their piece").into()) }
}

/// The tree's bytes, one chunk at a time.
pub(crate) struct TreeReader<'m> {
    unpacker: Unpacker<'m>,
    pieces: std::vec::IntoIter<Piece>,
    /// Chunks and bytes left of the piece that is being read.
    left: (u32, u64),
    chunk: Vec<u8>,
    position: usize,
    /// Why reading ended, if not at the end.
    pub error: Option<SnapshotError>,
}

impl<'m> TreeReader<'m> {
    pub fn new(messages: &'m dyn Messages, tree: Vec<Piece>) -> Result<Self, SnapshotError> {
        let unpacker = Unpacker::new(messages)?;
        Ok(Self { unpacker, pieces: tree.into_iter(), left: (0, 0), chunk: vec![], position: 0, error: None })
    }

    fn refill(&mut self) -> Result<bool, SnapshotError> {
        if self.left.0 == 0 {
            if self.left.1 != 0 {
                return Err(Malformed::Field("a piece of the tree of another length").into());
            }
            match self.pieces.next() {
                Some(Piece::Data { len, place, chunks }) => {
                    self.unpacker.seek(place)?;
                    self.left = (chunks, len);
                }
                _ => return Ok(false),
            }
        }
        let chunk = self.unpacker.chunk()?;
        self.left.0 -= 1;
        self.left.1 = self.left.1.checked_sub(chunk.len() as u64).ok_or(Malformed::Field("a piece of the tree too long"))?;
        self.chunk.clear();
        self.chunk.extend_from_slice(chunk);
        self.position = 0;
        Ok(true)
    }

    /// Whether the tree has been read to its end.
    pub fn at_end(&mut self) -> bool {
        self.position == self.chunk.len() && self.left == (0, 0) && self.pieces.len() == 0
    }
}

impl Read for TreeReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(e) => {
                    self.error = Some(e);
                    return Err(io::Error::other("the tree could not be read"));
                }
            }
        }
        let now = out.len().min(self.chunk.len() - self.position);
        out[..now].copy_from_slice(&self.chunk[self.position..self.position + now]);
        self.position += now;
        Ok(now)
    }
}
