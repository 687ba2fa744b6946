//! The state folder, kept on the boot disks by the program itself.
//!
//! Promises: the folder lies in memory, and what [`changed`] returned from is on every boot disk
//! that works; after a power cut it is as it was at some such moment, never in between; either
//! disk may die. No file system of the disks is ever mounted: the kernel parses nothing that a
//! host could have written there. It doesn't tell an older state from the newest if both disks
//! were put back: the TPM's counters do.
//!
//! A partition has two halves. Entries ([`hoidla_format::state`]) follow one another in one half
//! until there is no room; then the other half begins anew with all there is.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context, ensure};
use hoidla_format::{
    Hash32,
    state::{BLOCK, Change, Entry, FilePath, MOST},
    statement,
    statements::ApplianceIdentity,
};

/// What only this start is concerned with, and is never kept.
const PASSING: &[&str] = &["appliance.toml", "health.json", "measured.txt"];

/// Where the state says whose it is.
const IDENTITY: &str = "identity.txt";

/// All files of the state.
type Files = BTreeMap<FilePath, Vec<u8>>;

static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();

/// Keeps what changed in the state folder, if it lies in memory; else the file system does.
///
/// # Errors
/// If no boot disk took it.
pub fn changed() -> anyhow::Result<()> {
    KEEPER.get().map_or(Ok(()), |keeper| keeper.lock().unwrap_or_else(PoisonError::into_inner).save())
}

/// The numbers of the boot disks that take what changes.
pub fn working() -> Vec<usize> {
    KEEPER.get().map_or(Vec::new(), |keeper| keeper.lock().unwrap_or_else(PoisonError::into_inner).working())
}

/// From now on [`changed`] writes to these disks.
///
/// # Panics
/// If there is a keeper already.
pub fn begin(keeper: Keeper) {
    assert!(KEEPER.set(Mutex::new(keeper)).is_ok(), "there is one state folder");
}

/// One boot disk's partition.
struct Disk {
    file: File,
    /// The number of the boot disk.
    number: usize,
    /// Bytes of a half.
    half: u64,
    /// Where the half in use begins.
    base: u64,
    /// Where the next entry goes, from there.
    at: u64,
    failed: bool,
}

/// What was found on a disk.
struct Found {
    base: u64,
    at: u64,
    sequence: u64,
    hash: Hash32,
    files: Files,
}

/// See the module.
pub struct Keeper {
    folder: PathBuf,
    disks: Vec<Disk>,
    files: Files,
    sequence: u64,
    hash: Hash32,
}

impl Keeper {
    /// Reads the newest state of these partitions, each with the number of its boot disk, into an
    /// empty folder, and brings all of them to it.
    ///
    /// # Errors
    /// If none can be read, or the folder cannot be written.
    pub fn open(folder: &Path, partitions: &[(usize, PathBuf)]) -> anyhow::Result<Self> {
        let mut disks = Vec::new();
        for (number, path) in partitions {
            match Disk::open(*number, path) {
                Ok(disk) => disks.push(disk),
                Err(e) => tracing::error!("boot disk {number} is left alone: {e:#}"),
            }
        }
        ensure!(!disks.is_empty(), "no boot disk can be read; is one of them plugged in where the profile says?");
        let found: Vec<Option<Found>> = disks.iter_mut().map(Disk::find).collect();
        one_machine(&disks, &found)?;
        let newest = found.iter().flatten().max_by_key(|f| f.sequence);
        let (sequence, hash) = newest.map_or((0, Hash32([0; 32])), |f| (f.sequence, f.hash));
        let files = newest.map(|f| f.files.clone()).unwrap_or_default();
        let alike = found.iter().all(|f| f.as_ref().is_some_and(|f| f.sequence == sequence && f.hash == hash));
        let mut keeper = Self { folder: folder.to_owned(), disks, files, sequence, hash };
        keeper.restore()?;
        if !alike {
            keeper.write_anew()?;
        }
        Ok(keeper)
    }

    /// Whether the disks hold any state.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The numbers of the boot disks that work.
    pub fn working(&self) -> Vec<usize> {
        self.disks.iter().filter(|d| !d.failed).map(|d| d.number).collect()
    }

