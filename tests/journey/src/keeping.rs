//! Two scenes at the embassy: what it proves to somebody who trusts nothing but the
//! authority's digits, and a disk that is taken out while copying in goes on.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hoidla_cli::human;
use serde_json::Value;

use crate::{Answer, Stage, programs::wait_until, stage::DISKS, story::Told};

/// Where the disk lies that was taken.
pub const TAKEN: &str = "laptop/disk-that-was-taken";
/// The auditor's folder.
const EVIDENCE: &str = "laptop/audit";

/// An audit, and its check from files alone; then with one letter altered.
pub(crate) fn prove(stage: &mut Stage) -> Result<()> {
    stage.narrator.scene("It proves what it keeps");
    stage.narrator.say("The embassy's TPM signs the head of a log in which every piece has its place. The agent keeps a receipt, asks for pieces at random places, and hands an auditor a folder.");
    let audited = stage.agent(&["audit", "--home", "home/agent", "--evidence", EVIDENCE])?;
    ensure!(audited.code == 0, "the audit failed:\n{}{}", audited.out, audited.err);
    stage.narrator.quote(audited.out.trim());
    stage.narrator.say("The auditor has that folder and the authority's digits, heard by telephone; no network, no key:");
    let checked = verify(stage)?;
    ensure!(checked.code == 0, "the verifier says no:\n{}{}", checked.out, checked.err);
    stage.narrator.quote(checked.out.trim());
    let receipt = fs::read_dir(stage.at(EVIDENCE).join("receipts"))?.next().context("the evidence holds no receipt")??.path();
    let good = fs::read(&receipt)?;
    let mut altered = good.clone();
    let at = altered.iter().rposition(u8::is_ascii_alphanumeric).context("a receipt without a letter")?;
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    fs::write(&receipt, altered)?;
    let refused = verify(stage)?;
    fs::write(&receipt, good)?;
    ensure!(refused.code == 1, "an altered receipt was not refused, but ended with {}:\n{}{}", refused.code, refused.out, refused.err);
    stage.narrator.shown("with one letter of the receipt altered, it says no");
    stage.narrator.done();
    Ok(())
}

fn verify(stage: &mut Stage) -> Result<Answer> {
    let digits = stage.digits()?;
    stage.auditor(&["--authority", &digits, "statement", EVIDENCE])
}

/// A disk is taken out of the running machine, a blank one put in, and copying in goes on.
pub(crate) fn swap_a_disk(stage: &mut Stage, path: &Path) -> Result<Instant> {
    stage.narrator.scene("A disk is taken out of the running machine");
    stage.narrator.say(
        "Somebody pulls a disk and puts a blank one in its place; hoidlad is told nothing. Meanwhile the institution copies in again:",
    );
    let disk = stage.at(DISKS[0]);
    let size = fs::metadata(&disk)?.len();
    fs::rename(&disk, stage.at(TAKEN))?;
    fs::File::create(&disk)?.set_len(size)?;
    let swapped = Instant::now();
    let code = stage.start_push(path)?.end()?;
    ensure!(code == 0 || code == 1, "the push ended with code {code}:\n{}", stage.programs.tail("hoidla-agent"));
    let noticed = Duration::from_secs(60);
    wait_until("hoidlad sees that a disk was taken", noticed, || !trays_are_whole(stage))
        .with_context(|| stage.programs.tail("hoidlad"))?;
    show_trays(stage)?;
    stage.narrator.shown("acknowledged; the blank disk is filled from the other one, without any key");
    stage.narrator.done();
    Ok(swapped)
}

/// Waits until the new disk is whole, and shows how the appliance says so.
pub(crate) fn rebuilt(stage: &mut Stage, swapped: Instant, told: &mut Told) -> Result<()> {
    let most = Duration::from_secs(60) + Duration::from_nanos(told.stream * 100);
    wait_until("the blank disk is rebuilt", most, || trays_are_whole(stage)).with_context(|| stage.programs.tail("hoidlad"))?;
    told.rebuilt = swapped.elapsed();
    stage.narrator.shown(&format!("meanwhile, {} after it was put in, the blank disk is whole:", human::duration(told.rebuilt)));
    show_trays(stage)
}

/// Whether neither disk holds what the other does not; false if `hoidlad` does not say.
fn trays_are_whole(stage: &Stage) -> bool {
    let status = stage.programs.run("hoidlad", &["status", "--state", "embassy/state", "--json"], "");
    let status = status.ok().and_then(|s| serde_json::from_str::<Value>(&s.out).ok());
    status.is_some_and(|s| s["panel"]["trays"].as_array().is_some_and(|t| t.iter().all(|t| t["says"] == "whole; it may be taken out")))
}

fn show_trays(stage: &mut Stage) -> Result<()> {
    let status = stage.panel()?;
    let trays = status.out.lines().skip_while(|l| !l.trim_start().starts_with("tray"));
    let trays: Vec<&str> = trays.take_while(|l| !l.trim_start().starts_with('-')).collect();
    stage.narrator.quote(&trays.join("\n"));
    Ok(())
}
