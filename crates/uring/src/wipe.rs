//! Overwriting a disk.
//!
//! Promises: an answer of yes means that every byte the disk shows was written with zeros,
//! that the disk said it had flushed them, and that every byte was then read back from it as
//! zero, past the page cache. What a disk keeps aside, worn-out blocks that it no longer
//! shows, nobody reaches so.

use std::io;

use hoidla_store::Disk;
use thiserror::Error;

use crate::trays::Aligned;

/// Bytes of one transfer.
const STEP: usize = 4 << 20;

/// Why a disk is not erased.
#[derive(Debug, Error)]
pub enum WipeError {
    /// It no longer takes writes.
    #[error("it takes no writes at byte {at}: {why}")]
    Write {
        /// Where.
        at: u64,
        /// What the kernel said.
        why: io::Error,
    },
    /// It didn't flush.
    #[error("it did not flush what was written: {0}")]
    Flush(io::Error),
    /// It can't be read back.
    #[error("it cannot be read back at byte {at}: {why}")]
    Read {
        /// Where.
        at: u64,
        /// What the kernel said.
        why: io::Error,
    },
    /// It says that it wrote, and didn't.
    #[error("near byte {0} it does not hold the zeros that were written there")]
    NotZero(u64),
}

/// Overwrites all of a disk with zeros and reads all of it back; `step` is told the bytes of
/// each transfer, twice the disk's size together. Blocks for as long as that takes.
pub fn wipe(disk: &dyn Disk, mut step: impl FnMut(u64)) -> Result<(), WipeError> {
    let mut zeros = Aligned::new(STEP);
    for (at, len) in stretches(disk.size()) {
        disk.write(at, &zeros.as_ref()[..len]).map_err(|why| WipeError::Write { at, why })?;
        step(len as u64);
    }
    disk.flush().map_err(WipeError::Flush)?;
    for (at, len) in stretches(disk.size()) {
        let read = &mut zeros.as_mut()[..len];
        read.fill(0xff); // a read that does nothing must not pass
        disk.read(at, read).map_err(|why| WipeError::Read { at, why })?;
        if read.iter().any(|b| *b != 0) {
            return Err(WipeError::NotZero(at));
        }
        step(len as u64);
    }
    Ok(())
}

fn stretches(size: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..size).step_by(STEP).map(move |at| (at, (size - at).min(STEP as u64) as usize))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Memory as a disk, with one thing wrong with it.
    struct Fake {
        bytes: Mutex<Vec<u8>>,
        wrong: Wrong,
    }

    #[derive(PartialEq)]
    enum Wrong {
        Nothing,
        /// Writes to this stretch fail, or are said to be done and aren't.
        Refuses(u64),
        Lies(u64),
        NoFlush,
        /// Reads succeed and bring nothing.
        ReadsNothing,
    }

    impl Disk for Fake {
        fn name(&self) -> String {
            "fake".into()
        }

        fn size(&self) -> u64 {
            self.bytes.lock().unwrap().len() as u64
        }

        fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
            if self.wrong != Wrong::ReadsNothing {
                into.copy_from_slice(&self.bytes.lock().unwrap()[at as usize..][..into.len()]);
            }
            Ok(())
        }

        fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
            match self.wrong {
                Wrong::Refuses(n) if n == at => return Err(io::Error::other("worn out")),
                Wrong::Lies(n) if n == at => return Ok(()),
                _ => {}
            }
            self.bytes.lock().unwrap()[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            if self.wrong == Wrong::NoFlush { Err(io::Error::other("no")) } else { Ok(()) }
        }
    }

    const LEN: usize = 2 * STEP + 8192;

    fn wiped(wrong: Wrong) -> (Result<(), WipeError>, u64, Vec<u8>) {
        let (disk, mut told) = (Fake { bytes: Mutex::new(vec![7; LEN]), wrong }, 0);
        let done = wipe(&disk, |n| told += n);
        (done, told, disk.bytes.into_inner().unwrap())
    }

    #[test]
    fn every_byte_is_zero_afterwards_and_was_read_back() {
        let (done, told, bytes) = wiped(Wrong::Nothing);
        done.unwrap();
        assert_eq!((told, bytes), (2 * LEN as u64, vec![0; LEN]));
    }

    #[test]
    fn a_disk_that_fails_or_lies_is_not_erased() {
        let (last, second) = (2 * STEP as u64, STEP as u64);
        assert!(matches!(wiped(Wrong::Refuses(last)).0, Err(WipeError::Write { at, .. }) if at == last));
        assert!(matches!(wiped(Wrong::Lies(second)).0, Err(WipeError::NotZero(at)) if at == second));
        assert!(matches!(wiped(Wrong::Lies(last)).0, Err(WipeError::NotZero(at)) if at == last));
        assert!(matches!(wiped(Wrong::NoFlush).0, Err(WipeError::Flush(_))));
        assert!(matches!(wiped(Wrong::ReadsNothing).0, Err(WipeError::NotZero(0))));
    }
}
