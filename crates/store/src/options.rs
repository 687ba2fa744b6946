//! What is settled at formatting, and what each run chooses.

use hoidla_format::disk::{BLOCK, FRONT_BLOCKS, Geometry};

/// How a store is laid out; settled when it is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a segment, a multiple of the block; 0 picks by the disks' size: 64 MiB, smaller on
    /// small disks so that there are some dozens, larger where there would be more than 2^18.
    pub segment: u64,
    /// Bytes of each of the two catalogue areas; 0 picks by the disks' size.
    pub catalogue: u64,
    /// Copies of each segment, on as many disks; 0 puts one on each.
    pub copies: u8,
}

/// Segments of a store, roughly at most, if its layout isn't told.
const MANY_SLOTS: u64 = 1 << 18;

impl Layout {
    /// The division of `places` disks of which the smallest has `size` bytes; none if it is too
    /// small, or if there are fewer disks than copies.
    pub fn geometry(&self, size: u64, places: u8) -> Option<Geometry> {
        let block = BLOCK as u64;
        let room = (size / block).checked_sub(FRONT_BLOCKS)?;
        let copies = if self.copies == 0 { places } else { self.copies };
        let segment = match self.segment {
            0 => pick_segment(size, size.saturating_mul(places.into()) / u64::from(copies.max(1))) / block,
            bytes => bytes / block,
        };
        let slots_in = |blocks: u64| blocks / segment.max(1) * u64::from(places) / u64::from(copies.max(1));
        let catalogue = match self.catalogue {
            0 => (4 << 20).min(size / 16) / block + slots_in(room) / 8 + 1,
            bytes => bytes.div_ceil(block),
        };
        let slots = u32::try_from(slots_in(room.checked_sub(2 * catalogue)?)).ok().filter(|s| *s >= 8)?;
        let (segment_blocks, catalogue_blocks) = (u32::try_from(segment).ok()?, u32::try_from(catalogue).ok()?);
        Geometry { places, copies, segment_blocks, catalogue_blocks, slots }.check().ok()
    }
}

/// Bytes of a segment for disks of which the smallest has `size` bytes, in a store of `all` bytes.
fn pick_segment(size: u64, all: u64) -> u64 {
    let few = 1 << (size / 32).max(4 << 20).ilog2();
    let many = (all / MANY_SLOTS).max(1).next_power_of_two();
    few.min(many.clamp(64 << 20, 4 << 30))
}

/// How the engine runs; none of it stands on disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Payload bytes that one commit gathers, roughly.
    pub commit_bytes: usize,
    /// Commits under way at once: one is written while the one before is flushed.
    pub depth: usize,
    /// Open segments at once.
    pub open_segments: usize,
    /// Commits after which a checkpoint is written, so that few are read at opening.
    pub checkpoint_commits: u64,
    /// Bytes of a checkpoint that are written at once; more makes other work wait longer.
    pub piece: usize,
    /// Blocks by which a segment may grow, at least, before it is said again how far it may:
    /// recovery searches behind damage so far.
    pub fence: u32,
    /// Threads that read segments at opening.
    pub openers: usize,
    /// Begin at opening to rebuild disks that missed something; else they stay out.
    pub rebuild: bool,
    /// Open even if some segments have no copy on the disks that are here: what they held is lost.
    pub accept_loss: bool,
    /// Where the log's counter may stand though the disks say less, by home's word that somebody
    /// raised it by other means.
    pub vouched: Option<u64>,
    /// Write zeros into segments before their first use, when whoever drives the engine is idle.
    pub prewrite: bool,
    /// Levels of the log's tree in a tile, so that few leaves make many tiles.
    #[cfg(feature = "faults")]
    pub tile_height: u32,
    /// A deliberate fault that the simulation must find.
    #[cfg(feature = "faults")]
    pub fault: Option<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_bytes: 16 << 20,
            depth: 2,
            open_segments: 32,
            checkpoint_commits: 1024,
            piece: 256 << 10,
            fence: 512,
            openers: 8,
            rebuild: true,
            accept_loss: false,
            vouched: None,
            prewrite: true,
            #[cfg(feature = "faults")]
            tile_height: crate::tiles::HEIGHT,
            #[cfg(feature = "faults")]
            fault: None,
        }
    }
}

