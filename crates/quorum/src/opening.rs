//! From shares to data keys wrapped for the reader: what runs in the appliance's short-lived
//! opening process, and, without a TPM, at home.
//!
//! Promises: a share is used only if it matches its commitment, so a bad one is blamed on its
//! custodian; fewer than the vault's quorum open nothing; the vault's private key never leaves
//! [`VaultKey`], which can only re-wrap data keys for a grant's reader. It asks the TPM for its
//! half through a closure, and only with an auth value that the quorum alone yields.

use hoidla_crypto::{
    Secret,
    datakey::{self, Binding},
    hpke, labels,
    wrap::{self, WrapError},
};
use hoidla_format::{
    Bytes, Hash32, Name,
    statements::{Door, Grant, RecoveryWrap, SealedShare, TpmHalf, Vault},
};
use thiserror::Error;

use crate::{
    derive,
    share::{self, Share, ShareError, ShareId, VaultId},
};

/// A share that a custodian sent is not the share they were dealt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{custodian}'s share of {dataset}, vault epoch {vault_epoch}, {why}")]
pub struct BadShare {
    /// Who sent it.
    pub custodian: Name,
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Why an opening failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError<E: std::error::Error> {
    /// Too few shares, or one twice.
    #[error(transparent)]
    Shares(#[from] ShareError),
    /// A share of somebody else's, or not the one dealt.
    #[error(transparent)]
    Bad(#[from] BadShare),
    /// The TPM refused its half.
    #[error("the TPM refused its half: {0}")]
    Tpm(E),
    /// The wrap didn't open.
    #[error(transparent)]
    WontOpen(#[from] WrapError),
}

/// What an approved share is bound to: one grant and one challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// SHA-256 of the grant.
    pub grant: Hash32,
    /// SHA-256 of the challenge.
    pub challenge: Hash32,
}

impl Occasion {
    fn associated_data(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..32].copy_from_slice(&self.grant.0);
        out[32..].copy_from_slice(&self.challenge.0);
        out
    }
}

/// Seals a share to an appliance's one-time key, as part of an approval.
pub fn seal_share(one_time: &hpke::PublicKey, occasion: &Occasion, id: &ShareId, share: &Share) -> SealedShare {
    let info = wrap::bind(labels::SHARE_TO_CEREMONY, &[&id.bytes()]);
    SealedShare {
        dataset: id.dataset.clone(),
        vault_epoch: id.vault_epoch,
        index: share.index(),
        sealed: Bytes(hpke::seal(one_time, &info, &occasion.associated_data(), &share.encode())),
    }
}

/// Opens a share that a custodian sent and checks it against the vault's commitment.
pub fn open_share(
    one_time: &hpke::KeyPair,
    occasion: &Occasion,
    vault: &Vault,
    custodian: &Name,
    sealed: &SealedShare,
) -> Result<Share, BadShare> {
    let id = VaultId::of(vault).share(Door::Quorum, custodian, sealed.index);
    let bad = |why| blame(&id, why);
    let info = wrap::bind(labels::SHARE_TO_CEREMONY, &[&id.bytes()]);
    let bytes = hpke::open(one_time, &info, &occasion.associated_data(), &sealed.sealed.0)
        .map_err(|_| bad("was sealed for another ceremony, or damaged"))?;
    let share = Share::decode(&bytes).map_err(|_| bad("is damaged"))?;
    check_share(vault, &id, &share)?;
    Ok(share)
}

/// Checks one share against the vault certificate's commitment.
pub fn check_share(vault: &Vault, id: &ShareId, share: &Share) -> Result<(), BadShare> {
    let promised = vault
        .commitments
        .iter()
        .find(|c| c.door == id.door && c.custodian == id.custodian && c.index == id.index)
        .ok_or_else(|| blame(id, "was never dealt: the vault certificate has no commitment for it"))?;
    if share.index() != id.index || share.commitment(id) != promised.commitment {
        return Err(blame(id, "is not the one they were dealt"));
    }
    Ok(())
}

fn blame(id: &ShareId, why: &'static str) -> BadShare {
    BadShare { custodian: id.custodian.clone(), dataset: id.dataset.clone(), vault_epoch: id.vault_epoch, why }
}

/// A vault's private key, for the seconds of an opening.
pub struct VaultKey {
    vault: VaultId,
    key: hpke::KeyPair,
}

/// Opens a vault with its quorum's shares and the appliance's TPM. `unseal` gets the auth value
/// and answers with the TPM's half.
pub fn open_with_tpm<E: std::error::Error>(
    vault: &Vault,
    appliance: &Name,
    half: &TpmHalf,
    shares: &[Share],
    unseal: impl FnOnce(&TpmHalf, &Secret<32>) -> Result<Secret<32>, E>,
) -> Result<VaultKey, OpenError<E>> {
    let id = VaultId::of(vault);
    let k_quorum = share::combine(&shares.iter().collect::<Vec<_>>(), vault.quorum)?;
    let k_tpm = unseal(half, &derive::auth_value(&k_quorum, &id, appliance)).map_err(OpenError::Tpm)?;
    let seed = derive::unwrap_by_unlock(&derive::unlock_key(&k_tpm, &k_quorum, &id, appliance), &id, appliance, &half.wrapped_key.0)?;
    VaultKey::new(vault, seed)
}

/// Opens a vault at home with the recovery quorum's shares, without a TPM.
pub fn open_with_recovery(
    vault: &Vault,
    recovery: &RecoveryWrap,
    shares: &[Share],
) -> Result<VaultKey, OpenError<std::convert::Infallible>> {
    let id = VaultId::of(vault);
    let k_quorum_r = share::combine(&shares.iter().collect::<Vec<_>>(), vault.recovery_quorum)?;
    let seed = derive::unwrap_by_recovery(&derive::recovery_key(&k_quorum_r, &id), &id, &recovery.wrapped_key.0)?;
    VaultKey::new(vault, seed)
}

impl VaultKey {
    fn new<E: std::error::Error>(vault: &Vault, seed: Secret<32>) -> Result<Self, OpenError<E>> {
        let key = hpke::KeyPair::from_seed(seed);
        if key.public().to_bytes() != vault.public_key.0 {
            return Err(WrapError::Refused.into());
        }
        Ok(Self { vault: VaultId::of(vault), key })
    }

    /// Re-wraps one stream epoch's data key to the grant's reader. Refuses what lies outside
    /// the grant or was sealed to another vault.
    pub fn rewrap(&self, wrapped: &[u8], binding: &Binding, grant: &Grant, grant_hash: &Hash32) -> Result<Vec<u8>, RewrapError> {
        let of_vault =
            binding.site == self.vault.site && binding.dataset == self.vault.dataset && binding.vault_epoch == self.vault.vault_epoch;
        let covered = grant.covers.iter().any(|c| c.dataset == binding.dataset && c.vault_epoch == binding.vault_epoch);
        if !of_vault || !covered || grant.site != binding.site {
            return Err(RewrapError::NotCovered);
        }
        let reader = hpke::PublicKey::from_bytes(&grant.reader.hpke.0)?;
        Ok(datakey::rewrap_to_reader(&self.key, binding, wrapped, &reader, grant_hash)?)
    }
}

/// Why a data key was not re-wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RewrapError {
    /// Another vault's data key, or one that the grant doesn't cover.
    #[error("this data key isn't among what the grant covers")]
    NotCovered,
    /// The wrapped key or the reader's key is damaged.
    #[error(transparent)]
    Hpke(#[from] hpke::HpkeError),
}
