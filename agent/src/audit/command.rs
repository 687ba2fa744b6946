//! `audit`, and what a push does when it is done.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use clap::Args;
use hoidla_cli::{Outcome, Output, human};
use hoidla_door::Target;
use hoidla_protocol::StreamEntry;
use hoidla_verify::Vouched;
use serde_json::{Value, json};

use super::{Alarm, Auditor, Head, Other, evidence, evidence::Proven, sample::Sampled};
use crate::{home::Home, state::State};

/// What to audit.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How many frames, at random places of all streams, to ask for whole.
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub samples: u32,
    /// Write a folder for an auditor: the agent's signed statement, receipts, checkpoint, papers.
    #[arg(long, value_name = "DIR")]
    pub evidence: Option<PathBuf>,
}

/// Runs an audit and says what it showed.
pub fn run(out: Output, home: &Home, target: &Target, wish: &Arguments) -> Result<Outcome> {
    audit(out, home, target, wish).or_else(|e| alarmed(out, &e).ok_or(e))
}

/// Carries the newest head of one appliance to another.
pub fn run_witness(out: Output, from: (&Home, &Target), to: (&Home, &Target)) -> Result<Outcome> {
    let carry = || -> Result<Outcome> {
        let mut auditor = Auditor::enter(from.0, from.1)?;
        let least = auditor.log_size()?;
        let head = auditor.checkpoint(least)?;
        let mut there = Auditor::enter(to.0, to.1)?;
        let papers = there.kept().papers()?.into_iter().map(|(_, paper)| paper).collect();
        let origin = there.kept().origin().to_owned();
        let seen = auditor.witnessed(&head, &mut Other { origin: origin.clone(), papers, ask: &mut |request| there.ask(request) })?;
        let (log, size) = (seen.head().origin(), seen.head().size);
        let text = format!("{origin} saw the head of {log}, {size} leaves, found it consistent with all it saw before, and signed it");
        out.result(&json!({ "log": log, "size": size, "witness": origin }), text)?;
        Ok(Outcome::Done)
    };
    carry().or_else(|e| alarmed(out, &e).ok_or(e))
}

/// Tells an alarm, if that is what an error is: verified, and the answer is no.
fn alarmed(out: Output, e: &anyhow::Error) -> Option<Outcome> {
    let alarm = e.downcast_ref::<Alarm>()?;
    tell_alarm(out, alarm);
    Some(Outcome::No)
}

fn tell_alarm(out: Output, alarm: &Alarm) {
    alarm.to_string().lines().for_each(|line| eprintln!("{}", hoidla_cli::screen::plain(line)));
    if out.json {
        let value = json!({ "alarm": alarm.what, "appliance": alarm.origin, "evidence": alarm.evidence.as_ref().ok(), "not_written": alarm.evidence.as_ref().err() });
        _ = out.result(&value, "");
    }
}

fn audit(out: Output, home: &Home, target: &Target, wish: &Arguments) -> Result<Outcome> {
    let mut auditor = Auditor::enter(home, target)?;
    // The listing first: what it names is in the log that the checkpoint is then asked for.
    let listed = auditor.streams()?;
    let least = auditor.log_size()?;
    let head = auditor.checkpoint(least)?;
    let own = State::all(&home.dir)?;
    let expired = missing(&mut auditor, home, &own, &listed)?;
    let bar = out.count("streams", Some(listed.len() as u64));
    let mut proven = vec![];
    for stream in listed.iter().filter(|s| s.bytes > 0) {
        proven.push(prove(&mut auditor, &head, &own, stream)?);
        bar.add(1);
    }
    bar.done();
    let receipts: Vec<_> = proven.iter().map(|p| &p.receipt).collect();
    let bar = out.count("samples", Some(wish.samples.into()));
    let sampled = auditor.sample(&head, &receipts, wish.samples, |so_far| {
        bar.set(so_far.frames.into());
        bar.note(human::bytes(so_far.bytes));
    })?;
    bar.done();
    if let Some(dir) = &wish.evidence {
        evidence::write_to(dir, home, &target.appliance, auditor.kept(), &head, &proven, sampled)?;
    }
    out.result(&value(&head, &proven, sampled, &expired), text(home, &head, &proven, sampled, &expired, wish))?;
    Ok(Outcome::Done)
}

/// A receipt of a stream: over what this agent saw acknowledged, or what was found there.
fn prove(auditor: &mut Auditor<'_>, head: &Head, own: &[State], stream: &StreamEntry) -> Result<Proven> {
    let mine = own.iter().find(|s| s.stream == stream.stream && s.acknowledged.length > 0);
    let receipt = match mine {
        Some(state) => auditor.receipt(head, stream.stream, state.acknowledged)?,
        None => auditor.part(head, stream.stream, stream.bytes - 1, false)?.1,
    };
    Ok(Proven { generation: stream.generation, receipt, copied_here: mine.is_some() })
}

/// Generations of this agent that the appliance no longer has, their time being over; any other is an alarm.
fn missing(auditor: &mut Auditor<'_>, home: &Home, own: &[State], listed: &[StreamEntry]) -> Result<Vec<u32>> {
    let newest = own.iter().map(|s| s.generation).chain(listed.iter().map(|s| s.generation)).max();
    let mut expired = vec![];
    for state in own.iter().filter(|s| s.acknowledged.length > 0) {
        let there = listed.iter().find(|s| s.stream == state.stream).map_or(0, |s| s.bytes);
        if there >= state.acknowledged.length {
            continue;
        }
        // The newest generation stays, however old.
        if there == 0 && newest > Some(state.generation) && over(home, state) {
            expired.push(state.generation);
            continue;
        }
        let (generation, stream, length) = (state.generation, state.stream, state.acknowledged.length);
        let what = format!("of generation {generation}, stream {stream}, {length} bytes were acknowledged, and {there} are there");
        return Err(auditor.kept().alarm(what, format!("{listed:?}").as_bytes()).into());
    }
    Ok(expired)
}

