//! The stick that is plugged in: its papers read, and papers put on it.
//!
//! Promises: a stick is known by its partition's name only; nothing of it is believed, and no
//! file system of it is mounted. Nothing but its papers is ever written.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use hoidla_medium::{
    papers::{self, Papers},
    slot,
    stick::{NAMES, PAPERS, SLOT},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::pid1::devices;

/// How long a stick takes to appear: the kernel gives each a second to come to itself.
const APPEARS: Duration = Duration::from_secs(2);

/// A stick that is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stick(PathBuf);

impl Stick {
    /// The one stick of Hoidla's that is there.
    ///
    /// # Errors
    /// If there are two.
    pub fn find(sys: &Path) -> anyhow::Result<Option<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten() {
            let uevent = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            if uevent.lines().any(|l| l.strip_prefix("PARTNAME=") == Some(NAMES[1])) {
                let at = fs::canonicalize(entry.path())?;
                let disk = at.parent().and_then(Path::file_name).context("a partition is on a disk")?;
                found.push(devices::path(&disk.to_string_lossy()));
            }
        }
        ensure!(found.len() < 2, "two sticks are plugged in: pull one of them");
        Ok(found.pop().map(Self))
    }

    /// The same, once a second one had the time to appear: what is begun with a stick is to end with it.
    ///
    /// # Errors
    /// If there are two.
    pub fn alone(sys: &Path) -> anyhow::Result<Option<Self>> {
        if Self::find(sys)?.is_none() {
            return Ok(None);
        }
        std::thread::sleep(APPEARS);
        Self::find(sys)
    }

    #[cfg(test)]
    pub fn tests_at(path: PathBuf) -> Self {
        Self(path)
    }

    fn open(&self) -> anyhow::Result<File> {
        let open = OpenOptions::new().read(true).write(true).open(&self.0);
        open.with_context(|| "the stick cannot be opened: pull it, plug it in again".to_owned())
    }

    fn bytes(&self, at: usize, len: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.open()?.read_exact_at(&mut bytes, at as u64).context("the stick cannot be read: take another one")?;
        Ok(bytes)
    }

    /// The slot on it, as it is.
    pub fn slot(&self) -> anyhow::Result<Vec<u8>> {
        self.bytes(SLOT.start, slot::LENGTH)
    }

    /// The papers on it.
    pub fn papers(&self) -> anyhow::Result<Papers> {
        Ok(papers::read(&self.bytes(PAPERS.start, papers::LENGTH)?)?)
    }

    /// Puts a paper on it; afterwards it may be pulled.
    pub fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let before = self.bytes(PAPERS.start, papers::LENGTH)?;
        let mut after = before.clone();
        papers::put(&mut after, name, content)?;
        let file = self.open()?;
        for (n, (old, new)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
            if old != new {
                file.write_all_at(new, (PAPERS.start + n * 4096) as u64).context("the stick takes no writes: is it write-protected?")?;
            }
        }
        file.sync_all().context("the stick takes no writes: is it write-protected?")?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?; // what is read back comes from the stick
        let back = papers::read(&self.bytes(PAPERS.start, papers::LENGTH)?)?;
        ensure!(back.get(name).is_some_and(|c| c == content), "the stick doesn't hold what was written: take another one");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fake::Machine;

    #[test]
    fn a_stick_is_found_by_its_papers_and_two_are_too_many() {
        let machine = Machine::bare();
        let part = |disk: &str, name: &str| {
            let at = format!("pci0000:00/0000:00:06.0/usb1/block/{disk}/{disk}2");
            machine.device("block", &at, &[("uevent", &format!("PARTN=2\nPARTNAME={name}\n"))]);
        };
        let find = || Stick::find(&machine.kernel().sys);
        part("sda", "hoidla-b");
        assert_eq!(find().unwrap(), None);
        part("sdb", "hoidla-papers");
        assert_eq!(find().unwrap(), Some(Stick("/dev/sdb".into())));
        part("sdc", "hoidla-papers");
        assert!(find().unwrap_err().to_string().contains("two sticks"));
    }

    #[test]
    fn papers_go_onto_a_stick_and_come_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let on_it = hoidla_medium::Slot { image: vec![1; 100_000], manifest: vec![2; 9], certificate: vec![3; 9] };
        fs::write(file.path(), hoidla_medium::stick::write(&on_it).unwrap()).unwrap();
        let stick = Stick(file.path().to_owned());
        assert!(stick.papers().unwrap().is_empty());
        stick.put("identity.txt", b"first").unwrap();
        stick.put("identity.txt", b"who").unwrap();
        assert_eq!(stick.papers().unwrap()["identity.txt"], b"who");
        assert_eq!(hoidla_medium::stick::read(&fs::read(file.path()).unwrap()).unwrap(), on_it, "nothing else was touched");
        assert_eq!(slot::read(&stick.slot().unwrap()).unwrap(), on_it);
        assert!(stick.put("much", &vec![0; papers::LENGTH]).is_err());
        fs::write(file.path(), b"short").unwrap();
        assert!(stick.papers().unwrap_err().to_string().contains("take another"));
    }
}
