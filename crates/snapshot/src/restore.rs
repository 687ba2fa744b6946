//! A snapshot back into a folder.
//!
//! Each folder is made new and entered by its descriptor, so nobody's link leads
//! elsewhere. A file is written under a passing name, checked against its digest,
//! and renamed without replacing anything. A file that can't be restored is named
//! and the rest goes on: after a disaster the other files matter too.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use hoidla_format::{Malformed, Moment};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2},
    sys::{
        stat::{Mode, UtimensatFlags, futimens, mkdirat, utimensat},
        time::TimeSpec,
        uio::pwrite,
    },
    unistd::{self, Gid, Uid, UnlinkatFlags, fchown, fchownat, ftruncate, linkat, mkfifoat, symlinkat, unlinkat},
};

use crate::{
    GenerationKey, Messages, SnapshotError,
    chunk::Digest,
    entry::{Body, Entry, MOST_LEVELS, Meta, Piece},
    unpack::{TreeReader, Unpacker, piece_chunks, record_of},
};

const MOST_NOTES: usize = 1000;

/// What is restored.
#[derive(Clone, Debug)]
pub enum Only {
    /// All of it.
    All,
    /// One path of it, from the root's name on, and what is below.
    Path(PathBuf),
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// When the copying of it began and ended, as the agent's clock claimed.
    pub taken: (Moment, Moment),
    /// Files, folders, links and pipes.
    pub entries: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Files that the agent marked as changed while they were read.
    pub changed: u64,
    /// Files that could not be restored.
    pub failed: u64,
    /// Whether owners were restored: that takes root.
    pub owners: bool,
    /// A line for each that changed or failed, the first thousand.
    pub notes: Vec<String>,
}

/// Restores the snapshot that ends with message `number` of `run` into the folder `to`,
/// which is made if need be; its root must not be there yet. `progress` gets bytes.
pub fn restore(
    messages: &dyn Messages,
    (run, number): (u32, u32),
    to: &Path,
    only: &Only,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, SnapshotError> {
    let record = record_of(messages, run, number)?;
    fs::create_dir_all(to).map_err(SnapshotError::at(to))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let base = nix::fcntl::open(to, flags, Mode::empty()).map_err(|e| SnapshotError::at(to)(e.into()))?;
    let wanted = match only {
        Only::All => vec![],
        Only::Path(path) => path.components().map(|c| c.as_os_str().as_bytes().to_vec()).filter(|c| c != b"/").collect(),
    };
    let mut work = Work {
        entries: TreeReader::new(messages, record.tree)?,
        content: Unpacker::new(messages)?,
        key: record.key,
        base: base.try_clone().map_err(SnapshotError::at(to))?,
        groups: HashMap::new(),
        path: vec![],
        names: 0,
        out: Restored {
            taken: record.taken,
            entries: 0,
            bytes: 0,
            changed: 0,
            failed: 0,
            owners: Uid::effective().is_root(),
            notes: vec![],
        },
        progress,
    };
    work.run(&wanted)?;
    if work.out.entries == 0 {
        let Only::Path(path) = only else { return Err(Malformed::Field("a snapshot of nothing").into()) };
        return Err(SnapshotError::NotThere(path.display().to_string()));
    }
    unistd::syncfs(&base).map_err(|e| SnapshotError::at(to)(e.into()))?;
    Ok(work.out)
}

/// A folder that is being filled.
struct Folder {
    fd: OwnedFd,
    meta: Meta,
}

/// The first name of a file that has several.
enum First {
    /// It was restored: its path from `base`.
    At(Vec<u8>),
    /// It wasn't wanted; the next name becomes the first.
    Passed(Meta, Body),
}

struct Work<'a> {
    entries: TreeReader<'a>,
    content: Unpacker<'a>,
    key: GenerationKey,
    base: OwnedFd,
    groups: HashMap<u32, First>,
    /// The path of what is being restored, from `base`.
    path: Vec<u8>,
    names: u64,
    out: Restored,
    progress: &'a mut dyn FnMut(u64),
}

