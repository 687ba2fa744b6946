//! The opening helper: a process that lives for one question.
//!
//! libtss2 leaves an unsealed half on its heap, and an opening holds the vault's private key.
//! So the appliance starts itself again as a helper, asks over standard input, reads the
//! answer from standard output, and the helper ends: what it held, the kernel takes back.
//!
//! Promises: [`Request::Check`] tells whether a share is the one dealt, and forgets it;
//! [`Request::Open`] combines shares, asks the TPM, re-wraps the named data keys to the
//! grant's reader, and nothing else leaves the process. Sizes are bounded, versions checked;
//! an answer names a bad share's custodian, and never holds a secret.
//!
//! Doesn't: check signatures of grant, approvals or vaults. The appliance did before it asked;
//! the helper would have the same code and the same trust. The TPM checks the release itself.

mod layout;
mod process;

use hoidla_crypto::{Secret, datakey::Binding, hpke};
use hoidla_format::{
    Bytes, Hash32, Name, StreamId, statement,
    statements::{Grant, Release, SealedShare, TpmHalf, Vault},
};
use hoidla_quorum::{
    opening::{BadShare, Occasion, OpenError, VaultKey, open_share, open_with_tpm},
    share::Share,
};
use hoidla_verify::{ReleasePublic, TpmName, release};

pub use process::{HelperError, ask, serve};

use crate::{Blob, Tcti, Tpm, TpmError};

/// What the appliance asks.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, and is moved twice")]
pub enum Request {
    /// Is this share the one that was dealt?
    Check(Check),
    /// Open these vaults and re-wrap these data keys.
    Open(Box<Open>),
}

/// One share, as an approval brought it.
pub struct Check {
    /// The ceremony's one-time key.
    pub one_time: Secret<32>,
    /// What the share is bound to.
    pub occasion: Occasion,
    /// The vault certificate.
    pub vault: Vault,
    /// Who sent it.
    pub custodian: Name,
    /// The share, sealed to the one-time key.
    pub share: SealedShare,
}

/// A quorum's shares of each covered vault, and the data keys to re-wrap.
pub struct Open {
    /// The ceremony's one-time key.
    pub one_time: Secret<32>,
    /// What the shares are bound to.
    pub occasion: Occasion,
    /// Where the TPM is.
    pub tcti: Tcti,
    /// The name of its storage root key.
    pub srk: TpmName,
    /// The release key (SEC1), from the site file.
    pub release_key: Vec<u8>,
    /// The release that runs.
    pub release: Release,
    /// This appliance.
    pub appliance: Name,
    /// The grant; its hash stands in `occasion`.
    pub grant: Grant,
    /// The vaults, with their halves and shares.
    pub vaults: Vec<OpenVault>,
}

/// One vault of an opening.
pub struct OpenVault {
    /// Its certificate.
    pub vault: Vault,
    /// Its half, as imported.
    pub half: Blob,
    /// Its private key under `K_unlock`.
    pub wrapped_key: Vec<u8>,
    /// Who sent which share.
    pub shares: Vec<(Name, SealedShare)>,
    /// The stream epochs that the grant covers.
    pub keys: Vec<WrappedKey>,
}

/// One stream epoch's data key, sealed to its vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The stream.
    pub stream: StreamId,
    /// The stream's epoch.
    pub epoch: u32,
    /// The key (HPKE).
    pub wrapped: Vec<u8>,
}

/// What the helper answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The share is the one dealt.
    Checked,
    /// For each vault, for each of its keys, in the order of the request: the key re-wrapped to
    /// the reader; none where the header's key doesn't open, which is the agent's damage alone.
    Opened(Vec<Vec<Option<Vec<u8>>>>),
    /// A custodian's share is not the one dealt.
    BadShare {
        /// Who sent it.
        custodian: Name,
        /// The dataset.
        dataset: Name,
        /// The vault epoch.
        vault_epoch: u32,
        /// What is wrong with it.
        why: String,
    },
    /// All else, in a sentence.
    Failed(String),
}

impl From<BadShare> for Reply {
    fn from(b: BadShare) -> Self {
        Self::BadShare { custodian: b.custodian, dataset: b.dataset, vault_epoch: b.vault_epoch, why: b.why.to_owned() }
    }
}

/// Answers one question. To be called in a process that ends afterwards.
pub fn run(request: Request) -> Reply {
    match request {
        Request::Check(check) => run_check(check),
        Request::Open(open) => run_open(*open).unwrap_or_else(|reply| reply),
    }
}

fn run_check(c: Check) -> Reply {
    let one_time = hpke::KeyPair::from_seed(c.one_time);
    match open_share(&one_time, &c.occasion, &c.vault, &c.custodian, &c.share) {
        Ok(_) => Reply::Checked,
        Err(bad) => bad.into(),
    }
}

fn run_open(o: Open) -> Result<Reply, Reply> {
    let failed = |e: &dyn std::fmt::Display| Reply::Failed(e.to_string());
    if statement::hash(&statement::write(&o.grant)) != o.occasion.grant {
        return Err(Reply::Failed("the grant is not the one that was approved".into()));
    }
    let key = ReleasePublic::from_sec1(&o.release_key).map_err(|e| failed(&e))?;
    let approved = release::check(&o.release, &key).map_err(|e| failed(&e))?;
    let one_time = hpke::KeyPair::from_seed(o.one_time);
    let mut all = Vec::with_capacity(o.vaults.len());
    for v in &o.vaults {
        let shares = open_shares(&one_time, &o.occasion, v)?;
        let unseal = |_: &TpmHalf, auth: &Secret<32>| -> Result<Secret<32>, TpmError> {
            let tpm = Tpm::open_pinned(&o.tcti, &o.srk)?;
            tpm.unseal_half(&v.half, &approved, &v.vault.dataset, v.vault.vault_epoch, auth)
        };
        let vault_key = open_with_tpm(&v.vault, &o.appliance, &half_of(v), &shares, unseal).map_err(|e| match e {
            OpenError::Bad(bad) => bad.into(),
            other => failed(&other),
        })?;
        all.push(v.keys.iter().map(|k| rewrap(&vault_key, v, k, &o.grant, &o.occasion.grant)).collect());
    }
    Ok(Reply::Opened(all))
}

fn open_shares(one_time: &hpke::KeyPair, occasion: &Occasion, v: &OpenVault) -> Result<Vec<Share>, Reply> {
    let open = |(custodian, sealed): &(Name, SealedShare)| open_share(one_time, occasion, &v.vault, custodian, sealed);
    Ok(v.shares.iter().map(open).collect::<Result<_, BadShare>>()?)
}

/// The half as dealing put it out, as far as an opening looks at it: its import is done.
fn half_of(v: &OpenVault) -> TpmHalf {
    TpmHalf {
        dataset: v.vault.dataset.clone(),
        vault_epoch: v.vault.vault_epoch,
        vault: statement::hash(&statement::write(&v.vault)),
        public: Bytes(v.half.public().marshal()),
        duplicate: Bytes::default(),
        seed: Bytes::default(),
        wrapped_key: Bytes(v.wrapped_key.clone()),
    }
}

fn rewrap(vault_key: &VaultKey, v: &OpenVault, k: &WrappedKey, grant: &Grant, grant_hash: &Hash32) -> Option<Vec<u8>> {
    let binding = Binding {
        site: v.vault.site.clone(),
        dataset: v.vault.dataset.clone(),
        stream: k.stream,
        epoch: k.epoch,
        vault_epoch: v.vault.vault_epoch,
    };
    vault_key.rewrap(&k.wrapped, &binding, grant, grant_hash).ok()
}
