//! Recovery searches behind damage only up to the fences: so nothing may begin behind
//! them, and damage on every copy is still told, never cut, wherever it lies.

mod common;

use std::sync::Arc;

use common::*;
use hoidla_format::{
    StreamId,
    disk::{
        batch::may_begin,
        fences::{Fences, fences_at},
    },
};
use hoidla_simulation::{
    counter::Counter,
    dice::Dice,
    disk::{Power, SimDisk},
    memory::Memory,
};
use hoidla_store::{Appended, BLOCK, Disk, Engine, Event, Fault, Layout, Op, Opened, Options, Reader, Refused};

const SEGMENT: u64 = 256;
const CATALOGUE: u64 = 16;
const FIRST: u64 = 64 + 2 * CATALOGUE;
const SLOTS: u64 = 20;

fn disks() -> Vec<Arc<SimDisk>> {
    let size = (FIRST + SLOTS * SEGMENT) * BLOCK as u64;
    (0..2).map(|i| Arc::new(SimDisk::new(&format!("disk {i}"), size, Power::stays()))).collect()
}

fn options(dice: &mut Dice, fault: Option<Fault>) -> Options {
    let (fence, openers) = (1 << dice.below(3), 1 + dice.below(3) as usize);
    Options { fence, openers, fault, commit_bytes: 4096 << dice.below(6), depth: 1 + dice.below(3) as usize, ..Options::default() }
}

fn open(disks: &[Arc<SimDisk>], nv: &Counter, options: &Options) -> (Engine<Memory>, Opened) {
    let disks = disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
    Engine::open(disks, STORE, Arc::new(Memory::new(64)), Box::new(nv.clone()), options.clone()).unwrap()
}

fn read_block(disk: &SimDisk, block: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    disk.read(block * BLOCK as u64, &mut bytes).unwrap();
    bytes
}

/// What recovery would believe if the power went now.
fn said(disk: &SimDisk) -> Option<Fences> {
    let all = [fences_at(0), fences_at(1)].concat();
    all.iter().filter_map(|at| Fences::from_block(&read_block(disk, *at)).ok()).max_by_key(|f| f.sequence)
}

/// A store that is written to, with every record and the place of every batch.
struct Written {
    disks: Vec<Arc<SimDisk>>,
    nv: Counter,
    /// Stream, offset, bytes.
    records: Vec<(u8, u64, Vec<u8>)>,
    /// First blocks of batches, in order.
    batches: Vec<u64>,
    behind: u64,
    /// By disk: what is said durably.
    said: Vec<Option<Fences>>,
}

impl Written {
    fn new(dice: &mut Dice, options: &Options, count: u64) -> Self {
        let mut w =
            Self { disks: disks(), nv: Counter::default(), records: Vec::new(), batches: Vec::new(), behind: 0, said: vec![None; 2] };
        let all: Vec<_> = w.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect();
        let layout = Layout { segment: SEGMENT * BLOCK as u64, catalogue: CATALOGUE * BLOCK as u64, copies: 2 };
        Engine::format(&all, STORE, KEY, layout, &Memory::new(8), &mut w.nv.clone()).unwrap();
        let (mut engine, _) = open(&w.disks, &w.nv, options);
        w.said = w.disks.iter().map(|d| said(d)).collect();
        let mut ends = [0u64; 3];
        for n in 0..count {
            let stream = dice.below(3) as u8;
            let len = if dice.one_in(3) { 1 + dice.below(90_000) } else { 1 + dice.below(9000) };
            let bytes = vec![n as u8; len as usize];
            let offset = ends[usize::from(stream)];
            loop {
                match engine.append(record_in(stream.into(), stream, offset, &bytes), n) {
                    Ok(Appended::Pending) => break,
                    Err(Refused::Busy) => w.carry_out(&mut engine),
                    other => panic!("{other:?}"),
                }
            }
            w.records.push((stream, offset, bytes));
            ends[usize::from(stream)] += len;
            if dice.one_in(2) {
                w.carry_out(&mut engine);
            }
        }
        w.carry_out(&mut engine);
        let acknowledged = std::iter::from_fn(|| engine.next_event()).filter(|e| matches!(e, Event::Acknowledged(_))).count();
        assert_eq!(acknowledged as u64, count);
        w
    }