impl Work<'_> {
    fn run(&mut self, wanted: &[Vec<u8>]) -> Result<(), SnapshotError> {
        let mut open: Vec<Folder> = vec![]; // folders that are being filled
        let mut passed: Vec<Vec<u8>> = vec![]; // folders above them that are only walked through
        let mut skipping = 0_usize; // levels within a folder that isn't wanted
        while !self.entries.at_end() {
            let entry = self.next()?;
            if entry == Entry::Up {
                match (skipping, open.pop(), passed.pop()) {
                    (1.., f, p) => {
                        skipping -= 1;
                        open.extend(f);
                        passed.extend(p);
                    }
                    (0, Some(folder), p) => {
                        passed.extend(p);
                        self.close(folder)?;
                        self.leave();
                    }
                    (0, None, Some(_)) => {}
                    (0, None, None) => return Err(Malformed::Field("a folder ends that never began").into()),
                }
                continue;
            }
            let depth = open.len() + passed.len() + skipping;
            if depth > MOST_LEVELS {
                return Err(Malformed::Field("more levels than are allowed").into());
            }
            let is_dir = matches!(entry, Entry::Dir(_));
            let fits = skipping == 0 && (!open.is_empty() || wanted.get(passed.len()).is_none_or(|w| w == name_of(&entry)));
            let whole = !open.is_empty() || passed.len() + 1 >= wanted.len();
            match (fits, whole) {
                (true, true) => self.make(entry, &mut open)?,
                (true, false) if is_dir => passed.push(name_of(&entry).to_vec()),
                _ if is_dir => skipping += 1,
                _ => self.pass(entry),
            }
        }
        if open.is_empty() && passed.is_empty() && skipping == 0 {
            Ok(())
        } else {
            Err(Malformed::Field("a folder that never ends").into())
        }
    }

    fn next(&mut self) -> Result<Entry, SnapshotError> {
        Entry::read(&mut self.entries).map_err(|e| match (self.entries.error.take(), e.get_ref()) {
            (Some(error), _) => error,
            (None, Some(inner)) if inner.is::<Malformed>() => {
                SnapshotError::Malformed(inner.downcast_ref::<Malformed>().expect("just asked").clone())
            }
            _ => Malformed::Field("the tree ends too early").into(),
        })
    }

    fn pass(&mut self, entry: Entry) {
        if let Entry::File { meta, group: group @ 1.., body, .. } = entry {
            self.groups.insert(group, First::Passed(meta, body));
        }
    }

    fn make(&mut self, entry: Entry, open: &mut Vec<Folder>) -> Result<(), SnapshotError> {
        let at_root = open.is_empty();
        self.enter(name_of(&entry));
        self.out.entries += 1;
        let parent = open.last().map_or(self.base.as_fd(), |f| f.fd.as_fd());
        let parent = parent.try_clone_to_owned().map_err(SnapshotError::io("a descriptor"))?;
        let name = OsStr::from_bytes(name_of(&entry)).to_owned();
        let done = match entry {
            Entry::Dir(meta) => match make_dir(parent.as_fd(), &name) {
                Ok(fd) => {
                    open.push(Folder { fd, meta });
                    return Ok(());
                }
                // Nothing below it has a place to go.
                Err(e) => return Err(self.refused(e)),
            },
            Entry::File { meta, changed, group, body } => {
                if changed {
                    self.out.changed += 1;
                    self.note("changed while it was copied: it may mix an older and a newer state");
                }
                let done = self.file(parent.as_fd(), &meta, &body);
                if done.is_ok() && group != 0 {
                    self.groups.insert(group, First::At(self.path.clone()));
                }
                done
            }
            Entry::Symlink(meta, target) => symlink(parent.as_fd(), &meta, &target).map_err(|e| self.refused(e)),
            Entry::Fifo(meta) => fifo(parent.as_fd(), &meta).map_err(|e| self.refused(e)),
            Entry::Link { group, .. } => self.link(parent.as_fd(), &name, group),
            Entry::Up => unreachable!("handled by the caller"),
        };
        match done {
            Err(SnapshotError::Exists(path)) if at_root => return Err(SnapshotError::Exists(path)),
            Err(e) => {
                self.out.failed += 1;
                self.note(&format!("not restored: {e}"));
            }
            Ok(()) => {}
        }
        self.leave();
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd, meta: &Meta, body: &Body) -> Result<(), SnapshotError> {
        self.names += 1;
        let passing = format!(".hoidla-partial-{}-{:x}", std::process::id(), self.names);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(dir, passing.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| self.refused(e))?;
        let done = self.fill(fd.as_fd(), body).and_then(|()| {
            dress(fd.as_fd(), meta, self.out.owners).map_err(|e| self.refused(e))?;
            let name = OsStr::from_bytes(&meta.name);
            renameat2(dir, passing.as_str(), dir, name, RenameFlags::RENAME_NOREPLACE).map_err(|e| self.refused(e))
        });
        match &done {
            Ok(()) => self.out.bytes += body.size,
            Err(_) => _ = unlinkat(dir, passing.as_str(), UnlinkatFlags::NoRemoveDir),
        }
        done
    }

    fn fill(&mut self, fd: BorrowedFd, body: &Body) -> Result<(), SnapshotError> {
        let (mut at, mut digest) = (0_u64, Digest::new());
        ftruncate(fd, body.size as i64).map_err(|e| self.refused(e))?;
        for piece in &body.pieces {
            match *piece {
                Piece::Hole(len) => {
                    digest.hole(len);
                    at += len;
                }
                Piece::Data { len, place, chunks } => {
                    let progress = &mut *self.progress;
                    piece_chunks(&mut self.content, &self.key, (len, place, chunks), |chunk, id| {
                        digest.chunk(&id);
                        write_all(fd, chunk, at).map_err(SnapshotError::io("writing"))?;
                        at += chunk.len() as u64;
                        progress(chunk.len() as u64);
                        Ok(())
                    })?;
                }
            }
        }
        if digest.finish() == body.digest { Ok(()) } else { Err(Malformed::Field("what came back is not what was copied").into()) }
    }

    fn link(&mut self, dir: BorrowedFd, name: &OsStr, group: u32) -> Result<(), SnapshotError> {
        match self.groups.remove(&group) {
            Some(First::At(path)) => {
                let done = self.link_to(&path, dir, name);
                self.groups.insert(group, First::At(path));
                done
            }
            Some(First::Passed(meta, body)) => {
                let meta = Meta { name: name.as_bytes().to_vec(), ..meta };
                self.file(dir, &meta, &body)?;
                self.groups.insert(group, First::At(self.path.clone()));
                Ok(())
            }
            None => Err(Malformed::Field("its first name was not restored").into()),
        }
    }

    /// Step by step, so that neither a long path nor a link put in the way matters.
    fn link_to(&self, path: &[u8], dir: BorrowedFd, name: &OsStr) -> Result<(), SnapshotError> {
        let mut parent = self.base.try_clone().map_err(SnapshotError::io("a descriptor"))?;
        let mut steps = path.split(|b| *b == b'/').map(OsStr::from_bytes).peekable();
        while let Some(step) = steps.next() {
            if steps.peek().is_none() {
                return linkat(&parent, step, dir, name, AtFlags::empty()).map_err(|e| self.refused(e));
            }
            parent = open_dir(parent.as_fd(), step).map_err(|e| self.refused(e))?;
        }
        Ok(())
    }

    fn close(&mut self, folder: Folder) -> Result<(), SnapshotError> {
        dress(folder.fd.as_fd(), &folder.meta, self.out.owners).map_err(|e| self.refused(e))
    }

    fn enter(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn leave(&mut self) {
        let parent = self.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.path.truncate(parent);
    }

    fn refused(&self, e: Errno) -> SnapshotError {
        let path = PathBuf::from(OsStr::from_bytes(&self.path));
        if e == Errno::EEXIST { SnapshotError::Exists(path) } else { SnapshotError::At { path, error: e.into() } }
    }

    fn note(&mut self, why: &str) {
        if self.out.notes.len() < MOST_NOTES {
            self.out.notes.push(format!("{}: {why}", self.path.escape_ascii()));
        }
    }
}

