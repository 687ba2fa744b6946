//! `audit`, and what a push does when it is done.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use clap::Args;
use hoidla_cli::{NextStep, Outcome, Output, human};
use hoidla_door::{DoorError, Target};
use hoidla_log::SignedCheckpoint;
use hoidla_protocol::{Code, StreamEntry};
use hoidla_verify::Vouched;
use serde_json::{Value, json};

use super::{
    Alarm, Auditor, Carried, Head, Kept,
    evidence::{self, Audited, Past, Proven},
    schedule::{carry, carry_due},
};
use crate::{
    home::{Home, read_bounded},
    state::State,
};

/// What to audit.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How many frames, at random places of all streams, to ask for whole.
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub samples: u32,
    /// Write a folder for an auditor: the agent's signed statement, receipts, checkpoint, papers.
    #[arg(long, value_name = "DIR")]
    pub evidence: Option<PathBuf>,
    /// A checkpoint that the auditor kept: the log must extend it, and the evidence leads from it.
    #[arg(long, value_name = "FILE")]
    pub since: Option<PathBuf>,
}

/// Runs an audit and says what it showed.
pub fn run(out: Output, home: &Home, target: &Target, wish: &Arguments) -> Result<Outcome> {
    audit(out, home, target, wish).or_else(|e| alarmed(out, &e).ok_or(e))
}

/// Carries the newest head of one appliance to another.
pub fn run_witness(out: Output, from: (&Home, &Target), to: (&Home, &Target)) -> Result<Outcome> {
    let told = || -> Result<Outcome> {
        let (seen, witness) = carry(from, to)?;
        let (log, size) = (seen.head().origin(), seen.head().size);
        let text = format!("{witness} saw the head of {log}, {size} leaves, found it consistent with all it saw before, and signed it");
        out.result(&json!({ "log": log, "size": size, "witness": witness }), text)?;
        Ok(Outcome::Done)
    };
    told().or_else(|e| alarmed(out, &e).ok_or(e))
}

/// A push that ended because the appliance says that it holds less, or other bytes, than this agent saw
/// acknowledged: an alarm like that of an audit.
pub(crate) fn refused_push(out: Output, home: &Home, target: &Target, e: &anyhow::Error) -> Option<Outcome> {
    let Some(DoorError::Refused(no)) = e.downcast_ref::<DoorError>() else { return None };
    if !matches!(no.code, Code::Behind | Code::Fork) {
        return None;
    }
    let kept = Kept::of(&home.dir, &target.site, &target.appliance).ok()?;
    tell_alarm(out, &kept.alarm(format!("it refused what was to be copied in: {}", no.sentence), no.sentence.as_bytes()));
    Some(Outcome::No)
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
    // From where the evidence leads: the auditor's head, or the last one that was kept here before now.
    let since = match &wish.since {
        Some(file) => Some(since(&auditor, file)?),
        None => auditor.kept().checkpoint()?,
    };
    carry_due(home, target)?.iter().for_each(|c| out.say(carried_text(c)));
    // The listing first: what it names is in the log that the checkpoint is then asked for.
    let listed = auditor.streams()?;
    let least = auditor.log_size()?;
    let (head, past) = past(&mut auditor, since, least)?;
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
    let audited = Audited { head, past, streams: proven, sampled };
    if let Some(dir) = &wish.evidence {
        evidence::write_to(dir, home, &target.appliance, auditor.kept(), &audited)?;
    }
    out.result(&value(&audited, &expired), text(home, &audited, &expired, wish))?;
    Ok(Outcome::Done)
}

/// An auditor's head, which must be one of this log.
fn since(auditor: &Auditor<'_>, file: &Path) -> Result<SignedCheckpoint> {
    let read = || -> Result<SignedCheckpoint> {
        let head = SignedCheckpoint::parse(&read_bounded(file)?)?;
        auditor.believe(&head)?;
        Ok(head)
    };
    read()
        .with_context(|| format!("{}, from which the evidence shall lead", file.display()))
        .next("give a checkpoint.txt of this appliance")
}

/// The newest head, led to from an earlier one and from all that others signed.
fn past(auditor: &mut Auditor<'_>, since: Option<SignedCheckpoint>, least: u64) -> Result<(Head, Past)> {
    let seen = auditor.kept().seen()?;
    let olds: Vec<_> = since.iter().chain(seen.iter().map(|s| &s.head)).cloned().collect();
    let (head, led) = auditor.leading_from(&olds, least)?;
    let mut led = led.into_iter();
    let since = since.and_then(|_| led.next());
    Ok((head, Past { since, seen: seen.into_iter().map(|s| s.witness).zip(led).collect() }))
}

