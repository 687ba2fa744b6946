//! This machine's TPM, as the rest of the appliance uses it.
//!
//! Promises: the door's key never leaves the TPM; the store's membership epoch is
//! kept where no disk swap or rewind takes it back. It doesn't unseal anything:
//! that is the helper process's ([`crate::helper`]).

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use hoidla_door::{Curve, DoorKey};
use hoidla_format::{Name, statements::ApplianceIdentity};
use hoidla_store::Counters;
use hoidla_tpm::{Blob, Counter, Tcti, Tpm, TpmError};
use hoidla_verify::{Approved, Public, TpmName};
use sha2::{Digest, Sha256};

use crate::config::{Config, State, replace};

/// The name of the node key's blob in the TPM's folder.
const NODE: &str = "node.bin";

/// The TPM that the identity names, and no other.
pub fn pinned(config: &Config, identity: &ApplianceIdentity) -> anyhow::Result<Tpm> {
    let tcti: Tcti = config.tpm.parse().map_err(anyhow::Error::msg).context("appliance.toml: tpm")?;
    Ok(Tpm::open_pinned(&tcti, &srk(identity)?)?)
}

fn srk(identity: &ApplianceIdentity) -> anyhow::Result<TpmName> {
    Ok(Public::parse(&identity.srk.0).context("identity.txt: srk")?.name())
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
    let bytes =
        fs::read(&path).with_context(|| format!("{} is missing: have home send the papers of its dealing again", path.display()))?;
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

/// The machine's TPM, and where its counters stand.
pub struct Asked {
    /// The TPM.
    pub tpm: Arc<Tpm>,
    /// Its counters.
    pub stands: Stands,
}

impl Asked {
    /// Asks the TPM that the identity names.
    pub fn of(config: &Config, identity: &ApplianceIdentity) -> anyhow::Result<Self> {
        Self::this(pinned(config, identity)?, identity)
    }

    /// Asks this TPM, if it is the one that the identity names.
    pub fn this(tpm: Tpm, identity: &ApplianceIdentity) -> anyhow::Result<Self> {
        let tpm = Arc::new(tpm.pinned(&srk(identity)?)?);
        let stands = Stands::ask(&tpm)?;
        Ok(Self { tpm, stands })
    }
}

/// Where the TPM's counters stand, read at once: each question on its own costs the TPM a session.
#[derive(Clone, Copy, Debug)]
pub struct Stands {
    /// [`Counter::Site`].
    pub site: u64,
    /// [`Counter::Release`].
    pub release: u64,
    /// [`Counter::Membership`].
    pub membership: u64,
    /// [`Counter::Intent`].
    pub log: u64,
}

impl Stands {
    /// Asks this TPM.
    pub fn ask(tpm: &Tpm) -> Result<Self, TpmError> {
        let [site, release, membership, log] = tpm.counters([Counter::Site, Counter::Release, Counter::Membership, Counter::Intent])?;
        Ok(Self { site, release, membership, log })
    }
}

/// The store's membership epoch and the log's counter in the TPM, for one store that is opened
/// by one program at a time.
pub struct Membership {
    tpm: Arc<Tpm>,
    stood: Mutex<Option<Stood>>,
}

/// Where they were left.
struct Stood {
    /// At least: it never goes back.
    membership: u64,
    /// None if a raise failed, which may have raised it all the same. A raise goes on from here, so
    /// that one by somebody else shows in what it comes to.
    log: Option<u64>,
}

impl From<Stands> for Stood {
    fn from(stands: Stands) -> Self {
        Self { membership: stands.membership, log: Some(stands.log) }
    }
}

impl Membership {
    /// In this TPM.
    pub fn of(tpm: Arc<Tpm>) -> Self {
        Self { tpm, stood: Mutex::default() }
    }

    /// In this TPM, which was just asked.
    pub fn known(tpm: Arc<Tpm>, stands: Stands) -> Self {
        Self { tpm, stood: Mutex::new(Some(stands.into())) }
    }

    fn with<T>(&self, work: impl FnOnce(&Tpm, &mut Stood) -> anyhow::Result<T>) -> io::Result<T> {
        let mut stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match stood.take() {
            Some(known) => known,
            None => Stands::ask(&self.tpm).map_err(io::Error::other)?.into(),
        };
        work(&self.tpm, stood.insert(known)).map_err(io::Error::other)
    }
}

impl Counters for Membership {
    fn membership(&self) -> io::Result<u64> {
        self.with(|_, stood| Ok(stood.membership))
    }

    fn raise_membership(&mut self, to: u64) -> io::Result<()> {
        self.with(|tpm, stood| {
            if stood.membership < to {
                stood.membership = raise(tpm, Counter::Membership, to)?;
            }
            Ok(())
        })
    }

    fn log_counter(&self) -> io::Result<u64> {
        self.with(|tpm, stood| {
            let stands = stood.log.map_or_else(|| tpm.counter(Counter::Intent), Ok)?;
            stood.log = Some(stands);
            Ok(stands)
        })
    }

    fn raise_log_counter(&mut self, to: u64) -> io::Result<u64> {
        let from = self.log_counter()?;
        self.with(|tpm, stood| {
            stood.log = None;
            let stands = raise_from(tpm, Counter::Intent, from, to)?;
            stood.log = Some(stands);
            Ok(stands)
        })
    }
}

/// The most steps that one raise takes: a counter that must go further was tampered with.
const MOST_STEPS: u64 = 1000;

/// Raises a counter to at least `to`; where it stands then.
pub fn raise(tpm: &Tpm, counter: Counter, to: u64) -> anyhow::Result<u64> {
    raise_from(tpm, counter, tpm.counter(counter)?, to)
}

fn raise_from(tpm: &Tpm, counter: Counter, mut stands: u64, to: u64) -> anyhow::Result<u64> {
    anyhow::ensure!(
        to.saturating_sub(stands) <= MOST_STEPS,
        "the TPM's counter {counter:?} stands at {stands}, far below {to}; is this the right TPM?"
    );
    while stands < to {
        stands = tpm.increment(counter)?;
    }
    Ok(stands)
}

#[cfg(test)]
mod tests {
    use hoidla_tpm::Swtpm;

    use super::*;

    #[test]
    fn a_counter_that_somebody_else_raised_shows_in_the_next_raise() {
        let folder = tempfile::tempdir().unwrap();
        let mut swtpm = Some(Swtpm::start(folder.path()).unwrap());
        let tcti = swtpm.as_ref().unwrap().tcti().clone();
        let tpm = Arc::new(Tpm::open(&tcti).unwrap());
        let known = || Membership::known(tpm.clone(), Stands::ask(&tpm).unwrap());
        for begin in [&known as &dyn Fn() -> Membership, &|| Membership::of(tpm.clone())] {
            let mut counters = begin();
            let begins = counters.log_counter().unwrap();
            assert_eq!(counters.raise_log_counter(begins + 1).unwrap(), begins + 1);
            assert_eq!(counters.raise_log_counter(begins + 1).unwrap(), begins + 1, "as often as one likes");
            tpm.increment(Counter::Intent).unwrap();
            assert_eq!(counters.raise_log_counter(begins + 2).unwrap(), begins + 3, "one more than asked for");
            let membership = counters.membership().unwrap();
            counters.raise_membership(membership + 2).unwrap();
            assert_eq!((counters.membership().unwrap(), tpm.counter(Counter::Membership).unwrap()), (membership + 2, membership + 2));
        }
        // A raise that failed may have been one: where the counter stands is asked again.
        let mut counters = known();
        let stands = counters.log_counter().unwrap();
        assert!(counters.raise_log_counter(stands + MOST_STEPS + 1).is_err());
        tpm.increment(Counter::Intent).unwrap();
        assert_eq!(counters.raise_log_counter(stands + 1).unwrap(), stands + 1);
        drop(swtpm.take());
        assert!(Membership::of(tpm.clone()).membership().is_err());
    }
}
