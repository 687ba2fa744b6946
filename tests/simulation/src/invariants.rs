//! What is checked, by name.

use std::collections::BTreeMap;

use hoidla_log::Frontier;
use hoidla_store::{Engine, Reader};

use crate::{memory::Memory, model::Model};

/// A broken invariant: its name, and how.
pub type Broken = (&'static str, String);

/// `state`: of each stream the store has all that was acknowledged, nothing that was not
/// submitted, and ends between two records, with chain, epochs and closed epochs to match.
pub fn state(engine: &Engine<Memory>, model: &Model) -> Result<(), Broken> {
    for (id, stream) in &model.streams {
        match engine.state(*id) {
            Some(state) => stream.allows(&state).map_err(|why| ("state", format!("stream {id}: {why}")))?,
            None if stream.acknowledged == 0 && stream.closed == 0 => {}
            None => return Err(("state", format!("stream {id} is gone"))),
        }
    }
    Ok(())
}

/// `bytes`: every acknowledged byte reads back as it was submitted, in its epoch.
pub fn bytes(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, model: &Model) -> Result<(), Broken> {
    for (id, stream) in &model.streams {
        let length = engine.state(*id).map_or(0, |s| s.chain.length);
        for sent in stream.sent.iter().filter(|s| s.offset < length) {
            let wrong = |why: String| ("bytes", format!("stream {id} at {}: {why}", sent.offset));
            let inside = sent.offset + sent.bytes.len() as u64 / 2;
            let place = engine.locate(*id, inside).ok_or_else(|| wrong("not located".into()))?;
            let found = reader.read(&place).map_err(|e| wrong(e.to_string()))?;
            if (found.offset, found.epoch) != (sent.offset, sent.epoch) || found.bytes() != sent.bytes {
                return Err(wrong("other bytes are read than were submitted".into()));
            }
        }
    }
    Ok(())
}

/// `log`: the leaves on the disks are all leaves, give the root, and extend the last
/// acknowledged head.
pub fn log(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, model: &Model) -> Result<(), Broken> {
    let wrong = |why: String| ("log", why);
    let mut leaves = BTreeMap::new();
    let mut from = 0;
    while let Some(segment) = engine.segment(from) {
        from = segment.number() + 1;
        for (index, hash) in reader.leaves(&segment).map_err(|e| wrong(e.to_string()))? {
            if leaves.insert(index, hash).is_some_and(|other| other != hash) {
                return Err(wrong(format!("leaf {index} is two things")));
            }
        }
    }
    let (size, root) = engine.log_head();
    if leaves.len() as u64 != size || leaves.keys().next_back().is_some_and(|last| last + 1 != size) {
        return Err(wrong(format!("{} leaves are on the disks, the log has {size}", leaves.len())));
    }
    let mut frontier = Frontier::new();
    let mut extends = model.log.is_none_or(|(size, root)| size == 0 && root == frontier.root());
    for leaf in leaves.into_values() {
        frontier.push(leaf);
        extends |= model.log == Some((frontier.size(), frontier.root()));
    }
    if frontier.root() != root {
        return Err(wrong("the leaves on the disks give another root".into()));
    }
    if extends { Ok(()) } else { Err(wrong(format!("size {size} doesn't extend what was acknowledged: {:?}", model.log))) }
}

/// `copies`: every copy of every segment is whole. Says how much had to be repaired.
pub fn copies(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>) -> Result<Vec<String>, Broken> {
    let mut repaired = Vec::new();
    let mut from = 0;
    while let Some(segment) = engine.segment(from) {
        from = segment.number() + 1;
        let mut checked = reader.check(&segment).map_err(|e| ("copies", e.to_string()))?;
        if let Some(what) = checked.damage.first() {
            return Err(("copies", what.clone()));
        }
        repaired.append(&mut checked.repaired);
    }
    Ok(repaired)
}