    fn restore(&self) -> anyhow::Result<()> {
        for (path, bytes) in &self.files {
            let path = self.folder.join(path.as_str());
            let folder = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes)).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Writes what changed since the last time.
    ///
    /// # Errors
    /// If no disk took it.
    pub fn save(&mut self) -> anyhow::Result<()> {
        let now = read_all(&self.folder)?;
        let gone = self.files.keys().filter(|path| !now.contains_key(*path)).map(|path| Change { path: path.clone(), now: None });
        let new = now.iter().filter(|(path, bytes)| self.files.get(*path) != Some(*bytes));
        let mut changes: Vec<Change> =
            gone.chain(new.map(|(path, bytes)| Change { path: path.clone(), now: Some(bytes.clone()) })).collect();
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        if changes.is_empty() {
            return Ok(());
        }
        self.files = now;
        let entry = Entry { sequence: self.sequence + 1, anew: false, previous: self.hash, changes };
        let (bytes, hash) = entry.to_bytes()?;
        if self.disks.iter().any(|d| !d.failed && d.at + bytes.len() as u64 > d.half) {
            return self.write_anew();
        }
        self.write(&bytes, hash, |disk| disk.base + disk.at)
    }

    /// Begins the other half of each disk with all files.
    fn write_anew(&mut self) -> anyhow::Result<()> {
        let changes = self.files.iter().map(|(path, bytes)| Change { path: path.clone(), now: Some(bytes.clone()) }).collect();
        let (bytes, hash) = Entry { sequence: self.sequence + 1, anew: true, previous: self.hash, changes }.to_bytes()?;
        for disk in &mut self.disks {
            (disk.base, disk.at) = (disk.half - disk.base, 0);
        }
        self.write(&bytes, hash, |disk| disk.base)
    }

    fn write(&mut self, bytes: &[u8], hash: Hash32, at: impl Fn(&Disk) -> u64) -> anyhow::Result<()> {
        for disk in self.disks.iter_mut().filter(|d| !d.failed) {
            let fits = bytes.len() as u64 <= disk.half;
            let written = if fits { disk.file.write_all_at(bytes, at(disk)) } else { Err(io::ErrorKind::StorageFull.into()) };
            if let Err(e) = written.and_then(|()| disk.file.sync_data()) {
                tracing::error!("boot disk {} failed and is left alone until the next start: {e}", disk.number);
                disk.failed = true;
            }
            disk.at += bytes.len() as u64;
        }
        ensure!(
            !self.working().is_empty(),
            "no boot disk takes the appliance's state any more: switch off and on; if it comes again, call home, and never replace both boot disks at once"
        );
        (self.sequence, self.hash) = (self.sequence + 1, hash);
        Ok(())
    }
}

impl Disk {
    fn open(number: usize, path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        let half = len / 2 / BLOCK as u64 * BLOCK as u64;
        ensure!(half >= 16 * BLOCK as u64, "its state partition has {len} bytes, which is too small");
        Ok(Self { file, number, half, base: 0, at: 0, failed: false })
    }

    /// The newer state of its two halves.
    fn find(&mut self) -> Option<Found> {
        let halves = [0, self.half].map(|base| self.follow(base));
        let found = halves.into_iter().flatten().max_by_key(|f| f.sequence)?;
        (self.base, self.at) = (found.base, found.at);
        Some(found)
    }

    /// What the entries of a half lead to, as far as they are whole.
    fn follow(&self, base: u64) -> Option<Found> {
        let (first, hash, len) = self.entry(base, 0)?;
        let mut found = Found { base, at: len, sequence: first.sequence, hash, files: Files::new() };
        if !first.anew {
            return None;
        }
        apply(&mut found.files, first.changes);
        while let Some((entry, hash, len)) = self.entry(base, found.at) {
            if entry.anew || entry.previous != found.hash || entry.sequence != found.sequence + 1 {
                break;
            }
            apply(&mut found.files, entry.changes);
            (found.at, found.sequence, found.hash) = (found.at + len, entry.sequence, hash);
        }
        Some(found)
    }

    fn entry(&self, base: u64, at: u64) -> Option<(Entry, Hash32, u64)> {
        let mut block = vec![0; BLOCK];
        let left = self.half.checked_sub(at).filter(|left| *left >= BLOCK as u64)?;
        self.file.read_exact_at(&mut block, base + at).ok()?;
        let len = Entry::len_of(&block).ok().filter(|len| *len as u64 <= left && *len <= MOST)?;
        block.resize(len, 0);
        self.file.read_exact_at(&mut block, base + at).ok()?;
        Entry::from_bytes(&block).ok().map(|(entry, hash)| (entry, hash, len as u64))
    }
}

