//! Chunks: what names a chunk, whether it compresses, what vouches for a file's content.
//!
//! Both cuts and names are keyed per generation.

use hoidla_crypto::Secret;
use hoidla_format::Hash32;

pub use crate::cut::{Cutter, MOST};

/// The secret under which one generation's chunks are cut and named. It stays at
/// home and inside ciphertext; whoever holds it can test guesses at content.
pub struct GenerationKey(Secret<32>);

impl GenerationKey {
    /// A fresh one.
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// One that was kept.
    pub fn from_secret(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// The bytes, to be kept at home.
    pub fn secret(&self) -> &Secret<32> {
        &self.0
    }

    /// A chunk's name: keyed BLAKE3.
    pub fn id(&self, chunk: &[u8]) -> Hash32 {
        Hash32(blake3::keyed_hash(self.0.expose(), chunk).into())
    }

    /// What cuts this generation's chunks.
    pub(crate) fn cutter(&self) -> Cutter {
        Cutter::new(self.0.expose())
    }
}

/// Compresses chunks that are worth it.
pub struct Press {
    zstd: zstd::bulk::Compressor<'static>,
    sample: Vec<u8>,
}

const SAMPLE: usize = 4096;

impl Press {
    /// Level 1: the embassy's line and disks are faster than higher levels are.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(1)?, sample: vec![0; zstd::zstd_safe::compress_bound(SAMPLE)] })
    }

    /// Appends `chunk` to `out` under zstd, unless that spares less than a sixteenth.
    pub fn press(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
        if chunk.len() < 64 || (chunk.len() > 8 * SAMPLE && !self.promising(chunk)?) {
            return Ok(None);
        }
        let (start, room) = (out.len(), zstd::zstd_safe::compress_bound(chunk.len()));
        out.resize(start + room, 0);
        let len = self.zstd.compress_to_buffer(chunk, &mut out[start..])?;
        let worth = len < chunk.len() - chunk.len() / 16;
        out.truncate(if worth { start + len } else { start });
        Ok(worth.then_some(len))
    }

    /// Whether one of two pages within the chunk compresses.
    fn promising(&mut self, chunk: &[u8]) -> std::io::Result<bool> {
        for at in [chunk.len() / 3, chunk.len() / 3 * 2] {
            let len = self.zstd.compress_to_buffer(&chunk[at..at + SAMPLE], &mut self.sample[..])?;
            if len < SAMPLE - SAMPLE / 16 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The digest of a file's content: over its holes and its chunks' names, in order.
pub struct Digest(blake3::Hasher);

impl Digest {
    /// Of no content.
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// After a hole.
    pub fn hole(&mut self, len: u64) {
        self.0.update(&[0]).update(&len.to_le_bytes());
    }

    /// After a chunk.
    pub fn chunk(&mut self, id: &Hash32) {
        self.0.update(&[1]).update(&id.0);
    }

    /// The digest.
    pub fn finish(&self) -> Hash32 {
        Hash32(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> GenerationKey {
        GenerationKey::from_secret(Secret::filled(|b| b.fill(n)))
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn names_are_keyed() {
        let (a, b) = (key(1), key(2));
        assert_eq!(a.id(b"x"), a.id(b"x"));
        assert_ne!(a.id(b"x"), b.id(b"x"));
    }

    #[test]
    fn only_what_shrinks_is_pressed() {
        let (mut p, mut out) = (Press::new().unwrap(), vec![9]);
        assert_eq!(p.press(&noise(100_000), &mut out).unwrap(), None);
        assert_eq!(p.press(&noise(10_000), &mut out).unwrap(), None);
        assert_eq!(p.press(b"short", &mut out).unwrap(), None);
        assert_eq!(out, [9]);
        let len = p.press(&[7; 100_000], &mut out).unwrap().unwrap();
        assert_eq!(out.len(), 1 + len);
        assert_eq!(zstd::bulk::decompress(&out[1..], 100_000).unwrap(), [7; 100_000]);
    }
}
