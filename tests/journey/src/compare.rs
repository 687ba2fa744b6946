//! Whether two folders are the same: names, kinds, content, modes, times, links, holes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::{Whence, lseek};

/// What a comparison looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Files whose bytes were compared.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Names that share a file with another.
    pub hard_links: u64,
    /// Files with holes.
    pub sparse: u64,
    /// Bytes compared.
    pub bytes: u64,
}

/// A walk over both sides at once.
struct Comparison<'a> {
    compared: Compared,
    differences: Vec<String>,
    /// Which first name each inode had, on either side.
    first_names: [BTreeMap<(u64, u64), PathBuf>; 2],
    progress: &'a dyn Fn(u64),
    /// What is compared at once, of either side.
    buffers: [Vec<u8>; 2],
}

const MOST_DIFFERENCES: usize = 20;

/// Compares two files or folders; the list of differences is empty if there are none.
/// `progress` hears of bytes as they are compared.
///
/// # Errors
/// If either side cannot be read.
pub fn compare(left: &Path, right: &Path, progress: &dyn Fn(u64)) -> Result<(Compared, Vec<String>)> {
    let buffers = [vec![0; 1 << 18], vec![0; 1 << 18]];
    let mut c = Comparison { compared: Compared::default(), differences: Vec::new(), first_names: Default::default(), progress, buffers };
    c.entry(left, right, Path::new("."))?;
    Ok((c.compared, c.differences))
}

impl Comparison<'_> {
    fn differs(&mut self, at: &Path, what: impl std::fmt::Display) {
        if self.differences.len() < MOST_DIFFERENCES {
            self.differences.push(format!("{}: {what}", at.display()));
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, at: &Path, what: &str, left: T, right: T) -> bool {
        let same = left == right;
        if !same {
            self.differs(at, format_args!("{what} {left:?} and {right:?}"));
        }
        same
    }

    fn entry(&mut self, left: &Path, right: &Path, at: &Path) -> Result<()> {
        let read = |p: &Path| fs::symlink_metadata(p).with_context(|| format!("cannot read {}", p.display()));
        let (l, r) = (read(left)?, read(right)?);
        if !self.same(at, "kind", kind(&l), kind(&r)) {
            return Ok(());
        }
        self.same(at, "owner", (l.uid(), l.gid()), (r.uid(), r.gid()));
        if l.is_symlink() {
            self.compared.links += 1;
            self.same(at, "target", fs::read_link(left)?, fs::read_link(right)?);
            return Ok(());
        }
        self.same(at, "mode", format!("{:o}", l.mode()), format!("{:o}", r.mode()));
        self.same(at, "time", (l.mtime(), l.mtime_nsec()), (r.mtime(), r.mtime_nsec()));
        if l.is_dir() {
            self.compared.folders += 1;
            self.folder(left, right, at)
        } else if l.is_file() {
            self.file(left, right, at, &l, &r)
        } else {
            self.same(at, "device", l.rdev(), r.rdev());
            Ok(())
        }
    }

    fn folder(&mut self, left: &Path, right: &Path, at: &Path) -> Result<()> {
        let (l, r) = (names(left)?, names(right)?);
        for name in l.union(&r) {
            let here = at.join(name);
            match (l.contains(name), r.contains(name)) {
                (true, true) => self.entry(&left.join(name), &right.join(name), &here)?,
                (true, false) => self.differs(&here, "missing on the right"),
                _ => self.differs(&here, "only on the right"),
            }
        }
        Ok(())
    }

    fn file(&mut self, left: &Path, right: &Path, at: &Path, l: &Metadata, r: &Metadata) -> Result<()> {
        let first = |map: &mut BTreeMap<_, PathBuf>, m: &Metadata| {
            (m.nlink() > 1).then(|| map.entry((m.dev(), m.ino())).or_insert_with(|| at.to_owned()).clone())
        };
        let names = (first(&mut self.first_names[0], l), first(&mut self.first_names[1], r));
        // A hard link to something outside of the folder is a file of its own in the copy.
        if let (Some(first), other) = names {
            let within = first != at;
            self.compared.hard_links += u64::from(within);
            if within && other.as_ref() != Some(&first) {
                self.differs(at, format_args!("shares its file with {} on the left only", first.display()));
            }
        }
        self.compared.files += 1;
        if !self.same(at, "length", l.len(), r.len()) {
            return Ok(());
        }
        let holes = (holes(left)?, holes(right)?);
        self.compared.sparse += u64::from(holes.0 > 0);
        if (holes.0 > 0) != (holes.1 > 0) {
            self.differs(at, format_args!("{} bytes of holes, and {}", holes.0, holes.1));
        }
        self.bytes(left, right, at)
    }

    fn bytes(&mut self, left: &Path, right: &Path, at: &Path) -> Result<()> {
        let (mut l, mut r) = (File::open(left)?, File::open(right)?);
        let mut offset = 0;
        loop {
            let [a, b] = &mut self.buffers;
            let (n, m) = (fill(&mut l, a)?, fill(&mut r, b)?);
            if a[..n] != b[..m] {
                let first = a[..n].iter().zip(&b[..m]).take_while(|(x, y)| x == y).count();
                self.differs(at, format_args!("content differs at byte {}", offset + first));
                return Ok(());
            }
            if n == 0 {
                return Ok(());
            }
            offset += n;
            self.compared.bytes += n as u64;
            (self.progress)(n as u64);
        }
    }
}

