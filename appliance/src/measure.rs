//! Register 15 of the TPM: the papers in force, before the door opens.
//!
//! Promises: the register tells which papers came into force since the machine's start, and
//! [`measure`] gives the digests that lead there, the last of which is the one now in force. The
//! same papers again are not extended again. A register that somebody else extended is refused:
//! nobody could tell from a quote under which papers this appliance runs.

use std::fs;

use anyhow::{Context, ensure};
use hoidla_format::{Hash32, text::from_hex};
use hoidla_tpm::Tpm;
use hoidla_verify::measured::{MOST, PAPERS, replay};

use crate::{
    config::{State, replace},
    papers::Papers,
};

/// Extends the register by the papers in force; gives all that was extended since the start.
pub fn measure(state: &State, tpm: &Tpm, papers: &Papers) -> anyhow::Result<Vec<Hash32>> {
    let digest = papers.digest();
    let value = tpm.pcr_read(&[PAPERS])?[0].value;
    let mut since = since_start(&kept(state)?, &value).context(
        "the TPM's register 15 holds what hoidlad didn't put there, so nobody could tell from a quote which papers are in force: \
         restart the machine (power off and on; if it comes again, something else on this machine writes to register 15)",
    )?;
    if since.last() != Some(&digest) {
        ensure!(since.len() < MOST, "{MOST} sets of papers came into force since this machine's start: restart the machine");
        since.push(digest);
        // First what will be extended: after a power cut the register is zero, after a crash one of the two fits.
        keep(state, &since)?;
        tpm.pcr_extend(PAPERS, &digest)?;
    }
    ensure!(
        tpm.pcr_read(&[PAPERS])?[0].value == replay(&since),
        "the TPM's register 15 was extended by somebody else meanwhile; restart the machine"
    );
    Ok(since)
}

/// What of the kept digests the register holds: all, all but one that a crash kept out, or none.
fn since_start(kept: &[Hash32], value: &Hash32) -> Option<Vec<Hash32>> {
    let before = &kept[..kept.len().saturating_sub(1)];
    [kept, before, &[]].into_iter().find(|digests| replay(digests) == *value).map(<[_]>::to_vec)
}

fn kept(state: &State) -> anyhow::Result<Vec<Hash32>> {
    let path = state.measured();
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| path.display().to_string())?,
    };
    let all: Option<Vec<Hash32>> = text.lines().map(|l| from_hex(l).map(Hash32)).collect();
    all.with_context(|| format!("{} is damaged; restart the machine after removing it", path.display()))
}

fn keep(state: &State, digests: &[Hash32]) -> anyhow::Result<()> {
    let text: String = digests.iter().map(|d| format!("{d}\n")).collect();
    replace(&state.measured(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_verify::measured;

    #[test]
    fn a_crash_or_a_restart_between_leaves_nothing_unexplained() {
        let d = |n| measured::digest(&Hash32([n; 32]), &Hash32([n; 32]));
        let kept = [d(1), d(2)];
        assert_eq!(since_start(&kept, &replay(&kept)), Some(kept.to_vec()));
        assert_eq!(since_start(&kept, &replay(&[d(1)])), Some(vec![d(1)]), "crashed before the second was extended");
        assert_eq!(since_start(&kept, &replay(&[])), Some(vec![]), "the machine was restarted");
        assert_eq!(since_start(&kept, &replay(&[d(2)])), None);
        assert_eq!(since_start(&[], &replay(&[d(2)])), None, "somebody else's");
    }
}
