//! The log's tiles and its counter: proofs after loss and damage, and disks put back.

mod common;

use std::sync::Arc;

use common::*;
use hoidla_format::{Hash32, StreamId};
use hoidla_log::{Frontier, leaf_hash, verify_consistency, verify_inclusion};
use hoidla_simulation::{
    counter::Counter,
    disk::{Power, SimDisk},
    memory::Memory,
};
use hoidla_store::{Appended, Asked, BLOCK, Disk, Engine, Generation, Layout, Opened, Options, ReadError, Reader, Record, Refused};

const SEGMENT: u64 = 256 * BLOCK as u64;
const LAYOUT: Layout = Layout { segment: SEGMENT, catalogue: 64 * BLOCK as u64, copies: 2 };
const CATALOGUES: std::ops::Range<u64> = 64..64 + 128;
const SLOTS: u64 = 24;

struct World {
    disks: [Arc<SimDisk>; 2],
    counter: Counter,
    /// The log's root after each leaf.
    roots: Vec<Hash32>,
    leaves: Vec<Hash32>,
    lengths: Vec<u64>,
}

impl World {
    fn new() -> (Self, Engine<Memory>) {
        let size = (64 + 128) * BLOCK as u64 + SLOTS * SEGMENT;
        let disks = ["a", "b"].map(|name| Arc::new(SimDisk::new(name, size, Power::stays())));
        let world =
            Self { disks, counter: Counter::default(), roots: vec![Frontier::new().root()], leaves: Vec::new(), lengths: vec![0; 100] };
        Engine::format(&world.all(), STORE, KEY, LAYOUT, &Memory::new(8), &mut world.counter.clone()).unwrap();
        let (engine, _) = world.open();
        (world, engine)
    }

    fn all(&self) -> Vec<Arc<dyn Disk>> {
        self.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect()
    }

    fn open(&self) -> (Engine<Memory>, Opened) {
        self.open_with(Options::default())
    }

    /// As by home's word that the counter may stand there.
    fn open_vouched(&self, stands: u64) -> (Engine<Memory>, Opened) {
        self.open_with(Options { vouched: Some(stands), ..Options::default() })
    }

    fn open_with(&self, options: Options) -> (Engine<Memory>, Opened) {
        Engine::open(self.all(), STORE, Arc::new(Memory::new(512)), Box::new(self.counter.clone()), options).unwrap()
    }

    /// One record for each of a hundred streams, so a hundred leaves; and what the log says of them.
    fn grow(&mut self, engine: &mut Engine<Memory>) {
        for stream in 0..100_u8 {
            let offset = self.lengths[usize::from(stream)];
            assert_eq!(engine.append(record(stream, offset, b"leaf"), 0), Ok(Appended::Pending));
        }
        settle(engine);
        let mut reader = reader(engine);
        let mut found = Vec::new();
        for stream in 0..100_u8 {
            let length = &mut self.lengths[usize::from(stream)];
            let logged = reader.logged(&engine.locate(StreamId([stream; 16]), *length).unwrap()).unwrap();
            assert_eq!((logged.before.length, logged.frames.len()), (*length, 1));
            *length += 4;
            found.push((logged.index, leaf_hash(&logged.leaf)));
        }
        found.sort_unstable_by_key(|f| f.0);
        assert_eq!(found[0].0, self.leaves.len() as u64, "tiles have no leaves");
        let mut frontier = Frontier::new();
        self.leaves.iter().for_each(|l| _ = frontier.push(*l));
        for (_, leaf) in found {
            frontier.push(leaf);
            self.leaves.push(leaf);
            self.roots.push(frontier.root());
        }
        assert_eq!(engine.log_head(), (frontier.size(), frontier.root()));
    }

