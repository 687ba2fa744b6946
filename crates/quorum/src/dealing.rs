//! Dealing: a vault made at home, on an offline machine, witnessed.
//!
//! Promises: what [`deal`] gives out is public or sealed; before that, every quorum of either
//! door has opened the vault with what is given out; every secret is wiped when it returns.
//! It doesn't sign (the authority does) and doesn't prove that a storage root key sits in a
//! genuine TPM (enrolment does, or says that it doesn't).

use hoidla_crypto::{
    Secret,
    envelope::{self, EnvelopeError, ShareId},
    hpke,
    wrap::WrapError,
};
use hoidla_format::{
    Bytes, Hash32, Moment, Name,
    statement::{hash, write},
    statements::{ApplianceIdentity, Commitment, Door, Envelopes, RecoveryWrap, Roster, ShareEnvelope, TpmHalf, Vault},
};
use hoidla_verify::{PolicyRef, Public, PublicError, ReleasePublic, import};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    derive,
    roster::{self, RosterError, each_subset},
    share::{self, Share, ShareError, VaultId},
};

/// What a vault is dealt from.
pub struct DealingInput<'a> {
    /// Which vault epoch of which dataset.
    pub vault: VaultId,
    /// Whether the site is for drills.
    pub development: bool,
    /// Its custodians.
    pub roster: &'a Roster,
    /// The site's release key, whose approvals the TPMs ask for.
    pub release_key: &'a ReleasePublic,
    /// The appliances that shall be able to open it.
    pub appliances: &'a [ApplianceIdentity],
    /// When.
    pub dealt: Moment,
}

/// What a dealing puts out.
pub struct Dealing {
    /// The vault certificate, to be signed.
    pub vault: Vault,
    /// Its hash: how all others name it.
    pub vault_hash: Hash32,
    /// The quorum door's shares, sealed to their custodians.
    pub quorum: Envelopes,
    /// The recovery door's shares, sealed to theirs; they stay at home.
    pub recovery: Envelopes,
    /// Each appliance's half.
    pub halves: Vec<(Name, TpmHalf)>,
    /// The vault's key under the recovery quorum's; it stays at home.
    pub recovery_wrap: RecoveryWrap,
    /// How many quorums were tried, of both doors together.
    pub tested: u64,
}

