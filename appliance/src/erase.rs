//! Disks that leave: erased, with a certificate that the TPM signs.
//!
//! Promises: a disk that counts as a copy is not touched unless it is given up first, and one
//! that holds what nothing else holds is not given up; a certificate is written only when
//! every byte was read back as zero. A machine that leaves is erased as a whole, and the TPM
//! then opens no vault under any release that it knows; broken off anywhere, it is begun anew.
//! It doesn't reach what a disk no longer shows; what may be left there is ciphertext.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail, ensure};
use hoidla_cli::{NextStep, Output};
use hoidla_format::{Hash32, Moment, statement, statements::Erased};
use hoidla_log::Says;
use hoidla_store::{Disk, Options};
use hoidla_tpm::Tpm;
use hoidla_uring::{DiskFile, State as How, Store, trays::hash_of_ends, trays::look, wipe::wipe};
use hoidla_verify::Certificate;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoints::Signer,
    config::{State, replace},
    enrol::store_id,
    identify,
    machine::{self, Membership},
    papers::Papers,
};

/// The version of `leaving.toml`.
const VERSION: u16 = 1;

/// What lies in a tray, before anything is done to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number, from 1.
    pub tray: u8,
    /// Where the system has it.
    pub path: PathBuf,
    /// The disk's serial number; empty where it has none.
    pub serial: String,
    /// What is on it, in words.
    pub was: String,
    /// Its size.
    pub bytes: u64,
    seen: Hash32,
}

/// A disk that was erased.
#[derive(Clone, Debug)]
pub struct Done {
    /// What the TPM signed.
    pub certificate: Certificate,
    /// Where it is.
    pub file: PathBuf,
}

/// An appliance that stands still, with what erasing needs.
pub struct Eraser {
    state: State,
    disks: Vec<PathBuf>,
    store: [u8; 16],
    tpm: Arc<Tpm>,
    papers: Arc<Papers>,
    signer: Signer,
}

/// The log's head and the powered time when erasing began. Of a machine that leaves it is kept
/// in the state folder (`leaving.toml`): once its disks are half erased they tell no more.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u16,
    powered: u64,
    size: u64,
    root: Hash32,
}

impl Eraser {
    /// Of this machine.
    pub fn new(state: &State) -> anyhow::Result<Self> {
        let (config, identity) = (state.config()?, identify::known(state)?);
        let tpm = Arc::new(machine::pinned(&config, &identity)?);
        let papers = Arc::new(Papers::kept(&state.papers(), &config.authority_key()?, &identity)?.under(&tpm)?);
        let signer = Signer::new(tpm.clone(), papers.clone())?;
        Ok(Self { state: state.clone(), disks: config.disks, store: store_id(state, &identity)?, tpm, papers, signer })
    }

    /// Looks into a tray; nothing is changed.
    pub fn look(&self, tray: u8) -> anyhow::Result<Found> {
        let path = usize::from(tray).checked_sub(1).and_then(|n| self.disks.get(n));
        let path = path.ok_or_else(|| anyhow!("there is no tray {tray}: this appliance has trays 1 to {}", self.disks.len()))?;
        self.look_at(tray, &open(path)?)
    }

    fn look_at(&self, tray: u8, disk: &DiskFile) -> anyhow::Result<Found> {
        let seen = hash_of_ends(disk).with_context(|| format!("the disk in tray {tray} cannot be read")).next(DESTROY)?;
        let (path, was) = (disk.path().to_owned(), look(disk, self.store).to_string());
        Ok(Found { tray, serial: serial_of(&path), path, was, bytes: disk.size(), seen })
    }

    /// The trays that hold a disk.
    pub fn look_everywhere(&self) -> anyhow::Result<Vec<Found>> {
        (1..=self.disks.len() as u8).filter(|tray| self.disks[usize::from(*tray) - 1].exists()).map(|tray| self.look(tray)).collect()
    }

    /// Erases one disk that was looked at. If it counts as a copy, it is given up first if
    /// `leave` says so; never if nothing else holds what it holds.
    pub async fn erase(&self, found: &Found, leave: bool, output: &Output) -> anyhow::Result<Done> {
        let store = self.open_store().await?;
        let free = self.free(&store, found, leave).await;
        let head = head(&store).await;
        tokio::task::spawn_blocking(move || store.close()).await?;
        free?;
        self.overwrite(found, head?, output)
    }

    /// Erases all disks of a machine that leaves, and makes its TPM refuse every vault.
    pub async fn erase_all(&self, found: &[Found], output: &Output) -> anyhow::Result<Vec<Done>> {
        // What an earlier try noted counts only once the disks tell no more: the machine may have served since.
        let head = match self.begin_leaving().await {
            Ok(head) => head,
            Err(why) => self.leaving()?.ok_or(why)?,
        };
        let done = found.iter().map(|f| self.overwrite(f, head, output)).collect::<anyhow::Result<Vec<_>>>()?;
        self.retire()?; // last: afterwards the TPM signs nothing for us any more
        Ok(done)
    }

    /// Where an earlier try began.
    fn leaving(&self) -> anyhow::Result<Option<Head>> {
        let path = self.state.leaving();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let begun: Head = toml::from_str(&text).with_context(|| path.display().to_string())?;
                ensure!(
                    begun.version == VERSION,
                    "{} is of version {}, of a newer hoidlad: go on with that one",
                    path.display(),
                    begun.version
                );
                Ok(Some(begun))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }

