//! The spool's files: a head and a frame, again and again.
//!
//! Promises: a frame is given out only if it goes on from the stream's chain. A file
//! that is used again still holds older frames behind what is written now; those were
//! acknowledged, so the chain has passed them.

use std::{
    fs::{self, File},
    io::{self, BufReader, IoSlice, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use hoidla_format::{Hash32, Kind, Malformed, Reader, Writer, frame, frame::Chain};
use nix::sys::uio::pwritev;

use super::{About, What};

const VERSION: u8 = 1;
/// Bytes of a file after which the next begins.
pub const FULL: u64 = 16 << 20;
/// Before each frame: header, epoch, offset, length, run, number, flags, chain's root after it.
pub const HEAD: usize = 8 + 4 + 8 + 4 + 4 + 4 + 1 + 32;

/// One of the files.
pub struct Part {
    path: PathBuf,
    file: File,
}

/// Gives up a hold on a file; with the last one, the file is removed.
pub fn release(part: Arc<Part>) {
    if let Some(part) = Arc::into_inner(part) {
        part.remove();
    }
}

impl Part {
    /// A new one.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// One that is there, to be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: File::open(&path)?, path })
    }

    /// The same file under its next name. Writing over what the system holds of it costs far
    /// less than a new file does.
    pub fn again(self, path: PathBuf) -> io::Result<Self> {
        fs::rename(&self.path, &path)?;
        Ok(Self { path, ..self })
    }

    /// Removes it.
    pub fn remove(self) {
        _ = fs::remove_file(self.path);
    }

    /// Its number, after its name.
    pub fn number(&self) -> Option<u64> {
        self.path.file_stem().and_then(|s| s.to_str()).and_then(|s| u64::from_str_radix(s, 16).ok())
    }

    /// Writes a frame after its head, from `at` on; gives where it ends.
    pub fn write(&self, at: u64, about: &About, frame: &[u8]) -> io::Result<u64> {
        let head = head(about);
        let body = at + head.len() as u64;
        let done = pwritev(&self.file, &[IoSlice::new(&head), IoSlice::new(frame)], at as i64)?;
        // A file system may take less than all at once.
        self.file.write_all_at(&head[done.min(head.len())..], at + done.min(head.len()) as u64)?;
        let of_frame = done.saturating_sub(head.len());
        self.file.write_all_at(&frame[of_frame..], body + of_frame as u64)?;
        Ok(body + frame.len() as u64)
    }

    /// So many bytes from `at` on.
    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Gives `take` the frames that go on from `chain`, each with the place of its bytes; stops
    /// at the first that doesn't.
    pub fn frames(&self, chain: &mut Chain, mut take: impl FnMut(About, u64)) {
        let mut file = BufReader::with_capacity(1 << 20, &self.file);
        let (mut head, mut at) = ([0; HEAD], 0);
        while file.read_exact(&mut head).is_ok() {
            let Ok(about) = parse_head(&head) else { return };
            let mut bytes = vec![0; about.len as usize];
            if file.read_exact(&mut bytes).is_err() {
                return;
            }
            at += HEAD as u64;
            if about.after.length > chain.length {
                let hash = Hash32(blake3::hash(&bytes).into());
                if about.offset != chain.length || chain.then(&hash, about.len) != about.after {
                    return;
                }
                *chain = about.after;
                take(about, at);
            }
            at += u64::from(about.len);
        }
    }
}

fn head(about: &About) -> Vec<u8> {
    let mut w = Writer::with_header(Kind::Spool, VERSION);
    let (run, number, flags) = match about.what {
        What::Header => (0, 0, 0),
        What::Message { run, number } => (run, number, 1),
        What::Root { complete: false } => (0, 0, 2),
        What::Root { complete: true } => (0, 0, 3),
    };
    w.u32(about.epoch).u64(about.offset).u32(about.len).u32(run).u32(number).u8(flags).put(&about.after.root.0);
    w.finish()
}

fn parse_head(bytes: &[u8]) -> Result<About, Malformed> {
    let mut r = Reader::new(bytes);
    r.header(Kind::Spool, VERSION)?;
    let (epoch, offset, len, run, number) = (r.u32()?, r.u64()?, r.u32()?, r.u32()?, r.u32()?);
    let what = match r.u8()? {
        0 => What::Header,
        1 => What::Message { run, number },
        2 => What::Root { complete: false },
        3 => What::Root { complete: true },
        _ => return Err(Malformed::Field("an unknown frame in the spool")),
    };
    if len as usize > frame::MOST || offset > 1 << 62 {
        return Err(Malformed::Field("a frame out of bounds in the spool"));
    }
    let after = Chain { root: Hash32(r.array()?), length: offset + u64::from(len) };
    r.finish()?;
    Ok(About { epoch, offset, len, after, what })
}
