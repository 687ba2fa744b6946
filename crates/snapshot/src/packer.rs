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