fn apply(files: &mut Files, changes: Vec<Change>) {
    for change in changes {
        match change.now {
            Some(bytes) => files.insert(change.path, bytes),
            None => files.remove(&change.path),
        };
    }
}

/// Refuses boot disks that hold the states of different machines: the longer one would be put in
/// the place of the other, which is lost then.
fn one_machine(disks: &[Disk], found: &[Option<Found>]) -> anyhow::Result<()> {
    let owners = disks.iter().zip(found).filter_map(|(disk, found)| Some((disk, owner(&found.as_ref()?.files)?)));
    let mut owners = owners.collect::<Vec<_>>().into_iter();
    let Some((first, one)) = owners.next() else { return Ok(()) };
    let other = owners.find(|(_, other)| *other != one);
    ensure!(
        other.is_none(),
        "boot disks of two machines are in this one: boot disk {} holds the state of {one}, another that of {}; switch off, and take out the one that isn't this machine's",
        first.number,
        other.map_or(String::new(), |(_, other)| other)
    );
    Ok(())
}

/// Whose state it is, once it says so: `SITE/NAME`.
fn owner(files: &Files) -> Option<String> {
    let text = files.iter().find(|(path, _)| path.as_str() == IDENTITY)?.1;
    let identity: ApplianceIdentity = statement::parse(std::str::from_utf8(text).ok()?).ok()?;
    Some(format!("{}/{}", identity.site, identity.name))
}

