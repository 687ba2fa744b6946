//! The walk: depth first, names sorted, each step relative to an open folder, so
//! that neither long paths nor a link put in the way lead elsewhere.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::atomic::Ordering,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat},
        uio::pread,
    },
    unistd::{Whence, lseek},
};

use crate::{
    batch::{FileEnd, Step},
    cache::{Old, Seen},
    entry::{Entry, MOST_LEVELS, Meta},
    push::Notes,
    read::{Feed, Stopped},
};

/// How often a file is read that doesn't hold still.
const TRIES: u32 = 3;

/// One walk.
pub struct Walk<'a, 'p> {
    pub feed: Feed<'p>,
    pub old: &'a mut Old,
    /// A folder that is never entered: where the agent keeps its own things.
    pub skip: Option<(u64, u64)>,
    /// Seconds: when the walk began.
    pub began: i64,
    pub notes: Notes,
    /// The group of each file that has several names.
    groups: HashMap<(u64, u64), u32>,
    path: Vec<u8>,
}

impl<'a, 'p> Walk<'a, 'p> {
    pub fn new(feed: Feed<'p>, old: &'a mut Old, skip: Option<(u64, u64)>, began: i64) -> Self {
        Self { feed, old, skip, began, notes: Notes::default(), groups: HashMap::new(), path: vec![] }
    }

    /// Walks what `path` names; the root is entered under `name`, and a link there is followed.
    pub fn root(&mut self, path: &Path, name: &[u8]) -> Result<io::Result<()>, Stopped> {
        let opened = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty());
        let (fd, st) = match opened.and_then(|fd| fstat(&fd).map(|st| (fd, st))) {
            Ok(both) => both,
            Err(e) => return Ok(Err(e.into())),
        };
        self.path.extend_from_slice(name);
        match kind(&st) {
            SFlag::S_IFDIR => self.folder(fd, &st, name, 1)?,
            SFlag::S_IFREG => self.file(Ok(fd), &st, name)?,
            _ => return Ok(Err(io::Error::other("neither a folder nor a file; pipes go through `push -`"))),
        }
        Ok(Ok(()))
    }

    fn folder(&mut self, fd: OwnedFd, st: &FileStat, name: &[u8], level: usize) -> Result<(), Stopped> {
        if self.skip == Some((st.st_dev, st.st_ino)) {
            return Ok(());
        }
        if level > MOST_LEVELS {
            self.notes.leave_out(&self.path, format!("more than {MOST_LEVELS} levels deep"));
            return Ok(());
        }
        let (dir, names) = match list(fd) {
            Ok(both) => both,
            Err(e) => {
                self.notes.leave_out(&self.path, io::Error::from(e));
                return Ok(());
            }
        };
        self.step(Step::Entry(Entry::Dir(meta(name, st))))?;
        let len = self.path.len();
        for name in &names {
            self.path.push(b'/');
            self.path.extend_from_slice(name.as_bytes());
            self.thing(dir.as_fd(), name, level)?;
            self.path.truncate(len);
        }
        self.step(Step::Entry(Entry::Up))
    }

    fn thing(&mut self, dir: BorrowedFd, name: &CStr, level: usize) -> Result<(), Stopped> {
        let bytes = name.to_bytes();
        let st = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(st) => st,
            Err(e) => return self.gone(e),
        };
        match kind(&st) {
            SFlag::S_IFDIR => match open(dir, name, OFlag::O_DIRECTORY) {
                Ok(fd) => self.folder(fd, &st, bytes, level + 1),
                Err(e) => self.gone(e),
            },
            SFlag::S_IFREG => match self.groups.get(&(st.st_dev, st.st_ino)) {
                Some(&group) => self.step(Step::Entry(Entry::Link { name: bytes.to_vec(), group })),
                None => self.file_at(dir, name, &st),
            },
            SFlag::S_IFLNK => match readlinkat(dir, name) {
                Ok(target) => self.step(Step::Entry(Entry::Symlink(meta(bytes, &st), target.as_bytes().to_vec()))),
                Err(e) => self.gone(e),
            },
            SFlag::S_IFIFO => self.step(Step::Entry(Entry::Fifo(meta(bytes, &st)))),
            _ => {
                self.notes.leave_out(&self.path, "a device or a socket");
                Ok(())
            }
        }
    }

    fn file_at(&mut self, dir: BorrowedFd, name: &CStr, st: &FileStat) -> Result<(), Stopped> {
        let seen = Seen::of(st);
        if let Some(body) = self.old.find(&self.path, &seen) {
            self.feed.progress.read.fetch_add(body.size, Ordering::Relaxed);
            let end = self.end(name.to_bytes(), st, false);
            return self.step(Step::Kept(Box::new(end), body));
        }
        self.file(open(dir, name, OFlag::empty()), st, name.to_bytes())
    }

    fn file(&mut self, fd: nix::Result<OwnedFd>, st: &FileStat, name: &[u8]) -> Result<(), Stopped> {
        let fd = match fd {
            Ok(fd) => fd,
            Err(e) => return self.gone(e),
        };
        let (mut last, mut changed) = (*st, false);
        for attempt in 0..TRIES {
            if attempt > 0 {
                self.step(Step::Again)?;
            }
            let read = match fstat(&fd) {
                Ok(st) if kind(&st) == SFlag::S_IFREG => self.extents(fd.as_fd(), &st)?.map(|n| (st, n)),
                Ok(_) => Err(io::Error::other("it became something else")),
                Err(e) => Err(e.into()),
            };
            let (before, n) = match read {
                Ok(both) => both,
                Err(e) => {
                    self.notes.leave_out(&self.path, e);
                    return self.step(Step::Again);
                }
            };
            last = before;
            changed = !fstat(&fd).is_ok_and(|after| Seen::of(&after) == Seen::of(&before)) || n != before.st_size as u64;
            if !changed {
                break;
            }
        }
        if changed {
            self.notes.changed(&self.path);
        }
        let end = self.end(name, &last, changed);
        self.step(Step::File(Box::new(end)))
    }

    fn end(&mut self, name: &[u8], st: &FileStat, changed: bool) -> FileEnd {
        let mut group = 0;
        if st.st_nlink > 1 {
            group = self.groups.len() as u32 + 1;
            self.groups.insert((st.st_dev, st.st_ino), group);
        }
        self.notes.files += 1;
        self.feed.progress.files.fetch_add(1, Ordering::Relaxed);
        let seen = Seen::of(st);
        let trusted = !changed && seen.is_settled(self.began);
        FileEnd { meta: meta(name, st), changed, group, seen: trusted.then(|| (self.path.clone(), seen)) }
    }

    /// Reads data and notes holes; returns how many bytes there were.
    fn extents(&mut self, fd: BorrowedFd, st: &FileStat) -> Result<io::Result<u64>, Stopped> {
        let size = st.st_size as u64;
        if st.st_blocks as u64 * 512 >= size {
            return self.data(fd, 0, size);
        }
        let mut at = 0;
        while at < size {
            let (data, end) = match next_data(fd, at, size) {
                Ok(both) => both,
                Err(e) => return Ok(Err(e)),
            };
            if data > at {
                self.feed.step(Step::Hole(data - at))?;
            }
            if data < end {
                match self.data(fd, data, end)? {
                    Ok(n) if n == end - data => {}
                    Ok(n) => return Ok(Ok(data + n)),
                    Err(e) => return Ok(Err(e)),
                }
            }
            at = end;
        }
        Ok(Ok(size))
    }

    fn data(&mut self, fd: BorrowedFd, mut at: u64, end: u64) -> Result<io::Result<u64>, Stopped> {
        self.feed.content(|buffer| {
            let want = buffer.len().min((end - at) as usize);
            if want == 0 {
                return Ok(0);
            }
            let n = pread(fd, &mut buffer[..want], at as i64)?;
            at += n as u64;
            Ok(n)
        })
    }

    fn gone(&mut self, e: Errno) -> Result<(), Stopped> {
        self.notes.leave_out(&self.path, io::Error::from(e));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        self.feed.step(step)
    }
}

