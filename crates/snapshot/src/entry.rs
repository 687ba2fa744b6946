//! The tree: one entry after another, depth first, each folder's names sorted.
//!
//! ```text
//! entry    0                                        the folder ends
//!          1 ‖ meta                                 a folder begins
//!          2 ‖ meta ‖ flags u8 ‖ group u32 ‖ body   a file
//!          3 ‖ meta ‖ target short                  a symbolic link
//!          4 ‖ name short ‖ group u32               another name of a file of that group
//!          5 ‖ meta                                 a pipe (fifo)
//! meta     name short ‖ mode u32 ‖ uid u32 ‖ gid u32 ‖ mtime s i64 ‖ mtime ns u32
//! body     size u64 ‖ digest 32 ‖ pieces u32 ‖ pieces
//! piece    0 ‖ len u64                              a hole
//!          1 ‖ len u64 ‖ place 12 ‖ chunks u32      so many chunks, one after another from that place
//! ```
//!
//! A name is one component: a path that leads out of the folder can't be written.

use std::io::{self, Read};

use hoidla_format::{Hash32, Malformed, Writer};

use crate::pack::Place;

const UP: u8 = 0;
const DIR: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const LINK: u8 = 4;
const FIFO: u8 = 5;
const CHANGED: u8 = 1;

/// The most bytes of a name.
pub const MOST_NAME: usize = 255;
/// The most bytes of a symbolic link's target.
pub const MOST_TARGET: usize = 4096;
/// The most levels of folders.
pub const MOST_LEVELS: usize = 512;

/// What every entry has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// One component, any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// Permission bits, set-id and sticky bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// When the content changed last: seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// Part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing is stored; reads as zeros.
    Hole(u64),
    /// Chunks that stand one after another in the pack stream.
    Data {
        /// Their bytes.
        len: u64,
        /// Where the first begins.
        place: Place,
        /// How many.
        chunks: u32,
    },
}

impl Piece {
    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Hole(len) | Self::Data { len, .. } => len,
        }
    }
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Bytes.
    pub size: u64,
    /// See [`crate::chunk::Digest`].
    pub digest: Hash32,
    /// Adding up to `size`.
    pub pieces: Vec<Piece>,
}

/// One line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The folder ends.
    Up,
    /// A folder begins.
    Dir(Meta),
    /// A file.
    File {
        /// What it is.
        meta: Meta,
        /// It changed while it was read, each time.
        changed: bool,
        /// Not 0: other names of it follow as links.
        group: u32,
        /// What is in it.
        body: Body,
    },
    /// A symbolic link.
    Symlink(Meta, Vec<u8>),
    /// Another name of an earlier file.
    Link {
        /// The name.
        name: Vec<u8>,
        /// That file's group.
        group: u32,
    },
    /// A pipe.
    Fifo(Meta),
}

impl Entry {
    /// Appends the entry's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new();
        match self {
            Self::Up => _ = w.u8(UP),
            Self::Dir(meta) => write_meta(w.u8(DIR), meta),
            Self::Fifo(meta) => write_meta(w.u8(FIFO), meta),
            Self::Symlink(meta, target) => {
                write_meta(w.u8(SYMLINK), meta);
                w.short(target);
            }
            Self::Link { name, group } => _ = w.u8(LINK).short(name).u32(*group),
            Self::File { meta, changed, group, body } => {
                write_meta(w.u8(FILE), meta);
                w.u8(if *changed { CHANGED } else { 0 }).u32(*group);
                body.write(&mut w);
            }
        }
        out.extend(w.finish());
    }

    /// Reads one entry; `Err` with [`io::ErrorKind::InvalidData`] where the format doesn't allow it.
    pub fn read(r: &mut impl Read) -> io::Result<Self> {
        Ok(match u8(r)? {
            UP => Self::Up,
            DIR => Self::Dir(read_meta(r)?),
            FIFO => Self::Fifo(read_meta(r)?),
            SYMLINK => Self::Symlink(read_meta(r)?, short(r, MOST_TARGET)?),
            LINK => Self::Link { name: name(r)?, group: u32(r)? },
            FILE => Self::File {
                meta: read_meta(r)?,
                changed: match u8(r)? {
                    0 => false,
                    CHANGED => true,
                    _ => return Err(bad("a file's flags")),
                },
                group: u32(r)?,
                body: Body::read(r)?,
            },
            _ => return Err(bad("an entry of no known kind")),
        })
    }
}

impl Body {
    /// Appends the body's bytes.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.size).put(&self.digest.0).u32(self.pieces.len() as u32);
        for piece in &self.pieces {
            match piece {
                Piece::Hole(len) => _ = w.u8(0).u64(*len),
                Piece::Data { len, place, chunks } => {
                    w.u8(1).u64(*len);
                    place.write(w);
                    w.u32(*chunks);
                }
            }
        }
    }

    /// Reads a body; its pieces add up to its size.
    pub fn read(r: &mut impl Read) -> io::Result<Self> {
        let (size, digest, count) = (u64(r)?, Hash32(array(r)?), u32(r)?);
        let mut pieces = Vec::new(); // grows only as bytes come
        let mut sum = 0_u64;
        for _ in 0..count {
            let piece = read_piece(r)?;
            sum = sum.checked_add(piece.len()).filter(|s| *s <= size).ok_or(bad("a file longer than its size"))?;
            pieces.push(piece);
        }
        if sum != size || size > i64::MAX as u64 {
            return Err(bad("a file shorter than its size"));
        }
        Ok(Self { size, digest, pieces })
    }
}