/// All files below a folder that are kept; those half written (`.new`) are none.
fn read_all(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, before)) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = format!("{before}{}", entry.file_name().to_string_lossy());
            if PASSING.contains(&path.as_str()) || path.ends_with(".new") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), path + "/"));
            } else {
                files.insert(FilePath::new(&path).with_context(|| path.clone())?, fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use hoidla_papers::{Office, SoftAppliance};

    use super::*;

    const SIZE: u64 = 64 * BLOCK as u64;

    struct Rack {
        scratch: tempfile::TempDir,
    }

    impl Rack {
        fn new() -> Self {
            let scratch = tempfile::tempdir().unwrap();
            for disk in ["a", "b"] {
                File::create(scratch.path().join(disk)).unwrap().set_len(SIZE).unwrap();
            }
            Self { scratch }
        }

        fn disk(&self, disk: &str) -> PathBuf {
            self.scratch.path().join(disk)
        }

        /// Starts with these disks; the folder is new each time.
        fn start(&self, disks: &[&str]) -> Keeper {
            self.try_start(disks).unwrap()
        }

        fn try_start(&self, disks: &[&str]) -> anyhow::Result<Keeper> {
            let folder = self.scratch.path().join("state");
            _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            Keeper::open(&folder, &(1..).zip(disks.iter().map(|d| self.disk(d))).collect::<Vec<_>>())
        }

        fn put(&self, keeper: &mut Keeper, path: &str, text: &str) {
            let path = keeper.folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            keeper.save().unwrap();
        }
    }

    fn text(keeper: &Keeper, path: &str) -> Option<String> {
        fs::read_to_string(keeper.folder.join(path)).ok()
    }

    #[test]
    fn another_machines_boot_disk_takes_nothing_from_this_one() {
        let rack = Rack::new();
        let site = Office::new(1).site("lux", &["lux-1", "lux-2"]);
        let identity = |name: &str| statement::write(&SoftAppliance::new(&site, name, 2).identity);
        rack.put(&mut rack.start(&["a"]), IDENTITY, &identity("lux-1"));
        let mut other = rack.start(&["b"]);
        rack.put(&mut other, "papers/site.txt", "the longer state");
        rack.put(&mut other, IDENTITY, &identity("lux-2"));
        drop(other);
        let why = rack.try_start(&["a", "b"]).err().expect("two machines").to_string();
        assert!(why.contains("lux/lux-1") && why.contains("lux/lux-2") && why.contains("take out"), "{why}");
        assert_eq!(text(&rack.start(&["a"]), IDENTITY), Some(identity("lux-1")));
        assert_eq!(text(&rack.start(&["b"]), IDENTITY), Some(identity("lux-2")));
    }

    #[test]
    fn what_was_saved_is_there_after_a_start_and_what_was_deleted_is_not() {
        let rack = Rack::new();
        let mut keeper = rack.start(&["a", "b"]);
        assert!(keeper.is_empty());
        rack.put(&mut keeper, "papers/site.txt", "one");
        rack.put(&mut keeper, "store.txt", "two");
        rack.put(&mut keeper, "health.json", "never kept");
        rack.put(&mut keeper, "papers/half.new", "never kept");
        fs::remove_file(keeper.folder.join("store.txt")).unwrap();
        keeper.save().unwrap();
        drop(keeper);
        for disks in [&["a", "b"][..], &["a"], &["b"]] {
            let keeper = rack.start(disks);
            assert_eq!(text(&keeper, "papers/site.txt").as_deref(), Some("one"), "{disks:?}");
            assert_eq!(["store.txt", "health.json", "papers/half.new"].map(|p| text(&keeper, p)), [None, None, None]);
        }
    }

    #[test]
    fn a_thousand_changes_go_round_and_round() {
        let rack = Rack::new();
        let mut keeper = rack.start(&["a", "b"]);
        rack.put(&mut keeper, "papers/site.txt", &"s".repeat(9000));
        for n in 0..1000 {
            rack.put(&mut keeper, "checkpoint.txt", &n.to_string());
        }
        let keeper = rack.start(&["b"]);
        assert_eq!(text(&keeper, "checkpoint.txt").as_deref(), Some("999"));
        assert_eq!(text(&keeper, "papers/site.txt").unwrap().len(), 9000);
    }

    #[test]
    fn a_cut_in_any_write_leaves_the_state_before_it_or_after_it() {
        let rack = Rack::new();
        let mut keeper = rack.start(&["a"]);
        rack.put(&mut keeper, "checkpoint.txt", "0");
        let (mut before, mut last) = (fs::read(rack.disk("a")).unwrap(), "0".to_owned());
        for n in 1..80 {
            let now = n.to_string();
            rack.put(&mut keeper, "checkpoint.txt", &now);
            let after = fs::read(rack.disk("a")).unwrap();
            let first = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
            for part in [1, 30, 60, 100, 4096] {
                let mut torn = before.clone();
                let end = (first + part).min(after.len());
                torn[first..end].copy_from_slice(&after[first..end]);
                fs::write(rack.disk("a"), &torn).unwrap();
                let found = text(&rack.start(&["a"]), "checkpoint.txt").unwrap();
                assert!([&last, &now].contains(&&found), "{found} after {last}, cut at {part} bytes");
            }
            fs::write(rack.disk("a"), &after).unwrap();
            keeper = rack.start(&["a"]);
            (before, last) = (fs::read(rack.disk("a")).unwrap(), now);
        }
    }

    #[test]
    fn a_disk_that_was_away_is_brought_up_to_the_other() {
        let rack = Rack::new();
        let mut keeper = rack.start(&["a", "b"]);
        rack.put(&mut keeper, "store.txt", "both");
        let mut keeper = rack.start(&["a"]);
        rack.put(&mut keeper, "store.txt", "a alone");
        assert_eq!(text(&rack.start(&["b", "a"]), "store.txt").as_deref(), Some("a alone"));
        assert_eq!(text(&rack.start(&["b"]), "store.txt").as_deref(), Some("a alone"));
    }

    #[test]
    fn a_disk_that_fails_is_left_alone_and_without_any_it_is_an_error() {
        let rack = Rack::new();
        let mut keeper = rack.start(&["a", "b"]);
        keeper.disks[0].file = File::open(rack.disk("a")).unwrap(); // takes no writes
        rack.put(&mut keeper, "store.txt", "x");
        assert_eq!(keeper.working(), [2], "the other one, by its number");
        keeper.disks[1].file = File::open(rack.disk("b")).unwrap();
        fs::write(keeper.folder.join("store.txt"), "y").unwrap();
        assert!(keeper.save().unwrap_err().to_string().contains("no boot disk"));
        assert_eq!(text(&rack.start(&["b"]), "store.txt").as_deref(), Some("x"));
    }
}
