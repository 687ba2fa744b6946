//! The committed corpus and thousands of mutations of it, through every target.
#![forbid(unsafe_code)]

use hoidla_hostile::{TARGETS, Target};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Numbers that lengths and counts go wrong at.
const EDGES: &[u64] = &[0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 20, 1 << 62, i64::MAX as u64, u64::MAX];

struct Mutator(ChaCha8Rng);

impl Mutator {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    /// One to four changes, of the kinds that fuzzers make.
    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let to = at + self.below(bytes.len() - at + 1);
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.0.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => bytes.insert(at, self.0.next_u32() as u8),
            5 => {
                let piece = bytes[at..to.min(at + 64)].to_vec();
                let into = self.below(bytes.len());
                bytes.splice(into..into, piece);
            }
            6 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            7 => self.edge(bytes, at),
            _ => bytes.extend([0; 7]),
        }
    }

    fn edge(&mut self, bytes: &mut [u8], at: usize) {
        let value = EDGES[self.below(EDGES.len())].to_le_bytes();
        let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
        bytes[at..at + width].copy_from_slice(&value[..width]);
    }
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let seeds = target.seeds();
    assert!(!seeds.is_empty(), "{} has a corpus", target.name);
    seeds
}

#[test]
fn every_target_accepts_its_corpus() {
    for target in TARGETS {
        for (n, seed) in seeds(target).iter().enumerate() {
            assert!((target.run)(seed), "{} refuses seed {n}: if its format has a new version, write the corpus again", target.name);
        }
    }
}

#[test]
fn no_target_minds_an_end_at_any_byte() {
    for target in TARGETS {
        for seed in seeds(target) {
            let step = seed.len().div_ceil(target.mutations.min(400) as usize).max(1);
            for cut in (0..seed.len()).step_by(step) {
                (target.run)(&seed[..cut]);
            }
        }
    }
}

#[test]
fn no_target_minds_thousands_of_mutations() {
    for (n, target) in TARGETS.iter().enumerate() {
        let seeds = seeds(target);
        let mut mutator = Mutator(ChaCha8Rng::seed_from_u64(n as u64));
        let mut refused = 0;
        for _ in 0..target.mutations {
            refused += u32::from(!(target.run)(&mutator.mutate(&seeds)));
        }
        assert!(refused > 0, "{} refuses something", target.name);
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let program = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
        assert!(program.contains(&format!("by_name(\"{}\")", target.name)));
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{} stands in the fuzz manifest", target.name);
    }
}
