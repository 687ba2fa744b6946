//! Checkpoints, receipts, extensions, and certificates of erasure.

use anyhow::{Result, anyhow};
use hoidla_cli::{NextStep, human};
use hoidla_log::{Extension, Receipt, SignedCheckpoint};
use hoidla_verify::{Certificate, Verified, Vouched, checkpoint::check};

use crate::{
    papers::Papers,
    report::{Report, Verdict},
};

/// What to do for want of papers.
const GIVE_PAPERS: &str = "give them with --papers; the authority and every agent of the site have them";

/// Checks a checkpoint's signatures: an error if that cannot be told, a report if the answer is no.
pub fn believed(signed: &SignedCheckpoint, papers: &Papers) -> Result<Result<Verified, Report>> {
    match check(signed, &papers.known) {
        Ok(verified) => Ok(Ok(verified)),
        Err(e) if e.cannot_tell() => Err(anyhow!(e)).next(GIVE_PAPERS),
        Err(e) => Ok(Err(Report::no(e.to_string()))),
    }
}

/// What a believed checkpoint proves, and what not.
pub fn whole(signed: &SignedCheckpoint, verified: &Verified) -> Report {
    let (head, own) = (signed.head(), &verified.own);
    let mut proven = vec![format!(
        "the appliance {} signed for a log of {} leaves when its TPM's counter stood at {}, having been powered for {} in all and switched on {} times, by a clock that its owner can set forward; its registers were those of release {}{}",
        head.origin(),
        head.size,
        head.counter,
        human::duration(std::time::Duration::from_millis(own.attest.clock.powered_ms)),
        own.attest.clock.resets,
        own.release,
        own.image.as_ref().map_or(String::new(), |name| format!(", of the image {name} and its manifest")),
    )];
    proven.extend(
        verified.witnesses.iter().map(|w| format!("{} saw this head too, and found it consistent with all it saw before", w.origin)),
    );
    let mut not = vec!["that this is the newest head, or the only one: compare it with checkpoints that others hold".to_owned()];
    not.extend(doubts(own));
    verified.witnesses.iter().for_each(|w| not.extend(doubts(w)));
    not.extend(own.doubts.iter().filter(|d| d.general()).map(|d| format!("for want of papers: {d}")));
    if verified.strangers > 0 {
        not.push(format!(
            "anything by {} of appliances that these papers don't tell of",
            human::count(verified.strangers as u64, "signature")
        ));
    }
    Report { verdict: Verdict::Whole, proven, said: vec![], not }
}

/// What makes one appliance's word worth less, if anything.
pub fn doubts(who: &Vouched) -> Option<String> {
    let doubts: Vec<String> = who.doubts.iter().filter(|d| !d.general()).map(ToString::to_string).collect();
    (!doubts.is_empty()).then(|| format!("full assurance of {}: {}", who.origin, doubts.join("; ")))
}

/// A checkpoint alone.
pub fn checkpoint(bytes: &[u8], papers: &Papers) -> Result<Report> {
    let signed = match SignedCheckpoint::parse(bytes) {
        Ok(signed) => signed,
        Err(e) => return Ok(Report::no(e.to_string())),
    };
    Ok(believed(&signed, papers)?.map_or_else(|no| no, |verified| whole(&signed, &verified)))
}

/// A receipt, with its checkpoint.
pub fn receipt(bytes: &[u8], papers: &Papers) -> Result<Report> {
    let receipt = match Receipt::parse(bytes) {
        Ok(receipt) => receipt,
        Err(e) => return Ok(Report::no(e.to_string())),
    };
    let verified = match believed(receipt.checkpoint(), papers)? {
        Ok(verified) => verified,
        Err(no) => return Ok(no),
    };
    let mut report = whole(receipt.checkpoint(), &verified);
    let (leaf, covers) = (receipt.leaf(), receipt.covers());
    report.proven.insert(
        0,
        format!(
            "{} had committed to the first {} bytes of stream {} of {}: their chain's root is {}",
            verified.own.origin, covers.length, leaf.stream, leaf.dataset, covers.root
        ),
    );
    report.not.insert(0, "that those bytes are still there: for that see the samples of an audit".into());
    Ok(report)
}

