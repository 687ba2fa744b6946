//! After a dealing: does my share open?
//!
//! Promises: opens this custodian's own envelopes and nothing else, holds each share against the
//! commitment in the signed vault certificate, keeps nothing.

use anyhow::{Result, ensure};
use hoidla_cli::NextStep;
use hoidla_crypto::envelope::CustodianKeys;
use hoidla_format::{Name, statements::Door};
use serde::Serialize;

use crate::{papers::Papers, share};

/// How one's share of one vault and door stands.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Confirmed {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// The door.
    pub door: Door,
    /// The share's x coordinate.
    pub index: u8,
    /// Why it doesn't open; none if it does.
    pub error: Option<String>,
    /// Whether it could be tried: the vault certificate was among the files.
    pub tried: bool,
}

/// Tries all own envelopes among the papers.
pub fn confirm(name: &Name, keys: &CustodianKeys, papers: &Papers) -> Result<Vec<Confirmed>> {
    let mut out = Vec::new();
    for envelopes in &papers.envelopes {
        let e = &envelopes.statement;
        let Some(sent) = e.shares.iter().find(|s| s.custodian == *name) else { continue };
        let vault = papers.vaults.iter().find(|v| v.hash == e.vault);
        let error = match vault {
            None => Some("the vault certificate it belongs to is not among the files".to_owned()),
            Some(vault) => share::own(name, keys, vault, e).err().map(|e| format!("{:#}", e)),
        };
        let (dataset, tried) = (e.dataset.clone(), vault.is_some());
        out.push(Confirmed { dataset, vault_epoch: e.vault_epoch, door: e.door, index: sent.index, error, tried });
    }
    out.sort_by(|a, b| (&a.dataset, a.vault_epoch).cmp(&(&b.dataset, b.vault_epoch)));
    if out.is_empty() {
        return Err(anyhow::anyhow!("no envelope among these files is for {name}"))
            .next("give the folder with the envelopes-... and vault-... files of the dealing");
    }
    ensure!(out.len() <= 4096, "too many envelopes");
    Ok(out)
}
