//! Proofs from the log: made off the engine's thread, and checked before they are given.
//!
//! Promises: a proof that is returned verifies, against the root that the engine vouches
//! for; damage gives an error, never a wrong proof. A proof reads a tile or two a level.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use hoidla_format::Hash32;
use hoidla_log::{Nodes, consistency, inclusion, node_hash, root, verify_consistency, verify_inclusion};

use crate::{
    catalogue::Catalogue,
    device::Pool,
    engine::Engine,
    read::{Place, ReadError, Reader},
    source::Source,
    space::Pin,
    tiles::{Tiles, stream_of},
};

/// What is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Leaf `index` is in the log's first `size` leaves.
    Inclusion {
        /// The leaf.
        index: u64,
        /// The log's size.
        size: u64,
    },
    /// The log's first `old` leaves are the beginning of its first `new`.
    Consistency {
        /// The older size.
        old: u64,
        /// The newer one.
        new: u64,
    },
}

/// A tile: its level, and its number in it.
type TileNo = (u32, u64);

/// Where the hashes of a tile are: on disk up to the stream's offset, then in memory.
pub(crate) struct Piece {
    disk: Vec<(Place, u64)>,
    memory: Vec<Hash32>,
}

/// All that a proof is made from.
pub struct Grounds {
    asked: Asked,
    head: (u64, Hash32),
    pieces: Pieces,
}

/// The tiles that are needed, and where they are.
pub(crate) struct Pieces {
    height: u32,
    tiles: BTreeMap<TileNo, Piece>,
}

/// Finds out which tiles a proof needs, by making one of nothing.
pub(crate) struct Wanted {
    height: u32,
    tiles: RefCell<BTreeSet<TileNo>>,
}

impl Wanted {
    pub fn new(height: u32) -> Self {
        Self { height, tiles: RefCell::default() }
    }

    /// Where the tiles are that were asked for; none if the log lacks one.
    pub fn pieces(self, catalogue: &Catalogue, tiles: &Tiles, source: &Source, pin: &mut dyn FnMut(u32) -> Pin) -> Option<Pieces> {
        let height = self.height;
        let piece = |no: TileNo| Some((no, piece(catalogue, tiles, source, pin, no)?));
        Some(Pieces { height, tiles: self.tiles.into_inner().into_iter().map(piece).collect::<Option<_>>()? })
    }
}

fn piece(catalogue: &Catalogue, tiles: &Tiles, source: &Source, pin: &mut dyn FnMut(u32) -> Pin, (level, number): TileNo) -> Option<Piece> {
    let known = tiles.levels.get(level as usize)?;
    let (from, to) = (number << tiles.height, (number + 1) << tiles.height);
    let stream = stream_of(level);
    let (mut at, end) = (from * 32, to.min(known.stored) * 32);
    let mut disk = Vec::new();
    while at < end {
        let slot = catalogue.slot_of(stream, at)?;
        let next = catalogue.next_run(stream, slot, at).unwrap_or(end).min(end);
        disk.push((catalogue.place(stream, at, source, pin(slot))?, next));
        at = next;
    }
    let skip = from.saturating_sub(known.stored) as usize;
    let memory = known.hashes.iter().skip(skip).take((to.max(known.stored) - from.max(known.stored)) as usize);
    Some(Piece { disk, memory: memory.copied().collect() })
}

impl Nodes for Wanted {
    type Error = ReadError;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, ReadError> {
        let first = index << (level % self.height);
        self.tiles.borrow_mut().insert((level / self.height, first >> self.height));
        Ok(Hash32([0; 32]))
    }
}

/// Tiles as they were read.
pub(crate) struct Loaded {
    height: u32,
    tiles: BTreeMap<TileNo, Vec<Hash32>>,
}

