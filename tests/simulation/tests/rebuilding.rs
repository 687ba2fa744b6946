//! Copies over several disks, and disks that are rebuilt while records come in.

mod common;

use std::{io, sync::Arc};

use common::*;
use hoidla_format::StreamId;
use hoidla_simulation::{counter::Counter, disk::SimDisk, memory::Memory};
use hoidla_store::{BLOCK, Disk, Engine, Event, JoinError, Layout, OpenError, Opened, Options, Reader, ToCopy};

fn accepting_loss(disks: &[&Arc<SimDisk>], nv: &Counter) -> (Engine<Memory>, Opened) {
    let options = Options { accept_loss: true, ..Options::default() };
    Engine::open(as_disks(disks), STORE, Arc::new(Memory::new(64)), Box::new(nv.clone()), options).unwrap()
}

/// A disk of this size in the place of a lost one.
fn put_in(engine: &mut Engine<Memory>, place: u8, disk: &Arc<SimDisk>) -> Result<(), JoinError> {
    engine.mark(place)?.write(&**disk, &Memory::new(8)).unwrap();
    engine.join(place, disk.clone()).map(|_| ())
}

fn fail(engine: &mut Engine<Memory>, place: u8) -> Vec<Event> {
    engine.leave(place, "pulled".into()).unwrap();
    carry_out(engine)
}

#[test]
fn two_copies_on_three_disks_hold_half_as_much_again_and_lose_nothing_with_one() {
    for lost in 0..3 {
        let (a, b, c, nv) = (disk("a", 12), disk("b", 12), disk("c", 12), Counter::default());
        let mut disks = vec![&a, &b, &c];
        two_copies_on(&disks, &nv);
        let (mut engine, _) = open(&disks, &nv).unwrap();
        assert_eq!(engine.room().1, 18 * SEGMENT, "3 * 12 / 2 segments");
        fill(&mut engine, 1, 0, 300_000);
        drop(engine);
        disks.remove(lost);
        let (mut engine, opened) = open(&disks, &nv).unwrap();
        assert_eq!((opened.missing, opened.damage), (vec![lost as u8], vec![]));
        holds_all(&mut engine, 1, 300_000);
    }
}

#[test]
fn a_blank_disk_is_rebuilt_while_records_come_in_and_then_serves_alone() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    fill(&mut engine, 1, 0, 300_000);
    assert!(matches!(&fail(&mut engine, 1)[..], [Event::DiskStopped { disk: 1, .. }]));
    fill(&mut engine, 1, 300_000, 320_000);

    let new = disk("new", 20);
    put_in(&mut engine, 1, &new).unwrap();
    assert_eq!(engine.current(), [0], "it isn't believed yet");
    fill(&mut engine, 1, 320_000, 340_000);
    let id = engine.rebuilding()[0].id;
    assert_eq!(engine.rebuilt(id), Err(JoinError::Over), "nothing is copied yet");
    let told = rebuild(&mut engine);
    assert!(told.contains(&Event::DiskJoined { disk: 1 }), "{told:?}");
    assert_eq!((engine.current(), engine.rebuilding()), (vec![0, 1], vec![]));
    fill(&mut engine, 1, 340_000, 360_000);
    fail(&mut engine, 0);
    fill(&mut engine, 1, 360_000, 370_000);
    drop(engine);
    let (mut engine, opened) = open(&[&new], &nv).unwrap();
    assert_eq!((opened.damage, opened.rebuilt), (vec![], false));
    holds_all(&mut engine, 1, 370_000);
}

#[test]
fn what_is_copied_says_how_far_it_is() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    fill(&mut engine, 1, 0, 400_000);
    put_in(&mut engine, 1, &b).unwrap();
    let id = engine.rebuilding()[0].id;
    assert_eq!(engine.rebuilding()[0].bytes, (0, 0), "nobody has looked yet");
    let ToCopy::Segment(first) = engine.to_copy(id).unwrap() else { panic!("there is something to copy") };
    engine.copied(id, &first).unwrap();
    let (done, all) = engine.rebuilding()[0].bytes;
    assert_eq!(done, first.bytes());
    assert!(all > 400_000 && all < 20 * SEGMENT, "{all}");
}

