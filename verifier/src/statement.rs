//! An agent's completeness statement, with the folder that it came in.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use hoidla_cli::human;
use hoidla_crypto::sign::{self, Signed, VerifyingKey};
use hoidla_format::statements::{AgentCertificate, Completeness, KeptStream};
use hoidla_log::{Checkpoint, Extension, Receipt, SignedCheckpoint};

use crate::{
    judge,
    papers::{Papers, read},
    report::{Report, Verdict},
};

/// The most receipts in a folder.
const MOST_RECEIPTS: usize = 100_000;
/// The most other appliances' heads in a folder.
const MOST_WITNESSES: usize = 256;

/// Checks a folder.
pub fn check(folder: &Path, papers: &Papers) -> Result<Report> {
    match statement(folder, papers)? {
        Ok(said) => with_receipts(folder, papers, &said),
        Err(why) => Ok(Report::no(why)),
    }
}

/// The statement, if the agent that the authority certified for this dataset signed it.
fn statement(folder: &Path, papers: &Papers) -> Result<Result<Signed<Completeness>, String>> {
    let (certificate, note) = (read(&folder.join("agent.txt"))?, read(&folder.join("statement.txt"))?);
    let agent: Signed<AgentCertificate> = match sign::open(&certificate, Some("authority"), &papers.authority) {
        Ok(agent) => agent,
        Err(e) => return Ok(Err(format!("the agent's certificate: {e}"))),
    };
    let agent = agent.statement;
    let key = match VerifyingKey::from_sec1(&agent.key.0) {
        Ok(key) => key,
        Err(e) => return Ok(Err(format!("the agent's certificate: {e}"))),
    };
    let said: Signed<Completeness> = match sign::open(&note, Some(agent.agent.as_str()), &key) {
        Ok(said) => said,
        Err(e) => return Ok(Err(format!("the statement: {e}"))),
    };
    let s = &said.statement;
    if (&s.site, &s.dataset, &s.agent) != (&agent.site, &agent.dataset, &agent.agent) {
        return Ok(Err(format!("the agent {} may not speak for the dataset {} of {}", agent.agent, s.dataset, s.site)));
    }
    if s.created < agent.issued || s.created > agent.not_after {
        return Ok(Err(format!(
            "the statement is of {}, and the certificate of {} holds from {} to {}",
            s.created, s.agent, agent.issued, agent.not_after
        )));
    }
    if papers.known.site(&s.site).is_some_and(|site| site.revoked_agents.contains(&s.agent)) {
        return Ok(Err(format!("the newest site file here revokes the agent {}: anybody may hold its key", s.agent)));
    }
    Ok(Ok(said))
}

fn with_receipts(folder: &Path, papers: &Papers, said: &Signed<Completeness>) -> Result<Report> {
    let s = &said.statement;
    let signed = match SignedCheckpoint::parse(&read(&folder.join("checkpoint.txt"))?) {
        Ok(signed) => signed,
        Err(e) => return Ok(Report::no(e.to_string())),
    };
    let (head, origin) = (signed.head(), format!("hoidla/{}/{}", s.site, s.appliance));
    if (signed.note().hash(), head.size, head.counter, head.origin()) != (s.checkpoint, s.log_size, s.counter, origin) {
        return Ok(Report::no("the statement was made under another checkpoint than the one in the folder"));
    }
    let verified = match judge::believed(&signed, papers)? {
        Ok(verified) => verified,
        Err(no) => return Ok(no),
    };
    if let Err(why) = streams(folder, s, &signed)? {
        return Ok(Report::no(why));
    }
    let mut report = judge::whole(&signed, &verified);
    report.proven.insert(0, proven(s));
    report.said = said_by(s);
    if folder.join("before.txt").exists() {
        match led(folder, "before.txt", head, papers)? {
            Ok(grown) => report.proven.extend(grown.proven.into_iter().take(1)),
            Err(no) => return Ok(no),
        }
    } else {
        report.not.insert(
            0,
            "that the log only grew since an earlier audit: no earlier checkpoint is in the folder; hold it against your own".into(),
        );
    }
    if let Err(no) = witnessed(&folder.join("witnessed"), head, papers, &mut report)? {
        return Ok(no);
    }
    report.not.splice(0..0, not_proven(s));
    Ok(report)
}

/// Whether the extension in a folder leads from an older head there to the statement's; a report if so, or the no.
fn led(folder: &Path, older: &str, head: &Checkpoint, papers: &Papers) -> Result<Result<Report, Report>> {
    let (older, extension) = (read(&folder.join(older))?, read(&folder.join("extension.txt"))?);
    let grown = judge::consistency(&older, &extension, papers)?;
    let same = Extension::parse(&extension).is_ok_and(|e| e.checkpoint.head() == head);
    Ok(match grown.verdict {
        Verdict::No => Err(grown),
        Verdict::Whole if !same => Err(Report::no("the extension leads to another checkpoint than the statement's")),
        Verdict::Whole => Ok(grown),
    })
}

