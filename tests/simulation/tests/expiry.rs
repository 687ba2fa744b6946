//! The end of generations: never too early, never by halves, whatever fails meanwhile.

mod common;

use std::sync::Arc;

use common::*;
use hoidla_format::{Name, StreamId, disk::superblock::AT};
use hoidla_simulation::{
    counter::Counter,
    dice::Dice,
    disk::{Power, SimDisk},
    memory::Memory,
};
use hoidla_store::{BLOCK, Disk, Engine, GRACE, Generation, Op, Opened, Options, Reader, Record, Refused, may_end};

const DAY: u64 = 86_400;
const FRAME: usize = 50_000;

fn land() -> Name {
    "land".parse().unwrap()
}

fn generation(number: u32) -> Generation {
    Generation { dataset: land(), number }
}

/// Two disks, a machine's power, its counter, and what it knows of time.
struct World {
    disks: [Arc<SimDisk>; 2],
    power: Power,
    nv: Counter,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> Self {
        let power = Power::stays();
        let disk = |name: &str| Arc::new(SimDisk::new(name, 96 * BLOCK as u64 + 24 * SEGMENT, power.clone()));
        let world = Self { disks: [disk("a"), disk("b")], power, nv: Counter::default(), dice: Dice::new(seed, 0) };
        Engine::format(&world.as_disks(), STORE, KEY, LAYOUT, &Memory::new(8), &mut world.nv.clone()).unwrap();
        world
    }

    fn as_disks(&self) -> Vec<Arc<dyn Disk>> {
        self.disks.iter().map(|d| d.clone() as Arc<dyn Disk>).collect()
    }

    fn open(&self) -> (Engine<Memory>, Opened) {
        Engine::open(self.as_disks(), STORE, Arc::new(Memory::new(200)), Box::new(self.nv.clone()), Options::default()).unwrap()
    }

    /// What a power cut leaves, with the power back.
    fn power_cycle(&mut self) {
        self.power.set(i64::MAX);
        for disk in &self.disks {
            disk.power_cycle(&mut self.dice);
        }
    }

    /// Both catalogue areas of both disks are garbage.
    fn lose_catalogues(&self) {
        let areas = AT[3] + 16..AT[3] + 16 + 32;
        self.disks.iter().for_each(|d| d.ruin(areas.clone()));
    }
}

fn frame(number: u32, n: u64) -> Vec<u8> {
    (0..FRAME).map(|i| (i as u64 * 7 + n * 13 + u64::from(number)) as u8).collect()
}

fn record(number: u32, n: u64) -> Record<Memory> {
    record_in(number, number as u8, n * FRAME as u64, &frame(number, n))
}

fn fill(engine: &mut Engine<Memory>, number: u32, frames: u64) {
    for n in 0..frames {
        while engine.append(record(number, n), n) == Err(Refused::Busy) {
            noted(engine);
        }
    }
    noted(engine);
}

fn is_whole(engine: &mut Engine<Memory>, number: u32, frames: u64) -> bool {
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    (0..frames).all(|n| {
        let place = engine.locate(StreamId([number as u8; 16]), n * FRAME as u64);
        place.is_some_and(|p| reader.read(&p).is_ok_and(|f| f.bytes() == frame(number, n)))
    })
}

fn promise(engine: &mut Engine<Memory>, days: u32) {
    engine.promise(&land(), days, 9).unwrap();
    assert_eq!(noted(engine), [9]);
}

