//! Formatting and opening: whose disks these are, which of them are current, and what
//! is written before the first new commit.
//!
//! Promises: a disk of another store is refused by name; a disk below the highest
//! membership epoch known (on any disk, or to the counter) serves only after it was
//! made whole from a current one; nothing new is written before what recovery kept is
//! on every current copy and flushed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt::Write as _,
    io,
    sync::Arc,
};

use hoidla_format::disk::{
    BLOCK, Geometry, SealKey,
    superblock::{AT, Superblock, next_membership},
};

use crate::{
    catalogue::Catalogue,
    checkpoint::read_catalogue,
    copies::Copies,
    counter,
    device::{Counters, Disk, DiskNo, Disks, Pool},
    draft::{Building, Link},
    engine::{Engine, places},
    fence::{self, Line},
    members::{self, Members},
    options::{Fault, Layout, Options},
    read::{ReadError, Reader},
    rebuild::Mark,
    recovery::{self, Recovered},
    source::Source,
    space::{Open, Space},
    tiles::{self, HEIGHT},
};

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Places whose disk is missing, failed, or is stale and is not being rebuilt.
    pub missing: Vec<DiskNo>,
    /// Places whose disk came back and is being rebuilt.
    pub rebuilding: Vec<DiskNo>,
    /// What was repaired from another copy.
    pub repaired: Vec<String>,
    /// What no copy holds any more, though it was marked as kept.
    pub damage: Vec<String>,
    /// Commits that were begun, not acknowledged, and cut.
    pub cut: u64,
    /// The catalogue was lost and rebuilt from all segments.
    pub rebuilt: bool,
    /// Why the store only reads: its disks are older than it was, or another's.
    pub only_reads: Option<String>,
    /// Where the log's counter stands; 0 if the store only reads, or the machine has none for it.
    pub counter: u64,
}

/// Why a store cannot be opened or formatted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No disk was given, or too many.
    #[error("a store has 1 to 64 disks, {0} were given")]
    Count(usize),
    /// Too small, or a layout that doesn't fit.
    #[error("disk {0} is too small for this layout: use a larger disk or smaller segments")]
    TooSmall(String),
    /// A disk without our superblock.
    #[error("disk {0} holds no store (or all four superblocks are damaged): format it, or attach the right one")]
    NotAStore(String),
    /// A disk of another store.
    #[error("disk {disk} belongs to store {found}, not to {wanted}: take it out")]
    Foreign {
        /// The disk's name.
        disk: String,
        /// The store it belongs to.
        found: String,
        /// The store that is opened.
        wanted: String,
    },
    /// Two disks for one place.
    #[error("disks {0} and {1} are copies of each other: take one out")]
    Twice(String, String),
    /// Only disks that missed something.
    #[error("only disks are here that were left behind at membership epoch {found}; the store was last at {wanted}: attach a current disk")]
    Stale {
        /// The highest here.
        found: u64,
        /// The highest known.
        wanted: u64,
    },
    /// Too many disks are missing.
    #[error(
        "the disks at places {missing:?} are missing, and without them some of what is kept has no copy: attach them; if they are lost for good, hoidlad run --accept-loss goes on without what only they held"
    )]
    Uncovered {
        /// The places.
        missing: Vec<DiskNo>,
    },
    /// Fewer disks than copies.
    #[error("{copies} copies need as many disks, and there are {disks}: add disks, or let the site ask for fewer copies")]
    Copies {
        /// Of each segment.
        copies: u8,
        /// Given.
        disks: usize,
    },
    /// A disk or the counter failed.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        why: io::Error,
    },
    /// The catalogue doesn't fit into its area.
    #[error("the catalogue has outgrown its area: copy the store to one that was formatted with a larger catalogue")]
    NoRoom,
    /// The pool is too small to open with.
    #[error("opening needs a few buffers of 1 MiB: give the store a larger pool")]
    Memory,
}

/// A disk that failed while it was opened: opening begins again without it.
pub(crate) enum Trouble {
    Disk(DiskNo, io::Error),
    Open(OpenError),
}

impl From<OpenError> for Trouble {
    fn from(e: OpenError) -> Self {
        Self::Open(e)
    }
}