fn read_piece(r: &mut impl Read) -> io::Result<Piece> {
    let (kind, len) = (u8(r)?, u64(r)?);
    if len == 0 {
        return Err(bad("an empty piece"));
    }
    match kind {
        0 => Ok(Piece::Hole(len)),
        1 => {
            let place = Place { run: u32(r)?, number: u32(r)?, position: u32(r)? };
            let chunks = u32(r)?;
            if chunks == 0 { Err(bad("a piece of no chunks")) } else { Ok(Piece::Data { len, place, chunks }) }
        }
        _ => Err(bad("a piece of no known kind")),
    }
}

fn write_meta(w: &mut Writer, m: &Meta) {
    w.short(&m.name).u32(m.mode).u32(m.uid).u32(m.gid).u64(m.mtime.0 as u64).u32(m.mtime.1);
}

fn read_meta(r: &mut impl Read) -> io::Result<Meta> {
    let m = Meta { name: name(r)?, mode: u32(r)?, uid: u32(r)?, gid: u32(r)?, mtime: (u64(r)? as i64, u32(r)?) };
    if m.mode > 0o7777 || m.mtime.1 > 999_999_999 {
        return Err(bad("a mode or a time out of bounds"));
    }
    Ok(m)
}

fn name(r: &mut impl Read) -> io::Result<Vec<u8>> {
    let name = short(r, MOST_NAME)?;
    if is_component(&name) { Ok(name) } else { Err(bad("a name that is not one component of a path")) }
}

/// Whether these bytes may name one thing in a folder.
pub fn is_component(name: &[u8]) -> bool {
    (1..=MOST_NAME).contains(&name.len()) && name != b"." && name != b".." && !name.iter().any(|b| matches!(b, b'/' | 0))
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Malformed::Field(why))
}

fn array<const N: usize>(r: &mut impl Read) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    r.read_exact(&mut out)?;
    Ok(out)
}

fn u8(r: &mut impl Read) -> io::Result<u8> {
    Ok(array::<1>(r)?[0])
}

fn u32(r: &mut impl Read) -> io::Result<u32> {
    array(r).map(u32::from_le_bytes)
}

fn u64(r: &mut impl Read) -> io::Result<u64> {
    array(r).map(u64::from_le_bytes)
}

fn short(r: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let len = usize::from(u16::from_le_bytes(array(r)?));
    if len > most {
        return Err(bad("a name or a link too long"));
    }
    let mut out = vec![0; len];
    r.read_exact(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &[u8]) -> Meta {
        Meta { name: name.to_vec(), mode: 0o4755, uid: 1, gid: 2, mtime: (-5, 999_999_999) }
    }

    fn file() -> Entry {
        let place = Place { run: 1, number: 2, position: 30 };
        let pieces = vec![Piece::Hole(4096), Piece::Data { len: 5, place, chunks: 1 }];
        Entry::File { meta: meta(b"f\xff"), changed: true, group: 7, body: Body { size: 4101, digest: Hash32([3; 32]), pieces } }
    }

    fn bytes(e: &Entry) -> Vec<u8> {
        let mut out = vec![];
        e.write(&mut out);
        out
    }

    #[test]
    fn entries_read_back_and_cut_ones_do_not() {
        let all = [
            Entry::Up,
            Entry::Dir(meta(b"d")),
            file(),
            Entry::Symlink(meta(b"s"), b"/x".to_vec()),
            Entry::Fifo(meta(b"p")),
            Entry::Link { name: b"l".to_vec(), group: 7 },
        ];
        for e in all {
            let b = bytes(&e);
            assert_eq!(Entry::read(&mut &b[..]).unwrap(), e);
            for cut in 0..b.len() {
                assert!(Entry::read(&mut &b[..cut]).is_err());
            }
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(!is_component(name));
            assert!(Entry::read(&mut &bytes(&Entry::Dir(meta(name)))[..]).is_err(), "{name:?}");
        }
        let Entry::File { meta, changed, group, mut body } = file() else { unreachable!() };
        body.size += 1;
        let longer = Entry::File { meta: meta.clone(), changed, group, body: body.clone() };
        assert!(Entry::read(&mut &bytes(&longer)[..]).is_err());
        body.pieces.push(Piece::Hole(u64::MAX));
        assert!(Entry::read(&mut &bytes(&Entry::File { meta, changed, group, body })[..]).is_err());
        assert!(Entry::read(&mut &[9_u8][..]).is_err());
    }
}