/// Where data begins at or after `at`, and where it ends. Without support for holes all is data.
fn next_data(fd: BorrowedFd, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match lseek(fd, at as i64, Whence::SeekData) {
        Ok(data) => (data as u64).min(size),
        Err(Errno::ENXIO) => return Ok((size, size)),
        Err(Errno::EINVAL) => return Ok((at, size)),
        Err(e) => return Err(e.into()),
    };
    let end = if data == size { size } else { lseek(fd, data as i64, Whence::SeekHole)? as u64 };
    Ok((data, end.clamp(data, size)))
}

fn open(dir: BorrowedFd, name: &CStr, more: OFlag) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    openat(dir, name, flags | more, Mode::empty())
}

fn list(fd: OwnedFd) -> nix::Result<(Dir, Vec<CString>)> {
    let mut dir = Dir::from_fd(fd)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok((dir, names))
}

fn kind(st: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(st.st_mode) & SFlag::S_IFMT
}

/// What the tree says of a thing.
pub fn meta(name: &[u8], st: &FileStat) -> Meta {
    let mtime = (st.st_mtime, st.st_mtime_nsec as u32);
    Meta { name: name.to_vec(), mode: st.st_mode & 0o7777, uid: st.st_uid, gid: st.st_gid, mtime }
}

/// The name under which a path's root is entered.
pub fn root_name(path: &Path) -> io::Result<Vec<u8>> {
    let full = path.canonicalize()?;
    Ok(full.file_name().unwrap_or(OsStr::new("root")).as_bytes().to_vec())
}