impl Nodes for Loaded {
    type Error = ReadError;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, ReadError> {
        let up = level % self.height;
        let first = index << up;
        let tile = self.tiles.get(&(level / self.height, first >> self.height)).ok_or(ReadError::LogDamaged)?;
        let at = (first & ((1 << self.height) - 1)) as usize;
        let mut hashes = tile.get(at..at + (1 << up)).ok_or(ReadError::LogDamaged)?.to_vec();
        while hashes.len() > 1 {
            hashes = hashes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(hashes[0])
    }
}

impl<P: Pool> Engine<P> {
    /// What a proof will be made from, by [`Reader::prove`]; held against recycling meanwhile.
    pub fn grounds(&mut self, asked: Asked) -> Result<Grounds, ReadError> {
        let head = self.log_head();
        let (smaller, larger) = match asked {
            Asked::Inclusion { index, size } => (index.saturating_add(1), size),
            Asked::Consistency { old, new } => (old, new),
        };
        if smaller > larger || larger > head.0 {
            return Err(ReadError::BeyondLog { asked: larger.max(smaller), size: head.0 });
        }
        let tiles = &self.catalogue.tiles;
        if tiles.size() != head.0 {
            return Err(ReadError::LogDamaged);
        }
        let wanted = Wanted::new(tiles.height);
        let _ = make(&wanted, asked, head.0)?;
        let space = &mut self.space;
        let pieces = wanted.pieces(&self.catalogue, tiles, &self.source, &mut |slot| space.pin(slot)).ok_or(ReadError::LogDamaged)?;
        Ok(Grounds { asked, head, pieces })
    }
}

impl<P: Pool> Reader<P> {
    /// Makes the proof and checks it.
    pub fn prove(&mut self, grounds: &Grounds) -> Result<Vec<Hash32>, ReadError> {
        let believed = self.believe;
        self.believe |= self.unchecked;
        let loaded = self.load(&grounds.pieces);
        self.believe = believed;
        let made = make(&loaded?, grounds.asked, grounds.head.0)?;
        if self.unchecked { Ok(made.proof) } else { made.check(grounds.asked, grounds.head) }
    }

    pub(crate) fn load(&mut self, pieces: &Pieces) -> Result<Loaded, ReadError> {
        let mut tiles = BTreeMap::new();
        for (no, piece) in &pieces.tiles {
            let mut hashes = Vec::new();
            for (place, end) in &piece.disk {
                self.read_hashes(place.clone(), *end, &mut hashes)?;
            }
            hashes.extend(&piece.memory);
            tiles.insert(*no, hashes);
        }
        Ok(Loaded { height: pieces.height, tiles })
    }

    fn read_hashes(&mut self, mut place: Place, end: u64, out: &mut Vec<Hash32>) -> Result<(), ReadError> {
        while place.offset < end {
            let found = match self.read(&place) {
                Err(ReadError::Damaged { .. }) => return Err(ReadError::LogDamaged),
                other => other?,
            };
            let all = found.bytes();
            let skip = (place.offset - found.offset) as usize;
            let take = (all.len() - skip).min((end - place.offset) as usize);
            out.extend(all[skip..skip + take].chunks_exact(32).map(|h| Hash32(h.try_into().expect("32 bytes"))));
            place.offset += take as u64;
        }
        Ok(())
    }
}

/// A proof, and all that it takes to check it.
struct Made {
    proof: Vec<Hash32>,
    /// The leaf's hash, or the older root.
    first: Hash32,
    /// The root at the size that the proof is for, and the proof that the head extends it.
    root: Hash32,
    to_head: Vec<Hash32>,
}

/// Makes a proof from nodes that may be wrong.
fn make(nodes: &impl Nodes<Error = ReadError>, asked: Asked, head: u64) -> Result<Made, ReadError> {
    let (first, proof, size) = match asked {
        Asked::Inclusion { index, size } => (nodes.node(0, index)?, inclusion(nodes, index, size)?, size),
        Asked::Consistency { old, new } => (root(nodes, old)?, consistency(nodes, old, new)?, new),
    };
    let to_head = consistency(nodes, size, head)?;
    Ok(Made { proof: proof.ok_or(ReadError::LogDamaged)?, first, root: root(nodes, size)?, to_head: to_head.ok_or(ReadError::LogDamaged)? })
}

impl Made {
    /// The proof, if all of it leads to the head's root.
    fn check(self, asked: Asked, (head, head_root): (u64, Hash32)) -> Result<Vec<Hash32>, ReadError> {
        let (size, good) = match asked {
            Asked::Inclusion { index, size } => (size, verify_inclusion(&self.first, index, size, &self.root, &self.proof)),
            Asked::Consistency { old, new } => (new, verify_consistency(old, &self.first, new, &self.root, &self.proof)),
        };
        let leads = verify_consistency(size, &self.root, head, &head_root, &self.to_head);
        good.and(leads).map(|()| self.proof).map_err(|_| ReadError::LogDamaged)
    }
}
