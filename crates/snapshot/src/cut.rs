//! Where content is cut: a rolling hash (gear) of the last 64 bytes, below a bound.
//!
//! Promises: a cut depends on the key, on the 64 bytes before it and on where the chunk began,
//! so that an insertion moves few cuts. The keying is weak, as in all such cutters (attacks on
//! other products are published): what hides lengths is packing, not the key.

/// The least bytes of a chunk that doesn't end its file.
pub const LEAST: usize = 96 << 10;
/// Until here a chunk rather goes on, from here on it rather ends.
pub const AIM: usize = 112 << 10;
/// The most bytes of a chunk.
pub const MOST: usize = 512 << 10;

/// A cut before [`AIM`] is expected once in so many bytes, and after it.
const RARE: u64 = u64::MAX / (256 << 10);
const OFTEN: u64 = u64::MAX / (48 << 10);
/// Bytes that the hash remembers.
const WINDOW: usize = 64;
/// Places of one block that are searched at once: a hash alone would wait for its own last step.
const LANES: usize = 4;
/// Bytes of each.
const LANE: usize = 2048;

/// Finds cuts.
pub struct Cutter {
    gear: Box<[u64; 256]>,
}

impl Cutter {
    /// With the table that this key gives.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut bytes = [0; 8 * 256];
        blake3::Hasher::new_derive_key("hoidla 2026 gear of content-defined cuts").update(key).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0; 256]);
        gear.iter_mut().zip(bytes.as_chunks().0).for_each(|(g, b)| *g = u64::from_le_bytes(*b));
        Self { gear }
    }

    /// The length of the first chunk of `bytes`, which hold [`MOST`] bytes or all that is left.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(MOST);
        self.find(bytes, LEAST..end.min(AIM), RARE).or_else(|| self.find(bytes, AIM..end, OFTEN)).unwrap_or(end)
    }

    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }

    /// The first place in `range` before which the hash is below `bound`.
    fn find(&self, bytes: &[u8], range: std::ops::Range<usize>, bound: u64) -> Option<usize> {
        let mut at = range.start;
        while at + LANES * LANE <= range.end {
            let block = bytes[at - WINDOW..at + LANES * LANE].first_chunk().expect("a block's bytes");
            if self.has(block, bound) {
                break;
            }
            at += LANES * LANE;
        }
        // What is left is short, or has a cut near its start.
        let left = bytes.get(at - WINDOW..range.end)?;
        let (before, after) = left.split_at_checked(WINDOW)?;
        let mut hash = before.iter().fold(0, |hash, byte| self.step(hash, *byte));
        let found = after.iter().position(|byte| {
            hash = self.step(hash, *byte);
            hash < bound
        });
        found.map(|i| at + i + 1)
    }

    /// Whether there is a cut in a block, which comes with the window before it.
    fn has(&self, block: &[u8; WINDOW + LANES * LANE], bound: u64) -> bool {
        let mut hashes = [0; LANES];
        for i in 0..WINDOW {
            for (lane, hash) in hashes.iter_mut().enumerate() {
                *hash = self.step(*hash, block[lane * LANE + i]);
            }
        }
        for i in WINDOW..WINDOW + LANE {
            for (lane, hash) in hashes.iter_mut().enumerate() {
                *hash = self.step(*hash, block[lane * LANE + i]);
            }
            if hashes.iter().any(|hash| *hash < bound) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// As the definition has it, a byte after the other.
    fn plain(c: &Cutter, bytes: &[u8]) -> usize {
        let mut hash = 0;
        for (i, byte) in bytes.iter().enumerate() {
            hash = c.step(hash, *byte);
            let bound = if i < AIM { RARE } else { OFTEN };
            if i >= LEAST && hash < bound {
                return i + 1;
            }
        }
        bytes.len()
    }

    #[test]
    fn cuts_follow_content_and_key() {
        let bytes = noise(6 << 20);
        let (a, b) = (Cutter::new(&[1; 32]), Cutter::new(&[2; 32]));
        let of_a = cuts(&a, &bytes);
        assert!(of_a.len() > 20 && of_a.iter().all(|&l| l <= MOST) && of_a[..of_a.len() - 1].iter().all(|&l| l >= LEAST));
        assert_ne!(of_a, cuts(&b, &bytes));
        let shifted = cuts(&a, &[b"x", &bytes[..]].concat());
        assert_eq!(of_a[of_a.len() - 5..], shifted[shifted.len() - 5..]);
    }

    #[test]
    fn lanes_find_what_one_after_the_other_finds() {
        let (c, bytes) = (Cutter::new(&[3; 32]), noise(24 << 20));
        let mut at = 0;
        while at < bytes.len() {
            let window = &bytes[at..bytes.len().min(at + MOST)];
            assert_eq!(c.cut(window), plain(&c, window), "at {at}");
            at += c.cut(window);
        }
        for len in [0, 1, LEAST - 1, LEAST, LEAST + 1, LEAST + 63, AIM, AIM + 1] {
            assert_eq!(c.cut(&bytes[..len]), plain(&c, &bytes[..len]), "{len} bytes");
        }
        assert_eq!(c.cut(&vec![0; MOST]), plain(&c, &vec![0; MOST]));
    }
}