    /// Every proof of a grid verifies.
    fn check(&self, engine: &mut Engine<Memory>) {
        let mut reader = reader(engine);
        let all = self.leaves.len() as u64;
        for size in [1, 2, 255, 256, 257, 600, all - 1, all].into_iter().filter(|s| *s <= all) {
            for index in [0, 1, 255, 256, 511, size - 1].into_iter().filter(|i| *i < size) {
                let proof = prove(engine, &mut reader, Asked::Inclusion { index, size }).unwrap();
                verify_inclusion(&self.leaves[index as usize], index, size, &self.roots[size as usize], &proof).unwrap();
                let proof = prove(engine, &mut reader, Asked::Consistency { old: index, new: size }).unwrap();
                verify_consistency(index, &self.roots[index as usize], size, &self.roots[size as usize], &proof).unwrap();
            }
        }
    }
}

fn reader(engine: &Engine<Memory>) -> Reader<Memory> {
    Reader::new(engine.disks(), Arc::new(Memory::new(8)))
}

fn prove(engine: &mut Engine<Memory>, reader: &mut Reader<Memory>, asked: Asked) -> Result<Vec<Hash32>, ReadError> {
    engine.grounds(asked).and_then(|g| reader.prove(&g))
}

fn proven(engine: &mut Engine<Memory>, asked: Asked) -> Result<Vec<Hash32>, ReadError> {
    let mut reader = reader(engine);
    prove(engine, &mut reader, asked)
}

/// The block of a segment in which these bytes stand.
fn find(disk: &SimDisk, wanted: &[u8]) -> Option<u64> {
    let mut block = vec![0; BLOCK];
    (CATALOGUES.end..disk.blocks())
        .find(|b| disk.read(b * BLOCK as u64, &mut block).is_ok() && block.windows(wanted.len()).any(|w| w == wanted))
}

#[test]
fn proofs_hold_over_tiles_restarts_and_a_lost_catalogue() {
    let (mut world, mut engine) = World::new();
    for round in 0..9 {
        world.grow(&mut engine);
        world.check(&mut engine);
        if round % 3 == 2 {
            drop(engine);
            if round == 5 {
                world.disks.iter().for_each(|d| d.ruin(CATALOGUES));
            }
            let (again, opened) = world.open();
            assert_eq!((opened.rebuilt, opened.damage), (round == 5, vec![]));
            engine = again;
            world.check(&mut engine);
        }
    }
    assert!(find(&world.disks[0], &world.leaves[300].0).is_some(), "the second tile is on disk");
    assert_eq!(find(&world.disks[0], &world.leaves[899].0), None, "the last leaf still waits");
}

#[test]
fn damage_in_a_tile_costs_nothing_or_a_proof_and_never_makes_a_wrong_one() {
    let (mut world, mut engine) = World::new();
    (0..4).for_each(|_| world.grow(&mut engine));
    let asked = Asked::Inclusion { index: 3, size: 400 };
    let good = proven(&mut engine, asked).unwrap();
    let block = find(&world.disks[0], &world.leaves[2].0).unwrap();
    assert_eq!(Some(block), find(&world.disks[1], &world.leaves[2].0));
    world.disks[0].ruin(block..block + 1);
    assert_eq!(proven(&mut engine, asked).unwrap(), good, "taken from the other copy");
    world.disks.iter().for_each(|d| d.ruin(block..block + 1));
    assert_eq!(proven(&mut engine, asked), Err(ReadError::LogDamaged));
    assert!(proven(&mut engine, Asked::Inclusion { index: 300, size: 400 }).is_err(), "it needs the first tile's root");
}

#[test]
fn nobody_outside_writes_the_log_or_asks_beyond_it() {
    let (mut world, mut engine) = World::new();
    world.grow(&mut engine);
    let log = Generation { dataset: "hoidla-log".parse().unwrap(), number: 0 };
    assert_eq!(engine.append(Record { generation: log.clone(), ..record(1, 0, b"x") }, 1), Err(Refused::Foreign));
    let id = StreamId(*b"hoidla log tile\0");
    assert_eq!(engine.append(Record { stream: id, ..record(1, 0, b"x") }, 1), Err(Refused::Foreign));
    assert_eq!(engine.present(&log, StreamId([7; 16]), 0), Err(Refused::Foreign));
    for asked in
        [Asked::Inclusion { index: 100, size: 100 }, Asked::Consistency { old: 1, new: 101 }, Asked::Consistency { old: 2, new: 1 }]
    {
        assert!(matches!(engine.grounds(asked).err(), Some(ReadError::BeyondLog { size: 100, .. })), "{asked:?}");
    }
}

