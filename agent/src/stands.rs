//! How things stand: what the embassy holds of the dataset, and what is known here.

use std::{path::Path, time::Duration};

use anyhow::Result;
use hoidla_cli::{Outcome, Output, human};
use hoidla_door::Target;
use serde_json::json;

use crate::{commands::written_chain, home::Home, line, state::State};

/// For how long a generation is kept, in words.
fn kept_words(days: u32) -> String {
    match days {
        u32::MAX => "no time ends it".into(),
        0 => "over, may go".into(),
        1 => "1 day of running".into(),
        days => format!("{days} days of running"),
    }
}

/// `list`: the dataset's streams in the embassy.
pub fn list(out: Output, (home, target): (Home, Target)) -> Result<Outcome> {
    let mut streams = line::list(&target, &home.identity()?, home.dataset(), Duration::ZERO, &|_| {})?;
    streams.sort_by_key(|s| s.generation);
    let known = State::all(&home.dir)?;
    let signed = |id| known.iter().find(|k| k.stream == id).map(|k| (k.signed, k.complete));
    let mut screen = hoidla_cli::Screen::new();
    let rows: Vec<Vec<String>> = streams
        .iter()
        .map(|s| {
            let to = |n: u64| if n == s.bytes { "all".to_owned() } else { human::bytes(n) };
            let (signed, complete) = signed(s.stream).map_or(("elsewhere".into(), String::new()), |(s, c)| (to(s), to(c)));
            vec![
                s.generation.to_string(),
                s.stream.to_string(),
                human::bytes(s.bytes),
                signed,
                complete,
                kept_words(s.kept_days).replace(" of running", ""),
            ]
        })
        .collect();
    screen.table(&["gen.", "stream", "bytes", "signed", "snapshot", "kept running"], &rows);
    let value: Vec<_> = streams
        .iter()
        .map(|s| {
            let known = signed(s.stream);
            json!({ "generation": s.generation, "stream": s.stream, "bytes": s.bytes, "epochs": s.epochs.len(), "kept_days": s.kept_days,
                    "signed_to": known.map(|k| k.0), "snapshot_to": known.map(|k| k.1) })
        })
        .collect();
    out.result(
        &json!({ "dataset": home.dataset(), "streams": value }),
        if rows.is_empty() { "nothing is there yet" } else { screen.text() },
    )?;
    Ok(Outcome::Done)
}

/// `status`: the newest stream here, and the appliance's health.
pub fn status(out: Output, (home, target): (Home, Target)) -> Result<Outcome> {
    let state = State::all(&home.dir)?.first().copied();
    let pending = state.map_or(0, |s| spooled(&s.dir(&home.dir).join("spool")));
    let health = line::health(&target, &home.identity()?);
    let mut text = match &state {
        Some(s) => format!(
            "{}, generation {}: {} bytes acknowledged, signed to {}, last whole snapshot to {}; {} in the spool",
            home.dataset(),
            s.generation,
            s.acknowledged.length,
            s.signed,
            s.complete,
            human::bytes(pending)
        ),
        None => format!("{}: nothing was copied from this machine yet", home.dataset()),
    };
    let (digits, serial) = (home.authority(), home.site.statement.serial);
    text += &format!("\nsite file {serial}, of the authority {digits}");
    let stands = state.filter(|s| s.acknowledged.length > 0).map(|s| written_chain(s.acknowledged));
    if let Some(stands) = &stands {
        text += &format!("\nwhoever restores can demand no less than this: --at-least {stands}");
    }
    text += &match &health {
        Ok(h) => format!(
            "\n{}: {} of {} disks current, {} of {} used, {} alarms, {} open grants",
            target.appliance,
            h.current,
            h.copies,
            human::bytes(h.used),
            human::bytes(h.capacity),
            h.alarms,
            h.openings
        ),
        Err(e) => format!("\n{}: not reached: {e:#}", target.appliance),
    };
    let health_value = health.as_ref().ok().map(|h| {
        json!({ "copies": h.copies, "current": h.current, "capacity": h.capacity, "used": h.used, "streams": h.streams,
                "damaged": h.damaged, "alarms": h.alarms, "openings": h.openings, "uptime": h.uptime })
    });
    let value = json!({
        "dataset": home.dataset(), "generation": state.map(|s| s.generation), "stream": state.map(|s| s.stream),
        "acknowledged": state.map(|s| s.acknowledged.length), "signed_to": state.map(|s| s.signed),
        "snapshot_to": state.map(|s| s.complete), "spooled": pending, "appliance": health_value,
        "authority": digits, "site_serial": serial, "at_least": stands,
    });
    out.result(&value, text)?;
    Ok(if health.is_ok() { Outcome::Done } else { Outcome::No })
}

/// Bytes of a spool's files: an upper bound of what is pending, read without disturbing a push.
fn spooled(dir: &Path) -> u64 {
    dir.read_dir().into_iter().flatten().flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
