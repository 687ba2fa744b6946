//! Releases: which images a TPM lets use the node key and which vault epochs' halves.
//!
//! Promises: [`approve`] signs one policy (these PCR values, and a release counter of at most
//! this epoch) for the node and for each named vault epoch, each under a policy reference of
//! its own; [`check`] believes a release only if every value in it follows from the others
//! and every signature is the release key's. A development release has other references, so
//! a production key's policy never accepts it.
//!
//! Retirement: a half is usable under a release that names its vault epoch. Home leaves the
//! epoch out of the next release and the TPM's counter passes the former release's epoch:
//! from then on the old blob put back, with every old release put back, opens nothing.

use hoidla_crypto::{Secret, es256};
use hoidla_format::{
    Bytes, Hash32, Name, Writer,
    statements::{PcrValue, Release, VaultApproval},
};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey, signature::hazmat::PrehashSigner};
use thiserror::Error;

use crate::{
    Policy, RELEASE_COUNTER, TpmName,
    public::{Point, Public, Shape, attribute, sha256},
};

/// Why a release or its key was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// Not a P-256 key.
    #[error("the release key is not a point of P-256 in SEC1 form: take it from the site file that the authority signed")]
    Key,
    /// Registers out of order, twice, none or above 23.
    #[error("a release approves 1 to 24 PCRs, each once, in ascending order, none above 23")]
    Pcrs,
    /// The vault epochs are out of order or named twice.
    #[error("a release names each vault epoch once, in ascending order")]
    Vaults,
    /// The policy digest isn't the one that PCRs and epoch give.
    #[error("the release's policy does not follow from its PCR values and epoch: ask the authority for the release again")]
    Policy,
    /// A signature that the release key didn't make for this site, mode and purpose.
    #[error("the release key did not sign this release's approval for {0}")]
    Signature(String),
}

/// What a policy's signature is good for: one site, one mode, one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRef(pub [u8; 32]);

impl PolicyRef {
    const LABEL: &'static [u8] = b"hoidla policy reference 1";

    fn begin(site: &Name, development: bool, purpose: &[u8]) -> Writer {
        let mut w = Writer::new();
        w.short(Self::LABEL).short(if development { b"development" } else { b"production" });
        w.short(site.as_str().as_bytes()).short(purpose);
        w
    }

    /// For the node and attestation keys of a site's appliances.
    pub fn node(site: &Name, development: bool) -> Self {
        Self(sha256(&[&Self::begin(site, development, b"node").finish()]))
    }

    /// For the halves of one vault epoch.
    pub fn vault(site: &Name, development: bool, dataset: &Name, vault_epoch: u32) -> Self {
        let mut w = Self::begin(site, development, b"vault");
        w.short(dataset.as_str().as_bytes()).u32(vault_epoch);
        Self(sha256(&[&w.finish()]))
    }
}

/// The release key's public half, as a TPM loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasePublic {
    key: VerifyingKey,
    public: Public,
}

impl ReleasePublic {
    /// From SEC1, compressed or not, as the site file has it.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let key = p256::PublicKey::from_sec1_bytes(bytes).map_err(|_| ReleaseError::Key)?;
        let public = Public { attributes: attribute::SIGN, policy: None, shape: Shape::Signing(Point::of(&key)) };
        Ok(Self { key: VerifyingKey::from(key), public })
    }

    /// SEC1, uncompressed (65 bytes), as the site file has it.
    pub fn to_sec1(&self) -> Vec<u8> {
        self.public.point().expect("a key has a point").to_sec1().to_vec()
    }

    /// The public area that a TPM is given to check signatures with.
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The name that policies hold.
    pub fn name(&self) -> TpmName {
        self.public.name()
    }

    /// The policy of keys and (before the auth value) halves approved under `reference`.
    pub fn policy(&self, reference: &PolicyRef) -> Policy {
        Policy::authorize(&self.name(), &reference.0)
    }

    /// The policy of a half: what a release approves for its vault epoch, *then* the auth value
    /// that only the quorum yields. In this order the release key can't waive the quorum.
    pub fn half_policy(&self, reference: &PolicyRef) -> Policy {
        self.policy(reference).auth_value()
    }

    fn verify(&self, policy: &Hash32, reference: &PolicyRef, signature: &[u8]) -> bool {
        es256::verify(&self.key, &[policy.0, reference.0].concat(), signature)
    }
}

/// The release key: P-256, kept with the authority.
pub struct ReleaseKey(SigningKey);

impl ReleaseKey {
    /// A fresh key, and the secret to keep in its key file.
    pub fn generate() -> (Self, Secret<32>) {
        loop {
            let secret = Secret::random();
            if let Ok(key) = Self::from_secret(&secret) {
                return (key, secret);
            }
        }
    }

    /// From the secret of a key file.
    pub fn from_secret(secret: &Secret<32>) -> Result<Self, ReleaseError> {
        SigningKey::from_slice(secret.expose()).map(Self).map_err(|_| ReleaseError::Key)
    }

    /// Its public half.
    pub fn public(&self) -> ReleasePublic {
        let key = p256::PublicKey::from(self.0.verifying_key());
        let public = Public { attributes: attribute::SIGN, policy: None, shape: Shape::Signing(Point::of(&key)) };
        ReleasePublic { key: *self.0.verifying_key(), public }
    }

