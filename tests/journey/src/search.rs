//! Looks for known bytes in disks and in a process's memory.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Whence, lseek};

/// Bytes of a needle: long enough never to occur by chance.
pub const NEEDLE: usize = 32;

/// Bits of a position in the filter: few enough for the processor's cache, many enough to reject.
const FILTER: u32 = 20;

/// Needles, and a filter over their first four bytes that rejects nearly everything else.
#[derive(Debug)]
pub struct Finder {
    filter: Vec<u64>,
    by_start: HashMap<[u8; 4], Vec<[u8; NEEDLE]>>,
    needles: usize,
}

/// What a search saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes looked at.
    pub bytes: u64,
    /// Needles found, each occurrence counted.
    pub found: u64,
    /// Bytes that even root may not read (memory the kernel hides).
    pub hidden: u64,
}

impl Finder {
    /// For these needles.
    pub fn new(needles: &[[u8; NEEDLE]]) -> Self {
        let mut finder = Self { filter: vec![0; 1 << (FILTER - 6)], by_start: HashMap::new(), needles: needles.len() };
        for needle in needles {
            let start = [needle[0], needle[1], needle[2], needle[3]];
            let slot = slot(start);
            finder.filter[slot >> 6] |= 1 << (slot & 63);
            finder.by_start.entry(start).or_default().push(*needle);
        }
        finder
    }

    /// How many needles.
    pub fn needles(&self) -> usize {
        self.needles
    }

    /// Calls `seen` for each occurrence in one slice.
    fn each(&self, bytes: &[u8], mut seen: impl FnMut(&[u8; NEEDLE])) {
        for (at, start) in bytes.windows(4).enumerate() {
            let start: [u8; 4] = start.try_into().expect("a window of four");
            let slot = slot(start);
            if self.filter[slot >> 6] >> (slot & 63) & 1 == 1
                && let Some(candidates) = self.by_start.get(&start)
            {
                candidates.iter().filter(|n| bytes[at..].starts_with(*n)).for_each(&mut seen);
            }
        }
    }

    /// Occurrences in what a reader gives, across the borders of reads.
    ///
    /// # Errors
    /// If reading fails.
    pub fn search(&self, input: impl Read) -> Result<Seen> {
        self.search_each(input, |_| ())
    }

    fn search_each(&self, mut input: impl Read, mut each: impl FnMut(&[u8; NEEDLE])) -> Result<Seen> {
        let mut buffer = vec![0; (4 << 20) + NEEDLE];
        let (mut kept, mut seen) = (0, Seen::default());
        loop {
            let got = match input.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(seen),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let full = kept + got;
            seen.bytes += got as u64;
            self.each(&buffer[..full], |needle| {
                seen.found += 1;
                each(needle);
            });
            // The last NEEDLE - 1 bytes may begin one that goes on; a whole one does not fit them.
            kept = full.min(NEEDLE - 1);
            buffer.copy_within(full - kept..full, 0);
        }
    }

    /// The same without those needles that stand in any of these files: what a program
    /// and its libraries contain, their memory contains too, and that is no leak.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn without(&self, files: &[PathBuf]) -> Result<Self> {
        let mut known = HashSet::new();
        for file in files {
            self.search_each(File::open(file)?, |needle| {
                known.insert(*needle);
            })?;
        }
        let left: Vec<_> = self.by_start.values().flatten().filter(|n| !known.contains(*n)).copied().collect();
        Ok(Self::new(&left))
    }

    /// Occurrences in a file. Holes are zeros, which no needle is made of, and are stepped over.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn search_file(&self, path: &Path) -> Result<Seen> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        let mut all = Seen { bytes: end, ..Seen::default() };
        let mut at = 0;
        while let Some(data) = next(&file, at, Whence::SeekData).filter(|d| *d < end) {
            at = next(&file, data, Whence::SeekHole).unwrap_or(end);
            // A needle may begin with the hole's last zeros.
            let from = data.saturating_sub(NEEDLE as u64 - 1);
            file.seek(SeekFrom::Start(from))?;
            let seen = self.search((&file).take(at - from)).with_context(|| format!("cannot search {}", path.display()))?;
            all.found += seen.found;
        }
        Ok(all)
    }

    /// Occurrences in all memory of a running process that root may read.
    ///
    /// # Errors
    /// If the process is gone, or this is not root.
    pub fn search_memory(&self, pid: u32) -> Result<Seen> {
        let maps = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
        let mut memory = File::open(format!("/proc/{pid}/mem")).context("cannot read its memory; next: run this as root")?;
        let mut all = Seen::default();
        for line in maps.lines() {
            let line = line?;
            let Some((from, to)) = range(&line) else { continue };
            if line.split_whitespace().nth(1).is_some_and(|p| p.starts_with('r'))
                && !line.ends_with("[vvar]")
                && !line.ends_with("[vsyscall]")
            {
                let seen = self.region(&mut memory, from, to)?;
                all = Seen { bytes: all.bytes + seen.bytes, found: all.found + seen.found, hidden: all.hidden + seen.hidden };
            }
        }
        ensure!(all.bytes > 0, "not a byte of process {pid} could be read; next: run this as root");
        Ok(all)
    }

    /// One mapping; a page that cannot be read ends it, and the rest counts as hidden.
    fn region(&self, memory: &mut File, from: u64, to: u64) -> Result<Seen> {
        memory.seek(SeekFrom::Start(from))?;
        let mut reader = UntilHidden { memory: memory.take(to - from) };
        let seen = self.search(&mut reader)?;
        Ok(Seen { hidden: to - from - seen.bytes, ..seen })
    }
}