#[test]
fn disks_that_were_all_put_back_are_only_read() {
    let (mut world, mut engine) = World::new();
    world.grow(&mut engine);
    let then = [0, 1].map(|i: usize| world.disks[i].image());
    assert!(engine.count(9).is_ok() && !noted(&mut engine).is_empty(), "an hour later");
    world.grow(&mut engine);
    let counted = engine.counter();
    drop(engine);
    world.disks.iter().zip(then).for_each(|(d, i)| d.restore(i));
    for _ in 0..2 {
        let (mut engine, opened) = world.open();
        assert!(opened.only_reads.as_ref().is_some_and(|why| why.contains("older")), "{opened:?}");
        assert!(matches!(engine.append(record(1, 4, b"x"), 1), Err(Refused::OnlyReads(_))));
        assert!(matches!(engine.count(1), Err(Refused::OnlyReads(_))), "it can't be made to look new");
        let place = engine.locate(StreamId([1; 16]), 0).unwrap();
        assert_eq!(reader(&engine).read(&place).unwrap().bytes(), b"leaf", "what is there can be restored");
    }
    assert_eq!(world.counter.log(), counted);
}

#[test]
fn a_counter_that_somebody_else_raised_is_caught_up_with_while_open() {
    let (mut world, mut engine) = World::new();
    world.grow(&mut engine);
    for steps in [1, 5] {
        world.counter.inject(steps);
        assert!(engine.count(9).is_ok() && !noted(&mut engine).is_empty());
        assert_eq!(engine.counter(), world.counter.log());
        assert!(engine.count(9).is_ok() && !noted(&mut engine).is_empty(), "and it goes on");
    }
    drop(engine);
    let (engine, opened) = world.open();
    assert_eq!(opened.only_reads, None);
    drop(engine);
    world.counter.inject(5);
    let why = world.open().1.only_reads.unwrap();
    assert!(why.contains("older") && why.contains("raised the counter by other means"), "{why}");

    // Home's word is for one count, which it raises: it doesn't count twice, nor for any other.
    let stands = world.counter.log();
    for other in [0, stands - 1, stands + 1] {
        assert!(world.open_vouched(other).1.only_reads.is_some());
    }
    let (mut engine, opened) = world.open_vouched(stands);
    assert_eq!((opened.only_reads, opened.counter, world.counter.log()), (None, stands + 1, stands + 1));
    world.grow(&mut engine);
    drop(engine);
    assert_eq!(world.open().1.only_reads, None);
    world.counter.inject(1 + 5);
    assert!(world.open_vouched(stands).1.only_reads.is_some());
}

#[test]
fn a_crash_between_intent_and_raise_is_no_rollback_and_another_tpm_is_refused() {
    let (mut world, mut engine) = World::new();
    world.counter.fail(1);
    assert!(engine.count(9).is_ok() && !noted(&mut engine).is_empty());
    let stands = world.counter.log();
    assert_eq!(engine.counter(), stands, "it was not raised, and nobody says so");
    drop(engine);
    let (mut engine, opened) = world.open();
    assert_eq!((opened.only_reads, opened.counter), (None, stands + 1));
    world.grow(&mut engine);
    drop(engine);
    let other = Counter::default();
    let (engine, opened) = Engine::open(world.all(), STORE, Arc::new(Memory::new(64)), Box::new(other), Options::default()).unwrap();
    assert!(opened.only_reads.is_some_and(|why| why.contains("another machine")));
    assert_eq!(engine.counter(), 0);
}
