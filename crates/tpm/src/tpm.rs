//! What the appliance asks of its TPM.

use std::sync::{Mutex, PoisonError};

use hoidla_crypto::Secret;
use hoidla_format::{
    Hash32, Name,
    statements::{PcrValue, TpmHalf},
};
use hoidla_verify::{Approved, PolicyRef, Public, RELEASE_COUNTER, ReleasePublic, TpmName, import, release::Ticket};

use crate::{
    Blob, Tcti, TpmError,
    esys::{self, Esys, Handle, OWNER},
};

/// The most steps the release counter is raised at once: each is a write to NV.
const MOST_STEPS: u64 = 4096;
/// How often a policy is tried again because a register changed between check and use.
const TRIES: usize = 3;

/// The counters that Hoidla keeps in NV. Each only ever grows, also when it is deleted and
/// made again; where it begins is the TPM's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// A release with a lower epoch than this is refused by the TPM.
    Release = RELEASE_COUNTER,
    /// Raised before the first degraded acknowledgement after a disk was lost or regained.
    Membership = RELEASE_COUNTER + 1,
    /// Raised at every start and hourly, intent written first.
    Intent = RELEASE_COUNTER + 2,
    /// Raised with every newer site file.
    Site = RELEASE_COUNTER + 3,
    /// Raised once for each hour that the machine was powered.
    Hours = RELEASE_COUNTER + 4,
}

/// What the TPM says of its clock. Not authenticated: quotes will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since the TPM was reset. Nobody can set it: it is not the TPM's own `clock`,
    /// which its owner moves forward.
    pub since_reset_ms: u64,
    /// Resets (power cycles) so far.
    pub reset_count: u32,
    /// Restarts and resumptions since the last reset.
    pub restart_count: u32,
    /// False if the clock may repeat after an unorderly shutdown.
    pub safe: bool,
}

/// One TPM. Operations may be called from many threads; they run one after another.
pub struct Tpm {
    tcti: Tcti,
    srk: Public,
    turn: Mutex<()>,
}

impl Tpm {
    /// Opens a TPM and trusts the storage root key it finds: for the first time only.
    pub fn open(tcti: &Tcti) -> Result<Self, TpmError> {
        let esys = Esys::open(tcti)?;
        sweep(tcti, &esys)?;
        let (srk, public, _) = esys.create_primary(OWNER, &Public::srk_template(), None)?;
        if esys.name(&srk)? != public.name() || !public.same_template(&Public::srk_template()) {
            return Err(TpmError::Answer("CreatePrimary"));
        }
        Ok(Self { tcti: tcti.clone(), srk: public, turn: Mutex::new(()) })
    }

    /// Opens the TPM whose storage root key has this name, or none.
    pub fn open_pinned(tcti: &Tcti, srk: &TpmName) -> Result<Self, TpmError> {
        Self::open(tcti)?.pinned(srk)
    }

    /// This TPM, if its storage root key has this name.
    pub fn pinned(self, srk: &TpmName) -> Result<Self, TpmError> {
        if self.srk.name() == *srk { Ok(self) } else { Err(TpmError::WrongSrk) }
    }

    /// The storage root key.
    pub fn srk(&self) -> &Public {
        &self.srk
    }

    /// Signs a SHA-256 digest with the node key: r ‖ s.
    pub fn sign_with_node(&self, node: &Blob, release: &Approved, digest: &[u8; 32]) -> Result<[u8; 64], TpmError> {
        self.under_release(release, &release.node(), node, |esys, _, key, policy| esys.sign(key, policy, digest))
    }

    /// Imports a half, after checking that it is one for this release key and reference. The
    /// blob is for the state folder; it is loaded once to see that it does.
    pub fn import_half(&self, half: &TpmHalf, release: &ReleasePublic, reference: &PolicyRef) -> Result<Blob, TpmError> {
        let not = |why: String| TpmError::NotAHalf { dataset: half.dataset.clone(), vault_epoch: half.vault_epoch, why };
        let public = Public::parse(&half.public.0).map_err(|e| not(e.to_string()))?;
        if !import::is_half(&public, release.half_policy(reference).digest()) {
            return Err(not("it has another policy".into()));
        }
        self.with_srk(|esys, srk| {
            let private = esys.import(srk, &esys.salted_session(srk)?, &public, &half.duplicate.0, &half.seed.0)?;
            let blob = Blob { public: public.clone(), private };
            esys.load(srk, &blob)?;
            Ok(blob)
        })
    }

