//! A stream in memory, and two folders compared in all that a snapshot keeps.
#![allow(dead_code, clippy::missing_docs_in_private_items)]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use hoidla_snapshot::{
    Cache, GenerationKey, Index, Messages, Only, Options, Progress, Pushed, Restored, SnapshotError, Source, push, restore,
};

type ByAddress = HashMap<(u32, u32), Arc<Vec<u8>>>;

/// A stream, opened.
#[derive(Default)]
pub struct Stream(pub Mutex<ByAddress>);

impl Messages for Stream {
    fn message(&self, run: u32, number: u32) -> Result<Arc<Vec<u8>>, SnapshotError> {
        let found = self.0.lock().unwrap().get(&(run, number)).cloned();
        found.ok_or(SnapshotError::Message { run, number, why: "not there".into() })
    }
}

impl Stream {
    pub fn change(&self, at: (u32, u32), change: impl FnOnce(&mut Vec<u8>)) {
        let mut all = self.0.lock().unwrap();
        change(Arc::make_mut(all.get_mut(&at).unwrap()));
    }

    pub fn bytes(&self) -> usize {
        self.0.lock().unwrap().values().map(|m| m.len()).sum()
    }
}

pub struct Home {
    pub key: GenerationKey,
    pub index: Index,
    pub stream: Stream,
    pub run: u32,
    pub size: usize,
}

impl Home {
    pub fn new(size: usize) -> Self {
        Self { key: GenerationKey::random(), index: Index::in_memory(), stream: Stream::default(), run: 0, size }
    }

    /// Pushes and returns the last message with what was pushed.
    pub fn push_with(&mut self, source: Source, cache: &mut Cache) -> Result<((u32, u32), Pushed), SnapshotError> {
        self.run += 1;
        let options = Options { run: self.run, message: self.size, workers: 2, skip: None };
        let stream = &self.stream;
        let mut last = None;
        let mut sink = |m: hoidla_snapshot::Message| {
            assert!(m.bytes.len() == options.message || m.last, "all but the last are of one size");
            if m.last {
                last = Some((m.run, m.number));
            }
            stream.0.lock().unwrap().insert((m.run, m.number), Arc::new(m.bytes));
            Ok(vec![])
        };
        let pushed = push(source, &self.key, &mut self.index, cache, options, &Progress::default(), &mut sink)?;
        Ok((last.expect("a last message"), pushed))
    }

    pub fn push(&mut self, path: &Path) -> ((u32, u32), Pushed) {
        self.push_with(Source::Path(path), &mut Cache::none()).unwrap()
    }

    pub fn restore(&self, last: (u32, u32), to: &Path) -> Result<Restored, SnapshotError> {
        restore(&self.stream, last, to, &Only::All, &mut |_| {})
    }
}

/// What a snapshot keeps of one thing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    pub path: PathBuf,
    pub what: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub links: u64,
    pub content: Option<Vec<u8>>,
    /// Bytes of storage, for sparse files only.
    pub sparse: bool,
}

/// All of a folder (or a file), relative to its parent.
pub fn things(root: &Path) -> Vec<Thing> {
    let mut out = vec![];
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let t = m.file_type();
        let what = if t.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            "folder".into()
        } else if t.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).unwrap())
        } else if t.is_fifo() {
            "pipe".into()
        } else {
            "file".into()
        };
        out.push(Thing {
            path: path.strip_prefix(root.parent().unwrap()).unwrap().to_owned(),
            what,
            mode: m.mode(),
            owner: (m.uid(), m.gid()),
            mtime: (m.mtime(), m.mtime_nsec()),
            links: if t.is_dir() { 0 } else { m.nlink() },
            content: t.is_file().then(|| fs::read(&path).unwrap()),
            sparse: t.is_file() && m.blocks() * 512 < m.len() / 2,
        });
    }
    out.sort();
    out
}

/// Bytes that don't compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
