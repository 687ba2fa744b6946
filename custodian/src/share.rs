//! One's own shares: out of an envelope, and against the vault certificate.
//!
//! Promises: an envelope is opened only as the share that the vault certificate commits to for
//! this custodian; a share of another vault, epoch or custodian is refused.

use anyhow::{Context, Result};
use hoidla_crypto::{
    envelope::{self, CustodianKeys, ShareId},
    sign::Signed,
};
use hoidla_format::{
    Name,
    statements::{Envelopes, Vault},
};
use hoidla_quorum::{
    opening::check_share,
    share::{Share, VaultId},
};

/// Opens this custodian's envelope of a vault; none if there is none for them.
pub fn own(name: &Name, keys: &CustodianKeys, vault: &Signed<Vault>, envelopes: &Envelopes) -> Result<Option<(ShareId, Share)>> {
    let v = &vault.statement;
    let Some(sent) = envelopes.shares.iter().find(|s| s.custodian == *name) else { return Ok(None) };
    let id = VaultId::of(v).share(envelopes.door, name, sent.index);
    let open = || -> Result<Share> {
        let share = Share::decode(&envelope::open(keys, &id, &sent.sealed.0)?)?;
        check_share(v, &id, &share)?;
        Ok(share)
    };
    let share = open().with_context(|| format!("your share of {}, vault epoch {}", v.dataset, v.vault_epoch))?;
    Ok(Some((id, share)))
}