    fn sign(&self, policy: &Hash32, reference: &PolicyRef) -> Bytes {
        let signature: Signature = self.0.sign_prehash(&to_sign(policy, reference)).expect("a hash of 32 bytes can be signed");
        Bytes(signature.to_bytes().to_vec())
    }
}

fn to_sign(policy: &Hash32, reference: &PolicyRef) -> [u8; 32] {
    sha256(&[&policy.0, &reference.0])
}

/// What a release shall approve.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The site.
    pub site: Name,
    /// The release's name.
    pub name: Name,
    /// True for drills and tests.
    pub development: bool,
    /// The release epoch: at least the release counter of every appliance that shall run it.
    pub epoch: u64,
    /// The values that the image gives.
    pub pcrs: Vec<PcrValue>,
    /// The vault epochs that may still be opened.
    pub vaults: Vec<(Name, u32)>,
}

/// Signs a release. PCRs and vault epochs are put in order.
pub fn approve(key: &ReleaseKey, mut terms: Terms) -> Result<Release, ReleaseError> {
    terms.pcrs.sort_by_key(|p| p.index);
    terms.vaults.sort();
    let policy = policy(&terms.pcrs, terms.epoch)?;
    let Terms { site, name, development, epoch, pcrs, vaults } = terms;
    let signature = key.sign(&policy, &PolicyRef::node(&site, development));
    let vaults = vaults
        .into_iter()
        .map(|(dataset, vault_epoch)| {
            let reference = PolicyRef::vault(&site, development, &dataset, vault_epoch);
            VaultApproval { signature: key.sign(&policy, &reference), dataset, vault_epoch }
        })
        .collect();
    let release = Release { site, name, development, epoch, pcrs, policy, signature, vaults };
    check(&release, &key.public()).map(|_| release)
}

fn policy(pcrs: &[PcrValue], epoch: u64) -> Result<Hash32, ReleaseError> {
    let ascending = pcrs.windows(2).all(|w| w[0].index < w[1].index);
    if pcrs.is_empty() || !ascending || pcrs.iter().any(|p| p.index > 23) {
        return Err(ReleaseError::Pcrs);
    }
    Ok(Policy::new().pcr(pcrs).counter_at_most(RELEASE_COUNTER, epoch).digest())
}

/// A release that the release key stands behind.
#[derive(Clone, Debug)]
pub struct Approved {
    release: Release,
    key: ReleasePublic,
}

/// Checks everything in a release under the site's release key.
pub fn check(release: &Release, key: &ReleasePublic) -> Result<Approved, ReleaseError> {
    if policy(&release.pcrs, release.epoch)? != release.policy {
        return Err(ReleaseError::Policy);
    }
    let order = |w: &[VaultApproval]| (&w[0].dataset, w[0].vault_epoch) < (&w[1].dataset, w[1].vault_epoch);
    if !release.vaults.windows(2).all(order) {
        return Err(ReleaseError::Vaults);
    }
    let node = PolicyRef::node(&release.site, release.development);
    if !key.verify(&release.policy, &node, &release.signature.0) {
        return Err(ReleaseError::Signature("the node key".into()));
    }
    for v in &release.vaults {
        let reference = PolicyRef::vault(&release.site, release.development, &v.dataset, v.vault_epoch);
        if !key.verify(&release.policy, &reference, &v.signature.0) {
            return Err(ReleaseError::Signature(format!("vault epoch {} of {}", v.vault_epoch, v.dataset)));
        }
    }
    Ok(Approved { release: release.clone(), key: key.clone() })
}

/// One signature of a release, with what a TPM needs to check it.
#[derive(Clone, Copy, Debug)]
pub struct Ticket<'a> {
    /// The reference that was signed.
    pub reference: PolicyRef,
    /// r ‖ s.
    pub signature: &'a [u8; 64],
    /// What was signed: SHA-256(policy ‖ reference).
    pub digest: [u8; 32],
}

impl Approved {
    /// The statement.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// The key that approved it.
    pub fn key(&self) -> &ReleasePublic {
        &self.key
    }

    /// The approval of the node and attestation keys.
    pub fn node(&self) -> Ticket<'_> {
        self.ticket(PolicyRef::node(&self.release.site, self.release.development), &self.release.signature)
    }

    /// The approval of one vault epoch's half; none if the release retired it or never named it.
    pub fn vault(&self, dataset: &Name, vault_epoch: u32) -> Option<Ticket<'_>> {
        let found = self.release.vaults.iter().find(|v| v.dataset == *dataset && v.vault_epoch == vault_epoch)?;
        let reference = PolicyRef::vault(&self.release.site, self.release.development, dataset, vault_epoch);
        Some(self.ticket(reference, &found.signature))
    }

    fn ticket<'a>(&'a self, reference: PolicyRef, signature: &'a Bytes) -> Ticket<'a> {
        let signature = signature.0.as_slice().try_into().expect("checked to be a signature");
        Ticket { reference, signature, digest: to_sign(&self.release.policy, &reference) }
    }
}