    fn carry_out(&mut self, engine: &mut Engine<Memory>) {
        while let Some(request) = engine.next_request() {
            let disk = self.disks[usize::from(request.disk)].clone();
            let outcome = match &request.op {
                Op::Write { at, blocks } => {
                    self.look(request.disk, at / BLOCK as u64, blocks.as_ref());
                    disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len())
                }
                Op::Flush => {
                    disk.flush().unwrap();
                    self.said[usize::from(request.disk)] = said(&disk);
                    Ok(0)
                }
            };
            engine.complete(request.id, outcome);
        }
    }

    /// Whether a batch begins at or behind what is said durably on this disk.
    fn look(&mut self, disk: u8, block: u64, bytes: &[u8]) {
        if block < FIRST || !may_begin(&bytes[..BLOCK]) {
            return;
        }
        let (slot, within) = (((block - FIRST) / SEGMENT) as u32, ((block - FIRST) % SEGMENT) as u32);
        let said = self.said[usize::from(disk)].as_ref().expect("an opening says fences first");
        let incarnation = u64::from_le_bytes(bytes[72..80].try_into().unwrap());
        let named = said.named.iter().find(|f| (f.slot, f.incarnation) == (slot, incarnation));
        self.behind += u64::from(within >= named.map_or(said.unnamed, |f| f.block));
        if !self.batches.contains(&block) {
            self.batches.push(block);
        }
    }
}

#[test]
fn no_batch_begins_behind_its_fence() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed, 0);
        let options = options(&mut dice, None);
        let w = Written::new(&mut dice, &options, 120);
        assert_eq!(w.behind, 0, "seed {seed}");
        assert!(w.batches.len() > 20, "seed {seed}");
    }
}

#[test]
fn an_engine_that_ignores_fences_is_found() {
    let behind = |seed| {
        let mut dice = Dice::new(seed, 0);
        let options = options(&mut dice, Some(Fault::IgnoreFences));
        Written::new(&mut dice, &options, 120).behind
    };
    assert!((0..10).map(behind).sum::<u64>() > 0);
}

/// A batch is lost on every copy, and with it any number of those right behind it.
#[test]
fn what_lies_behind_damage_on_every_copy_is_found() {
    let mut told = 0;
    for seed in 0..60 {
        let mut dice = Dice::new(seed, 1);
        let options = options(&mut dice, None);
        let w = Written::new(&mut dice, &options, 80);
        // Not the last of all: what was lost is known only by what came after it.
        let first = w.batches[dice.below(w.batches.len() as u64 - 8) as usize];
        let until = first + [1, 3, 10, 40][dice.below(4) as usize];
        let slot = |block: u64| (block - FIRST) / SEGMENT;
        let ruined = first..until.min(FIRST + (slot(first) + 1) * SEGMENT);
        w.disks.iter().for_each(|d| d.ruin(ruined.clone()));
        let (mut engine, opened) = open(&w.disks, &w.nv, &options);
        // The last batch that was written to this segment, and is whole, shows how far it went.
        let whole_behind = w.batches.iter().any(|b| slot(*b) == slot(first) && !ruined.contains(b) && *b > first);
        if !whole_behind {
            continue;
        }
        told += 1;
        assert!(!opened.damage.is_empty(), "seed {seed}: damage is cut without a word: {opened:?}");
        let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
        let mut lost = 0;
        for (stream, offset, bytes) in &w.records {
            let place = engine.locate(StreamId([*stream; 16]), *offset);
            let found = place.and_then(|p| reader.read(&p).ok());
            lost += usize::from(found.is_none_or(|f| f.bytes() != bytes));
        }
        assert!(lost < w.records.len() / 2, "seed {seed}: {lost} of {} records are gone", w.records.len());
    }
    assert!(told > 30, "only {told} seeds put damage before something whole");
}

#[test]
fn without_its_record_a_segment_is_searched_to_its_end() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed, 2);
        let options = options(&mut dice, None);
        let w = Written::new(&mut dice, &options, 60);
        let (first, last) = (w.batches[1], *w.batches.last().unwrap());
        for d in &w.disks {
            [8, 24, 40, 56].into_iter().for_each(|at| d.ruin(at..at + 1));
            d.ruin(first..first + 1);
        }
        if last == first {
            continue;
        }
        let (engine, opened) = open(&w.disks, &w.nv, &options);
        assert!(!opened.damage.is_empty(), "seed {seed}");
        assert!(engine.state(StreamId([w.records.last().unwrap().0; 16])).is_some());
    }
}