fn kind(m: &Metadata) -> &'static str {
    let t = m.file_type();
    match () {
        () if t.is_file() => "file",
        () if t.is_dir() => "folder",
        () if t.is_symlink() => "link",
        () if t.is_fifo() => "pipe",
        () if t.is_socket() => "socket",
        () => "device",
    }
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(folder)?.map(|e| Ok(e?.file_name())).collect()
}

fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Bytes of a file's holes. The one after the last byte doesn't count.
fn holes(path: &Path) -> Result<u64> {
    let file = File::open(path)?;
    let end = file.metadata()?.len().cast_signed();
    let (mut at, mut out) = (0, 0);
    while at < end {
        let hole = lseek(&file, at, Whence::SeekHole).unwrap_or(end);
        let data = if hole < end { lseek(&file, hole, Whence::SeekData).unwrap_or(end) } else { end };
        out += data - hole;
        at = data;
    }
    Ok(out.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Change = (&'static str, fn(&Path));

    #[test]
    fn every_kind_of_difference_is_seen() {
        let changes: [Change; 7] = [
            ("content", |p| fs::write(p.join("letter.txt"), "Dear Bob").unwrap()),
            ("missing", |p| fs::remove_file(p.join("letter.txt")).unwrap()),
            ("only", |p| fs::write(p.join("new"), "").unwrap()),
            ("mode", |p| fs::set_permissions(p.join("letter.txt"), PermissionsExt::from_mode(0o600)).unwrap()),
            ("time", |p| File::open(p.join("letter.txt")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap()),
            ("target", |p| {
                fs::remove_file(p.join("link")).unwrap();
                symlink("elsewhere", p.join("link")).unwrap();
            }),
            ("shares", |p| {
                fs::rename(p.join("twin"), p.join("x")).unwrap();
                fs::copy(p.join("x"), p.join("twin")).unwrap();
                fs::remove_file(p.join("x")).unwrap();
            }),
        ];
        for (what, change) in changes {
            let scratch = tempfile::tempdir().unwrap();
            let (a, b) = (scratch.path().join("a/f"), scratch.path().join("b/f"));
            for side in [&a, &b] {
                fs::create_dir_all(side).unwrap();
                fs::write(side.join("letter.txt"), "Dear Ann").unwrap();
                fs::hard_link(side.join("letter.txt"), side.join("twin")).unwrap();
                symlink("letter.txt", side.join("link")).unwrap();
                sample::set_times(side).unwrap();
            }
            assert_eq!(compare(&a, &b, &|_| ()).unwrap().1, Vec::<String>::new(), "{what}");
            change(&b);
            let differences = compare(&a, &b, &|_| ()).unwrap().1.join("\n");
            assert!(differences.contains(what), "{what}: {differences}");
        }
    }
}
