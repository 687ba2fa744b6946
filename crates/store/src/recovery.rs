//! Recovery: the last checkpoint, and what was committed after it.
//!
//! Promises: it reads open tails up to their fences and the reserve, not what is stored; at or below the
//! highest mark on any copy nothing is cut, what is bad there is repaired or reported;
//! above it everything is cut from the first commit of which some part is whole on no
//! copy; what is kept is whole on every copy afterwards. When the catalogue is lost,
//! all segments take the place of the tails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hoidla_format::{
    Hash32,
    disk::{batch::Head, catalogue::Front, fences::Fences, superblock::Superblock},
};

use crate::{
    catalogue::{Catalogue, Part, Shape, indexed_leaves},
    checkpoint::Loaded,
    copies::{Batch, Copies},
    device::Pool,
    fence::search_to,
    holes::Holes,
    open::Opened,
    options::{Fault, Options},
    read::{Checked, ReadError},
    types::Generation,
};

/// Commits after the last checkpoint of which nothing is left, at most.
const MOST_MISSING: u64 = 1 << 16;

/// What recovery leads to.
pub(crate) struct Recovered {
    pub catalogue: Catalogue,
    pub reserve: Vec<u32>,
    /// The checkpoint it began from; 0 when rebuilt.
    pub sequence: u64,
    pub last_run: u64,
    /// The hashes of leaves in what was found, by index.
    pub leaves: BTreeMap<u64, Hash32>,
}

/// A batch found after the checkpoint.
struct Found {
    part: Part,
    everywhere: bool,
    /// The chain before it is broken.
    orphan: bool,
}

/// Where to look for batches.
struct Start {
    slot: u32,
    incarnation: u64,
    generation: Arc<Generation>,
    dense: bool,
    block: u32,
    previous: Hash32,
    number: u32,
    /// No batch begins at or behind this block.
    fence: u32,
}

pub(crate) fn recover<P: Pool>(
    copies: &Copies<P>,
    superblock: &Superblock,
    checkpoint: Option<Loaded>,
    fences: Option<&Fences>,
    options: &Options,
    opened: &mut Opened,
) -> Result<Recovered, ReadError> {
    let (slots, height) = (superblock.geometry.slots, options.tile_height());
    let mut out = Checked::default();
    let (mut catalogue, found, marked, sequence, mut last_run) = match checkpoint {
        Some(Loaded { mut catalogue, sequence, front }) => {
            let (found, marked) = after_checkpoint(copies, superblock, &mut catalogue, &front, fences, options, &mut out)?;
            (catalogue, found, marked, sequence, front.run)
        }
        None => {
            opened.rebuilt = true;
            let mut catalogue = Catalogue::empty(slots, height);
            let found = everything(copies, superblock, &mut catalogue, &mut out)?;
            (catalogue, found, 0, 0, 0)
        }
    };
    last_run = found.iter().map(|f| f.part.head.run).fold(last_run, u64::max);
    let leaves = settle(copies, &mut catalogue, found, marked, options, opened, &mut out)?;
    give_up_lost(copies, &mut catalogue, opened);
    if !options.faulty(Fault::KeepOnOneCopy) {
        copies.flush_all()?;
    }
    opened.repaired.append(&mut out.repaired);
    opened.damage.append(&mut out.damage);
    Ok(Recovered { catalogue, reserve: Vec::new(), sequence, last_run, leaves })
}

