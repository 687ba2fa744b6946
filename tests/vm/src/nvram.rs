//! What a machine's firmware remembers, read and set while it is off: boot entries, their order,
//! what is to be started once.
//!
//! Promises: reads a store that OVMF wrote, and leaves it one that OVMF reads. Only the
//! specification's own variables that anybody may write are its concern.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hoidla_medium::entry::{Entry, parse_order, write_order};
use hoidlad::pid1::{entries, slots};

/// `EFI_GLOBAL_VARIABLE`, as it lies there.
const GLOBAL: [u8; 16] = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// Bytes of the store's head, and of a variable's.
const STORE: usize = 28;
const HEAD: usize = 60;
/// How a variable begins, and its state when it counts; one that was deleted lacks a bit of it.
const BEGIN: [u8; 2] = [0xaa, 0x55];
const ADDED: u8 = 0x3f;
/// Kept, and seen before and after the system's start.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(*bytes.first_chunk().expect("four bytes")) as usize
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Where a variable begins, and where its value lies.
type Place = (usize, Range<usize>);

/// The variable that counts, and where a new one goes.
fn find(store: &[u8], name: &str) -> Result<(Option<Place>, usize)> {
    let volume = usize::from(u16::from_le_bytes(*store.get(48..50).and_then(|b| b.first_chunk()).context("no firmware volume")?));
    let (mut at, mut found) = (volume + STORE, None);
    while let Some(head) = store.get(at..at + HEAD).filter(|h| h[..2] == BEGIN) {
        let begin = at + HEAD + number(&head[36..]);
        let value = begin..begin + number(&head[40..]);
        if head[2] == ADDED && head[44..60] == GLOBAL && store.get(at + HEAD..begin).context("cut short")? == utf16(name) {
            found = Some((at, value.clone()));
        }
        at = value.end.next_multiple_of(4);
    }
    Ok((found, at))
}

/// A variable's value.
pub fn get(file: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let store = fs::read(file)?;
    Ok(find(&store, name)?.0.map(|(_, value)| store[value].to_vec()))
}

/// Sets a variable.
pub fn set(file: &Path, name: &str, value: &[u8]) -> Result<()> {
    let mut store = fs::read(file)?;
    let (old, end) = find(&store, name)?;
    let sizes = [utf16(name).len() as u32, value.len() as u32].map(u32::to_le_bytes).concat();
    let mut new = [&BEGIN[..], &[ADDED, 0], &ATTRIBUTES, &[0; 8 + 16 + 4], &sizes, &GLOBAL, &utf16(name), value].concat();
    new.resize(new.len().next_multiple_of(4), 0xff);
    let place = store.get_mut(end..end + new.len()).context("no room")?;
    ensure!(place.iter().all(|b| *b == 0xff), "something lies behind the last variable");
    place.copy_from_slice(&new);
    if let Some((at, _)) = old {
        store[at + 2] &= 0xfd;
    }
    Ok(fs::write(file, store)?)
}

/// Sets an entry for each slot of these boot disks, slot a of the first one first: as a machine
/// has them once it is set up.
pub fn of_slots(file: &Path, disks: &[PathBuf]) -> Result<()> {
    let mut all = Vec::new();
    for (n, disk) in disks.iter().enumerate() {
        all.extend(slots::on(n + 1, disk)?);
    }
    all.sort_by_key(|s| (s.part, s.disk));
    for (n, slot) in all.iter().enumerate() {
        set(file, &format!("Boot{n:04X}"), &entries::of(slot).to_bytes())?;
    }
    set(file, "BootOrder", &write_order(&(0..all.len() as u16).collect::<Vec<_>>()))
}

/// The titles of the boot entries, in the order in which they are tried.
pub fn order(file: &Path) -> Result<Vec<String>> {
    let order = parse_order(&get(file, "BootOrder")?.context("there is no order")?)?;
    let title = |n: &u16| Ok(Entry::parse(&get(file, &format!("Boot{n:04X}"))?.context("an entry that isn't there")?)?.title().to_owned());
    order.iter().map(title).collect()
}