impl Options {
    /// Whether a deliberate fault is switched on; never outside of tests of the simulation.
    #[cfg(feature = "faults")]
    pub(crate) fn faulty(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    #[cfg(feature = "faults")]
    pub(crate) fn tile_height(&self) -> u32 {
        self.tile_height
    }

    #[cfg(not(feature = "faults"))]
    pub(crate) fn tile_height(&self) -> u32 {
        crate::tiles::HEIGHT
    }

    #[cfg(not(feature = "faults"))]
    pub(crate) fn faulty(&self, _: Fault) -> bool {
        false
    }
}

/// Mistakes that an engine could make, made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "faults"), allow(dead_code, unreachable_pub))]
pub enum Fault {
    /// Acknowledges when writes have completed, before the flush.
    AcknowledgeBeforeFlush,
    /// Takes each write as flushed.
    NoFlush,
    /// Acknowledges as soon as one copy has flushed.
    OneCopyIsEnough,
    /// Marks a commit before it is flushed.
    MarkTooHigh,
    /// Takes a disk below the membership epoch as current.
    TrustStaleDisk,
    /// Goes on without a failed disk, but leaves the membership epoch as it was.
    KeepMembership,
    /// Cuts one commit too many.
    CutTooMuch,
    /// Keeps what no copy holds whole.
    CutTooLittle,
    /// Doesn't copy what recovery keeps to the other copies.
    KeepOnOneCopy,
    /// Takes a freed slot into use before a checkpoint says that it is free.
    ReuseBeforeCheckpoint,
    /// Retires a rewritten segment without moving its records.
    RetireTooEarly,
    /// Begins a run with the number of the run before.
    SameRunAgain,
    /// Takes a failed flush for a good one.
    IgnoreFailedFlush,
    /// Takes other bytes at a stored offset for the same.
    ForkUnseen,
    /// Takes appends on disks that are all older than the counter says.
    RollbackUnseen,
    /// Ends a generation whose days are not over.
    ExpireEarly,
    /// Takes a disk for rebuilt before anything was copied.
    CountTooEarly,
    /// Leaves a disk that is being rebuilt out of new writes.
    ForgetJoining,
    /// Believes a disk that was being rebuilt when the store stopped.
    BelieveJoining,
    /// Writes behind what recovery would search.
    IgnoreFences,
    /// Seals batches with a key that everybody knows.
    UnkeyedHeads,
    /// Trusts what one copy says without its hash.
    BelieveRot,
    /// Lets leaves go before their hashes are in tiles.
    TilesTooLate,
    /// Raises the log's counter before the superblocks say so.
    CounterBeforeIntent,
    /// Hands out proofs from unchecked hashes, unchecked.
    UncheckedProofs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_grow_with_the_disks() {
        let picked = |size: u64, places, copies| {
            let g = Layout { copies, ..Layout::default() }.geometry(size, places).unwrap();
            ((u64::from(g.segment_blocks) * BLOCK as u64) >> 20, g.slots)
        };
        let tib = 1u64 << 40;
        assert_eq!(picked(256 << 20, 2, 0).0, 8);
        assert_eq!(picked(4 << 30, 2, 0).0, 64);
        assert_eq!(picked(tib, 2, 0).0, 64);
        assert_eq!(picked(16 * tib, 2, 0).0, 64);
        assert_eq!(picked(100 * tib, 2, 0).0, 512);
        assert_eq!(picked(20 * tib, 12, 2).0, 512, "what counts is the store, not one disk");
        for tibs in [1, 16, 17, 100, 400] {
            let (_, slots) = picked(tibs * tib, 2, 0);
            assert!((16_000..=MANY_SLOTS as u32).contains(&slots), "{tibs} TiB: {slots} slots");
        }
        assert!(Layout::default().geometry(1 << 20, 2).is_none());
        assert_eq!(Layout { segment: 4 << 20, ..Layout::default() }.geometry(tib, 1).unwrap().segment_blocks, 1024);
    }
}
