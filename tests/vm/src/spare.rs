//! The embassy's machine once more, for a test to spoil.
//!
//! Promises: a [`Spare`] begins as the enrolled machine stands, with copies of its disks, its
//! firmware's variables and its TPM; nothing that happens to it reaches the embassy's own.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hoidla_journey::{Answer, soft_tpm::free_port};
use hoidla_medium::{Slot, disk::Part, slot};

use crate::{
    Embassy, Machine, Parts, Start, boot_disk,
    machine::VARIABLES,
    variables::{self, Partition},
};

/// How long it takes to see that nobody is let in; a machine that serves takes two seconds.
const SHUT: Duration = Duration::from_secs(8);

/// See the module.
pub struct Spare {
    home: PathBuf,
    /// The port here that leads to its door.
    pub door: u16,
    /// Its parts.
    pub parts: Parts,
}

impl Embassy {
    /// The machine once more, under a name of its own, with one processor: tests have several on at once.
    pub fn spare(&self, name: &str) -> Result<Spare> {
        let mut parts = Parts { processors: 1, folder: self.machine.join(name), ..self.parts()? };
        fs::create_dir_all(&parts.folder)?;
        let files = [&mut parts.variables, &mut parts.tpm].into_iter().chain(&mut parts.boot_disks).chain(&mut parts.trays);
        for file in files {
            *file = copied(file, &parts.folder)?;
        }
        if let Start::Stick(stick) = &mut parts.start {
            *stick = copied(stick, &parts.folder)?;
        }
        let door = free_port()?;
        parts.ports = vec![(door, self.port()?)];
        Ok(Spare { home: self.stage.at("home"), door, parts })
    }

    /// The agent's program, with that machine.
    pub fn agent(&self, spare: &Spare, args: &[&str]) -> Result<Answer> {
        self.stage.programs.run("hoidla-agent", &agent_of(args, &format!("127.0.0.1:{}", spare.door)), "")
    }

    /// Whether that machine lets an agent in, and what the agent says.
    pub fn serves(&self, spare: &Spare) -> Result<(bool, String)> {
        let answer = self.agent(spare, &["list"])?;
        Ok((answer.code == 0, answer.err))
    }

    /// Whether that machine lets no agent in for longer than one that serves takes to. (The agent
    /// itself would wait for 20 s.)
    pub fn is_shut(&self, spare: &Spare) -> Result<bool> {
        let mut agent = self.stage.programs.start("hoidla-agent", &agent_of(&["list"], &format!("127.0.0.1:{}", spare.door)))?;
        let since = Instant::now();
        while since.elapsed() < SHUT {
            if let Some(ended) = agent.try_wait()? {
                return Ok(!ended.success());
            }
            sleep(Duration::from_millis(50));
        }
        agent.kill()?;
        Ok(!agent.wait()?.success())
    }

    /// The signed image.
    pub fn image(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.stage.at("home/hoidla.efi"))?)
    }
}

fn agent_of<'a>(args: &[&'a str], address: &'a str) -> Vec<&'a str> {
    [args, &["--home", "home/agent", "--passphrase-file", "home/agent/passphrase", "--address", address]].concat()
}

/// A file or folder, beside others; holes stay holes.
pub fn copied(from: &Path, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(from.file_name().context("it has a name")?);
    let done = Command::new("cp").args(["-r", "--sparse=always", "-T"]).arg(from).arg(&to).status()?;
    ensure!(done.success(), "{} cannot be copied", from.display());
    Ok(to)
}

impl Spare {
    /// Switches it on.
    pub fn start(&self) -> Result<Machine> {
        Machine::start(&self.parts)
    }

    /// Takes a boot disk out; [`Self::put_back`] brings it back as it was.
    pub fn take_out(&self, disk: usize) -> Result<()> {
        let path = &self.parts.boot_disks[disk];
        Ok(fs::rename(path, path.with_extension("out"))?)
    }

    /// See [`Self::take_out`].
    pub fn put_back(&self, disk: usize) -> Result<()> {
        let path = &self.parts.boot_disks[disk];
        Ok(fs::rename(path.with_extension("out"), path)?)
    }

    /// Where it starts from: its first boot disk.
    pub fn medium(&self) -> Result<&Path> {
        Ok(self.parts.boot_disks.first().context("it has no boot disk")?)
    }

    fn certificate(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.home.join("boot/boot.crt"))?)
    }

    /// Puts these bytes where the machine starts from, in the place of its image.
    pub fn install(&self, image: &[u8]) -> Result<()> {
        self.put(&slot::write(&self.slot(image)?)?)
    }

    /// Puts a file beside the image, wherever the machine may start from.
    pub fn add(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut slot = slot::write(&self.slot(&fs::read(self.home.join("hoidla.efi"))?)?)?;
        let system = fatfs::FileSystem::new(Cursor::new(&mut slot[..]), fatfs::FsOptions::new())?;
        let (folders, name) = path.rsplit_once('/').context("a path")?;
        let folder = folders.split('/').try_fold(system.root_dir(), |folder, name| folder.create_dir(name))?;
        folder.create_file(name)?.write_all(content)?;
        drop(folder);
        system.unmount()?;
        self.put(&slot)
    }

    fn slot(&self, image: &[u8]) -> Result<Slot> {
        let manifest = fs::read(self.home.join("manifest.txt"))?;
        Ok(Slot { image: image.to_vec(), manifest, certificate: self.certificate()? })
    }

    fn put(&self, slot: &[u8]) -> Result<()> {
        self.parts.boot_disks.iter().try_for_each(|disk| boot_disk::put(disk, Part::A, slot))
    }

    /// The firmware's variables anew: the site's keys, and these.
    pub fn firmware(&self, more: &[u8]) -> Result<()> {
        let key = self.certificate()?;
        let all = [&variables::keys(&key, &[&key]), more].concat();
        variables::write(Path::new(VARIABLES), &self.parts.variables, &all)
    }

    /// A boot entry for the medium's image, which is told something.
    pub fn entry(&self, title: &str, told: &str) -> Result<Vec<u8>> {
        let partition = Partition::of(self.medium()?, 1)?;
        Ok(variables::boot_entry(title, &partition, r"\EFI\BOOT\BOOTX64.EFI", told))
    }
}