/// What was committed after a checkpoint, and the highest mark in segments without a header.
fn after_checkpoint<P: Pool>(
    copies: &Copies<P>,
    superblock: &Superblock,
    catalogue: &mut Catalogue,
    d: &Front,
    fences: Option<&Fences>,
    options: &Options,
    out: &mut Checked,
) -> Result<(Vec<Found>, u64), ReadError> {
    let blocks = superblock.geometry.segment_blocks;
    let (mut starts, mut marked) = (Vec::new(), 0);
    let since = |h: &Head| h.run == d.run && h.commit > d.commit;
    for (slot, tail) in &catalogue.tails {
        let Some(s) = catalogue.segment(*slot) else { continue };
        let generation = catalogue.generations[s.generation as usize].clone();
        let fence = search_to(fences, *slot, s.incarnation, false, blocks);
        #[rustfmt::skip]
        let start = Start { slot: *slot, incarnation: s.incarnation, generation, dense: s.dense, block: s.end, previous: tail.hash, number: tail.number, fence };
        starts.push(start);
    }
    let first_new = catalogue.next_incarnation;
    for slot in d.reserve.iter().filter(|s| **s < superblock.geometry.slots) {
        let new =
            |h: &hoidla_format::disk::segment::SegmentHeader| h.store == superblock.store && h.run == d.run && h.incarnation >= first_new;
        match start_of(copies, *slot, new, catalogue, out)? {
            Some(s) => starts.push(Start { fence: search_to(fences, *slot, s.incarnation, true, blocks), ..s }),
            None => marked = marked.max(mark_without_header(copies, *slot, catalogue, |h| since(h) && h.incarnation >= first_new)?),
        }
    }
    starts.sort_by_key(|s| s.slot);
    Ok((walk_all(copies, &starts, since, options.openers)?, marked))
}

/// A segment whose header is bad on every copy belongs to nobody, but the marks in it still
/// tell what was kept: what is missing is damage and not a commit that never was.
fn mark_without_header<P: Pool>(
    copies: &Copies<P>,
    slot: u32,
    catalogue: &mut Catalogue,
    accept: impl Fn(&Head) -> bool,
) -> Result<u64, ReadError> {
    let (mut block, mut mark) = (1, 0);
    while block < copies.geometry.segment_blocks {
        let Some(batch) = copies.batch(slot, block, &accept)? else { break };
        mark = mark.max(batch.head.mark);
        catalogue.next_incarnation = catalogue.next_incarnation.max(batch.head.incarnation + 1);
        block += batch.head.blocks();
    }
    Ok(mark)
}

/// Collects the batches of several segments, some at the same time, in order of the segments.
fn walk_all<P: Pool>(
    copies: &Copies<P>,
    starts: &[Start],
    accept: impl Fn(&Head) -> bool + Sync,
    threads: usize,
) -> Result<Vec<Found>, ReadError> {
    let collect = |start: &Start| {
        let mut found = Vec::new();
        walk(copies, start, &accept, &mut found).map(|()| found)
    };
    if threads < 2 {
        return Ok(starts.iter().map(collect).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = || starts.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(mine).map(|start| Ok((start.slot, collect(start)?))).collect::<Result<Vec<_>, ReadError>>()
    };
    let mut all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(starts.len())).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok(done.collect::<Result<Vec<_>, ReadError>>()?.into_iter().flatten().collect::<Vec<_>>())
    })?;
    all.sort_unstable_by_key(|(slot, _)| *slot);
    Ok(all.into_iter().flat_map(|(_, found)| found).collect())
}

fn everything<P: Pool>(
    copies: &Copies<P>,
    superblock: &Superblock,
    catalogue: &mut Catalogue,
    out: &mut Checked,
) -> Result<Vec<Found>, ReadError> {
    let mut found = Vec::new();
    for slot in 0..superblock.geometry.slots {
        if let Some(start) = start_of(copies, slot, |h| h.store == superblock.store, catalogue, out)? {
            walk(copies, &start, |_| true, &mut found)?;
        }
    }
    // What a later run cut, or began anew under the same numbers, is not to come back.
    let mut runs: BTreeMap<u64, u64> = found.iter().map(|f| (f.part.head.run, f.part.head.run_first)).collect();
    runs.insert(superblock.run, superblock.run_first);
    found.retain(|f| runs.range(f.part.head.run + 1..).all(|(_, first)| f.part.head.commit < *first));
    Ok(found)
}

fn start_of<P: Pool>(
    copies: &Copies<P>,
    slot: u32,
    accept: impl Fn(&hoidla_format::disk::segment::SegmentHeader) -> bool,
    catalogue: &mut Catalogue,
    out: &mut Checked,
) -> Result<Option<Start>, ReadError> {
    let Some((h, previous, everywhere)) = copies.header(slot, accept)? else { return Ok(None) };
    if !everywhere {
        copies.repair_header(&h, out)?;
    }
    catalogue.next_incarnation = catalogue.next_incarnation.max(h.incarnation + 1);
    catalogue.fresh = catalogue.fresh.max(slot + 1);
    let generation = Arc::new(Generation { dataset: h.dataset, number: h.generation });
    Ok(Some(Start {
        slot,
        incarnation: h.incarnation,
        generation,
        dense: h.dense,
        block: 1,
        previous,
        number: 0,
        fence: copies.geometry.segment_blocks,
    }))
}

