//! The appliance's state as its boot disks keep it: a journal of changes to a few small files.
//!
//! Promises: an entry is whole or doesn't count; it is bound to the one before by its hash, so
//! that what an earlier round left behind is never read on into; a path cannot lead out of the
//! state folder. Nothing in it is secret, and nothing is believed because it stands here: the
//! files are signed statements and the TPM's own blobs.

use sha2::{Digest, Sha256};

use crate::{Hash32, Kind, Malformed, Reader, Writer};

/// The version of an entry.
const VERSION: u8 = 1;
/// Entries begin at multiples of this.
pub const BLOCK: usize = 4096;
/// The most bytes of an entry.
pub const MOST: usize = 16 << 20;
/// The most bytes of one file.
pub const MOST_FILE: usize = 1 << 20;
/// The most changes of an entry.
pub const MOST_CHANGES: usize = 4096;
/// Bytes before what the hash covers: header, length, hash.
const HEAD: usize = 8 + 4 + 32;

/// Where a file lies in the state folder: `papers/site.txt`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// At most three names of letters, digits, `.`, `_` and `-`, none beginning with a dot.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn new(path: &str) -> Result<Self, Malformed> {
        let name = |n: &str| !n.is_empty() && !n.starts_with('.') && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let fits = path.len() <= 200 && path.split('/').count() <= 3 && path.split('/').all(name);
        if fits { Ok(Self(path.to_owned())) } else { Err(Malformed::Field("a path that no file of the state has")) }
    }

    /// With slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One file, as it is now, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub path: FilePath,
    /// What is in it; none if it was deleted.
    pub now: Option<Vec<u8>>,
}

/// One entry: changes that count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raised with each entry, from 1.
    pub sequence: u64,
    /// Nothing before it counts: its changes are all files there are.
    pub anew: bool,
    /// The hash of the entry before.
    pub previous: Hash32,
    /// What changed, by path.
    pub changes: Vec<Change>,
}

impl Entry {
    /// As bytes, filled up with zeros to whole blocks, and its hash.
    ///
    /// # Errors
    /// If it has more changes or bytes than an entry may.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Hash32), Malformed> {
        if self.changes.len() > MOST_CHANGES || self.changes.iter().any(|c| c.now.as_ref().is_some_and(|n| n.len() > MOST_FILE)) {
            return Err(Malformed::Field("more than one entry of the state may hold"));
        }
        let mut body = Writer::new();
        body.put(&self.previous.0).u64(self.sequence).u8(self.anew.into()).u32(self.changes.len() as u32);
        for change in &self.changes {
            body.short(change.path.as_str().as_bytes()).u8(change.now.is_some().into());
            change.now.iter().for_each(|now| _ = body.long(now));
        }
        let body = body.finish();
        let hash = Hash32(Sha256::digest(&body).into());
        let mut out = Writer::with_header(Kind::State, VERSION);
        out.u32(body.len() as u32).put(&hash.0).put(&body);
        let mut out = out.finish();
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        if out.len() > MOST { Err(Malformed::Field("more than one entry of the state may hold")) } else { Ok((out, hash)) }
    }

    /// How many bytes the entry that begins with this block has, in whole blocks.
    ///
    /// # Errors
    /// If none begins here.
    pub fn len_of(block: &[u8]) -> Result<usize, Malformed> {
        let mut r = Reader::new(block);
        r.header(Kind::State, VERSION)?;
        let len = (r.u32()? as usize + HEAD).next_multiple_of(BLOCK);
        if len > MOST { Err(Malformed::Field("an entry longer than any is")) } else { Ok(len) }
    }

    /// Reads an entry of whole blocks, and its hash.
    ///
    /// # Errors
    /// If it isn't whole, or not in its one encoding.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, Hash32), Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::State, VERSION)?;
        let (len, hash) = (r.u32()? as usize, Hash32(r.array()?));
        let body = r.take(len)?;
        if Self::len_of(bytes)? != bytes.len() || r.rest().iter().any(|b| *b != 0) {
            return Err(Malformed::Field("an entry is filled up with zeros"));
        }
        if Sha256::digest(body)[..] != hash.0 {
            return Err(Malformed::Field("an entry whose hash is another"));
        }
        let mut r = Reader::new(body);
        let (previous, sequence, anew) = (Hash32(r.array()?), r.u64()?, flag(r.u8()?)?);
        let count = r.u32()? as usize;
        if count > MOST_CHANGES || sequence == 0 {
            return Err(Malformed::Field("more changes than an entry has, or no sequence"));
        }
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..count {
            let path = std::str::from_utf8(r.short(200, "a path too long")?).map_err(|_| Malformed::Field("a path is text"))?;
            let path = FilePath::new(path)?;
            let now = if flag(r.u8()?)? { Some(r.long(MOST_FILE, "a file too long")?.to_vec()) } else { None };
            if changes.last().is_some_and(|last| last.path >= path) || (anew && now.is_none()) {
                return Err(Malformed::Field("changes stand by path, each once; what begins anew deletes nothing"));
            }
            changes.push(Change { path, now });
        }
        r.finish()?;
        Ok((Self { sequence, anew, previous, changes }, hash))
    }
}

