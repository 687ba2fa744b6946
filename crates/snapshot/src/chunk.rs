//! Chunks: where a file is cut, what names a chunk, whether it compresses.
//!
//! Cuts depend on content (FastCDC), so that an insertion moves few of them. Both
//! cuts and names are keyed per generation. The keying of cuts is weak (attacks on
//! other products are published): what hides lengths is packing, not the key.

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use hoidla_crypto::Secret;
use hoidla_format::Hash32;

/// The least bytes of a chunk that doesn't end its file.
pub const LEAST: usize = 32 << 10;
/// What chunks tend to.
pub const AIM: usize = 128 << 10;
/// The most bytes of a chunk.
pub const MOST: usize = 512 << 10;

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

    fn seed(&self) -> u64 {
        let mut seed = [0; 8];
        blake3::Hasher::new_derive_key("hoidla 2026 seed of content-defined cuts").update(self.0.expose()).finalize_xof().fill(&mut seed);
        u64::from_le_bytes(seed)
    }
}

/// Finds cuts.
pub struct Cutter {
    masks: [u64; 4],
    gear: Vec<u64>,
    gear_ls: Vec<u64>,
}

impl Cutter {
    /// For one generation.
    pub fn new(key: &GenerationKey) -> Self {
        let (gear, gear_ls) = get_gear_with_seed(key.seed());
        let (s, l) = select_masks(AIM, Normalization::Level1);
        Self { masks: [s, l, s << 1, l << 1], gear: gear.into_owned(), gear_ls: gear_ls.into_owned() }
    }

    /// The length of the first chunk of `bytes`, which hold [`MOST`] bytes or all that is left.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let [s, l, s2, l2] = self.masks;
        cut_gear(bytes, LEAST, AIM, MOST, s, l, s2, l2, &self.gear, &self.gear_ls).1.clamp(1, MOST.min(bytes.len()))
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

    fn cuts(c: &Cutter, mut bytes: &[u8]) -> Vec<usize> {
        let mut out = vec![];
        while !bytes.is_empty() {
            let len = c.cut(&bytes[..bytes.len().min(MOST)]);
            out.push(len);
            bytes = &bytes[len..];
        }
        out
    }

    #[test]
    fn cuts_follow_content_and_key() {
        let bytes = noise(6 << 20);
        let (a, b) = (Cutter::new(&key(1)), Cutter::new(&key(2)));
        let of_a = cuts(&a, &bytes);
        assert!(of_a.len() > 20 && of_a.iter().all(|&l| l <= MOST) && of_a[..of_a.len() - 1].iter().all(|&l| l >= LEAST));
        assert_ne!(of_a, cuts(&b, &bytes));
        let shifted = cuts(&a, &[b"x", &bytes[..]].concat());
        assert_eq!(of_a[of_a.len() - 5..], shifted[shifted.len() - 5..]);
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