    /// Unseals a half. Run it in a short-lived process only: libtss2 leaves it on its heap.
    pub fn unseal_half(
        &self,
        half: &Blob,
        release: &Approved,
        dataset: &Name,
        vault_epoch: u32,
        auth: &Secret<32>,
    ) -> Result<Secret<32>, TpmError> {
        let not_approved = || TpmError::NotApproved { dataset: dataset.clone(), vault_epoch };
        let ticket = release.vault(dataset, vault_epoch).ok_or_else(not_approved)?;
        if !import::is_half(&half.public, release.key().half_policy(&ticket.reference).digest()) {
            return Err(TpmError::Policy);
        }
        self.under_release(release, &ticket, half, |esys, srk, object, policy| {
            esys.set_auth(object, auth)?;
            esys.policy_auth_value(policy)?;
            esys.unseal(object, policy, &esys.salted_session(srk)?)
        })
    }

    /// Reads registers of the SHA-256 bank.
    pub fn pcr_read(&self, indices: &[u8]) -> Result<Vec<PcrValue>, TpmError> {
        self.with_tpm(|esys| indices.iter().map(|&index| Ok(PcrValue { index, value: esys.pcr_read(index)? })).collect())
    }

    /// Extends a register of the SHA-256 bank. Not authenticated: quotes will be.
    pub fn pcr_extend(&self, index: u8, digest: &Hash32) -> Result<(), TpmError> {
        if index > 23 {
            return Err(TpmError::Answer("PCR_Extend"));
        }
        self.with_tpm(|esys| esys.pcr_extend(index, digest))
    }

    /// Resets, restarts, and the time since the last reset.
    pub fn read_clock(&self) -> Result<Clock, TpmError> {
        let time = self.with_tpm(Esys::read_clock)?;
        let clock = time.clockInfo;
        Ok(Clock { since_reset_ms: time.time, reset_count: clock.resetCount, restart_count: clock.restartCount, safe: clock.safe != 0 })
    }

    /// Where a counter stands, making it if there is none.
    pub fn counter(&self, counter: Counter) -> Result<u64, TpmError> {
        Ok(self.counters([counter])?[0])
    }

    /// The same for several at once: each question on its own costs the TPM a key and a session.
    pub fn counters<const N: usize>(&self, counters: [Counter; N]) -> Result<[u64; N], TpmError> {
        self.with_session(|esys, session| {
            let mut stand = [0; N];
            for (counter, stands) in counters.into_iter().zip(&mut stand) {
                *stands = read_counter(esys, session, counter as u32)?;
            }
            Ok(stand)
        })
    }

    /// Raises a counter by one: where it stands now.
    pub fn increment(&self, counter: Counter) -> Result<u64, TpmError> {
        self.with_session(|esys, session| {
            let index = ours(esys, counter as u32)?;
            esys.nv_increment(&index, session)?;
            esys.nv_read(&index, session)
        })
    }

    /// Retires every release whose epoch is below `epoch`, and with them every vault epoch that
    /// later releases leave out. There is no way back.
    pub fn retire_releases_below(&self, epoch: u64) -> Result<(), TpmError> {
        let stands = self.counter(Counter::Release)?;
        if epoch.saturating_sub(stands) > MOST_STEPS {
            return Err(TpmError::TooFar { stands, wanted: epoch });
        }
        for _ in stands..epoch {
            self.increment(Counter::Release)?;
        }
        Ok(())
    }

    /// One operation on a context of its own; after a failure, whatever stayed loaded is swept,
    /// since a context that saw a false answer can't flush any more.
    fn with_tpm<T>(&self, work: impl Fn(&Esys) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = Esys::open(&self.tcti).and_then(|esys| work(&esys));
        if result.is_err() {
            // The failure itself is what the caller must hear; an unreachable TPM sweeps nothing.
            let _ = Esys::open(&self.tcti).and_then(|esys| sweep(&self.tcti, &esys));
        }
        result
    }

