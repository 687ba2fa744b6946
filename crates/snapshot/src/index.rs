//! The index of one stream's chunks, at home: which are in the stream, and where.
//!
//! A cache: losing it only costs sending chunks again. It must never point to
//! what isn't there, so it is written in batches with a hash each, what doesn't
//! check is dropped, and opening it takes the caller's word for which messages
//! came to be kept. Chunks are found by 128 bits of their keyed name; that two of
//! 10^10 chunks share them has a chance of about 2^-62.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use hoidla_format::{Hash32, Malformed, Reader, Writer};

use crate::{SnapshotError, pack::Place};

const RECORD: usize = 16 + 12 + 8;
const BATCH_HEAD: usize = 4 + 32;
const MOST_BATCH: usize = 4096;

/// A chunk that is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where its item begins.
    pub place: Place,
    /// Where the next item begins, in the same run.
    pub end: (u32, u32),
}

/// The chunks of one stream.
pub struct Index {
    map: HashMap<[u8; 16], Known>,
    fresh: Vec<([u8; 16], Known)>,
    file: Option<File>,
    path: PathBuf,
}

impl Index {
    /// An index that is kept nowhere.
    pub fn in_memory() -> Self {
        Self { map: HashMap::new(), fresh: vec![], file: None, path: PathBuf::new() }
    }

    /// Opens or begins the index at `path`. `kept(run, number)` says whether that message
    /// of that run is kept, at home or in the embassy; chunks of others are dropped.
    pub fn open(path: &Path, kept: impl Fn(u32, u32) -> bool) -> Result<Self, SnapshotError> {
        let mut index = Self { path: path.to_owned(), ..Self::in_memory() };
        let (mut checked, mut dropped) = (0, false);
        if let Ok(file) = File::open(path) {
            let mut file = std::io::BufReader::with_capacity(1 << 20, file);
            while let Some(batch) = read_batch(&mut file) {
                checked += BATCH_HEAD + batch.len() * RECORD;
                for (id, known) in batch {
                    if kept(known.place.run, known.end.0.max(known.place.number)) {
                        index.map.insert(id, known);
                    } else {
                        dropped = true;
                    }
                }
            }
        }
        if dropped || fs::metadata(path).is_ok_and(|m| m.len() != checked as u64) {
            index.rewrite()?;
        }
        index.file = Some(OpenOptions::new().create(true).append(true).open(path).map_err(SnapshotError::at(path))?);
        Ok(index)
    }

    /// How many chunks it knows.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn get(&self, id: &Hash32) -> Option<Known> {
        self.map.get(&short(id)).copied()
    }

    pub(crate) fn insert(&mut self, id: &Hash32, known: Known) {
        self.map.insert(short(id), known);
        if self.file.is_some() {
            self.fresh.push((short(id), known));
        }
    }

    /// Writes down the chunks that end before message `number` of `run`: it is kept now.
    pub fn write_down(&mut self, run: u32, number: u32) -> Result<(), SnapshotError> {
        let ready = self.fresh.partition_point(|(_, k)| k.place.run != run || k.end.0.max(k.place.number) < number);
        let Some(file) = &mut self.file else { return Ok(()) };
        for batch in self.fresh[..ready].chunks(MOST_BATCH) {
            file.write_all(&batch_bytes(batch)).map_err(SnapshotError::at(&self.path))?;
        }
        self.fresh.drain(..ready);
        Ok(())
    }

    fn rewrite(&self) -> Result<(), SnapshotError> {
        let new = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut out = std::io::BufWriter::with_capacity(1 << 20, File::create(&new)?);
            let all: Vec<_> = self.map.iter().map(|(id, k)| (*id, *k)).collect();
            for batch in all.chunks(MOST_BATCH) {
                out.write_all(&batch_bytes(batch))?;
            }
            out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(SnapshotError::at(&self.path))
    }
}

fn short(id: &Hash32) -> [u8; 16] {
    *id.0.first_chunk().expect("32 bytes have 16")
}

fn batch_bytes(batch: &[([u8; 16], Known)]) -> Vec<u8> {
    let mut w = Writer::new();
    for (id, known) in batch {
        w.put(id);
        known.place.write(&mut w);
        w.u32(known.end.0).u32(known.end.1);
    }
    let records = w.finish();
    let mut out = (batch.len() as u32).to_le_bytes().to_vec();
    out.extend(blake3::hash(&records).as_bytes());
    out.extend(records);
    out
}

fn read_batch(file: &mut impl Read) -> Option<Vec<([u8; 16], Known)>> {
    let mut head = [0; BATCH_HEAD];
    file.read_exact(&mut head).ok()?;
    let count = u32::from_le_bytes(*head.first_chunk()?) as usize;
    if count == 0 || count > MOST_BATCH {
        return None;
    }
    let mut records = vec![0; count * RECORD];
    file.read_exact(&mut records).ok()?;
    (blake3::hash(&records).as_bytes()[..] == head[4..]).then_some(())?;
    records.chunks_exact(RECORD).map(|r| read_record(r).ok()).collect()
}

fn read_record(bytes: &[u8]) -> Result<([u8; 16], Known), Malformed> {
    let mut r = Reader::new(bytes);
    Ok((r.array()?, Known { place: Place::read(&mut r)?, end: (r.u32()?, r.u32()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u32) -> Known {
        Known { place: Place { run: 1, number, position: 24 }, end: (number, 99) }
    }

    fn filled(path: &Path) {
        let mut index = Index::open(path, |_, _| true).unwrap();
        for n in 0..10 {
            index.insert(&Hash32([n as u8; 32]), known(n));
        }
        index.write_down(1, 8).unwrap();
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        filled(&path);
        let again = Index::open(&path, |_, number| number < 5).unwrap();
        assert_eq!(again.len(), 5, "8 were written down, 5 are kept");
        assert_eq!(again.get(&Hash32([4; 32])), Some(known(4)));
        assert_eq!(again.get(&Hash32([5; 32])), None);
        assert_eq!(Index::open(&path, |_, _| true).unwrap().len(), 5, "what was dropped stays dropped");
    }

    #[test]
    fn damage_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        filled(&path);
        let good = fs::read(&path).unwrap();
        for at in [0, 4, 40, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(Index::open(&path, |_, _| true).unwrap().len(), 0, "flipped at {at}");
        }
        fs::write(&path, [&good[..], &good[..50]].concat()).unwrap();
        assert_eq!(Index::open(&path, |_, _| true).unwrap().len(), 8, "a torn tail");
        assert_eq!(fs::metadata(&path).unwrap().len(), good.len() as u64, "and it is cut off");
    }
}