#[test]
fn copying_puts_together_what_no_copy_has_whole() {
    let (a, b, c, nv) = (disk("a", 20), disk("b", 20), disk("c", 20), Counter::default());
    format(&[&a, &b, &c], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b, &c], &nv).unwrap();
    fill(&mut engine, 1, 0, 100_000);
    fail(&mut engine, 2);
    let first = 96;
    a.ruin(first + 3..first + 5);
    b.ruin(first + 9..first + 11);
    let new = disk("new", 20);
    put_in(&mut engine, 2, &new).unwrap();
    rebuild(&mut engine);
    drop(engine);
    let (mut engine, _) = open(&[&new], &Counter::default()).unwrap();
    holds_all(&mut engine, 1, 100_000);
}

#[test]
fn damage_on_every_copy_is_said_and_not_cut() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    fill(&mut engine, 1, 0, 50_000);
    let place = engine.locate(StreamId([1; 16]), 25_000).unwrap();
    a.ruin(96 + 20..96 + 21);
    put_in(&mut engine, 1, &b).unwrap();
    let rebuilding = engine.rebuilding()[0];
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    let mut damage = Vec::new();
    while let ToCopy::Segment(segment) = engine.to_copy(rebuilding.id).unwrap() {
        damage.extend(reader.copy(&segment, 1, |_| true).unwrap().damage);
        engine.copied(rebuilding.id, &segment).unwrap();
    }
    assert!(!damage.is_empty());
    b.flush().unwrap();
    engine.rebuilt(rebuilding.id).unwrap();
    carry_out(&mut engine);
    drop(place);
    assert_eq!(engine.state(StreamId([1; 16])).unwrap().chain.length, 50_000, "the rest goes on");
    assert!(read(&mut engine, 1, 49_000).is_ok());
}

#[test]
fn a_crash_while_it_is_rebuilt_leaves_a_disk_that_nobody_believes() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    fill(&mut engine, 1, 0, 200_000);
    fail(&mut engine, 1);
    let new = disk("new", 20);
    put_in(&mut engine, 1, &new).unwrap();
    let id = engine.rebuilding()[0].id;
    let ToCopy::Segment(segment) = engine.to_copy(id).unwrap() else { panic!("there is something to copy") };
    Reader::new(engine.disks(), Arc::new(Memory::new(8))).copy(&segment, 1, |_| true).unwrap();
    fill(&mut engine, 1, 200_000, 210_000);
    drop((engine, segment));
    assert!(matches!(open(&[&new], &nv).err().unwrap(), OpenError::Stale { .. }));
    assert!(matches!(open(&[&new], &Counter::default()).err().unwrap(), OpenError::Stale { .. }), "nor does a machine at home");
    let (mut engine, opened) = open(&[&a, &new], &nv).unwrap();
    assert_eq!((opened.rebuilding, engine.current()), (vec![1], vec![0]));
    rebuild(&mut engine);
    assert_eq!(engine.current(), [0, 1]);
    // The one that it replaced is not wanted any more.
    assert!(matches!(open(&[&a, &b, &new], &nv).err().unwrap(), OpenError::Twice(..)));
    assert!(matches!(open(&[&b], &nv).err().unwrap(), OpenError::Stale { .. }));
}

#[test]
fn a_second_loss_stops_the_store_and_nothing_is_cut_unless_somebody_says_so() {
    let (a, b, c, nv) = (disk("a", 32), disk("b", 32), disk("c", 32), Counter::default());
    two_copies_on(&[&a, &b, &c], &nv);
    let (mut engine, _) = open(&[&a, &b, &c], &nv).unwrap();
    fill(&mut engine, 1, 0, 400_000);
    fail(&mut engine, 0);
    fill(&mut engine, 1, 400_000, 410_000);
    assert_eq!(engine.leave(1, "pulled too".into()), Err(JoinError::Needed(1)));
    engine.append(record(1, 410_000, b"more"), 1).unwrap();
    while let Some(request) = engine.next_request() {
        engine.complete(request.id, Err(io::Error::other("broken")));
    }
    let told: Vec<_> = std::iter::from_fn(|| engine.next_event()).collect();
    assert!(
        told.iter().any(|e| matches!(e, Event::Stopped { .. })) && !told.iter().any(|e| matches!(e, Event::Acknowledged(_))),
        "{told:?}"
    );
    drop(engine);
    // One is lost for good, with it every second copy: it doesn't open by itself, and returns whole.
    assert!(matches!(open(&[&a, &b], &nv).err().unwrap(), OpenError::Uncovered { missing } if missing == [2]));
    let (mut engine, opened) = open(&[&b, &c], &nv).unwrap();
    assert_eq!(opened.damage, Vec::<String>::new());
    holds_all(&mut engine, 1, 410_000);
    drop(engine);
    let (mut engine, opened) = accepting_loss(&[&c], &nv);
    assert!(opened.damage.iter().any(|d| d.contains("no copy")), "{opened:?}");
    let length = engine.state(StreamId([1; 16])).unwrap().chain.length;
    fill(&mut engine, 2, 0, 300_000);
    holds_all(&mut engine, 2, 300_000);
    let lost = (0..length).step_by(1000).filter(|offset| read(&mut engine, 1, *offset).is_err()).count() as u64;
    assert!(lost > 0 && lost < length / 1000, "{lost} of {length} are on disks that are gone");
    drop(engine);
    // Once accepted it opens by itself; new records went only where a disk is.
    let (mut engine, opened) = open(&[&c], &nv).unwrap();
    assert!(!opened.damage.is_empty());
    holds_all(&mut engine, 2, 300_000);
}