    /// The same, with the pinned storage root key loaded: the very handle that sessions are salted to.
    pub(crate) fn with_srk<T>(&self, work: impl Fn(&Esys, &Handle<'_>) -> Result<T, TpmError>) -> Result<T, TpmError> {
        self.with_tpm(|esys| work(esys, &self.load_srk(esys)?))
    }

    /// The same, with a session that is salted to that key. The key itself has left: the kernel
    /// would put it back into the TPM, and away again, at each command.
    fn with_session<T>(&self, work: impl Fn(&Esys, &Handle<'_>) -> Result<T, TpmError>) -> Result<T, TpmError> {
        self.with_tpm(|esys| {
            let session = esys.salted_session(&self.load_srk(esys)?)?;
            work(esys, &session)
        })
    }

    fn load_srk<'e>(&self, esys: &'e Esys) -> Result<Handle<'e>, TpmError> {
        let (srk, _, _) = esys.create_primary(OWNER, &Public::srk_template(), None)?;
        if esys.name(&srk)? == self.srk.name() { Ok(srk) } else { Err(TpmError::WrongSrk) }
    }

    /// The same, with a policy session that a release has satisfied; again if the registers changed meanwhile.
    pub(crate) fn with_release<T>(
        &self,
        release: &Approved,
        ticket: &Ticket<'_>,
        work: impl Fn(&Esys, &Handle<'_>, &Handle<'_>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let once = || self.with_srk(|esys, srk| work(esys, srk, &release_session(esys, srk, release, ticket)?));
        let mut result = once();
        for _ in 1..TRIES {
            match &result {
                Err(e) if esys::pcrs_changed(e) => result = once(),
                _ => break,
            }
        }
        result
    }

    /// The same, with an object loaded.
    fn under_release<T>(
        &self,
        release: &Approved,
        ticket: &Ticket<'_>,
        object: &Blob,
        work: impl Fn(&Esys, &Handle<'_>, &Handle<'_>, &Handle<'_>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.with_release(release, ticket, |esys, srk, policy| work(esys, srk, &esys.load(srk, object)?, policy))
    }
}

/// A policy session whose digest is the release key's word for this reference.
fn release_session<'e>(esys: &'e Esys, srk: &Handle<'_>, release: &Approved, ticket: &Ticket<'_>) -> Result<Handle<'e>, TpmError> {
    let key = release.key();
    let word = {
        let loaded = esys.load_external(key.public())?;
        esys.verify_signature(&loaded, &ticket.digest, ticket.signature)?
    };
    let statement = release.release();
    let session = esys.policy_session(srk)?;
    esys.policy_pcr(&session, &statement.pcrs)?;
    esys.policy_counter_at_most(&session, &ours(esys, RELEASE_COUNTER)?, statement.epoch)?;
    esys.policy_authorize(&session, &statement.policy, &ticket.reference.0, &key.name(), &word)?;
    Ok(session)
}

/// One of Hoidla's counters, and nothing else that sits at its number.
fn ours(esys: &Esys, number: u32) -> Result<esys::Index<'_>, TpmError> {
    let index = esys.index(number)?.ok_or(TpmError::NoCounter(number))?;
    check_ours(esys, &index, number)?;
    Ok(index)
}

/// Where a counter stands, making it if there is none.
fn read_counter(esys: &Esys, session: &Handle<'_>, number: u32) -> Result<u64, TpmError> {
    let index = match esys.index(number)? {
        Some(index) => index,
        None => esys.define_counter(number, session)?,
    };
    // A counter can't be read before its first step.
    if esys.index_name(&index)? == TpmName::of_unwritten_counter(number) {
        esys.nv_increment(&index, session)?;
    }
    check_ours(esys, &index, number)?;
    esys.nv_read(&index, session)
}

fn check_ours(esys: &Esys, index: &esys::Index<'_>, number: u32) -> Result<(), TpmError> {
    if esys.index_name(index)? == TpmName::of_counter(number) { Ok(()) } else { Err(TpmError::NoCounter(number)) }
}

/// Whoever is connected to a TPM without a resource manager is alone: all that is loaded, and
/// not by this connection, was left over. The kernel's resource manager sweeps by itself.
fn sweep(tcti: &Tcti, esys: &Esys) -> Result<(), TpmError> {
    if tcti.has_resource_manager() {
        return Ok(());
    }
    let left = esys.sweep()?;
    if left > 0 {
        tracing::warn!(left, "flushed sessions and objects that an interrupted program left in the TPM");
    }
    Ok(())
}