/// Two checkpoints of one log, and the proof between them. By themselves they are a contradiction
/// only if they are of one size with two roots, or if one TPM's counter went back; a proof that
/// fails between two sizes shows nothing, as anybody can damage one.
pub fn consistency(old: &[u8], extension: &[u8], papers: &Papers) -> Result<Report> {
    let (old, extension) = match (SignedCheckpoint::parse(old), Extension::parse(extension)) {
        (Ok(old), Ok(extension)) => (old, extension),
        (Err(e), _) | (_, Err(e)) => return Ok(Report::no(e.to_string())),
    };
    let new = &extension.checkpoint;
    let (before, verified) = match (believed(&old, papers)?, believed(new, papers)?) {
        (Ok(before), Ok(verified)) => (before, verified),
        (Err(no), _) | (_, Err(no)) => return Ok(no),
    };
    let (from, to) = (old.head(), new.head());
    if let Some(why) = from.contradicts(to, before.own.attest.signer == verified.own.attest.signer) {
        return Ok(Report::no(why));
    }
    if let Err(e) = extension.follows(from) {
        let both = format!("both heads are signed, by {} of {} leaves and by {} of {}", from.origin(), from.size, to.origin(), to.size);
        return Err(anyhow!("{both}, and this does not prove that one begins with the other: {e}")).next(
            "get the extension between exactly these two; whoever cannot show it, of a log that only grew, owes the authority a reason",
        );
    }
    let mut report = whole(new, &verified);
    let how = if from.size == to.size {
        format!("stands at {} leaves still", to.size)
    } else {
        format!("only grew, from {} to {} leaves", from.size, to.size)
    };
    report.proven.insert(0, format!("the log of {} {how}: nothing in it was changed or removed", to.origin()));
    Ok(report)
}

/// A certificate of erasure.
pub fn erased(bytes: &[u8], papers: &Papers) -> Result<Report> {
    let certificate = match Certificate::parse(bytes) {
        Ok(certificate) => certificate,
        Err(e) => return Ok(Report::no(e.to_string())),
    };
    let vouched = match certificate.check(&papers.known) {
        Ok(vouched) => vouched,
        Err(e) if e.cannot_tell() => return Err(anyhow!(e)).next(GIVE_PAPERS),
        Err(e) => return Ok(Report::no(e.to_string())),
    };
    let says = certificate.says();
    let serial = if says.serial.is_empty() { "without a serial number".into() } else { format!("with the serial number {}", says.serial) };
    let proven = vec![
        format!(
            "the appliance {}, running release {}, overwrote all {} bytes that the disk in its tray {} showed with zeros, and read them all back as zeros",
            vouched.origin, vouched.release, says.bytes, says.tray
        ),
        format!("that disk, {serial}, was {}; the hash of its ends was {}", says.was, says.seen),
        format!(
            "it was done after {} of powered time, when the log had {} leaves under the root {}",
            human::duration(std::time::Duration::from_secs(says.powered)),
            says.log_size,
            says.log_root
        ),
    ];
    let mut not = vec![
        "that the disk keeps nothing aside where no program reads: worn-out blocks may still hold ciphertext".to_owned(),
        "that no other disk or copy exists, or that the disk in your hand is that one: compare its serial number".to_owned(),
        format!("the day: {} is what the machine's clock said, and the disk told its serial number itself", says.created),
    ];
    not.extend(doubts(&vouched));
    Ok(Report { verdict: Verdict::Whole, proven, said: vec![], not })
}

/// What the papers say.
pub fn site(papers: &Papers) -> Report {
    let mut proven = vec![];
    for a in papers.known.attesters() {
        let named = if a.named { "" } else { ", no longer named by the newest site file here" };
        proven.push(format!("the authority enrolled {} ({} TPM, {}){named}", a.origin, a.identity.tpm, a.proof.words()));
        let releases: Vec<String> = papers.known.releases(&a.site).map(|r| format!("{} (epoch {})", r.name, r.epoch)).collect();
        proven.push(format!("releases that {} may run, as far as these papers go: {}", a.origin, releases.join(", ")));
    }
    if proven.is_empty() {
        proven.push("these papers are the authority's, but none of them enrols an appliance whose identity is here too".into());
    }
    let mut not = vec!["that these are all papers, or the newest: ask the authority".to_owned()];
    not.extend(papers.known.passed_over().iter().map(|e| format!("anything by a paper that does not fit the newest site file here: {e}")));
    Report { verdict: Verdict::Whole, proven, said: vec![], not }
}