    /// Notes the head before the first byte goes.
    async fn begin_leaving(&self) -> anyhow::Result<Head> {
        let store = self.open_store().await?;
        let head = head(&store).await;
        tokio::task::spawn_blocking(move || store.close()).await?;
        let head = head?;
        replace(&self.state.leaving(), toml::to_string(&head)?.as_bytes())?;
        crate::keep::changed()?;
        Ok(head)
    }

    /// Opens the store; a disk that doesn't count stays as it is.
    async fn open_store(&self) -> anyhow::Result<Store> {
        let (disks, name, counters) = (self.disks.clone(), self.store, Box::new(Membership::of(self.tpm.clone())));
        let options = Options { rebuild: false, prewrite: false, ..Options::default() };
        let settings = hoidla_uring::Settings { options, ..hoidla_uring::Settings::default() };
        let open = move || Store::open(&disks, name, counters, settings);
        let (store, _) = tokio::task::spawn_blocking(open).await?.next("stop hoidlad first: only one program has the disks")?;
        Ok(store)
    }

    async fn free(&self, store: &Store, found: &Found, leave: bool) -> anyhow::Result<()> {
        let disks = store.disks().await?;
        let serves = disks.iter().find(|d| d.path.as_ref() == Some(&found.path));
        let Some(disk) = serves.filter(|d| matches!(d.state, How::Current | How::Rebuilding(..))) else { return Ok(()) };
        let tray = found.tray;
        ensure!(!disk.needed, "the disk in tray {tray} stays: nothing else holds what it holds; put in another and wait until it is whole");
        ensure!(leave, "the disk in tray {tray} counts as a copy; to give it up and erase it, add --leave");
        store.leave(disk.place, "it is given up to be erased".into()).await?;
        Ok(store.note_powered().await?) // durable without it, before the first byte goes
    }

    fn overwrite(&self, found: &Found, head: Head, output: &Output) -> anyhow::Result<Done> {
        let tray = found.tray;
        let disk = open(&found.path)?;
        let now = self.look_at(tray, &disk)?;
        ensure!((&now.serial, now.bytes) == (&found.serial, found.bytes), "tray {tray} holds another disk than before: nothing was erased");
        let progress = output.bytes(format!("erasing tray {tray}"), Some(2 * now.bytes));
        let wiped = wipe(&disk, |n| progress.add(n));
        progress.done();
        wiped.with_context(|| format!("the disk in tray {tray} is not erased")).next(DESTROY)?;
        self.certify(&now, head)
    }

    fn certify(&self, found: &Found, head: Head) -> anyhow::Result<Done> {
        let identity = &self.papers.identity;
        let says = Erased {
            site: identity.site.clone(),
            appliance: identity.name.clone(),
            tray: found.tray,
            serial: found.serial.clone(),
            was: found.was.clone(),
            seen: found.seen,
            bytes: found.bytes,
            powered: head.powered,
            log_size: head.size,
            log_root: head.root,
            created: Moment::now(),
        };
        let text = statement::write(&says);
        let line = self.signer.line(Says::Erased, &text).context("the disk is erased, but the TPM did not sign the certificate")?;
        let certificate = Certificate::new(text, line)?;
        let file = self.state.erased().join(format!("{}-tray-{}.txt", says.created.seconds(), says.tray));
        fs::create_dir_all(self.state.erased())?;
        replace(&file, certificate.write().as_bytes())?;
        Ok(Done { certificate, file })
    }

    /// The TPM's release counter goes beyond every release that this machine knows, so that no
    /// policy opens a half or uses a key any more; the halves' blobs go too.
    fn retire(&self) -> anyhow::Result<()> {
        self.tpm.retire_releases_below(self.papers.newest_epoch() + 1)?;
        for entry in fs::read_dir(self.state.tpm())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("half-")) {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        crate::keep::changed()
    }
}

/// All certificates that this machine holds, the newest of each tray, each under the name by which
/// it goes home: `erased-NAME-TRAY.txt`.
pub fn certificates(state: &State) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut newest = BTreeMap::new();
    let Ok(folder) = fs::read_dir(state.erased()) else { return Ok(newest) };
    let mut files = folder.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort(); // by their seconds
    for file in files {
        let text = fs::read(&file)?;
        let says = Certificate::parse(&text).with_context(|| file.display().to_string())?.says().clone();
        newest.insert(format!("erased-{}-{}.txt", says.appliance, says.tray), text);
    }
    Ok(newest)
}

/// What remains where erasing fails.
const DESTROY: &str = "what may still be on it is ciphertext; destroy it, or lock it away for good: there is no certificate for it";

fn open(path: &Path) -> anyhow::Result<DiskFile> {
    match DiskFile::open(path) {
        Ok(disk) if disk.size() > 0 => Ok(disk),
        Ok(_) => bail!("{} is empty", path.display()),
        Err(e @ hoidla_uring::DiskError::InUse(_)) => Err(e).next("stop hoidlad first: only one program has the disks"),
        Err(e) => Err(e.into()),
    }
}

async fn head(store: &Store) -> anyhow::Result<Head> {
    let (size, root) = store.log_head().await?;
    Ok(Head { version: VERSION, powered: store.powered().await?, size, root })
}

/// What the system says is the disk's serial number, in printable characters; for people.
pub(crate) fn serial_of(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let device = Path::new("/sys/class/block").join(path.file_name().unwrap_or_default());
    let files = ["device/serial", "device/wwid", "serial"];
    let text = files.iter().find_map(|f| fs::read_to_string(device.join(f)).ok()).unwrap_or_default();
    // Some say maker and model before it.
    text.split_whitespace().last().unwrap_or_default().chars().filter(char::is_ascii_graphic).take(64).collect()
}
