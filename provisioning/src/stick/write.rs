//! A stick's bytes onto a device: tried first, written, compared.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::{Progress, human};

use super::device::{ALIGNED, Device};

/// Bytes that are written or compared at once.
const CHUNK: usize = 1 << 20;
/// The first place that is tried, after the beginning.
const FIRST: u64 = 1 << 20;

/// Finds out a device that has less room than it says, or doesn't keep what it is given: a pattern
/// that names its own place is written at its beginning and end and at each power of two from
/// both, and read back from the medium. What was there is lost. One that throws away what is too
/// much is always found; one that begins again from its front where sizes of memory would have it
/// do so, and else by [`write`], if that reaches so far.
///
/// # Errors
/// If it lies or fails.
pub fn try_out(device: &mut dyn Device) -> Result<()> {
    let end = device.bytes() / ALIGNED as u64 * ALIGNED as u64;
    let last = end.checked_sub(ALIGNED as u64).context("the disk has no room at all: use another")?;
    let powers = std::iter::successors(Some(FIRST), |at| at.checked_mul(2)).take_while(|at| *at < last);
    let places: BTreeSet<u64> = powers.flat_map(|at| [at, end - at]).chain([0, last]).collect();
    let mut once = [0; 16];
    hoidla_crypto::random(&mut once);
    for at in &places {
        device.write_at(*at, &pattern(&once, *at)).with_context(|| failed(*at))?;
    }
    device.settle().context("the disk doesn't finish what it was given: use another")?;
    let mut back = vec![0; ALIGNED];
    for at in &places {
        device.read_at(*at, &mut back).with_context(|| failed(*at))?;
        ensure!(
            back == pattern(&once, *at),
            "the disk says that it has {}, and doesn't keep what is written at {at}: it has less room than it says, or is broken. Don't use it for anything, and take another from a source that you trust",
            human::bytes(device.bytes())
        );
    }
    // What is left at its end would be taken for the remains of a partition table.
    places.iter().try_for_each(|at| device.write_at(*at, &[0; ALIGNED]).with_context(|| failed(*at)))
}

fn failed(at: u64) -> String {
    format!("the disk fails at byte {at}: use another")
}

/// A block that says where it belongs, and of which time.
fn pattern(once: &[u8; 16], at: u64) -> Vec<u8> {
    let mark = [&once[..], &at.to_le_bytes()].concat();
    mark.iter().copied().cycle().take(ALIGNED).collect()
}

/// Writes all of `image` to the beginning, and compares what the medium gives back.
///
/// # Errors
/// If it fails, or a single byte is another.
pub fn write(device: &mut dyn Device, image: &[u8], draws: bool) -> Result<()> {
    ensure!(
        image.len() as u64 <= device.bytes() && image.len().is_multiple_of(ALIGNED),
        "the disk has {}, and the stick needs {}: use a larger one",
        human::bytes(device.bytes()),
        human::bytes(image.len() as u64)
    );
    let chunks = || image.chunks(CHUNK).enumerate().map(|(n, chunk)| ((n * CHUNK) as u64, chunk));
    let bar = Progress::bytes(draws, "writing", Some(image.len() as u64));
    for (at, chunk) in chunks() {
        device.write_at(at, chunk).with_context(|| failed(at))?;
        bar.add(chunk.len() as u64);
    }
    bar.note("until the stick has all of it");
    device.settle().context("the disk doesn't finish what it was given: use another")?;
    drop(bar);
    let bar = Progress::bytes(draws, "comparing", Some(image.len() as u64));
    let mut back = vec![0; CHUNK];
    for (at, chunk) in chunks() {
        let back = &mut back[..chunk.len()];
        device.read_at(at, back).with_context(|| failed(at))?;
        if let Some(n) = chunk.iter().zip(back.iter()).position(|(a, b)| a != b) {
            bail!("byte {} came back as another: the disk is broken; use another, and don't start a machine from this one", at + n as u64);
        }
        bar.add(chunk.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Memory that behaves like a stick: honest, or with so much room less than it says.
    struct Fake {
        says: u64,
        room: Vec<u8>,
        drops_from: Option<u64>,
        flips: Option<u64>,
    }

    impl Fake {
        fn new(says: u64, room: usize) -> Self {
            Self { says, room: vec![7; room], drops_from: None, flips: None }
        }
    }

    impl Device for Fake {
        fn bytes(&self) -> u64 {
            self.says
        }

        fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
            if self.drops_from.is_some_and(|from| at >= from) {
                return Ok(());
            }
            let at = at as usize % self.room.len();
            self.room[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn settle(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
            let (from, len) = (at as usize % self.room.len(), out.len());
            out.copy_from_slice(&self.room[from..from + len]);
            if let Some(bad) = self.flips.filter(|bad| (at..at + len as u64).contains(bad)) {
                out[(bad - at) as usize] ^= 1;
            }
            Ok(())
        }
    }

    const MIB: u64 = 1 << 20;

    fn image() -> Vec<u8> {
        (0..3 * MIB + 4096).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn an_honest_stick_passes_and_holds_the_image() {
        for bytes in [16 * MIB, 16 * MIB + 512, 5 * MIB + 1] {
            let mut stick = Fake::new(bytes, bytes as usize);
            try_out(&mut stick).unwrap();
            write(&mut stick, &image(), false).unwrap();
            assert_eq!(stick.room[..image().len()], image());
            let end = bytes as usize / ALIGNED * ALIGNED;
            assert!(stick.room[end - ALIGNED..end].iter().all(|b| *b == 0), "no remains of a partition table");
        }
    }

    #[test]
    fn a_stick_that_lies_about_its_size_is_found_out_before_the_image_is_on_it() {
        for room in [MIB, 4 * MIB, 5 * MIB, 16 * MIB, 48 * MIB, 60 * MIB, 63 * MIB] {
            let mut wraps = Fake::new(64 * MIB, room as usize);
            let said = try_out(&mut wraps).expect_err("it begins again from its front").to_string();
            assert!(said.contains("less room than it says") && said.contains("take another"), "{room}: {said}");
        }
        for room in [4096, MIB, 6 * MIB + 8192, 51 * MIB + 512, 64 * MIB - 4096] {
            let mut drops = Fake { drops_from: Some(room), ..Fake::new(64 * MIB, 64 << 20) };
            assert!(try_out(&mut drops).is_err(), "{room}: it throws away what is beyond");
        }
    }

    #[test]
    fn a_byte_that_comes_back_as_another_is_told_by_its_place() {
        for bad in [0, MIB - 1, 3 * MIB + 4095] {
            let mut stick = Fake { flips: Some(bad), ..Fake::new(16 * MIB, 16 << 20) };
            let said = write(&mut stick, &image(), false).unwrap_err().to_string();
            assert!(said.contains(&format!("byte {bad} came back")), "{said}");
        }
        assert!(write(&mut Fake::new(2 * MIB, 2 << 20), &image(), false).is_err(), "too small");
    }
}