#[test]
fn a_generation_ends_when_its_days_are_over_and_its_room_comes_back() {
    let world = World::new(1);
    let (mut engine, _) = world.open();
    promise(&mut engine, 2);
    engine.tell_powered(1000);
    fill(&mut engine, 1, 40);
    engine.tell_powered(2000);
    fill(&mut engine, 2, 3);
    let free = engine.room().0;
    assert_eq!(engine.expire(&land(), 2, u64::MAX, 1), Err(Refused::NotOver), "no time has passed");
    engine.tell_powered(may_end(1000, 2));
    assert_eq!(engine.expire(&land(), 2, may_end(1000, 2) - 1, 1), Err(Refused::NotOver), "the time that counts is another's");
    assert_eq!(engine.expire(&land(), 3, u64::MAX, 1), Err(Refused::NotOver), "the newest stays");
    assert!(engine.locate(StreamId([1; 16]), 0).is_some());
    engine.expire(&land(), 2, u64::MAX, 1).unwrap();
    assert_eq!(engine.append(record(1, 40), 7), Err(Refused::Expired { generation: 1, floor: 2 }), "from now on");
    assert_eq!(noted(&mut engine), [1]);
    assert!(engine.room().0 > free && engine.state(StreamId([1; 16])).is_none() && is_whole(&mut engine, 2, 3));
    assert_eq!(engine.present(&generation(1), StreamId([1; 16]), 5), Err(Refused::Expired { generation: 1, floor: 2 }));
    assert_eq!(engine.present(&generation(1), StreamId([8; 16]), 0), Err(Refused::Expired { generation: 1, floor: 2 }));
    // The room is used again, many times over, and nothing of it comes back.
    for (n, powered) in (3..9).zip((1..).map(|n| n * 10 * DAY)) {
        engine.tell_powered(powered);
        fill(&mut engine, n, 30);
        engine.tell_powered(may_end(powered, 2));
        engine.expire(&land(), n, u64::MAX, 1).unwrap();
        noted(&mut engine);
    }
    drop(engine);
    let (mut engine, opened) = world.open();
    assert_eq!((opened.damage, opened.rebuilt), (vec![], false));
    assert!(is_whole(&mut engine, 8, 30));
    assert_eq!(engine.tenures().len(), 1);
}

#[test]
fn the_end_is_one_commit_whenever_the_power_goes() {
    let (mut kept, mut gone, mut told) = (0, 0, 0);
    for cut in 0..60 {
        for seed in 0..3 {
            let mut world = World::new(seed * 1000 + cut as u64);
            let (mut engine, _) = world.open();
            promise(&mut engine, 1);
            fill(&mut engine, 1, 12);
            fill(&mut engine, 2, 4);
            engine.tell_powered(may_end(0, 1));
            (4..10).for_each(|n| _ = engine.append(record(2, n), n).unwrap());
            engine.expire(&land(), 2, u64::MAX, 77).unwrap();
            world.power.set(cut);
            let is_noted = noted(&mut engine).contains(&77);
            drop(engine);
            world.power_cycle();
            if seed == 2 {
                world.lose_catalogues();
            }
            let (mut engine, opened) = world.open();
            assert_eq!(opened.damage, Vec::<String>::new(), "cut {cut}, seed {seed}");
            let is_gone = engine.state(StreamId([1; 16])).is_none();
            assert!(is_gone || is_whole(&mut engine, 1, 12), "cut {cut}, seed {seed}: by halves");
            assert!(is_gone || !is_noted, "cut {cut}, seed {seed}: told, and back again");
            assert!(is_whole(&mut engine, 2, 4), "cut {cut}, seed {seed}: the newest");
            let refused = engine.present(&generation(1), StreamId([1; 16]), 0);
            assert_eq!(is_gone, refused == Err(Refused::Expired { generation: 1, floor: 2 }));
            told += u32::from(is_noted);
            *(if is_gone { &mut gone } else { &mut kept }) += 1;
            if !is_gone {
                engine.tell_powered(may_end(0, 1));
                engine.expire(&land(), 2, u64::MAX, 78).unwrap();
                assert_eq!(noted(&mut engine), [78]);
            }
        }
    }
    assert!(kept > 10 && gone > 10 && told > 10, "{kept} kept, {gone} gone, {told} told: every case was met");
}

#[test]
fn a_rebuilt_catalogue_brings_nothing_back_and_forgets_no_promise() {
    let world = World::new(4);
    let (mut engine, _) = world.open();
    promise(&mut engine, 5);
    engine.tell_powered(100);
    fill(&mut engine, 1, 20);
    fill(&mut engine, 2, 5);
    engine.tell_powered(may_end(100, 5));
    engine.expire(&land(), 2, u64::MAX, 1).unwrap();
    noted(&mut engine);
    let before = engine.tenures();
    drop(engine);
    world.lose_catalogues();
    let (mut engine, opened) = world.open();
    assert!(opened.rebuilt && opened.damage.is_empty());
    assert_eq!(engine.state(StreamId([1; 16])), None);
    assert_eq!(engine.tenures(), before, "days and ages, from segments alone");
    assert_eq!(engine.powered(), may_end(100, 5));
    assert!(matches!(engine.append(record(1, 0), 1), Err(Refused::Expired { .. })));
    assert!(is_whole(&mut engine, 2, 5));
}