/// Adds what other appliances saw of the log: a folder each, with the head that they signed.
fn witnessed(folder: &Path, head: &Checkpoint, papers: &Papers, report: &mut Report) -> Result<Result<(), Report>> {
    if !folder.exists() {
        return Ok(Ok(()));
    }
    let entries = fs::read_dir(folder)?.take(MOST_WITNESSES + 1).map(|e| Ok(e?.path())).collect::<Result<BTreeSet<_>>>()?;
    ensure!(entries.len() <= MOST_WITNESSES, "{} holds too many folders", folder.display());
    for entry in entries {
        let seen = match SignedCheckpoint::parse(&read(&entry.join("head.txt"))?) {
            Ok(seen) => seen,
            Err(e) => return Ok(Err(Report::no(e.to_string()))),
        };
        if let Err(no) = led(&entry, "head.txt", head, papers)? {
            return Ok(Err(no));
        }
        let verified = match judge::believed(&seen, papers)? {
            Ok(verified) => verified,
            Err(no) => return Ok(Err(no)),
        };
        let (size, who) = (seen.head().size, entry.file_name().unwrap_or_default().to_string_lossy().into_owned());
        if verified.witnesses.is_empty() {
            report.not.push(format!("that {who} saw the log at {size} leaves: no line there is of an appliance that these papers tell of"));
        }
        for witness in &verified.witnesses {
            report.proven.push(format!(
                "{} saw this log when it had {size} leaves, and found it consistent with all it saw before; it only grew since",
                witness.origin
            ));
            report.not.extend(judge::doubts(witness).filter(|d| !report.not.contains(d)));
        }
    }
    Ok(Ok(()))
}

/// Every stream of the statement has its receipt under the checkpoint, and there is no receipt besides.
fn streams(folder: &Path, said: &Completeness, signed: &SignedCheckpoint) -> Result<Result<(), String>> {
    let receipts = folder.join("receipts");
    let entries = fs::read_dir(&receipts).with_context(|| format!("cannot read {}", receipts.display()))?.count();
    ensure!(entries <= MOST_RECEIPTS, "{} holds too many files", receipts.display());
    let mut seen = BTreeSet::new();
    for stream in &said.streams {
        let path = receipts.join(format!("{}.txt", stream.stream));
        if !path.exists() {
            return Ok(Err(format!("there is no receipt for stream {}", stream.stream)));
        }
        if let Err(why) = fits(&read(&path)?, stream, said, signed) {
            return Ok(Err(format!("stream {}: {why}", stream.stream)));
        }
        if !seen.insert(stream.stream) {
            return Ok(Err(format!("stream {} is named twice", stream.stream)));
        }
    }
    Ok(if entries == seen.len() { Ok(()) } else { Err("there are receipts of streams that the statement doesn't name".into()) })
}

/// Whether a receipt is that of a stream, as the statement says it stands.
fn fits(receipt: &[u8], stream: &KeptStream, said: &Completeness, signed: &SignedCheckpoint) -> Result<(), String> {
    let receipt = Receipt::parse(receipt).map_err(|e| e.to_string())?;
    let (leaf, covers) = (receipt.leaf(), receipt.covers());
    // Every byte of it, signatures too: each receipt of a folder that is called whole is whole alone.
    if receipt.checkpoint().write() != signed.write() {
        return Err("its receipt is under another checkpoint, or one signed otherwise, than the folder's".into());
    }
    if leaf.stream != stream.stream || leaf.dataset != said.dataset {
        return Err("its receipt is of another stream or dataset".into());
    }
    if (covers.length, covers.root) != (stream.length, stream.root) {
        return Err("its receipt is over other bytes than the statement says".into());
    }
    Ok(())
}

fn proven(s: &Completeness) -> String {
    let bytes = s.streams.iter().map(|k| u128::from(k.length)).sum::<u128>();
    format!(
        "hoidla/{}/{} had committed to {} of {} of {}, each with one root over all its bytes",
        s.site,
        s.appliance,
        human::count(s.streams.len() as u64, "stream"),
        human::bytes(u64::try_from(bytes).unwrap_or(u64::MAX)),
        s.dataset
    )
}

fn said_by(s: &Completeness) -> Vec<String> {
    let own = s.streams.iter().filter(|k| k.copied_here).count();
    let generations: BTreeSet<u32> = s.streams.iter().map(|k| k.generation).collect();
    vec![
        format!("at {}, by its own clock, the agent {} says that these are all streams there", s.created, s.agent),
        format!(
            "they are {}, and {own} of the streams stand as it saw them acknowledged",
            human::count(generations.len() as u64, "generation")
        ),
        format!(
            "it asked for {} of {} at random places, and the appliance showed bytes with hashes that its log holds for those places",
            human::count(s.sampled_frames.into(), "frame"),
            human::bytes(s.sampled_bytes)
        ),
    ]
}

fn not_proven(s: &Completeness) -> Vec<String> {
    let bytes = match s.sampled_frames {
        0 => "that any byte is still there: no samples were taken",
        _ => {
            "that every byte is still there: samples make a loss likely to be seen if the appliance's program is the released one; one that \
             is not could show other bytes that its log holds. Only a restore shows all"
        }
    };
    vec!["that the registry held no more than the agent copied in: only its institution can tell".to_owned(), bytes.to_owned()]
}