fn carried_text(carried: &Carried) -> String {
    match &carried.seen {
        Ok(size) => format!("{} saw the head of {size} leaves and signed it", carried.witness),
        Err(why) => format!("note: {} did not sign the head ({why}); it is carried there again in an hour", carried.witness),
    }
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
    json!({ "appliance": v.origin, "release": v.release, "image": v.image, "doubts": v.doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "powered_ms": v.attest.clock.powered_ms, "resets": v.attest.clock.resets })
}

fn value(audited: &Audited, expired: &[u32]) -> Value {
    let Audited { head, past, streams, sampled } = audited;
    let h = head.signed.head();
    let stream = |p: &Proven| json!({ "generation": p.generation, "stream": p.receipt.leaf().stream, "bytes": p.receipt.covers().length, "copied_here": p.copied_here });
    json!({
        "checkpoint": { "origin": h.origin(), "size": h.size, "root": h.root, "counter": h.counter },
        "grown_from": past.since.as_ref().map(|led| led.from.head().size), "signed_by": vouched(&head.verified.own),
        "witnesses": past.seen.iter().map(|(who, led)| json!({ "appliance": who, "size": led.from.head().size })).collect::<Vec<_>>(),
        "streams": streams.iter().map(stream).collect::<Vec<_>>(), "expired": expired,
        "sampled_frames": sampled.frames, "sampled_bytes": sampled.bytes,
    })
}

fn text(home: &Home, audited: &Audited, expired: &[u32], wish: &Arguments) -> String {
    let Audited { head, past, streams, sampled } = audited;
    let h = head.signed.head();
    let mut text = format!("{} signed for a log of {} leaves, counter {}", h.origin(), h.size, h.counter);
    text += &match (&past.since, &wish.since) {
        (Some(led), Some(file)) => format!("; it extends the {} leaves of {}", led.from.head().size, file.display()),
        (Some(led), None) => format!("; it extends the {} leaves of the last head kept here", led.from.head().size),
        (None, _) => "; the first checkpoint that this agent sees: later ones are held against it".into(),
    };
    let (bytes, own) = (streams.iter().map(|p| p.receipt.covers().length).sum(), streams.iter().filter(|p| p.copied_here).count());
    text += &format!(
        "\n{}: {} of {} are in that log, {own} of them copied in from here and equal to what was acknowledged",
        home.dataset(),
        human::count(streams.len() as u64, "stream"),
        human::bytes(bytes),
    );
    text += &format!("\n{} at random places, {}, came whole", human::count(sampled.frames.into(), "frame"), human::bytes(sampled.bytes));
    expired.iter().for_each(|g| text += &format!("\ngeneration {g} is gone: its retention is over by this machine's clock"));
    for (who, led) in &past.seen {
        text += &format!("\nwitnessed by {who}: its head of {} leaves, which this one extends", led.from.head().size);
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
    if let Some(image) = &own.image {
        text += &format!(", of the image {image} and its manifest");
    }
    if !own_doubts.is_empty() {
        text += &format!("\nreduced assurance: {own_doubts}");
    }
    if !general.is_empty() {
        text += &format!("\nfor want of papers: {general}");
    }
    text
}

/// A checkpoint that covers a push, and a receipt for its stream. Without one the push stands all
/// the same; only a contradiction makes it a no.
pub fn after_push(home: &Home, target: &Target, state: &State, tell: &dyn Fn(&str)) -> (Outcome, Value) {
    if state.acknowledged.length == 0 {
        return (Outcome::Done, Value::Null);
    }
    let fetch = || -> Result<(u64, u64, Vec<Carried>)> {
        let mut auditor = Auditor::enter(home, target)?;
        let least = auditor.log_size()?;
        let head = auditor.checkpoint(least)?;
        let receipt = auditor.receipt(&head, state.stream, state.acknowledged)?;
        Ok((receipt.covers().length, head.signed.head().size, carry_due(home, target)?))
    };
    match fetch() {
        Ok((covers, size, carried)) => {
            tell(&format!("receipt: {covers} bytes are in the appliance's log, under its signed checkpoint of {size} leaves"));
            carried.iter().for_each(|c| tell(&carried_text(c)));
            let witnesses: Vec<_> = carried
                .iter()
                .map(|c| json!({ "appliance": c.witness, "size": c.seen.as_ref().ok(), "not": c.seen.as_ref().err() }))
                .collect();
            (Outcome::Done, json!({ "covers": covers, "log_size": size, "witnesses": witnesses }))
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