#[test]
fn a_promise_only_grows_and_time_never_goes_back() {
    let world = World::new(5);
    let (mut engine, _) = world.open();
    promise(&mut engine, 30);
    engine.tell_powered(50 * DAY);
    fill(&mut engine, 1, 1);
    fill(&mut engine, 2, 1);
    promise(&mut engine, 10);
    engine.tell_powered(5);
    assert_eq!(engine.powered(), 50 * DAY);
    engine.tell_powered(may_end(50 * DAY, 10));
    assert_eq!(engine.expire(&land(), 2, u64::MAX, 1), Err(Refused::NotOver), "10 days don't undo 30");
    promise(&mut engine, 40);
    drop(engine);
    let (mut engine, _) = world.open();
    engine.tell_powered(may_end(50 * DAY, 40) - 1);
    assert_eq!(engine.expire(&land(), 2, u64::MAX, 1), Err(Refused::NotOver), "nobody told this run of 40 days; the disks did");
    engine.tell_powered(may_end(50 * DAY, 40));
    engine.expire(&land(), 2, u64::MAX, 2).unwrap();
    assert_eq!(noted(&mut engine), [2]);
}

#[test]
fn what_was_written_before_time_was_skipped_is_none_the_older_for_it() {
    let world = World::new(15);
    let (mut engine, _) = world.open();
    promise(&mut engine, 30);
    engine.tell_powered(1000);
    fill(&mut engine, 1, 1);
    // Three months without power; a week later the word comes: from 5000, for 90 days.
    let (from, to) = (5000, 5000 + 90 * DAY);
    engine.tell_powered(from + 7 * DAY);
    fill(&mut engine, 2, 1);
    fill(&mut engine, 3, 1);
    engine.tell_powered(to);
    engine.tell_skipped(vec![(from, to)]);
    assert_eq!(engine.expire(&land(), 3, u64::MAX, 1), Err(Refused::NotOver), "2 was written after the power came back");
    engine.expire(&land(), 2, u64::MAX, 2).unwrap();
    assert_eq!(noted(&mut engine), [2], "what was there before the power went is as old as it is");
    drop(engine);
    let (mut engine, _) = world.open();
    engine.tell_skipped(vec![(from, to)]);
    engine.tell_powered(may_end(to, 30) - 1);
    assert_eq!(engine.expire(&land(), 3, u64::MAX, 3), Err(Refused::NotOver));
    engine.tell_powered(may_end(to, 30));
    engine.expire(&land(), 3, u64::MAX, 4).unwrap();
    assert_eq!(noted(&mut engine), [4]);
}

#[test]
fn a_first_record_under_way_holds_the_end() {
    let world = World::new(16);
    let (mut engine, _) = world.open();
    promise(&mut engine, 1);
    fill(&mut engine, 5, 1);
    assert_eq!(engine.append(record(3, 0), 1), Ok(hoidla_store::Appended::Pending));
    let request = engine.next_request().unwrap(); // its commit is under way
    assert_eq!(engine.expire(&land(), 5, u64::MAX, 2), Err(Refused::Busy));
    let disk = engine.disks()[usize::from(request.disk)].clone().unwrap();
    let Op::Write { at, blocks } = &request.op else { panic!("a commit begins with a write") };
    disk.write(*at, blocks.as_ref()).unwrap();
    engine.complete(request.id, Ok(blocks.as_ref().len()));
    noted(&mut engine);
    assert!(is_whole(&mut engine, 3, 1), "what is acknowledged stays");
}

#[test]
fn a_full_store_keeps_slots_for_what_ends_whatever_agents_make_it_note() {
    let world = World::new(12);
    let options = Options { open_segments: 2, prewrite: false, ..Options::default() };
    let (mut engine, _) = Engine::open(world.as_disks(), STORE, Arc::new(Memory::new(200)), Box::new(world.nv.clone()), options).unwrap();
    promise(&mut engine, 1);
    (1..=8).for_each(|number| fill(&mut engine, number, 1));
    let mut n = 1;
    while engine.append(record(9, n - 1), n) != Err(Refused::Full) {
        n = engine.state(StreamId([9; 16])).map_or(1, |s| s.chain.length / FRAME as u64 + 1);
        noted(&mut engine);
    }
    // Each of these generations would need a segment for its note; those that find no room are refused all the same.
    for number in 2..=8 {
        let presented = engine.present(&generation(number), StreamId([number as u8; 16]), 1 << 40);
        assert_eq!(presented, Err(Refused::Alarmed { presented: 1 << 40 }));
        noted(&mut engine);
    }
    assert_eq!(engine.room().0 / SEGMENT, 3, "what ends finds room");
    engine.tell_powered(may_end(0, 1));
    engine.expire(&land(), 2, u64::MAX, 5).unwrap();
    assert_eq!(noted(&mut engine), [5]);
    assert!(engine.state(StreamId([1; 16])).is_none());
}

