//! What the appliance asks of its TPM.

use hoidla_crypto::Secret;
use hoidla_format::{Hash32, Name, statements::{PcrValue, TpmHalf}};
use hoidla_verify::{Approved, PolicyRef, Public, RELEASE_COUNTER, ReleasePublic, TpmName};

use crate::{Blob, Tcti, TpmError};

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
}

/// What the TPM says of its clock. Not authenticated: quotes will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds the TPM has been powered.
    pub powered_ms: u64,
    /// Resets (power cycles) so far.
    pub reset_count: u32,
    /// Restarts and resumptions since the last reset.
    pub restart_count: u32,
    /// False if the clock may repeat after an unorderly shutdown.
    pub safe: bool,
}

/// The public areas that home records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Endorsement key.
    pub ek: Public,
    /// Storage root key.
    pub srk: Public,
    /// Attestation key, in the endorsement hierarchy, usable under the release policy only.
    pub ak: Public,
    /// Node key.
    pub node: Public,
    /// Where the release counter stands: the least epoch of a release for this appliance.
    pub release_counter: u64,
}

/// One TPM. Operations may be called from many threads; they run one after another.
pub struct Tpm {
    tcti: Tcti,
}

impl Tpm {
    /// Opens a TPM and trusts the storage root key it finds: for the first time only.
    pub fn open(tcti: &Tcti) -> Result<Self, TpmError> { todo!() }
    /// Opens the TPM whose storage root key has this name, or none.
    pub fn open_pinned(tcti: &Tcti, srk: &TpmName) -> Result<Self, TpmError> { todo!() }
    /// The storage root key.
    pub fn srk(&self) -> &Public { todo!() }
    /// Makes the node key: P-256, usable only under a release that `release` signed for `reference`.
    pub fn create_node_key(&self, release: &ReleasePublic, reference: &PolicyRef) -> Result<Blob, TpmError> { todo!() }
    /// The keys home records; makes the release counter if there is none.
    pub fn identity(&self, release: &ReleasePublic, reference: &PolicyRef, node: &Blob) -> Result<Identity, TpmError> { todo!() }
    /// Signs a SHA-256 digest with the node key: r ‖ s.
    pub fn sign_with_node(&self, node: &Blob, release: &Approved, digest: &[u8; 32]) -> Result<[u8; 64], TpmError> { todo!() }
    /// Imports a half, after checking that it is one for this release key and reference. The blob goes to the state folder.
    pub fn import_half(&self, half: &TpmHalf, release: &ReleasePublic, reference: &PolicyRef) -> Result<Blob, TpmError> { todo!() }
    /// Unseals a half. Run it in a short-lived process only.
    pub fn unseal_half(&self, half: &Blob, release: &Approved, dataset: &Name, vault_epoch: u32, auth: &Secret<32>) -> Result<Secret<32>, TpmError> { todo!() }
    /// Reads registers of the SHA-256 bank.
    pub fn pcr_read(&self, indices: &[u8]) -> Result<Vec<PcrValue>, TpmError> { todo!() }
    /// Extends a register of the SHA-256 bank.
    pub fn pcr_extend(&self, index: u8, digest: &Hash32) -> Result<(), TpmError> { todo!() }
    /// Resets, restarts and powered time.
    pub fn read_clock(&self) -> Result<Clock, TpmError> { todo!() }
    /// Where a counter stands, making it if there is none.
    pub fn counter(&self, counter: Counter) -> Result<u64, TpmError> { todo!() }
    /// Raises a counter by one: where it stands now.
    pub fn increment(&self, counter: Counter) -> Result<u64, TpmError> { todo!() }
    /// Retires every release whose epoch is below `epoch`, and with them every vault epoch that later releases leave out.
    pub fn retire_releases_below(&self, epoch: u64) -> Result<(), TpmError> { todo!() }
}
