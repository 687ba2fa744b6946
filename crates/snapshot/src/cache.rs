//! The cache of files, at home: what each held when it was copied last.
//!
//! A file whose inode, size, mtime and ctime are as they were is not read again.
//! Files stand in the walk's order, so that old and new are merged as the walk
//! goes, with one entry in memory. A record that doesn't check ends the cache.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use hoidla_format::Writer;
use nix::sys::stat::FileStat;

use crate::{SnapshotError, entry::Body};

const VERSION: u32 = 1;
/// A path (at most 512 levels of 255 bytes) and a body of 64 MiB.
const MOST: usize = (64 << 20) + 512 * 256;

/// How a file looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Seen {
    pub fn of(st: &FileStat) -> Self {
        Self { ino: st.st_ino, size: st.st_size as u64, mtime: (st.st_mtime, st.st_mtime_nsec), ctime: (st.st_ctime, st.st_ctime_nsec) }
    }

    /// Whether it changed so long before `now` (seconds) that a later change would show in its times.
    pub fn is_settled(&self, now: i64) -> bool {
        self.ctime.0 < now - 2 && self.mtime.0 < now - 2
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.ino).u64(self.size);
        for t in [self.mtime, self.ctime] {
            w.u64(t.0 as u64).u64(t.1 as u64);
        }
    }

    const LEN: usize = 48;

    fn parse(b: &[u8]) -> Option<Self> {
        let mut r = hoidla_format::Reader::new(b);
        let mut next = || r.u64().ok();
        let (ino, size) = (next()?, next()?);
        Some(Self { ino, size, mtime: (next()? as i64, next()? as i64), ctime: (next()? as i64, next()? as i64) })
    }
}

struct Record {
    path: Vec<u8>,
    seen: Seen,
    body: Body,
}

/// Which files need not be read again.
pub struct Cache {
    old: Old,
    new: Option<BufWriter<File>>,
    path: PathBuf,
}

pub(crate) struct Old {
    file: Option<BufReader<File>>,
    next: Option<Record>,
}

impl Cache {
    /// A cache that knows nothing and keeps nothing.
    pub fn none() -> Self {
        Self { old: Old { file: None, next: None }, new: None, path: PathBuf::new() }
    }

    /// Opens the cache at `path` for copies of `root`; one of another root is not used.
    pub fn open(path: &Path, root: &Path) -> Result<Self, SnapshotError> {
        let head = head(root);
        let mut old = File::open(path).ok().map(|f| BufReader::with_capacity(1 << 20, f));
        let mut found = vec![0; head.len()];
        if !old.as_mut().is_some_and(|f| f.read_exact(&mut found).is_ok() && found == head) {
            old = None;
        }
        let mut new = BufWriter::with_capacity(1 << 20, File::create(fresh(path)).map_err(SnapshotError::at(path))?);
        new.write_all(&head).map_err(SnapshotError::at(path))?;
        let mut old = Old { file: old, next: None };
        old.advance();
        Ok(Self { old, new: Some(new), path: path.to_owned() })
    }

    /// Makes what was copied now the cache of the next time. Only when all of it is kept.
    pub fn commit(self) -> Result<(), SnapshotError> {
        let Some(new) = self.new else { return Ok(()) };
        let rename = || fs::rename(fresh(&self.path), &self.path);
        new.into_inner()
            .map_err(|e| e.into_error())
            .and_then(|f| f.sync_all())
            .and_then(|()| rename())
            .map_err(SnapshotError::at(&self.path))
    }

    /// The reading side and the writing side.
    pub(crate) fn split(&mut self) -> (&mut Old, CacheWriter<'_>) {
        (&mut self.old, CacheWriter { out: self.new.as_mut(), path: &self.path })
    }
}

pub(crate) struct CacheWriter<'a> {
    out: Option<&'a mut BufWriter<File>>,
    path: &'a Path,
}