#[test]
fn without_a_promise_nothing_ends() {
    let world = World::new(6);
    let (mut engine, _) = world.open();
    fill(&mut engine, 1, 1);
    fill(&mut engine, 2, 1);
    engine.tell_powered(u64::MAX / 2);
    assert_eq!(engine.expire(&land(), 2, u64::MAX, 1), Err(Refused::NotOver));
}

#[test]
fn a_jump_in_numbers_a_late_record_and_an_alarm_only_lengthen() {
    let world = World::new(7);
    let (mut engine, _) = world.open();
    promise(&mut engine, 1);
    fill(&mut engine, 3, 2);
    fill(&mut engine, 4, 2);
    fill(&mut engine, u32::MAX, 1);
    engine.tell_powered(2 * DAY);
    assert_eq!(engine.append(record(3, 2), 1), Ok(hoidla_store::Appended::Pending));
    noted(&mut engine);
    assert_eq!(engine.expire(&land(), u32::MAX, u64::MAX, 1), Err(Refused::NotOver), "3 has a young record");
    engine.expire(&land(), 3, u64::MAX, 2).unwrap();
    noted(&mut engine);
    assert!(is_whole(&mut engine, 3, 3) && is_whole(&mut engine, 4, 2), "there was nothing below 3");
    engine.tell_powered(may_end(2 * DAY, 1));
    assert!(matches!(engine.present(&generation(4), StreamId([4; 16]), 1 << 40), Err(Refused::Alarmed { .. })));
    noted(&mut engine);
    assert_eq!(engine.expire(&land(), u32::MAX, u64::MAX, 3), Err(Refused::NotOver), "somebody must look at 4 first");
    engine.expire(&land(), 4, u64::MAX, 4).unwrap();
    noted(&mut engine);
    assert_eq!(engine.tenures().iter().map(|t| t.generation.number).collect::<Vec<_>>(), [4, u32::MAX]);
}

#[test]
fn what_is_rewritten_meanwhile_ends_too() {
    let world = World::new(8);
    let (mut engine, _) = world.open();
    promise(&mut engine, 1);
    fill(&mut engine, 1, 12);
    fill(&mut engine, 2, 2);
    let segment = engine.segment(0).unwrap();
    let mut moved = Vec::new();
    Reader::new(engine.disks(), Arc::new(Memory::new(64)))
        .gather(&segment, |m| {
            moved.push(m);
            Ok::<_, ()>(())
        })
        .unwrap()
        .unwrap();
    engine.tell_powered(may_end(0, 1));
    engine.expire(&land(), 2, u64::MAX, 1).unwrap();
    moved.iter().for_each(|m| engine.rewrite(m).unwrap());
    engine.retire(&segment, 5).unwrap();
    assert_eq!(noted(&mut engine), [5, 1], "who waits for the retired segment is told, though it is gone");
    engine.retire(&segment, 6).unwrap();
    assert_eq!(noted(&mut engine), [6]);
    assert_eq!(engine.tenures().len(), 1);
    drop(engine);
    assert_eq!(world.open().0.tenures().len(), 1);
}

/// Moves all of a segment into dense ones.
fn tidy(engine: &mut Engine<Memory>, slot: u32) {
    let segment = engine.segment(slot).unwrap();
    assert_eq!(segment.number(), slot);
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(64)));
    reader.gather(&segment, |m| engine.rewrite(&m)).unwrap().unwrap();
    noted(engine);
    engine.retire(&segment, 5).unwrap();
    assert!(noted(engine).contains(&5));
}