/// Whether a generation's time is over, as far as this machine's clock can tell.
fn over(home: &Home, state: &State) -> bool {
    let days = home.site.statement.datasets.iter().find(|d| d.name == *home.dataset()).map_or(u32::MAX, |d| d.retention_days);
    let last = state.dir(&home.dir).join("state").metadata().and_then(|m| m.modified());
    let age = last.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or(Duration::ZERO);
    age > Duration::from_secs(u64::from(days) * 86_400)
}

fn vouched(v: &Vouched) -> Value {
    json!({ "appliance": v.origin, "release": v.release, "doubts": v.doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "powered_ms": v.attest.clock.powered_ms, "resets": v.attest.clock.resets })
}

fn value(head: &Head, proven: &[Proven], sampled: Sampled, expired: &[u32]) -> Value {
    let h = head.signed.head();
    let stream = |p: &Proven| json!({ "generation": p.generation, "stream": p.receipt.leaf().stream, "bytes": p.receipt.covers().length, "copied_here": p.copied_here });
    json!({
        "checkpoint": { "origin": h.origin(), "size": h.size, "root": h.root, "counter": h.counter },
        "grown_from": head.grown.as_ref().map(|(before, _)| before.head().size),
        "signed_by": vouched(&head.verified.own), "witnesses": head.verified.witnesses.iter().map(vouched).collect::<Vec<_>>(),
        "streams": proven.iter().map(stream).collect::<Vec<_>>(), "expired": expired,
        "sampled_frames": sampled.frames, "sampled_bytes": sampled.bytes,
    })
}

fn text(home: &Home, head: &Head, proven: &[Proven], sampled: Sampled, expired: &[u32], wish: &Arguments) -> String {
    let h = head.signed.head();
    let mut text = format!("{} signed for a log of {} leaves, counter {}", h.origin(), h.size, h.counter);
    text += &match &head.grown {
        Some((before, _)) => format!("; it extends the {} leaves of the last head kept here", before.head().size),
        None => "; the first checkpoint that this agent sees: later ones are held against it".into(),
    };
    let (bytes, own) = (proven.iter().map(|p| p.receipt.covers().length).sum(), proven.iter().filter(|p| p.copied_here).count());
    text += &format!(
        "\n{}: {} of {} are in that log, {own} of them copied in from here and equal to what was acknowledged",
        home.dataset(),
        human::count(proven.len() as u64, "stream"),
        human::bytes(bytes),
    );
    text += &format!("\n{} at random places, {}, came whole", human::count(sampled.frames.into(), "frame"), human::bytes(sampled.bytes));
    expired.iter().for_each(|g| text += &format!("\ngeneration {g} is gone: its retention is over by this machine's clock"));
    for w in &head.verified.witnesses {
        text += &format!("\nwitnessed by {}", w.origin);
    }
    text += &assurance(&head.verified.own);
    if let Some(dir) = &wish.evidence {
        text += &format!("\n{}: give it to the auditor; hoidla-verify statement checks it", dir.display());
    }
    text
}

/// What weakens a signature, in words.
fn assurance(own: &Vouched) -> String {
    let list = |general| own.doubts.iter().filter(|d| d.general() == general).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let (own_doubts, general) = (list(false), list(true));
    let mut text = format!("\nits registers were those of release {}", own.release);
    if !own_doubts.is_empty() {
        text += &format!("\nreduced assurance: {own_doubts}");
    }
    if !general.is_empty() {
        text += &format!("\nwhat no report shows today: {general}");
    }
    text
}

/// A checkpoint that covers a push, and a receipt for its stream. Without one the push stands all
/// the same; only a contradiction makes it a no.
pub fn after_push(home: &Home, target: &Target, state: &State, tell: &dyn Fn(&str)) -> (Outcome, Value) {
    if state.acknowledged.length == 0 {
        return (Outcome::Done, Value::Null);
    }
    let fetch = || -> Result<(u64, u64)> {
        let mut auditor = Auditor::enter(home, target)?;
        let least = auditor.log_size()?;
        let head = auditor.checkpoint(least)?;
        let receipt = auditor.receipt(&head, state.stream, state.acknowledged)?;
        Ok((receipt.covers().length, head.signed.head().size))
    };
    match fetch() {
        Ok((covers, size)) => {
            tell(&format!("receipt: {covers} bytes are in the appliance's log, under its signed checkpoint of {size} leaves"));
            (Outcome::Done, json!({ "covers": covers, "log_size": size }))
        }
        Err(e) => match e.downcast_ref::<Alarm>() {
            Some(alarm) => {
                alarm.to_string().lines().for_each(tell);
                (
                    Outcome::No,
                    json!({ "alarm": alarm.what, "evidence": alarm.evidence.as_ref().ok(), "not_written": alarm.evidence.as_ref().err() }),
                )
            }
            None => {
                tell(&format!(
                    "note: copied in and acknowledged, but without a receipt yet ({e:#}); `hoidla-agent audit` fetches it later"
                ));
                (Outcome::Done, json!({ "missing": format!("{e:#}") }))
            }
        },
    }
}