/// Collects a segment's batches from `start` on: along the chain, then whatever lies behind a break,
/// up to the fence. Nothing follows an index.
fn walk<P: Pool>(copies: &Copies<P>, start: &Start, accept: impl Fn(&Head) -> bool, found: &mut Vec<Found>) -> Result<(), ReadError> {
    let (mut block, mut previous, mut number, mut orphan) = (start.block, start.previous, start.number, false);
    let end = copies.geometry.segment_blocks;
    while block < end {
        let ours = |h: &Head| h.incarnation == start.incarnation && accept(h);
        let next = copies.batch(start.slot, block, |h| ours(h) && h.number == number && h.previous == previous)?;
        let batch = match next {
            Some(batch) => batch,
            None => match copies.later(start.slot, block, start.fence, |h| ours(h) && h.number > number)? {
                Some(batch) => {
                    orphan = true;
                    batch
                }
                None => return Ok(()),
            },
        };
        (previous, number) = (batch.hash, batch.head.number + 1);
        block = batch.block + batch.head.blocks();
        let (everywhere, last) = (batch.everywhere, batch.head.index.is_some());
        let (generation, dense) = (start.generation.clone(), start.dense);
        let part = Part { slot: batch.slot, block: batch.block, generation, dense, head: batch.head, hash: batch.hash };
        found.push(Found { part, everywhere, orphan });
        if last {
            return Ok(());
        }
    }
    Ok(())
}

/// Decides what is kept, makes it whole on every copy, and takes it into the catalogue.
/// Returns the leaves in it.
fn settle<P: Pool>(
    copies: &Copies<P>,
    catalogue: &mut Catalogue,
    found: Vec<Found>,
    marked: u64,
    options: &Options,
    opened: &mut Opened,
    out: &mut Checked,
) -> Result<BTreeMap<u64, Hash32>, ReadError> {
    let (mut leaves, mut holes) = (BTreeMap::new(), Holes::default());
    let found = without_far_ones(found, catalogue.commit, opened);
    let mark = found.iter().map(|f| f.part.head.mark).fold(marked.max(catalogue.commit), u64::max);
    let mut commits: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
    for f in found {
        commits.entry(f.part.head.commit).or_default().push(f);
    }
    commits.values_mut().for_each(|parts| parts.sort_by_key(|f| f.part.head.part));
    let last = commits.keys().next_back().copied().unwrap_or(0);
    let mut next = if opened.rebuilt { commits.keys().next().copied().unwrap_or(1) } else { catalogue.commit + 1 };
    loop {
        if opened.rebuilt && next <= mark {
            // What was between has ended, or is lost: agents tell.
            next = commits.keys().next().copied().unwrap_or(u64::MAX).min(mark + 1);
            catalogue.commit = catalogue.commit.max(next - 1);
        }
        let parts = commits.remove(&next).unwrap_or_default();
        let whole = is_whole(&parts);
        if next <= mark {
            if !whole && !opened.rebuilt {
                opened.damage.push(format!("commit {next} was marked as kept, and is not whole on any copy"));
            }
            for f in parts.iter().filter(|f| !f.everywhere) {
                copies.reconcile(&batch_of(&f.part), out)?;
            }
        } else if !keep(copies, &parts, whole, options, out)? || (options.faulty(Fault::CutTooMuch) && next == last) {
            break;
        }
        let orphaned: Vec<_> = parts.iter().filter(|f| f.orphan).map(|f| f.part.slot).collect();
        let parts: Vec<_> = parts.into_iter().map(|f| f.part).collect();
        catalogue.apply(&parts, whole);
        leaves.extend(parts.iter().flat_map(indexed_leaves));
        parts.iter().filter(|_| opened.rebuilt).for_each(|p| holes.found(p));
        catalogue.commit = catalogue.commit.max(next);
        for slot in orphaned {
            set_damaged(catalogue, slot);
        }
        next += 1;
    }
    if opened.rebuilt {
        opened.damage.extend(holes.told(catalogue));
    }
    opened.cut = last.saturating_sub(next - 1).min(last);
    close_doubles(catalogue);
    Ok(leaves)
}