impl From<ReadError> for Trouble {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Busy => Self::Open(OpenError::Memory),
            ReadError::Repair { disk, what, why } => Self::Disk(disk, io::Error::other(format!("{what}: {why}"))),
            other => Self::Open(OpenError::Io { what: "while recovering".into(), why: io::Error::other(other.to_string()) }),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

impl<P: Pool> Engine<P> {
    /// Lays an empty store on `disks`; everything on them is lost. `store` is
    /// 16 random bytes that name it, `key` 32 that no agent knows. The counter goes on from where it is.
    pub fn format(
        disks: &[Arc<dyn Disk>],
        store: [u8; 16],
        key: SealKey,
        layout: Layout,
        pool: &P,
        counters: &mut dyn Counters,
    ) -> Result<(), OpenError> {
        let places = disks.len();
        let size = disks.iter().map(|d| d.size()).min().filter(|_| places <= usize::from(Geometry::MOST_PLACES));
        let smallest = disks.iter().min_by_key(|d| d.size()).map_or(String::new(), |d| d.name());
        let size = size.ok_or(OpenError::Count(places))?;
        if usize::from(layout.copies) > places {
            return Err(OpenError::Copies { copies: layout.copies, disks: places });
        }
        let geometry = layout.geometry(size, places as u8).ok_or(OpenError::TooSmall(smallest))?;
        let io = |what: &str| {
            let what = what.to_owned();
            move |why| OpenError::Io { what, why }
        };
        let base = counters.membership().map_err(io("reading the membership counter"))?;
        let members = geometry.everywhere();
        let membership = next_membership(base, members, places as u8);
        let superblock = Superblock {
            store,
            key,
            place: 0,
            geometry,
            sequence: 1,
            membership,
            base,
            members,
            run: 0,
            run_first: 1,
            checkpoint: 1,
            counter: counters.log_counter().map_err(io("reading the log's counter"))?,
        };
        let reserve = (0..geometry.slots.min(64)).collect();
        let items = Catalogue::empty(geometry.slots, HEIGHT).items(0, 1, reserve);
        let all: Disks = disks.iter().cloned().map(Some).collect();
        let writer = Writer { pool, disks: &all, mask: members };
        let done = writer.catalogue(&superblock, items).and_then(|()| writer.superblocks(&superblock));
        match done {
            Ok(()) => counters.raise_membership(membership).map_err(io("raising the membership counter")),
            Err(Trouble::Disk(no, why)) => Err(OpenError::Io { what: format!("formatting {}", disks[usize::from(no)].name()), why }),
            Err(Trouble::Open(e)) => Err(e),
        }
    }

    /// Opens the store that lies on `disks`, in any order; some may be missing. A disk of any
    /// other store than `store` is refused. A disk that fails meanwhile is left out.
    pub fn open(
        disks: Vec<Arc<dyn Disk>>,
        store: [u8; 16],
        pool: Arc<P>,
        counters: Box<dyn Counters>,
        options: Options,
    ) -> Result<(Self, Opened), OpenError> {
        let mut found = find(&disks, store, &*pool)?;
        let mut counters = counters;
        loop {
            match open_with(&found, &pool, &mut *counters, &options) {
                Ok((superblock, recovered, line, opened)) => {
                    let disks: Disks = found.iter().map(|f| f.as_ref().map(|f| f.0.clone())).collect();
                    let back: Vec<_> = opened.rebuilding.iter().filter_map(|p| Some((*p, disks[usize::from(*p)].clone()?))).collect();
                    let mut engine = Self::start(superblock, recovered, line, disks, pool, counters, options);
                    for (place, disk) in back {
                        let joined = engine.join(place, disk);
                        debug_assert!(joined.is_ok(), "it was checked when it was found");
                    }
                    (engine.only_reads, engine.counted) = (opened.only_reads.clone(), opened.counter);
                    return Ok((engine, opened));
                }
                Err(Trouble::Open(e)) => return Err(e),
                Err(Trouble::Disk(no, why)) => {
                    found[usize::from(no)] = None;
                    if found.iter().all(Option::is_none) {
                        return Err(OpenError::Io { what: format!("the last disk, {no}, failed"), why });
                    }
                }
            }
        }
    }

