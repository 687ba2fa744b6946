//! Writing a grant: who may read what, why, and for how long.
//!
//! Promises: what is written passes the checks that appliance and custodians make, and covers
//! exactly the vault certificates at hand, by hash, but for vault epochs that were retired.

use anyhow::{Result, bail, ensure};
use hoidla_crypto::{random, sign::Signed};
use hoidla_format::{
    Bytes, Moment, Name,
    statements::{Covers, Grant, Reader, Vault},
};

use crate::papers::{Known, Papers};

/// A dataset, and one of its vault epochs or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The dataset.
    pub dataset: Name,
    /// Which vault epoch; none for all.
    pub vault_epoch: Option<u32>,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(Self { dataset: text.parse()?, vault_epoch: None }),
            Some((dataset, epoch)) => {
                let vault_epoch = epoch.parse().map_err(|_| format!("{epoch:?} is no vault epoch; write DATASET or DATASET:EPOCH"))?;
                Ok(Self { dataset: dataset.parse()?, vault_epoch: Some(vault_epoch) })
            }
        }
    }
}

/// What a grant shall say.
pub struct Request {
    /// The appliance that shall open.
    pub appliance: Name,
    /// For whom.
    pub reader: Reader,
    /// What.
    pub wanted: Vec<Wanted>,
    /// Why.
    pub purpose: String,
    /// How long the opened keys may be fetched, in seconds.
    pub open_for_seconds: u32,
}

/// Writes a grant over the vaults at hand.
pub fn write(known: &Known, papers: &Papers, request: Request) -> Result<Grant> {
    let mut covers = Vec::new();
    for wanted in &request.wanted {
        covers.extend(covered(known, papers, wanted)?);
    }
    let mut nonce = vec![0; 16];
    random(&mut nonce);
    let grant = Grant {
        site: known.site.statement.site.clone(),
        appliance: request.appliance,
        purpose: request.purpose,
        created: Moment::now(),
        open_for_seconds: request.open_for_seconds,
        nonce: Bytes(nonce),
        reader: request.reader,
        covers,
    };
    hoidla_quorum::grant::check(&grant, &known.site.statement, &papers.vaults)?;
    Ok(grant)
}

fn covered(known: &Known, papers: &Papers, wanted: &Wanted) -> Result<Vec<Covers>> {
    if !known.site.statement.datasets.iter().any(|d| d.name == wanted.dataset) {
        let names: Vec<_> = known.site.statement.datasets.iter().map(|d| d.name.as_str()).collect();
        bail!("there is no dataset {}; the site has {}", wanted.dataset, names.join(", "));
    }
    let fits =
        |v: &&Signed<Vault>| v.statement.dataset == wanted.dataset && wanted.vault_epoch.is_none_or(|e| e == v.statement.vault_epoch);
    let live = |v: &&Signed<Vault>| papers.may_open(&v.statement.dataset, v.statement.vault_epoch);
    let (live, retired): (Vec<_>, Vec<_>) = papers.vaults.iter().filter(fits).partition(live);
    let mut out: Vec<Covers> = live
        .into_iter()
        .map(|v| Covers { dataset: v.statement.dataset.clone(), vault_epoch: v.statement.vault_epoch, vault: v.hash })
        .collect();
    out.sort_by_key(|c| c.vault_epoch);
    out.dedup();
    if let (true, Some(v)) = (out.is_empty(), retired.first()) {
        let (dataset, epoch) = (&wanted.dataset, v.statement.vault_epoch);
        bail!("the newest release doesn't approve vault epoch {epoch} of {dataset}: it was retired, or is newer than the release");
    }
    ensure!(!out.is_empty(), "there is no vault certificate of {} among those at hand", wanted.dataset);
    Ok(out)
}

/// A time such as `90s`, `30m`, `2h` or `1d`, in seconds.
pub fn duration(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time: write it like 90s, 30m, 2h or 1d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_datasets_are_read() {
        assert_eq!(["90s", "30m", "2h", "1d"].map(|t| duration(t).unwrap()), [90, 1800, 7200, 86_400]);
        for bad in ["", "5", "h", "-1h", "1.5h", "9999999d", "2 h", "5é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!("land:2".parse(), Ok(Wanted { dataset: "land".parse().unwrap(), vault_epoch: Some(2) }));
        assert_eq!("land".parse(), Ok(Wanted { dataset: "land".parse().unwrap(), vault_epoch: None }));
        assert!("land:".parse::<Wanted>().is_err() && "Land".parse::<Wanted>().is_err());
    }
}