fn flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Field("a flag is 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(p: &str) -> FilePath {
        FilePath::new(p).unwrap()
    }

    fn entry() -> Entry {
        let changes = vec![
            Change { path: path("identity.txt"), now: Some(b"text".to_vec()) },
            Change { path: path("papers/site.txt"), now: None },
            Change { path: path("tpm/node.bin"), now: Some(vec![7; 5000]) },
        ];
        Entry { sequence: 3, anew: false, previous: Hash32([9; 32]), changes }
    }

    #[test]
    fn an_entry_reads_back_and_its_length_is_known_from_its_first_block() {
        let (bytes, hash) = entry().to_bytes().unwrap();
        assert_eq!(bytes.len(), 2 * BLOCK);
        assert_eq!(Entry::len_of(&bytes[..BLOCK]), Ok(bytes.len()));
        assert_eq!(Entry::from_bytes(&bytes), Ok((entry(), hash)));
        // The layout's own vector: what stands on disks must not change unnoticed.
        assert_eq!(hash.to_string(), "c338beeaf0ddc49f21d6488c68696f9fc187a9d868bd695c0d9c44583c5c8391");
    }

    #[test]
    fn nothing_but_the_one_encoding_is_taken() {
        let (bytes, _) = entry().to_bytes().unwrap();
        for at in [0, 6, 7, 8, 12, 44, 76, 84, 100, 5200, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Entry::from_bytes(&bad).is_err(), "byte {at}");
        }
        for cut in [0, 11, 44, BLOCK, bytes.len() - 1] {
            assert!(Entry::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut twice = entry();
        twice.changes.swap(0, 1);
        assert!(Entry::from_bytes(&twice.to_bytes().unwrap().0).is_err(), "out of order");
        let anew = Entry { anew: true, ..entry() };
        assert!(Entry::from_bytes(&anew.to_bytes().unwrap().0).is_err(), "what begins anew deletes nothing");
        let large = Entry { changes: vec![Change { path: path("a"), now: Some(vec![0; MOST_FILE + 1]) }], ..entry() };
        assert!(large.to_bytes().is_err());
    }

    #[test]
    fn a_path_stays_in_its_folder() {
        for bad in ["", "/etc", "..", "a/../b", ".hidden", "a//b", "a/b/c/d", "a b", "a/.b", "ä", &"a".repeat(201)] {
            assert!(FilePath::new(bad).is_err(), "{bad}");
        }
        for good in ["a", "papers/site.txt", "tpm/half-a_b-1.bin", "a/b/c"] {
            assert_eq!(FilePath::new(good).unwrap().as_str(), good);
        }
    }
}