fn name_of(entry: &Entry) -> &[u8] {
    match entry {
        Entry::Dir(m) | Entry::Fifo(m) | Entry::Symlink(m, _) | Entry::File { meta: m, .. } => &m.name,
        Entry::Link { name, .. } => name,
        Entry::Up => b"",
    }
}

fn make_dir(parent: BorrowedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    mkdirat(parent, name, Mode::S_IRWXU)?;
    open_dir(parent, name)
}

fn open_dir(parent: BorrowedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Owner, mode and time of an open file or folder, in the order in which none undoes another.
fn dress(fd: BorrowedFd, meta: &Meta, owners: bool) -> nix::Result<()> {
    let mut mode = meta.mode;
    if owners {
        fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    } else {
        mode &= 0o1777; // set-id bits belong to the owner that can't be restored
    }
    nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode))?;
    let time = time(meta);
    futimens(fd, &time, &time)
}

fn symlink(dir: BorrowedFd, meta: &Meta, target: &[u8]) -> nix::Result<()> {
    let name = OsStr::from_bytes(&meta.name);
    symlinkat(OsStr::from_bytes(target), dir, name)?;
    dress_name(dir, meta)
}

fn fifo(dir: BorrowedFd, meta: &Meta) -> nix::Result<()> {
    mkfifoat(dir, OsStr::from_bytes(&meta.name), Mode::from_bits_truncate(meta.mode & 0o777))?;
    dress_name(dir, meta)
}

fn dress_name(dir: BorrowedFd, meta: &Meta) -> nix::Result<()> {
    let name = OsStr::from_bytes(&meta.name);
    if Uid::effective().is_root() {
        fchownat(dir, name, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    let time = time(meta);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn time(meta: &Meta) -> TimeSpec {
    TimeSpec::new(meta.mtime.0, meta.mtime.1.into())
}

fn write_all(fd: BorrowedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = pwrite(fd, bytes, at as i64)?;
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}
