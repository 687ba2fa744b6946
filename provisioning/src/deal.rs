//! Dealing: a vault epoch for each dataset, with a half for each appliance.
//!
//! Promises: all is computed and tried ([`hoidla_quorum::dealing`]) before the first file is
//! written; an appliance's halves grow, but for those of retired vault epochs, and begin anew
//! when its TPM was replaced.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hoidla_cli::{NextStep, Output, PassphraseSource};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Hash32, Moment, Name, statement,
    statements::{ApplianceIdentity, Halves, Site, TpmHalf, Vault},
};
use hoidla_quorum::{
    dealing::{self, Dealing, DealingInput},
    share::VaultId,
};

use crate::{
    halves,
    home::{DealingNotes, Home, Keys, write_over},
};

/// What to deal.
pub struct Request {
    /// Which datasets; none for all that have no vault yet.
    pub datasets: Vec<Name>,
    /// Identities of appliances, to record first.
    pub identities: Vec<PathBuf>,
    /// Whether an identity may take the place of another.
    pub replace: bool,
}

/// What was dealt.
pub struct Dealt {
    /// The vault certificates.
    pub vaults: Vec<Vault>,
    /// The appliances that got halves, with the hashes of their identities.
    pub appliances: Vec<(Name, Hash32)>,
    /// Quorums tried.
    pub tested: u64,
}

/// Deals the next vault epoch of each dataset.
pub fn deal(home: &Home, request: &Request, passphrase: &PassphraseSource, output: &Output) -> Result<Dealt> {
    let site = home.signed_site()?.statement;
    for file in &request.identities {
        home.record(file, &site, request.replace)?;
    }
    let appliances = home.identities(&site)?;
    ensure_appliances(&site, &appliances)?;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    let vaults = home.vaults(&keys.verifying())?;
    let datasets = chosen(&site, &request.datasets, &vaults)?;

    let bar = output.count("dealing", Some(datasets.len() as u64));
    let mut dealt = Vec::new();
    for dataset in &datasets {
        bar.note(dataset.as_str());
        dealt.push(deal_one(home, &site, &keys, dataset, next_epoch(dataset, &vaults), &appliances)?);
        bar.add(1);
    }
    bar.done();
    write(home, &keys, &site, &appliances, &dealt)?;
    Ok(Dealt {
        tested: dealt.iter().map(|d| d.tested).sum(),
        vaults: dealt.into_iter().map(|d| d.vault).collect(),
        appliances: appliances.iter().map(|a| (a.name.clone(), statement::hash(&statement::write(a)))).collect(),
    })
}

fn ensure_appliances(site: &Site, recorded: &[ApplianceIdentity]) -> Result<()> {
    let missing = site.appliances.iter().find(|a| !recorded.iter().any(|r| r.name == a.name));
    match missing {
        Some(a) => Err(anyhow::anyhow!("the identity of the appliance {} isn't recorded here", a.name))
            .next("run hoidlad identify there, and give its file with --identity (an appliance dealt without couldn't open)"),
        None => Ok(()),
    }
}

/// The datasets asked for, or all that have no vault yet.
fn chosen(site: &Site, asked: &[Name], vaults: &[Signed<Vault>]) -> Result<Vec<Name>> {
    if let Some(unknown) = asked.iter().find(|n| !site.datasets.iter().any(|d| d.name == **n)) {
        bail!("the site file names no dataset {unknown}");
    }
    let has_vault = |name: &Name| vaults.iter().any(|v| v.statement.dataset == *name);
    let all = site.datasets.iter().map(|d| &d.name);
    let out: Vec<Name> = all.filter(|n| if asked.is_empty() { !has_vault(n) } else { asked.contains(n) }).cloned().collect();
    if out.is_empty() {
        return Err(anyhow::anyhow!("every dataset has a vault already"))
            .next("to deal the next vault epoch of one (after an opening, for a new appliance), name it with --dataset");
    }
    Ok(out)
}

fn next_epoch(dataset: &Name, vaults: &[Signed<Vault>]) -> u32 {
    let last = vaults.iter().filter(|v| v.statement.dataset == *dataset).map(|v| v.statement.vault_epoch).max();
    last.unwrap_or(0) + 1
}

fn deal_one(home: &Home, site: &Site, keys: &Keys, dataset: &Name, vault_epoch: u32, appliances: &[ApplianceIdentity]) -> Result<Dealing> {
    let entry = site.datasets.iter().find(|d| d.name == *dataset).context("a dataset of the site")?;
    let roster = home.roster_of(site, &entry.roster, &keys.verifying())?;
    let input = DealingInput {
        vault: VaultId { site: site.site.clone(), dataset: dataset.clone(), vault_epoch },
        development: site.development,
        roster: &roster.statement,
        release_key: &keys.release_public(),
        appliances,
        dealt: Moment::now(),
    };
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    dealing::deal(&input, &mut rng).with_context(|| format!("the vault of {dataset} was not dealt"))
}

/// Signs everything, then writes it.
fn write(home: &Home, keys: &Keys, site: &Site, appliances: &[ApplianceIdentity], dealt: &[Dealing]) -> Result<()> {
    let grown = |a| Ok((a, halves::sign(keys, &grown(home, keys, site, a, dealt)?)?));
    let halves: Vec<(&ApplianceIdentity, String)> = appliances.iter().map(grown).collect::<Result<_>>()?;
    let signed = |d: &Dealing| -> Result<DealingNotes> {
        Ok(DealingNotes {
            vault: keys.sign(&d.vault)?,
            quorum: keys.sign(&d.quorum)?,
            recovery: keys.sign(&d.recovery)?,
            wrap: keys.sign(&d.recovery_wrap)?,
        })
    };
    let notes: Vec<DealingNotes> = dealt.iter().map(signed).collect::<Result<_>>()?;
    for (appliance, note) in halves {
        write_over(&home.halves(&appliance.name), note.as_bytes())?;
    }
    dealt.iter().zip(&notes).try_for_each(|(d, notes)| home.write_dealing(&d.vault, notes))
}

/// An appliance's halves with those of this dealing added, and without those of no more use.
fn grown(home: &Home, keys: &Keys, site: &Site, appliance: &ApplianceIdentity, dealt: &[Dealing]) -> Result<Halves> {
    let identity = statement::hash(&statement::write(appliance));
    // Halves sealed to a TPM that was replaced are of no use.
    let old = home.halves_of(&appliance.name, &keys.verifying())?.filter(|h| h.statement.identity == identity);
    let mut halves: Vec<TpmHalf> = old.map(|h| h.statement.halves).unwrap_or_default();
    halves.retain(halves::live(home, keys)?);
    halves.extend(dealt.iter().flat_map(|d| &d.halves).filter(|(name, _)| *name == appliance.name).map(|(_, half)| half.clone()));
    Ok(Halves { site: site.site.clone(), appliance: appliance.name.clone(), identity, halves })
}
