//! This machine's TPM, as the rest of the appliance uses it.
//!
//! Promises: the door's key never leaves the TPM; the store's membership epoch is
//! kept where no disk swap or rewind takes it back. It doesn't unseal anything:
//! that is the helper process's ([`crate::helper`]).

use std::{
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use hoidla_door::{Curve, DoorKey};
use hoidla_format::{Name, statements::ApplianceIdentity};
use hoidla_store::Counters;
use hoidla_tpm::{Blob, Counter, Tcti, Tpm};
use hoidla_verify::{Approved, Public};
use sha2::{Digest, Sha256};

use crate::config::{Config, State, replace};

/// The name of the node key's blob in the TPM's folder.
const NODE: &str = "node.bin";

/// The TPM that the identity names, and no other.
pub fn pinned(config: &Config, identity: &ApplianceIdentity) -> anyhow::Result<Tpm> {
    let tcti: Tcti = config.tpm.parse().map_err(anyhow::Error::msg).context("appliance.toml: tpm")?;
    let srk = Public::parse(&identity.srk.0).context("identity.txt: srk")?;
    Ok(Tpm::open_pinned(&tcti, &srk.name())?)
}

/// Keeps the node key's blob.
pub fn keep_node(state: &State, blob: &Blob) -> anyhow::Result<()> {
    fs::create_dir_all(state.tpm())?;
    replace(&state.tpm().join(NODE), &blob.to_bytes())
}

/// The node key's blob, if there is one.
pub fn node(state: &State) -> anyhow::Result<Option<Blob>> {
    let path = state.tpm().join(NODE);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Blob::from_bytes(&bytes).with_context(|| path.display().to_string())?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

fn half_name(dataset: &Name, vault_epoch: u32) -> String {
    format!("half-{dataset}-{vault_epoch}.bin")
}

/// Keeps an imported half's blob.
pub fn keep_half(state: &State, dataset: &Name, vault_epoch: u32, blob: &Blob) -> anyhow::Result<()> {
    replace(&state.tpm().join(half_name(dataset, vault_epoch)), &blob.to_bytes())
}

/// Whether a half was imported.
pub fn has_half(state: &State, dataset: &Name, vault_epoch: u32) -> bool {
    state.tpm().join(half_name(dataset, vault_epoch)).is_file()
}

/// An imported half's blob.
pub fn half(state: &State, dataset: &Name, vault_epoch: u32) -> anyhow::Result<Blob> {
    let path = state.tpm().join(half_name(dataset, vault_epoch));
    let bytes = fs::read(&path).with_context(|| format!("{} is missing; run hoidlad enrol again", path.display()))?;
    Blob::from_bytes(&bytes).with_context(|| path.display().to_string())
}

/// The door's key, in the TPM, usable under the release's policy.
pub struct NodeKey {
    /// The TPM.
    pub tpm: Arc<Tpm>,
    /// The key's blob.
    pub blob: Blob,
    /// The release that permits its use.
    pub release: Approved,
    /// One signature at a time: however many handshakes wait, an opening waits for one of them at most.
    pub turn: Mutex<()>,
}

impl DoorKey for NodeKey {
    fn curve(&self) -> Curve {
        Curve::P256
    }

    fn public(&self) -> Vec<u8> {
        self.blob.public().point().map(|p| p.to_sec1().to_vec()).unwrap_or_default()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let digest = Sha256::digest(message).into();
        let sign = || {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.tpm.sign_with_node(&self.blob, &self.release, &digest).map_err(|e| e.to_string())
        };
        let raw = off_the_runtime(sign)?;
        let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|e| e.to_string())?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// Runs what blocks so that the runtime's other tasks go on.
fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The store's membership epoch and the log's counter in the TPM. A store that is opened asks for
/// both: they are read at once, and what was read serves the one time that it is asked for.
pub struct Membership {
    tpm: Arc<Tpm>,
    /// Where the membership epoch stood at least: it never goes back.
    stood: AtomicU64,
    log: Mutex<Option<u64>>,
}

impl Membership {
    /// In this TPM.
    pub fn of(tpm: Arc<Tpm>) -> Self {
        Self { tpm, stood: AtomicU64::new(0), log: Mutex::default() }
    }

    fn log(&self) -> MutexGuard<'_, Option<u64>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters for Membership {
    fn membership(&self) -> io::Result<u64> {
        let [membership, log] = self.tpm.counters([Counter::Membership, Counter::Intent]).map_err(io::Error::other)?;
        self.stood.store(membership, Ordering::Relaxed);
        *self.log() = Some(log);
        Ok(membership)
    }

    fn raise_membership(&mut self, to: u64) -> io::Result<()> {
        if self.stood.load(Ordering::Relaxed) < to {
            self.stood.store(raise(&self.tpm, Counter::Membership, to).map_err(io::Error::other)?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn log_counter(&self) -> io::Result<u64> {
        let read = self.log().take();
        read.map_or_else(|| self.tpm.counter(Counter::Intent).map_err(io::Error::other), Ok)
    }

    fn raise_log_counter(&mut self, to: u64) -> io::Result<u64> {
        raise(&self.tpm, Counter::Intent, to).map_err(io::Error::other)
    }
}

/// The most steps that one raise takes: a counter that must go further was tampered with.
const MOST_STEPS: u64 = 1000;

/// Raises a counter to at least `to`; where it stands then.
pub fn raise(tpm: &Tpm, counter: Counter, to: u64) -> anyhow::Result<u64> {
    let mut stands = tpm.counter(counter)?;
    anyhow::ensure!(
        to.saturating_sub(stands) <= MOST_STEPS,
        "the TPM's counter {counter:?} stands at {stands}, far below {to}; is this the right TPM?"
    );
    while stands < to {
        stands = tpm.increment(counter)?;
    }
    Ok(stands)
}