/// Without batches that no number of lost ones explains: each commit between is one that is missing.
fn without_far_ones(mut found: Vec<Found>, commit: u64, opened: &mut Opened) -> Vec<Found> {
    if opened.rebuilt {
        return found;
    }
    let most = commit.saturating_add(found.len() as u64).saturating_add(MOST_MISSING);
    found.retain(|f| {
        let Part { slot, block, head, .. } = &f.part;
        let near = head.commit <= most;
        if !near {
            opened.damage.push(format!("segment {slot}, block {block}: a batch of commit {}, where the last was {commit}", head.commit));
        }
        near
    });
    found
}

fn is_whole(parts: &[Found]) -> bool {
    let Some(first) = parts.first() else { return false };
    let all = usize::from(first.part.head.parts) == parts.len();
    all && parts.iter().enumerate().all(|(i, f)| usize::from(f.part.head.part) == i)
}

/// Whether a commit above the mark is kept; if so it is on every copy.
fn keep<P: Pool>(copies: &Copies<P>, parts: &[Found], whole: bool, options: &Options, out: &mut Checked) -> Result<bool, ReadError> {
    if options.faulty(Fault::CutTooLittle) && !parts.is_empty() {
        return Ok(true);
    }
    if !whole {
        return Ok(false);
    }
    if options.faulty(Fault::KeepOnOneCopy) {
        return Ok(true);
    }
    let mut tried = Checked::default();
    for f in parts {
        copies.reconcile(&batch_of(&f.part), &mut tried)?;
    }
    out.repaired.append(&mut tried.repaired);
    Ok(tried.damage.is_empty())
}

fn batch_of(part: &Part) -> Batch {
    Batch { slot: part.slot, block: part.block, head: part.head.clone(), hash: part.hash, everywhere: false }
}

/// Segments of which no copy is here, where the loss was accepted: nothing goes into them.
fn give_up_lost<P: Pool>(copies: &Copies<P>, catalogue: &mut Catalogue, opened: &mut Opened) {
    if !copies.geometry.loses(u64::MAX, copies.places()) {
        return;
    }
    let used = catalogue.segments.iter().map(|(slot, _)| slot);
    let lost: Vec<_> = used.filter(|slot| copies.of(*slot).next().is_none()).collect();
    if !lost.is_empty() {
        opened.damage.push(format!("{} segments have no copy on the disks that are here", lost.len()));
    }
    lost.into_iter().for_each(|slot| set_damaged(catalogue, slot));
}

fn set_damaged(catalogue: &mut Catalogue, slot: u32) {
    if let Some(s) = catalogue.segments.get_mut(slot).filter(|s| s.shape == Shape::Open) {
        s.shape = Shape::Damaged;
        catalogue.tails.remove(&slot);
    }
}

/// Only one segment of a generation takes batches; after a rebuild there may be more.
fn close_doubles(catalogue: &mut Catalogue) {
    let mut open: Vec<_> = catalogue.tails.keys().copied().collect();
    open.sort_unstable_by_key(|s| catalogue.segment(*s).map_or(0, |s| s.incarnation));
    let mut seen = std::collections::HashSet::new();
    for slot in open.into_iter().rev() {
        if let Some(s) = catalogue.segment(slot)
            && !seen.insert((s.generation, s.dense))
        {
            set_damaged(catalogue, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::part;

    #[test]
    fn a_batch_far_ahead_of_all_is_told_and_not_waited_for() {
        let found = |commits: &[u64]| commits.iter().map(|c| Found { part: part(*c, 1, 1, 0), everywhere: true, orphan: false }).collect();
        let (mut opened, mut rebuilt) = (Opened::default(), Opened { rebuilt: true, ..Opened::default() });
        let near = without_far_ones(found(&[11, 12, 10 + MOST_MISSING]), 10, &mut opened);
        assert_eq!((near.len(), opened.damage.len()), (3, 0));
        let near = without_far_ones(found(&[11, 12, 1 << 60]), 10, &mut opened);
        assert_eq!((near.len(), opened.damage.len()), (2, 1), "{:?}", opened.damage);
        assert_eq!(without_far_ones(found(&[11, 1 << 60]), 0, &mut rebuilt).len(), 2, "what lies between has ended");
    }
}
