//! Releases: which image's measurements the TPMs accept, and for which vault epochs.
//!
//! Promises: a release's epoch is above every earlier one's and not below any recorded TPM's
//! counter. A vault epoch that is left out is retired once the appliances' counters move on;
//! this program only signs, `hoidlad` moves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Hash32, Name,
    statements::{PcrValue, Release},
    text::from_hex,
};
use hoidla_verify::{Terms, release::approve};

use crate::home::{Home, write_new};

/// Signs the next release over these PCR values, for all vault epochs dealt but those retired.
pub fn sign(home: &Home, name: &Name, pcrs: &Path, retire: &[(Name, u32)], passphrase: &PassphraseSource) -> Result<Release> {
    let site = home.signed_site()?.statement;
    let pcrs = read_pcrs(pcrs)?;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    let dealt: Vec<(Name, u32)> =
        home.vaults(&keys.verifying())?.into_iter().map(|v| (v.statement.dataset, v.statement.vault_epoch)).collect();
    for (dataset, epoch) in retire {
        ensure!(dealt.contains(&(dataset.clone(), *epoch)), "there is no vault epoch {epoch} of {dataset} to retire");
    }
    let releases = home.releases(&keys.verifying())?;
    let last = releases.last().map(|r| &r.statement);
    // What was retired once stays so, even if no release had named it yet.
    let before = retired_before(home)?;
    let gone = |v: &(Name, u32)| retire.contains(v) || before.contains(v) || retired(&releases, &v.0, v.1);
    let vaults = dealt.into_iter().filter(|v| !gone(v)).collect();
    let counter = home.identities(&site)?.iter().map(|i| i.release_counter).max().unwrap_or(0);
    let epoch = last.map_or(1, |r| r.epoch + 1).max(counter);
    let release =
        approve(&keys.release, Terms { site: site.site, name: name.clone(), development: site.development, epoch, pcrs, vaults })?;
    note_retired(home, before, retire)?;
    write_new(&home.release(epoch), keys.sign(&release)?.as_bytes())?;
    Ok(release)
}

fn retired_before(home: &Home) -> Result<BTreeSet<(Name, u32)>> {
    let path = home.retired();
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let all: Result<_, _> = text.lines().map(vault_epoch).collect();
    all.map_err(|e| anyhow!("{}: {e}", path.display())).next("each line is a retired DATASET:EPOCH; mend the line, don't remove it")
}

fn note_retired(home: &Home, mut all: BTreeSet<(Name, u32)>, more: &[(Name, u32)]) -> Result<()> {
    if more.is_empty() {
        return Ok(());
    }
    all.extend(more.iter().cloned());
    let text: String = all.iter().map(|(dataset, epoch)| format!("{dataset}:{epoch}\n")).collect();
    fs::write(home.retired(), text).with_context(|| format!("cannot write {}", home.retired().display()))
}

/// Whether a vault epoch was retired: a release approved it, and the newest (they come in order) doesn't.
pub fn retired(releases: &[Signed<Release>], dataset: &Name, vault_epoch: u32) -> bool {
    let approves = |r: &Signed<Release>| r.statement.vaults.iter().any(|v| v.dataset == *dataset && v.vault_epoch == vault_epoch);
    releases.iter().any(approves) && releases.last().is_some_and(|r| !approves(r))
}

/// PCR values as JSON: `{"4": "64 hexadecimal digits", "11": "...", ...}`.
fn read_pcrs(path: &Path) -> Result<Vec<PcrValue>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("write the image's measurements into it: {\"4\": \"<64 hexadecimal digits>\", \"11\": ..., \"12\": ..., \"13\": ...}")?;
    parse_pcrs(&text)
        .with_context(|| path.display().to_string())
        .next("write it like {\"4\": \"<64 hexadecimal digits>\", \"11\": ..., \"12\": ..., \"13\": ...}")
}

fn parse_pcrs(text: &str) -> Result<Vec<PcrValue>> {
    let map: BTreeMap<String, String> = serde_json::from_str(text).context("not a JSON object of PCR values")?;
    let mut pcrs = Vec::new();
    for (index, value) in map {
        let Ok(index) = index.parse::<u8>() else { bail!("{index:?} is no PCR") };
        let Some(value) = from_hex(&value.to_lowercase()) else { bail!("the value of PCR {index} is not 64 hexadecimal digits") };
        pcrs.push(PcrValue { index, value: Hash32(value) });
    }
    pcrs.sort_by_key(|p| p.index);
    ensure!(pcrs.iter().map(|p| p.index).eq([4, 11, 12, 13]), "a release approves exactly the PCRs 4, 11, 12 and 13");
    Ok(pcrs)
}

/// `DATASET:EPOCH` as given on the command line.
pub fn vault_epoch(text: &str) -> Result<(Name, u32), String> {
    let (dataset, epoch) = text.split_once(':').ok_or("write DATASET:EPOCH, such as population:1")?;
    Ok((dataset.parse()?, epoch.parse().map_err(|_| format!("{epoch:?} is no vault epoch"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_the_four_that_follow_from_the_image() {
        let zero = "0".repeat(64);
        let four = format!(r#"{{"13":"{zero}","4":"{zero}","12":"{zero}","11":"{}"}}"#, "AB".repeat(32));
        assert_eq!(parse_pcrs(&four).unwrap().iter().map(|p| p.index).collect::<Vec<_>>(), [4, 11, 12, 13]);
        for bad in [
            "",
            "{}",
            "[]",
            &four.replace("13", "14"),
            &four.replace("13", "x"),
            &four.replace("AB", "A"),
            &four.replace("\"13\"", "\"7\""),
        ] {
            assert!(parse_pcrs(bad).is_err(), "{bad}");
        }
        assert_eq!(vault_epoch("land:2").unwrap(), ("land".parse().unwrap(), 2));
        assert!(vault_epoch("land").is_err() && vault_epoch("land:x").is_err() && vault_epoch("L:1").is_err());
    }
}