/// Why a vault was not dealt. Nothing was put out.
#[derive(Debug, Error)]
pub enum DealError {
    /// The roster isn't sane.
    #[error("the roster: {0}")]
    Roster(#[from] RosterError),
    /// An appliance of another site.
    #[error("{0} is an appliance of another site")]
    Appliance(Name),
    /// An appliance's storage root key is none.
    #[error("the storage root key of {0} is damaged or not one of Hoidla's ({1}): fetch its identity again")]
    StorageKey(Name, PublicError),
    /// A card is none.
    #[error(transparent)]
    Card(#[from] EnvelopeError),
    /// Thresholds that cannot be.
    #[error(transparent)]
    Shares(#[from] ShareError),
    /// A quorum didn't open what was dealt.
    #[error("a test opening failed: this machine computes wrongly; use another, and nothing of this dealing")]
    TestOpening,
}

impl From<WrapError> for DealError {
    fn from(_: WrapError) -> Self {
        Self::TestOpening
    }
}

/// Deals one vault epoch.
pub fn deal(input: &DealingInput<'_>, rng: &mut impl CryptoRng) -> Result<Dealing, DealError> {
    roster::check(input.roster, input.development)?;
    let mut fresh = || Secret::<32>::filled(|b| rng.fill_bytes(b));
    let (k_quorum, k_quorum_r, pair) = (fresh(), fresh(), hpke::KeyPair::from_seed(fresh()));
    let quorum_shares = share::split(&k_quorum, input.roster.quorum, count(input, Door::Quorum), rng)?;
    let recovery_shares = share::split(&k_quorum_r, input.roster.recovery_quorum, count(input, Door::Recovery), rng)?;

    let vault = certificate(input, &pair, &quorum_shares, &recovery_shares);
    let vault_hash = hash(&write(&vault));
    let mut halves = Vec::new();
    let mut tpm_keys = Vec::new();
    for appliance in input.appliances {
        let k_tpm = Secret::<32>::filled(|b| rng.fill_bytes(b));
        halves.push((appliance.name.clone(), half(input, appliance, &vault_hash, &k_tpm, &k_quorum, &pair)?));
        tpm_keys.push(k_tpm);
    }
    let dealing = Dealing {
        quorum: envelopes(input, Door::Quorum, &vault_hash, &quorum_shares)?,
        recovery: envelopes(input, Door::Recovery, &vault_hash, &recovery_shares)?,
        recovery_wrap: RecoveryWrap {
            vault: vault_hash,
            dataset: input.vault.dataset.clone(),
            vault_epoch: input.vault.vault_epoch,
            wrapped_key: Bytes(derive::wrap_by_recovery(&derive::recovery_key(&k_quorum_r, &input.vault), &input.vault, pair.seed())),
        },
        vault,
        vault_hash,
        halves,
        tested: 0,
    };
    let tested = try_every_quorum(input, &dealing, (&quorum_shares, &recovery_shares), &tpm_keys, &pair)?;
    Ok(Dealing { tested, ..dealing })
}

fn count(input: &DealingInput<'_>, door: Door) -> u8 {
    u8::try_from(roster::door(input.roster, door).0.len()).expect("a checked roster has at most 255 custodians a door")
}

/// Which share stands at this place of a door.
fn share_id(input: &DealingInput<'_>, door: Door, share: &Share) -> ShareId {
    let custodian = &roster::door(input.roster, door).0[usize::from(share.index()) - 1];
    input.vault.share(door, &custodian.name, share.index())
}

fn certificate(input: &DealingInput<'_>, pair: &hpke::KeyPair, quorum: &[Share], recovery: &[Share]) -> Vault {
    let commit = |door, s: &Share| {
        let id = share_id(input, door, s);
        Commitment { door, commitment: s.commitment(&id), custodian: id.custodian, index: id.index }
    };
    let both = quorum.iter().map(|s| commit(Door::Quorum, s)).chain(recovery.iter().map(|s| commit(Door::Recovery, s)));
    Vault {
        site: input.vault.site.clone(),
        dataset: input.vault.dataset.clone(),
        vault_epoch: input.vault.vault_epoch,
        suite: hpke::SUITE.to_owned(),
        public_key: Bytes(pair.public().to_bytes()),
        roster: hash(&write(input.roster)),
        quorum: input.roster.quorum,
        recovery_quorum: input.roster.recovery_quorum,
        dealt: input.dealt,
        commitments: both.collect(),
    }
}

fn envelopes(input: &DealingInput<'_>, door: Door, vault: &Hash32, shares: &[Share]) -> Result<Envelopes, DealError> {
    let cards = roster::door(input.roster, door).0;
    let seal = |(card, share): (_, &Share)| {
        let id = share_id(input, door, share);
        let sealed = Bytes(envelope::seal(card, &id, &share.encode())?);
        Ok(ShareEnvelope { custodian: id.custodian, index: id.index, sealed })
    };
    let shares = cards.iter().zip(shares).map(seal).collect::<Result<_, EnvelopeError>>()?;
    Ok(Envelopes { vault: *vault, dataset: input.vault.dataset.clone(), vault_epoch: input.vault.vault_epoch, door, shares })
}

fn half(
    input: &DealingInput<'_>,
    appliance: &ApplianceIdentity,
    vault_hash: &Hash32,
    k_tpm: &Secret<32>,
    k_quorum: &Secret<32>,
    pair: &hpke::KeyPair,
) -> Result<TpmHalf, DealError> {
    let VaultId { site, dataset, vault_epoch } = &input.vault;
    if appliance.site != *site {
        return Err(DealError::Appliance(appliance.name.clone()));
    }
    let damaged = |e| DealError::StorageKey(appliance.name.clone(), e);
    let srk = Public::parse(&appliance.srk.0).map_err(damaged)?;
    let policy = input.release_key.half_policy(&PolicyRef::vault(site, input.development, dataset, *vault_epoch));
    let auth = derive::auth_value(k_quorum, &input.vault, &appliance.name);
    let import = import::make(&srk, k_tpm, policy.digest(), &auth).map_err(damaged)?;
    let unlock = derive::unlock_key(k_tpm, k_quorum, &input.vault, &appliance.name);
    Ok(TpmHalf {
        dataset: dataset.clone(),
        vault_epoch: *vault_epoch,
        vault: *vault_hash,
        public: Bytes(import.public.marshal()),
        duplicate: Bytes(import.duplicate),
        seed: Bytes(import.seed),
        wrapped_key: Bytes(derive::wrap_by_unlock(&unlock, &input.vault, &appliance.name, pair.seed())),
    })
}

/// Opens the vault with every quorum of both doors, from the very bytes that are put out.
fn try_every_quorum(
    input: &DealingInput<'_>,
    dealing: &Dealing,
    (quorum, recovery): (&[Share], &[Share]),
    tpm_keys: &[Secret<32>],
    pair: &hpke::KeyPair,
) -> Result<u64, DealError> {
    let mut tested = 0;
    each_subset(quorum.len(), input.roster.quorum.into(), |chosen| {
        tested += 1;
        let k_quorum = share::combine(&pick(quorum, chosen), input.roster.quorum)?;
        dealing.halves.iter().zip(tpm_keys).try_for_each(|((name, half), k_tpm)| {
            let unlock = derive::unlock_key(k_tpm, &k_quorum, &input.vault, name);
            let seed = derive::unwrap_by_unlock(&unlock, &input.vault, name, &half.wrapped_key.0)?;
            is_the_key(pair, &seed)
        })
    })?;
    each_subset(recovery.len(), input.roster.recovery_quorum.into(), |chosen| {
        tested += 1;
        let k_quorum_r = share::combine(&pick(recovery, chosen), input.roster.recovery_quorum)?;
        let key = derive::recovery_key(&k_quorum_r, &input.vault);
        is_the_key(pair, &derive::unwrap_by_recovery(&key, &input.vault, &dealing.recovery_wrap.wrapped_key.0)?)
    })?;
    Ok(tested)
}

fn pick<'a>(shares: &'a [Share], chosen: &[usize]) -> Vec<&'a Share> {
    chosen.iter().map(|i| &shares[*i]).collect()
}

fn is_the_key(pair: &hpke::KeyPair, seed: &Secret<32>) -> Result<(), DealError> {
    if seed.ct_eq(pair.seed()) { Ok(()) } else { Err(DealError::TestOpening) }
}
