//! What lies on a disk that somebody put in.
//!
//! Promises: it only reads; a disk is called blank only if its first and last MiB, where
//! superblocks, partition tables and file systems are, are all zero; the hash of what was
//! seen changes with any of those bytes and with the disk's size.

use std::{fmt, io};

use hoidla_format::Hash32;
use hoidla_store::{BLOCK, Disk, best_superblock};

/// How much is looked at, at each end.
const END: u64 = 1 << 20;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A disk of this store.
    Ours {
        /// Its place.
        place: u8,
    },
    /// Nothing.
    Blank,
    /// A disk of another store.
    OtherStore {
        /// That store, in hex.
        store: String,
        /// What was seen.
        hash: Hash32,
    },
    /// Something else.
    Unknown {
        /// What it looks like, in words.
        looks: &'static str,
        /// What was seen.
        hash: Hash32,
    },
    /// It can't be read.
    Unreadable(String),
}

impl Seen {
    /// What home would have to allow to be erased; none for a disk that needs no leave.
    pub fn hash(&self) -> Option<Hash32> {
        match self {
            Self::OtherStore { hash, .. } | Self::Unknown { hash, .. } => Some(*hash),
            _ => None,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours { place } => write!(f, "a disk of this store, place {place}"),
            Self::Blank => write!(f, "a blank disk"),
            Self::OtherStore { store, .. } => write!(f, "a disk of another Hoidla store, {store}"),
            Self::Unknown { looks, .. } => write!(f, "a disk with {looks}"),
            Self::Unreadable(why) => write!(f, "a disk that cannot be read ({why})"),
        }
    }
}

/// Looks at a disk for the store of this name.
pub fn look(disk: &dyn Disk, store: [u8; 16]) -> Seen {
    let best = best_superblock(disk, Aligned::new(BLOCK).as_mut());
    if let Some(ours) = best.as_ref().filter(|s| s.store == store) {
        return Seen::Ours { place: ours.place }; // nobody asks for more
    }
    let end = END.min(disk.size() / BLOCK as u64 * BLOCK as u64);
    let read = |at| {
        let mut bytes = Aligned::new(end as usize);
        disk.read(at, bytes.as_mut()).map(|()| bytes)
    };
    let (first, last) = match (read(0), read(disk.size() - end)) {
        (Ok(first), Ok(last)) => (first, last),
        (Err(why), _) | (_, Err(why)) => return Seen::Unreadable(why.to_string()),
    };
    let (first, last) = (first.as_ref(), last.as_ref());
    let hash = hash_of(disk.size(), first, last);
    match best {
        Some(s) => Seen::OtherStore { store: hex(&s.store), hash },
        None if first.iter().chain(last).all(|b| *b == 0) => Seen::Blank,
        None => Seen::Unknown { looks: looks_like(first), hash },
    }
}

/// What [`look`] would call the hash of a disk, whatever is on it.
pub fn hash_of_ends(disk: &dyn Disk) -> io::Result<Hash32> {
    let end = END.min(disk.size() / BLOCK as u64 * BLOCK as u64);
    let (mut first, mut last) = (Aligned::new(end as usize), Aligned::new(end as usize));
    disk.read(0, first.as_mut())?;
    disk.read(disk.size() - end, last.as_mut())?;
    Ok(hash_of(disk.size(), first.as_ref(), last.as_ref()))
}

fn hash_of(size: u64, first: &[u8], last: &[u8]) -> Hash32 {
    let mut h = blake3::Hasher::new();
    h.update(b"hoidla: what was seen on a disk").update(&size.to_le_bytes()).update(first).update(last);
    Hash32(h.finalize().into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Words for people; nothing is decided by them.
fn looks_like(first: &[u8]) -> &'static str {
    let at = |from: usize, what: &[u8]| first.get(from..from + what.len()) == Some(what);
    match () {
        () if at(512, b"EFI PART") || at(4096, b"EFI PART") => "a partition table (GPT)",
        () if at(1080, &[0x53, 0xef]) => "a file system (ext)",
        () if at(0, b"XFSB") => "a file system (XFS)",
        () if at(3, b"NTFS") => "a file system (NTFS)",
        () if at(0, b"LUKS") => "an encrypted volume (LUKS)",
        () if at(510, &[0x55, 0xaa]) => "a partition table or boot sector",
        () => "unknown bytes on it",
    }
}

/// Memory at a multiple of the block, as direct I/O wants it.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + BLOCK];
        let from = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, from, len }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.len]
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}
