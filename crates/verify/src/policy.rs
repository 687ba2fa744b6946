//! Policy digests, as a TPM computes them (TPM 2.0 Library, part 3, "Enhanced authorization").
//!
//! Promises: the same digest as the TPM's for the same steps in the same order. Doesn't
//! decide which steps are wise: [`crate::release`] and [`crate::import`] do.

use hoidla_format::{Hash32, statements::PcrValue};

use crate::public::{ALG_SHA256, sha256};

const CC_POLICY_NV: u32 = 0x0149;
const CC_POLICY_AUTHORIZE: u32 = 0x016A;
const CC_POLICY_AUTH_VALUE: u32 = 0x016B;
const CC_POLICY_PCR: u32 = 0x017F;
/// TPM2_EO_UNSIGNED_LE: what the index holds is at most the operand.
pub const UNSIGNED_LE: u16 = 0x0009;

/// The NV index of the release counter, the same in every appliance, so that a release's
/// policy is the same too.
pub const RELEASE_COUNTER: u32 = 0x0180_4801;

/// TPMA_NV of every counter of Hoidla: a counter; owner and index auth write and read;
/// no dictionary attack.
pub const COUNTER_ATTRIBUTES: u32 = (1 << 1) | (1 << 2) | (1 << 4) | (1 << 17) | (1 << 18) | (1 << 25);
const NV_WRITTEN: u32 = 1 << 29;

/// A TPM's name of an object or index: the hash algorithm (2 bytes), then SHA-256 of its public area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TpmName(pub [u8; 34]);

impl TpmName {
    /// The name of what has this marshalled public area.
    pub fn of(public: &[u8]) -> Self {
        let mut out = [0; 34];
        out[..2].copy_from_slice(&ALG_SHA256.to_be_bytes());
        out[2..].copy_from_slice(&sha256(&[public]));
        Self(out)
    }

    /// A name as read from a TPM; none unless it is of SHA-256.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let name: [u8; 34] = bytes.try_into().ok()?;
        (name[..2] == ALG_SHA256.to_be_bytes()).then_some(Self(name))
    }

    /// The name of one of Hoidla's counters, once it has been incremented.
    pub fn of_counter(index: u32) -> Self {
        Self::of_index(index, COUNTER_ATTRIBUTES | NV_WRITTEN)
    }

    /// The name of one of Hoidla's counters before its first increment.
    pub fn of_unwritten_counter(index: u32) -> Self {
        Self::of_index(index, COUNTER_ATTRIBUTES)
    }

    fn of_index(index: u32, attributes: u32) -> Self {
        let mut public = index.to_be_bytes().to_vec();
        public.extend(ALG_SHA256.to_be_bytes());
        public.extend(attributes.to_be_bytes());
        public.extend([0, 0, 0, 8]);
        Self::of(&public)
    }
}

/// A policy under construction: each step takes the digest to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Policy(Hash32);

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// The empty policy, as a new session has it.
    pub const fn new() -> Self {
        Self(Hash32([0; 32]))
    }

    fn step(self, code: u32, rest: &[&[u8]]) -> Self {
        let code = code.to_be_bytes();
        let parts: Vec<&[u8]> = [&self.0.0[..], &code].into_iter().chain(rest.iter().copied()).collect();
        Self(Hash32(sha256(&parts)))
    }

    /// TPM2_PolicyPCR: these registers of the SHA-256 bank have these values.
    pub fn pcr(self, pcrs: &[PcrValue]) -> Self {
        let selection = pcr_selection(pcrs);
        self.step(CC_POLICY_PCR, &[&selection, &pcr_digest(pcrs)])
    }

    /// TPM2_PolicyNV: the counter at `index` stands at `most` or below.
    pub fn counter_at_most(self, index: u32, most: u64) -> Self {
        let args = sha256(&[&most.to_be_bytes(), &[0, 0], &UNSIGNED_LE.to_be_bytes()]);
        self.step(CC_POLICY_NV, &[&args, &TpmName::of_counter(index).0])
    }

    /// TPM2_PolicyAuthorize: whatever policy the key of this name signed for this reference.
    /// The steps before it no longer show in the digest.
    pub fn authorize(key: &TpmName, reference: &[u8]) -> Self {
        let first = Self::new().step(CC_POLICY_AUTHORIZE, &[&key.0]);
        Self(Hash32(sha256(&[&first.0.0, reference])))
    }

    /// TPM2_PolicyAuthValue: the user knows the object's auth value.
    pub fn auth_value(self) -> Self {
        self.step(CC_POLICY_AUTH_VALUE, &[])
    }

    /// The digest.
    pub fn digest(self) -> Hash32 {
        self.0
    }
}

/// SHA-256 of the registers' values, in order of their numbers.
pub fn pcr_digest(pcrs: &[PcrValue]) -> [u8; 32] {
    let mut sorted: Vec<&PcrValue> = pcrs.iter().collect();
    sorted.sort_by_key(|p| p.index);
    let values: Vec<&[u8]> = sorted.iter().map(|p| &p.value.0[..]).collect();
    sha256(&values)
}

/// TPML_PCR_SELECTION of the SHA-256 bank, three bytes of registers. Registers above 23 don't exist and are left out.
fn pcr_selection(pcrs: &[PcrValue]) -> Vec<u8> {
    let bits = pcrs.iter().filter(|p| p.index < 24).fold(0u32, |bits, p| bits | 1 << p.index).to_le_bytes();
    let mut out = vec![0, 0, 0, 1];
    out.extend(ALG_SHA256.to_be_bytes());
    out.extend([3, bits[0], bits[1], bits[2]]);
    out
}