    fn start(
        superblock: Superblock,
        r: Recovered,
        line: Line,
        disks: Disks,
        pool: Arc<P>,
        counters: Box<dyn Counters>,
        options: Options,
    ) -> Self {
        let catalogue = r.catalogue;
        let mut space = Space { next_incarnation: catalogue.next_incarnation, reserve: r.reserve.into(), ..Space::default() };
        for (slot, tail) in &catalogue.tails {
            let Some(s) = catalogue.segment(*slot) else { continue };
            let open = Open { slot: *slot, incarnation: s.incarnation, next: s.end, index: tail.index.clone(), new: false, used: 0 };
            space.open.insert((s.generation, s.dense), open);
            space.links.insert(*slot, Link { hash: tail.hash, number: tail.number });
        }
        Self {
            pool,
            counters,
            options,
            source: Source::new(&superblock, &disks, superblock.members),
            disks,
            current: superblock.members,
            joining: Vec::new(),
            joins: 0,
            promoted: 0,
            superblock,
            ahead: HashMap::new(),
            frontier: catalogue.frontier.clone(),
            next_commit: catalogue.commit + 1,
            space,
            building: Building::default(),
            flying: VecDeque::new(),
            marked: catalogue.commit,
            content: 0,
            requests: VecDeque::new(),
            awaited: HashMap::new(),
            next_id: 0,
            events: VecDeque::new(),
            job: None,
            raising: false,
            since_checkpoint: 0,
            line,
            rewriting: HashSet::new(),
            powered: catalogue.powered,
            skipped: Vec::new(),
            promised: HashMap::new(),
            stopped: None,
            only_reads: None,
            counted: 0,
            counting: None,
            catalogue,
        }
    }
}

/// Which disk stands at which place, with its superblock.
type Present = Vec<Option<(Arc<dyn Disk>, Superblock)>>;

fn find<P: Pool>(disks: &[Arc<dyn Disk>], store: [u8; 16], pool: &P) -> Result<Present, OpenError> {
    let mut found: Present = Vec::new();
    for disk in disks {
        let Some(superblock) = read_superblock(&**disk, pool)? else {
            return Err(OpenError::NotAStore(disk.name()));
        };
        if superblock.store != store {
            return Err(OpenError::Foreign { disk: disk.name(), found: hex(&superblock.store), wanted: hex(&store) });
        }
        if disk.size() < superblock.geometry.disk_bytes() {
            return Err(OpenError::TooSmall(disk.name()));
        }
        found.resize_with(found.len().max(usize::from(superblock.geometry.places)), || None);
        let place = &mut found[usize::from(superblock.place)];
        if let Some((other, _)) = place {
            return Err(OpenError::Twice(other.name(), disk.name()));
        }
        *place = Some((disk.clone(), superblock));
    }
    if found.is_empty() { Err(OpenError::Count(0)) } else { Ok(found) }
}

/// The best of a disk's four superblocks. A disk that cannot be read counts as failed, not as foreign.
pub(crate) fn read_superblock<P: Pool>(disk: &dyn Disk, pool: &P) -> Result<Option<Superblock>, OpenError> {
    let mut buffer = pool.take(BLOCK).ok_or(OpenError::Memory)?;
    Ok(best_superblock(disk, &mut buffer.as_mut()[..BLOCK]))
}

/// The newest of a disk's superblocks that can be read, by way of a block of memory as the disk wants it.
pub fn best_superblock(disk: &dyn Disk, block: &mut [u8]) -> Option<Superblock> {
    let read = |at: u64| {
        let at = at * BLOCK as u64;
        if at + BLOCK as u64 > disk.size() {
            return None;
        }
        disk.read(at, block).ok()?;
        Superblock::from_block(block.first_chunk()?).ok()
    };
    AT.into_iter().filter_map(read).reduce(|best, other| if best.sequence < other.sequence { other } else { best })
}

fn open_with<P: Pool>(
    found: &Present,
    pool: &Arc<P>,
    counters: &mut dyn Counters,
    options: &Options,
) -> Result<(Superblock, Recovered, Line, Opened), Trouble> {
    let counted = counters.membership().map_err(|why| OpenError::Io { what: "reading the membership counter".into(), why })?;
    let present: Vec<_> = found.iter().flatten().map(|(_, s)| s).collect();
    let Members { mut superblock, current, own, stale, highest } = members::judge(&present, counted, options)?;
    if options.faulty(Fault::UnkeyedHeads) {
        superblock.key = SealKey([0; 32]);
    }
    if superblock.geometry.loses(superblock.members, current) && !options.accept_loss {
        return Err(OpenError::Uncovered { missing: places(superblock.members & !current).collect() }.into());
    }
    let disks: Disks = found.iter().map(|f| f.as_ref().map(|f| f.0.clone())).collect();
    let mut opened = Opened::default();

    let copies = Copies::new(pool.clone(), &disks, current, superblock.geometry, superblock.key);
    let checkpoint = read_catalogue(&disks, own, &superblock, options.tile_height(), pool)?;
    let said = fence::read(&disks, current, &superblock, pool)?;
    let fences = said.as_ref().filter(|f| f.membership == superblock.membership);
    let mut recovered = recovery::recover(&copies, &superblock, checkpoint, fences, options, &mut opened)?;

    if opened.rebuilt || recovered.catalogue.tiles.size() != recovered.catalogue.frontier.size() {
        let (source, mut reader) = (Source::new(&superblock, &disks, current), Reader::new(disks.clone(), pool.clone()));
        let wrong = tiles::restore(&mut recovered.catalogue, &mut reader, &source, &recovered.leaves);
        opened.damage.extend(wrong);
    }
    let members = current;
    // With a disk away, always: it may hold an epoch that was begun and never counted, and
    // must not count as good once more is acknowledged without it.
    let whole = members == superblock.members && members == superblock.geometry.everywhere();
    if (!whole || ![0, superblock.membership].contains(&counted)) && !options.faulty(Fault::KeepMembership) {
        superblock.base = if counted == 0 { superblock.membership } else { counted };
        superblock.membership = next_membership(highest.membership.max(counted), members, superblock.geometry.places);
    }
    superblock.members = members;
    let again = u64::from(!options.faulty(Fault::SameRunAgain));
    superblock.run = highest.run.max(recovered.last_run) + again;
    superblock.sequence = highest.sequence + 1;
    superblock.checkpoint = superblock.checkpoint.max(recovered.sequence) + 1;

    let stands = counters.log_counter().map_err(|why| OpenError::Io { what: "reading the log's counter".into(), why })?;
    opened.only_reads = counter::judge(&superblock, stands, options);
    if opened.only_reads.is_none() && stands > 0 {
        superblock.counter = stands + 1; // the intent; the counter follows when it is written
        opened.counter = superblock.counter;
    }
    superblock.run_first = recovered.catalogue.commit + 1;
    recovered.reserve = first_reserve(&recovered.catalogue, &superblock);
    let items = recovered.catalogue.items(superblock.run, superblock.run_first, recovered.reserve.clone());
    let writer = Writer { pool: &**pool, disks: &disks, mask: members };
    // The record that counted until now stays where it is until the superblocks say otherwise.
    let line = Line::begin(&superblock, &recovered.catalogue, said.map_or(1, |f| f.sequence + 1), options);
    writer.each(|_, disk| fence::write(disk, line.record(), &**pool))?;
    writer.catalogue(&superblock, items)?;
    writer.superblocks(&superblock)?;
    counters.raise_membership(superblock.membership).map_err(|why| OpenError::Io { what: "raising the membership counter".into(), why })?;
    if opened.counter > 0 {
        counters.raise_log_counter(superblock.counter).map_err(|why| OpenError::Io { what: "raising the log's counter".into(), why })?;
    }
    // One that fails even now stays out; the others have begun their run.
    let marked = |place: &DiskNo| {
        let disk = disks[usize::from(*place)].as_ref();
        disk.is_some_and(|d| Mark::of(&superblock, *place).write(&**d, &**pool).is_ok())
    };
    opened.rebuilding = places(if options.rebuild { stale } else { 0 }).filter(marked).collect();
    opened.missing = places(superblock.geometry.everywhere() & !members).filter(|p| !opened.rebuilding.contains(p)).collect();
    Ok((superblock, recovered, line, opened))
}

fn first_reserve(c: &Catalogue, s: &Superblock) -> Vec<u32> {
    let usable = |slot: &u32| c.segment(*slot).is_none() && s.geometry.holders(*slot) & s.members != 0;
    (0..s.geometry.slots).filter(usable).take(64).collect()
}

/// Blocking writes to several disks while the store is not running yet.
pub(crate) struct Writer<'a, P: Pool> {
    pub pool: &'a P,
    disks: &'a Disks,
    mask: u64,
}