/// A disk that takes no writes behind some block.
struct Stubborn(Arc<SimDisk>, u64);

impl Disk for Stubborn {
    fn name(&self) -> String {
        self.0.name()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at >= self.1 * BLOCK as u64 { Err(io::Error::other("write error")) } else { self.0.write(at, bytes) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Changes one byte of a block.
fn spoil(disk: &SimDisk, block: u64, byte: usize) {
    let mut bytes = [0; BLOCK];
    disk.read(block * BLOCK as u64, &mut bytes).unwrap();
    bytes[byte] ^= 1;
    disk.write(block * BLOCK as u64, &bytes).unwrap();
    disk.flush().unwrap();
}

#[test]
fn a_source_that_takes_no_repair_keeps_nothing_from_being_copied() {
    let (a, b, new, nv) = (disk("a", 20), disk("b", 20), disk("new", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    fill(&mut engine, 1, 0, 50_000);
    drop(engine);
    // Padding of the second batch is rotten: all records are good, and the source is to be written anew.
    spoil(&a, 96 + 2, BLOCK - 1);
    let options = Options { prewrite: false, ..Options::default() };
    let stubborn = Arc::new(Stubborn(a, 96));
    let (mut engine, _) =
        Engine::open(vec![stubborn as Arc<dyn Disk>], STORE, Arc::new(Memory::new(64)), Box::new(nv.clone()), options).unwrap();
    put_in(&mut engine, 1, &new).unwrap();
    let rebuilding = engine.rebuilding()[0];
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    let mut unrepaired = Vec::new();
    while let ToCopy::Segment(segment) = engine.to_copy(rebuilding.id).unwrap() {
        let copied = reader.copy(&segment, 1, |_| true).expect("it goes on");
        assert_eq!(copied.damage, Vec::<String>::new());
        unrepaired.extend(copied.unrepaired);
        engine.copied(rebuilding.id, &segment).unwrap();
    }
    assert!(matches!(&unrepaired[..], [(0, why)] if why.contains("write error")), "and is said: {unrepaired:?}");
    new.flush().unwrap();
    engine.rebuilt(rebuilding.id).unwrap();
    assert!(carry_out(&mut engine).contains(&Event::DiskJoined { disk: 1 }));
    assert_eq!(engine.leave(0, "it takes no repair".into()), Ok(()), "it isn't needed any more");
    carry_out(&mut engine);
    drop(engine);
    let (mut engine, opened) = open(&[&new], &nv).unwrap();
    assert_eq!((opened.damage, opened.rebuilt), (vec![], false));
    holds_all(&mut engine, 1, 50_000);
}

#[test]
fn a_lost_record_keeps_no_other_of_its_front_from_a_rebuilt_disk() {
    let (a, b, new, nv) = (disk("a", 20), disk("b", 20), disk("new", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    for stream in 1..=3 {
        engine.append(record(stream, 0, &[stream; 900]), 0).unwrap();
    }
    assert_eq!(settle(&mut engine), [900; 3]);
    let mut block = [0; BLOCK];
    a.read((96 + 1) * BLOCK as u64, &mut block).unwrap();
    let second = block.windows(900).position(|w| w == [2; 900]).expect("the three are one front");
    spoil(&a, 96 + 1, second + 450);
    put_in(&mut engine, 1, &new).unwrap();
    let rebuilding = engine.rebuilding()[0];
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    let mut damage = Vec::new();
    while let ToCopy::Segment(segment) = engine.to_copy(rebuilding.id).unwrap() {
        damage.extend(reader.copy(&segment, 1, |_| true).unwrap().damage);
        engine.copied(rebuilding.id, &segment).unwrap();
    }
    assert!(matches!(&damage[..], [what] if what.contains("1 small records")), "{damage:?}");
    new.flush().unwrap();
    engine.rebuilt(rebuilding.id).unwrap();
    carry_out(&mut engine);
    drop(engine);
    let (mut engine, _) = open(&[&new], &nv).unwrap();
    assert_eq!((read(&mut engine, 1, 0).unwrap(), read(&mut engine, 3, 0).unwrap()), (vec![1; 900], vec![3; 900]));
    assert!(read(&mut engine, 2, 0).is_err());
}

#[test]
fn a_segment_that_could_not_be_copied_is_copied_again_before_the_disk_counts() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    fill(&mut engine, 1, 0, 400_000);
    put_in(&mut engine, 1, &b).unwrap();
    let id = engine.rebuilding()[0].id;
    let ToCopy::Segment(first) = engine.to_copy(id).unwrap() else { panic!("there is something to copy") };
    engine.not_copied(id, &first).unwrap();
    let mut handed = Vec::new();
    while let ToCopy::Segment(segment) = engine.to_copy(id).unwrap() {
        handed.push(segment.number());
        if handed.len() > 1 {
            engine.copied(id, &segment).unwrap();
        }
    }
    assert!(handed.contains(&first.number()), "{handed:?}");
    assert_eq!(engine.rebuilt(id), Err(JoinError::Over), "one is still under way");
}

#[test]
fn a_reference_means_the_disk_that_counted_and_not_its_tray() {
    let (a, b, new, nv) = (disk("a", 20), disk("b", 20), disk("new", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    fill(&mut engine, 1, 0, 50_000);
    engine.tell_powered(60 * 60);
    let segment = engine.segment(0).unwrap();
    let place = engine.locate(StreamId([1; 16]), 7000).unwrap();
    fail(&mut engine, 1);
    put_in(&mut engine, 1, &new).unwrap();
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    assert_eq!(reader.check(&segment).unwrap().repaired, Vec::<String>::new(), "the newcomer is not looked at in its name");
    assert_eq!(reader.read(&place).unwrap().bytes(), [7; 1000]);
    rebuild(&mut engine);
    let unseen = engine.unseen(60 * 60, 9);
    engine.seen_whole(&segment, 60 * 60);
    assert_eq!(engine.unseen(60 * 60, 9), unseen, "what was seen were other disks");
    let segment = engine.segment(0).unwrap();
    engine.seen_whole(&segment, 60 * 60);
    assert_eq!(engine.unseen(60 * 60, 9).len(), unseen.len() - 1);
}

#[test]
fn wrong_disks_and_places_do_not_join() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    assert_eq!(engine.mark(0).err(), Some(JoinError::Taken(0)));
    assert_eq!(engine.mark(2).err(), Some(JoinError::Place { place: 2, places: 2 }));
    let small = disk("small", 19);
    assert!(matches!(put_in(&mut engine, 1, &small), Err(JoinError::TooSmall { bytes, .. }) if bytes == (96 + 19 * 64) * BLOCK as u64));
    put_in(&mut engine, 1, &disk("new", 20)).unwrap();
    assert_eq!(engine.mark(1).err(), Some(JoinError::Taken(1)));
    let id = engine.rebuilding()[0].id;
    engine.leave(1, "changed my mind".into()).unwrap();
    assert!(matches!(engine.to_copy(id), Err(JoinError::Over)));
    assert_eq!(engine.leave(1, "again".into()), Err(JoinError::Over));
    let more = Layout { copies: 3, ..LAYOUT };
    let refused = Engine::format(&as_disks(&[&a, &b]), STORE, KEY, more, &Memory::new(8), &mut nv.clone()).err().unwrap();
    assert!(matches!(refused, OpenError::Copies { copies: 3, disks: 2 }), "{refused}");
}
