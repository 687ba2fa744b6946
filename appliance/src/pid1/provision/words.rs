//! What home says to this one machine, brought on the stick.
//!
//! Promises: each word is checked as where `hoidlad` runs as a program, and counts once; one that
//! doesn't count is told with its reason, and changes nothing.

use anyhow::ensure;
use hoidla_cli::Screen;
use hoidla_format::statements::{CountWord, DiskWord, Skip};

use super::{Room, page, visit::Brought};
use crate::{
    config::State,
    identify, keep,
    papers::{Papers, is_kind},
    pid1::{boot, power::End},
    recount::recount,
    time::skips::Skips,
    trays::words::Words,
};

/// The most words that a page has room for.
const SHOWN: usize = 6;

/// Takes the words that are on the stick.
pub fn take(room: &mut Room, brought: &Brought, state: &State) -> anyhow::Result<Option<End>> {
    boot::link_trays(&room.sys, &room.profile);
    boot::write_config(&boot::bare_config(&room.profile, &room.authority), state)?;
    let papers = brought.stick.papers()?;
    let said: Vec<String> = papers.iter().filter_map(|(name, note)| Some(told(name, one(state, note)?))).collect();
    ensure!(!said.is_empty(), "no word of home's for this machine is on the stick: copy the signed files onto it as they are");
    keep::changed()?;
    room.person.show(&taken(&said));
    room.person.ask("Press Enter to go on:");
    Ok(None)
}

fn told(name: &str, taken: anyhow::Result<String>) -> String {
    taken.map_or_else(|why| format!("{name}: NOT taken: {why:#}"), |what| format!("{name}: taken: {what}"))
}

/// A word taken, or why not; none if it is something else.
fn one(state: &State, note: &[u8]) -> Option<anyhow::Result<String>> {
    if is_kind::<DiskWord>(note) {
        Some(disk(state, note))
    } else if is_kind::<Skip>(note) {
        Some(time(state, note))
    } else if is_kind::<CountWord>(note) {
        Some(count(state, note))
    } else {
        None
    }
}

fn disk(state: &State, note: &[u8]) -> anyhow::Result<String> {
    let word = Words::new(state, state.config()?.authority_key()?, identify::known(state)?).take(note)?;
    Ok(format!("the disk in tray {} may be erased and used, if on it is what home was told", word.tray))
}

fn time(state: &State, note: &[u8]) -> anyhow::Result<String> {
    let (authority, identity) = (state.config()?.authority_key()?, identify::known(state)?);
    let papers = Papers::kept(&state.papers(), &authority, &identity)?;
    let word = Skips::kept(state, &authority, &papers)?.take(note, state, &authority, &papers)?;
    Ok(format!("time goes on {} days later ({})", (word.to - word.from) / 86_400, word.reason))
}

fn count(state: &State, note: &[u8]) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let word = runtime.block_on(recount(state, note))?;
    Ok(format!("the store goes on from the counter's {} ({}); have agents audit", word.stands, word.reason))
}

fn taken(said: &[String]) -> Screen {
    let mut s = page("what home says to this machine");
    said.iter().take(SHOWN).for_each(|line| _ = s.item(line));
    if said.len() > SHOWN {
        s.item(&format!("and {} more", said.len() - SHOWN));
    }
    s
}