impl CacheWriter<'_> {
    pub fn keep(&mut self, path: &[u8], seen: &Seen, body: &Body) -> Result<(), SnapshotError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let mut w = Writer::new();
        w.u32(path.len() as u32).put(path);
        seen.write(&mut w);
        body.write(&mut w);
        let bytes = w.finish();
        if bytes.len() > MOST {
            return Ok(());
        }
        let check = check(&bytes);
        [&(bytes.len() as u32).to_le_bytes()[..], &check, &bytes]
            .iter()
            .try_for_each(|part| out.write_all(part))
            .map_err(SnapshotError::at(self.path))
    }
}

impl Old {
    /// What the file at `path` held, if it looks as it did. Paths must be asked in the walk's order.
    pub fn find(&mut self, path: &[u8], seen: &Seen) -> Option<Body> {
        while let Some(next) = &self.next {
            match walk_order(&next.path, path) {
                Ordering::Less => self.advance(),
                Ordering::Equal => {
                    let found = self.next.take().filter(|r| r.seen == *seen).map(|r| r.body);
                    self.advance();
                    return found;
                }
                Ordering::Greater => return None,
            }
        }
        None
    }

    fn advance(&mut self) {
        self.next = self.file.as_mut().and_then(read_record);
        if self.next.is_none() {
            self.file = None;
        }
    }
}

fn read_record(file: &mut BufReader<File>) -> Option<Record> {
    let mut head = [0; 20];
    file.read_exact(&mut head).ok()?;
    let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
    if len > MOST {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes).ok()?;
    (check(&bytes)[..] == head[4..]).then_some(())?;
    let mut r = hoidla_format::Reader::new(&bytes);
    let path = r.long(MOST, "").ok()?.to_vec();
    let seen = Seen::parse(r.take(Seen::LEN).ok()?)?;
    let body = Body::read(&mut r.rest()).ok()?;
    Some(Record { path, seen, body })
}

fn check(bytes: &[u8]) -> [u8; 16] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("32 bytes have 16")
}

fn head(root: &Path) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(VERSION).put(blake3::hash(root.as_os_str().as_encoded_bytes()).as_bytes());
    w.finish()
}

fn fresh(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// The order in which a depth-first walk with sorted names meets two paths.
fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_format::Hash32;

    fn seen(ino: u64) -> Seen {
        Seen { ino, size: 0, mtime: (1, 2), ctime: (3, 4) }
    }

    fn body(n: u8) -> Body {
        Body { size: 0, digest: Hash32([n; 32]), pieces: vec![] }
    }

    fn fill(path: &Path) {
        let mut cache = Cache::open(path, Path::new("/r")).unwrap();
        let (_, mut w) = cache.split();
        for (n, name) in ["a/b", "a-b", "b", "d"].into_iter().enumerate() {
            w.keep(name.as_bytes(), &seen(n as u64), &body(n as u8)).unwrap();
        }
        cache.commit().unwrap();
    }

    #[test]
    fn unchanged_files_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("files");
        fill(&path);
        let mut cache = Cache::open(&path, Path::new("/r")).unwrap();
        let (old, _) = cache.split();
        assert_eq!(old.find(b"a/b", &seen(0)), Some(body(0)));
        assert_eq!(old.find(b"a-b", &seen(9)), None, "another inode");
        assert_eq!(old.find(b"c", &seen(2)), None, "b is gone");
        assert_eq!(old.find(b"d", &seen(3)), Some(body(3)));
        assert_eq!(old.find(b"e", &seen(3)), None);
        let mut other = Cache::open(&path, Path::new("/other")).unwrap();
        assert_eq!(other.split().0.find(b"a/b", &seen(0)), None, "of another root");
    }

    #[test]
    fn damage_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("files");
        fill(&path);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut cache = Cache::open(&path, Path::new("/r")).unwrap();
        let (old, _) = cache.split();
        assert_eq!(old.find(b"b", &seen(2)), Some(body(2)));
        assert_eq!(old.find(b"d", &seen(3)), None);
    }

    #[test]
    fn what_just_changed_is_not_trusted() {
        assert!(seen(1).is_settled(10) && !seen(1).is_settled(4));
    }

    #[test]
    fn folders_come_before_longer_names() {
        assert_eq!(walk_order(b"a/b", b"a-b"), Ordering::Less);
        assert_eq!(walk_order(b"a", b"a/b"), Ordering::Less);
    }
}