/// The next stretch of data, or of hole, from `at`.
fn next(file: &File, at: u64, what: Whence) -> Option<u64> {
    lseek(file, at.cast_signed(), what).ok().map(i64::cast_unsigned)
}

/// Ends at the first page that the kernel refuses.
struct UntilHidden<'a> {
    memory: std::io::Take<&'a mut File>,
}

impl Read for UntilHidden<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.memory.read(buffer) {
            Err(e) if e.kind() != ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

fn slot(start: [u8; 4]) -> usize {
    (u32::from_le_bytes(start).wrapping_mul(0x9e37_79b1) >> (32 - FILTER)) as usize
}

/// The files that a process has mapped: its program and libraries.
///
/// # Errors
/// If the process is gone.
pub fn mapped_files(pid: u32) -> Result<Vec<PathBuf>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let named: BTreeSet<PathBuf> = maps.lines().filter_map(|l| l.find('/').map(|at| PathBuf::from(&l[at..]))).collect();
    Ok(named.into_iter().filter(|p| p.is_file()).collect())
}

/// Up to `most` needles taken evenly from all files below `path`: bytes varied enough
/// that finding them elsewhere means that the file's content is there.
///
/// # Errors
/// If there is nothing to take needles from.
pub fn needles_of(path: &Path, most: usize) -> Result<Vec<[u8; NEEDLE]>> {
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let step = files.len().div_ceil(most.max(1)).max(1);
    let per_file = most.div_ceil(files.len().max(1));
    let mut out = Vec::new();
    for file in files.iter().step_by(step) {
        let len = fs::metadata(file)?.len();
        for i in 0..per_file as u64 {
            out.extend(needle_near(file, len * (2 * i + 1) / (2 * per_file as u64))?);
        }
    }
    out.truncate(most);
    ensure!(!out.is_empty(), "{} has no content to search for", path.display());
    Ok(out)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        files.push(path.to_owned());
    } else if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

/// The first stretch of varied bytes after `at`.
fn needle_near(file: &Path, at: u64) -> Result<Option<[u8; NEEDLE]>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(64 << 10).read_to_end(&mut bytes)?;
    Ok(bytes.as_chunks::<NEEDLE>().0.iter().find(|c| varied(c)).copied())
}

/// Not something that other files have as well, and beginning so that few places look alike.
fn varied(bytes: &[u8; NEEDLE]) -> bool {
    let [a, b, c, d, ..] = bytes;
    if [b, c, d].contains(&a) || [c, d].contains(&b) || c == d {
        return false;
    }
    let mut seen = [false; 256];
    bytes.iter().for_each(|b| seen[usize::from(*b)] = true);
    seen.iter().filter(|s| **s).count() >= 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time: the hardest borders.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn needle(seed: u8) -> [u8; NEEDLE] {
        std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(seed))
    }

    #[test]
    fn each_occurrence_is_found_once_wherever_reads_end() {
        let hay = [&[0; 100][..], &needle(1), &needle(2)[..31], &needle(1), b"x", &needle(2)].concat();
        let finder = Finder::new(&[needle(1), needle(2)]);
        for seen in [finder.search(&hay[..]).unwrap(), finder.search(Drip(&hay)).unwrap()] {
            assert_eq!(seen, Seen { bytes: hay.len() as u64, found: 3, hidden: 0 });
        }
        assert_eq!(Finder::new(&[needle(3)]).search(&hay[..]).unwrap().found, 0);
    }

    #[test]
    fn what_lies_behind_holes_is_found() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        for (at, seed) in [(0_u64, 1), (1 << 20, 2), ((1 << 20) + 64, 2), ((4 << 20) - NEEDLE as u64, 3)] {
            file.as_file().write_all_at(&needle(seed), at).unwrap();
        }
        file.as_file().set_len(16 << 20).unwrap();
        let mut zeros_first = [0; NEEDLE];
        zeros_first[8..].copy_from_slice(&needle(2)[..NEEDLE - 8]);
        let finder = Finder::new(&[needle(1), needle(2), needle(3), zeros_first]);
        assert_eq!(finder.search_file(file.path()).unwrap(), Seen { bytes: 16 << 20, found: 6, hidden: 0 });
    }

    #[test]
    fn what_a_process_holds_is_found_in_its_memory() {
        let mut secret: Vec<u8> = (0..NEEDLE as u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        // The finder itself holds its needles: two at least, the secret's own and those of the tables.
        let wanted: [u8; NEEDLE] = secret.as_slice().try_into().unwrap();
        let with = Finder::new(&[wanted]).search_memory(std::process::id()).unwrap();
        assert!(with.found >= 2, "{with:?}");
        secret.fill(0);
    }

    #[test]
    fn what_a_program_contains_is_no_needle() {
        let me = mapped_files(std::process::id()).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert!(me.contains(&exe));
        let mut needles = needles_of(&exe, 4).unwrap();
        needles.push(needle(9));
        let left = Finder::new(&needles).without(&[exe]).unwrap();
        assert_eq!(left.needles(), 1);
    }
}
