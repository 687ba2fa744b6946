//! What must hold, each by its name. `docs/reliability.md` lists them.

use std::{collections::BTreeMap, sync::Arc};

use hoidla_format::Hash32;
use hoidla_log::{Frontier, verify_consistency, verify_inclusion};
use hoidla_store::{Acknowledged, Asked, Checked, Engine, Opened, Reader};

use crate::{disk::SimDisk, memory::Memory, model::Model, sessions::MARKER, world::Waits};

/// A broken invariant: its name, and how.
pub type Broken = (&'static str, String);

/// *acknowledged is kept*, of what the store says: of each stream it has all that was
/// acknowledged, nothing that was not submitted, and ends between two records, with chain,
/// epochs and closed epochs to match.
pub fn state(engine: &Engine<Memory>, model: &Model) -> Result<(), Broken> {
    for (id, stream) in &model.streams {
        match engine.state(*id) {
            Some(state) => stream.allows(&state, model.lost).map_err(|why| ("acknowledged is kept", format!("stream {id}: {why}")))?,
            None if stream.acknowledged == 0 && stream.closed == 0 => {}
            None => return Err(("acknowledged is kept", format!("stream {id} is gone"))),
        }
    }
    Ok(())
}

/// *nothing unacknowledged*: an acknowledgement answers one open submission, as it was made,
/// under a log that only grows.
pub fn answer(a: &Acknowledged, waits: Option<&Waits>, model: &Model) -> Result<(), Broken> {
    let wrong = |why: &str| Err(("nothing unacknowledged", format!("{a:?} {why}")));
    match waits {
        Some(Waits::Record(id, end)) if (*id, *end) == (a.stream, a.end) => {}
        Some(_) => return wrong("is not what was submitted"),
        None => return wrong("answers no open submission"),
    }
    if model.log.is_some_and(|(size, _)| size > a.log_size) || a.leaf >= a.log_size {
        return wrong("stands under a log that shrank");
    }
    Ok(())
}

/// *damage never cut*, at an opening: while one whole copy is there it loses nothing; when
/// something was lost on every copy, whatever is missing is told.
pub fn opened(engine: &Engine<Memory>, model: &Model, opened: &Opened) -> Result<(), Broken> {
    let state = state(engine, model);
    match (opened.damage.first(), model.lost) {
        // A segment whose header is gone from every disk is not found without a catalogue:
        // then the agents, who say what they hold, raise the alarm.
        (None, true) if opened.rebuilt => Ok(()),
        (None, _) => state,
        (Some(_), true) => Ok(()),
        (Some(what), false) => Err(("damage never cut", format!("a whole copy was there, and this is lost: {what}"))),
    }
}

/// *damage never cut*, later: what cannot be read was told by an opening, or is found by verification.
pub fn loss_is_told(unreadable: usize, told: bool, checked: &Checked) -> Result<(), Broken> {
    if unreadable > 0 && checked.damage.is_empty() && !told {
        return Err(("damage never cut", format!("{unreadable} records cannot be read, and verification finds no damage")));
    }
    Ok(())
}

/// *no plaintext*: what agents seal is on no disk. That it is in no message is checked as
/// each is sent.
pub fn sealed(disks: &[Arc<SimDisk>]) -> Result<(), Broken> {
    match disks.iter().find(|d| d.holds(MARKER)) {
        Some(_) => Err(("no plaintext", "a disk holds what an agent sealed".into())),
        None => Ok(()),
    }
}

/// *memory bounded*: at rest the engine holds no buffer but the one that zeros come from.
pub fn memory(memory: &Memory) -> Result<(), Broken> {
    match memory.out() {
        0..=1 => Ok(()),
        n => Err(("memory bounded", format!("{n} buffers are held at rest"))),
    }
}

/// *acknowledged is readable*: every acknowledged byte reads back as it was submitted, in its epoch.
/// Where something was lost on every copy: or cannot be read; the records that cannot.
pub fn bytes(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, model: &Model) -> Result<usize, Broken> {
    let mut unreadable = 0;
    for (id, stream) in &model.streams {
        let length = engine.state(*id).map_or(0, |s| s.chain.length);
        for sent in stream.sent.iter().filter(|s| s.offset < length) {
            let wrong = |why: String| ("acknowledged is readable", format!("stream {id} at {}: {why}", sent.offset));
            let inside = sent.offset + sent.bytes.len() as u64 / 2;
            let place = engine.locate(*id, inside).ok_or_else(|| wrong("not located".into()));
            let found = match place.and_then(|place| reader.read(&place).map_err(|e| wrong(e.to_string()))) {
                Ok(found) => found,
                Err(_) if model.lost => {
                    unreadable += 1;
                    continue;
                }
                Err(broken) => return Err(broken),
            };
            if (found.offset, found.epoch) != (sent.offset, sent.epoch) || found.bytes() != sent.bytes {
                return Err(wrong("other bytes are read than were submitted".into()));
            }
        }
    }
    Ok(unreadable)
}

/// The leaves on the disks by index, added to those that have `ended`.
pub fn leaves(
    engine: &mut Engine<Memory>,
    reader: &mut Reader<Memory>,
    ended: BTreeMap<u64, Hash32>,
) -> Result<BTreeMap<u64, Hash32>, Broken> {
    let wrong = |why: String| ("the log only extends", why);
    let mut leaves = ended;
    let mut from = 0;
    while let Some(segment) = engine.segment(from) {
        from = segment.number() + 1;
        for (index, hash) in reader.leaves(&segment).map_err(|e| wrong(e.to_string()))? {
            if leaves.insert(index, hash).is_some_and(|other| other != hash) {
                return Err(wrong(format!("leaf {index} is two things")));
            }
        }
    }
    Ok(leaves)
}

/// *the log only extends*: the leaves on the disks, and those that have `ended`, are all leaves, give
/// the root, and extend the last acknowledged head.
pub fn log(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, model: &Model, ended: BTreeMap<u64, Hash32>) -> Result<(), Broken> {
    let wrong = |why: String| ("the log only extends", why);
    let leaves = leaves(engine, reader, ended)?;
    let (size, root) = engine.log_head();
    if leaves.len() as u64 != size || leaves.keys().next_back().is_some_and(|last| last + 1 != size) {
        return Err(wrong(format!("{} leaves are on the disks, the log has {size}", leaves.len())));
    }
    let mut frontier = Frontier::new();
    let mut extends = model.log.is_none_or(|(size, root)| size == 0 && root == frontier.root());
    let all: Vec<Hash32> = leaves.into_values().collect();
    for leaf in &all {
        frontier.push(*leaf);
        extends |= model.log == Some((frontier.size(), frontier.root()));
    }
    if frontier.root() != root {
        return Err(wrong("the leaves on the disks give another root".into()));
    }
    proofs(engine, reader, &all, root)?;
    if extends { Ok(()) } else { Err(wrong(format!("size {size} doesn't extend what was acknowledged: {:?}", model.log))) }
}

/// *proofs verify*: every leaf and every older size that is asked for is proven, against roots that
/// the leaves themselves give; what lies beyond the head is refused.
fn proofs(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, leaves: &[Hash32], root: Hash32) -> Result<(), Broken> {
    let size = leaves.len() as u64;
    let mut prove =
        |asked: Asked| engine.grounds(asked).and_then(|g| reader.prove(&g)).map_err(|e| ("proofs verify", format!("{asked:?}: {e}")));
    let wrong = |asked: Asked| move |e: hoidla_log::ProofError| ("proofs verify", format!("{asked:?}: {e}"));
    let mut frontier = Frontier::new();
    let step = 1 + size / 7;
    for (at, leaf) in (0..).zip(leaves) {
        if at % step == size % step {
            let inclusion = Asked::Inclusion { index: at, size };
            verify_inclusion(leaf, at, size, &root, &prove(inclusion)?).map_err(wrong(inclusion))?;
            let consistency = Asked::Consistency { old: at, new: size };
            verify_consistency(at, &frontier.root(), size, &root, &prove(consistency)?).map_err(wrong(consistency))?;
        }
        frontier.push(*leaf);
    }
    match prove(Asked::Inclusion { index: size, size: size + 1 }) {
        Ok(_) => Err(("proofs verify", "a leaf beyond the head was proven".into())),
        Err(_) => Ok(()),
    }
}

/// Every segment checked on every copy, and repaired where one is good.
pub fn copies(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>) -> Result<Checked, Broken> {
    let mut sum = Checked::default();
    let mut from = 0;
    while let Some(segment) = engine.segment(from) {
        from = segment.number() + 1;
        let mut checked = reader.check(&segment).map_err(|e| ("copies converge", e.to_string()))?;
        sum.repaired.append(&mut checked.repaired);
        sum.damage.append(&mut checked.damage);
    }
    Ok(sum)
}

/// *copies converge*: nothing is left to repair unless something was spoiled, and nothing
/// is beyond repair unless it was lost on every copy.
pub fn whole(checked: &Checked, spoiled: bool, lost: bool) -> Result<(), Broken> {
    let wrong = |why: String| Err(("copies converge", why));
    match (checked.damage.first(), checked.repaired.first()) {
        (Some(what), _) if !lost => wrong(what.clone()),
        (_, Some(what)) if !spoiled => wrong(format!("nothing was spoiled, and the copies differ: {what}")),
        _ => Ok(()),
    }
}