impl<P: Pool> Writer<'_, P> {
    pub fn each(&self, f: impl Fn(DiskNo, &dyn Disk) -> io::Result<()>) -> Result<(), Trouble> {
        for (no, disk) in (0u8..).zip(self.disks).filter(|(i, _)| self.mask >> i & 1 == 1) {
            if let Some(disk) = disk {
                f(no, &**disk).map_err(|why| Trouble::Disk(no, why))?;
            }
        }
        Ok(())
    }

    /// Two copies, flush, two, flush; the lowest place before all others (see [`next_membership`]).
    fn superblocks(&self, superblock: &Superblock) -> Result<(), Trouble> {
        let lead = 1 << self.mask.trailing_zeros();
        for mask in [lead, self.mask & !lead] {
            let some = Self { mask, ..*self };
            for pair in AT.chunks(2) {
                some.superblock_pair(superblock, pair)?;
            }
        }
        Ok(())
    }

    fn superblock_pair(&self, superblock: &Superblock, pair: &[u64]) -> Result<(), Trouble> {
        let mut buffer = self.pool.take(BLOCK).ok_or(OpenError::Memory)?;
        for no in 0..self.disks.len() as u8 {
            let place = Superblock { place: no, ..superblock.clone() };
            buffer.as_mut()[..BLOCK].copy_from_slice(&place.to_block());
            let one = Self { mask: self.mask & 1 << no, ..*self };
            for at in pair {
                one.each(|_, disk| disk.write(at * BLOCK as u64, &buffer.as_ref()[..BLOCK]))?;
            }
        }
        self.each(|_, disk| disk.flush())
    }
}