#[test]
fn an_alarm_is_as_it_was_said_last_whatever_is_rewritten() {
    let world = World::new(17);
    let stream = StreamId([1; 16]);
    let (mut engine, _) = world.open();
    let presented = |n: u64| Err(Refused::Alarmed { presented: n });
    fill(&mut engine, 1, 2);
    assert_eq!(engine.present(&generation(1), stream, 1 << 40), presented(1 << 40));
    noted(&mut engine);
    engine.readmit(stream, 1).unwrap();
    noted(&mut engine);
    fill(&mut engine, 1, 10); // the first segment is closed
    let first = engine.segment(0).unwrap().number();
    assert_eq!(engine.present(&generation(1), stream, 1 << 41), presented(1 << 41));
    noted(&mut engine);
    tidy(&mut engine, first);
    for lost in [false, true] {
        assert_eq!(engine.append(record(1, 10), 3), Err(Refused::Alarmed { presented: 1 << 41 }), "an old end of an alarm ends no new one");
        drop(engine);
        if lost {
            world.lose_catalogues();
        }
        engine = world.open().0;
    }
    engine.readmit(stream, 1).unwrap();
    noted(&mut engine);
    fill(&mut engine, 1, 16);
    let second = engine.segment(first + 1).unwrap().number();
    tidy(&mut engine, second);
    let third = engine.segment(second + 1).unwrap().number();
    tidy(&mut engine, third);
    for lost in [true, false] {
        assert_eq!(engine.state(stream).unwrap().alarm, None, "nor does an old alarm come back");
        drop(engine);
        if lost {
            world.lose_catalogues();
        }
        engine = world.open().0;
    }
    assert!(is_whole(&mut engine, 1, 16));
}

#[test]
fn powered_time_is_written_down_without_anything_else_to_write() {
    let world = World::new(9);
    let (mut engine, _) = world.open();
    fill(&mut engine, 1, 1);
    engine.tell_powered(GRACE);
    engine.note_powered(3).unwrap();
    assert_eq!(noted(&mut engine), [3]);
    drop(engine);
    assert_eq!(world.open().0.powered(), GRACE);
}

#[test]
fn a_scrub_begins_where_it_was_longest_not() {
    let world = World::new(10);
    let (mut engine, _) = world.open();
    engine.tell_powered(600);
    fill(&mut engine, 1, 20);
    engine.tell_powered(3 * DAY);
    assert_eq!(engine.seen_since(&[]), Some(600), "when it was written");
    let all = engine.unseen(3 * DAY, 64);
    assert!(all.len() > 3);
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    for slot in &all[1..] {
        let segment = engine.segment(*slot).unwrap();
        assert!(reader.check(&segment).unwrap().damage.is_empty());
        engine.seen_whole(&segment, 3 * DAY);
    }
    assert_eq!((engine.unseen(3 * DAY, 64), engine.seen_since(&[])), (vec![all[0]], Some(600)));
    assert_eq!(engine.seen_since(&all[..1]), Some(3 * DAY));
    engine.note_powered(3).unwrap();
    noted(&mut engine);
    drop(engine);
    let (engine, _) = world.open();
    assert_eq!(engine.unseen(3 * DAY, 64), [all[0]], "a restart goes on where it was");
    drop(engine);
    world.lose_catalogues();
    let (engine, _) = world.open();
    assert_eq!(engine.unseen(3 * DAY, 64).len(), all.len(), "what is not known is checked again");
}

#[test]
fn after_a_full_scrub_all_copies_are_equal() {
    for seed in 0..20 {
        let mut world = World::new(100 + seed);
        let (mut engine, _) = world.open();
        fill(&mut engine, 1, 30);
        fill(&mut engine, 2, 10);
        engine.note_powered(3).unwrap();
        noted(&mut engine);
        let rotten = seed as usize % 2;
        let many = (0..40).filter_map(|_| world.disks[rotten].rot(&mut world.dice)).count();
        assert!(many > 10);
        let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
        let mut from = 0;
        let mut spans = Vec::new();
        while let Some(segment) = engine.segment(from) {
            assert_eq!(reader.check(&segment).unwrap().damage, [""; 0], "seed {seed}");
            assert_eq!(reader.check(&segment).unwrap().repaired, [""; 0], "seed {seed}: once is enough");
            spans.push((segment.number(), segment.bytes()));
            from = segment.number() + 1;
        }
        let geometry = LAYOUT.geometry(world.disks[0].size(), 2).unwrap();
        for (slot, bytes) in spans {
            let read = |place: u8| {
                let mut all = vec![0; bytes as usize];
                let at = geometry.segment_at(slot, place).unwrap() * BLOCK as u64;
                world.disks[usize::from(place)].read(at, &mut all).unwrap();
                all
            };
            assert!(read(0) == read(1), "seed {seed}: segment {slot}");
        }
    }
}
