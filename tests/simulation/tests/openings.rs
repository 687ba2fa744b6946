//! What opening and appending refuse, each with its own words.

mod common;

use std::sync::Arc;

use common::*;
use hoidla_format::StreamId;
use hoidla_simulation::{counter::Counter, memory::Memory};
use hoidla_store::{Appended, Engine, Generation, OpenError, Reader, Record, Refused};

#[test]
fn a_disk_of_another_store_is_refused_by_name() {
    let (a, b, other, blank) = (disk("a", 20), disk("b", 20), disk("strange", 20), disk("blank", 20));
    let nv = Counter::default();
    format(&[&a, &b], STORE, &nv);
    format(&[&other], [2; 16], &Counter::default());
    let refused = open(&[&a, &other], &nv).err().unwrap();
    assert!(matches!(&refused, OpenError::Foreign { disk, .. } if disk == "strange"), "{refused}");
    assert!(matches!(open(&[&a, &blank], &nv).err().unwrap(), OpenError::NotAStore(name) if name == "blank"));
    assert!(matches!(open(&[&a, &a], &nv).err().unwrap(), OpenError::Twice(..)));
    assert!(matches!(open(&[], &nv).err().unwrap(), OpenError::Count(0)));
    assert!(open(&[&b, &a], &nv).is_ok(), "in any order");
    let small = disk("small", 1);
    assert!(matches!(
        Engine::format(&as_disks(&[&small]), STORE, KEY, LAYOUT, &Memory::new(8), &mut Counter::default()),
        Err(OpenError::TooSmall(name)) if name == "small"
    ));
}

#[test]
fn one_disk_missing_goes_on_and_the_stale_one_never_serves_alone() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, opened) = open(&[&a], &nv).unwrap();
    assert_eq!(opened.missing, [1]);
    assert_eq!(engine.append(record(1, 0, b"degraded"), 1), Ok(Appended::Pending));
    assert_eq!(settle(&mut engine), [8]);
    drop(engine);
    assert!(matches!(open(&[&b], &nv).err().unwrap(), OpenError::Stale { .. }));
    let (mut engine, opened) = open(&[&a, &b], &nv).unwrap();
    assert_eq!((opened.missing, opened.rebuilding), (vec![], vec![1]));
    drop(open(&[&b], &nv).err().expect("while it is rebuilt it serves no more than before"));
    rebuild(&mut engine);
    drop(engine);
    let (mut engine, _) = open(&[&b], &nv).unwrap();
    let place = engine.locate(StreamId([1; 16]), 3).unwrap();
    let found = Reader::new(engine.disks(), Arc::new(Memory::new(8))).read(&place).unwrap();
    assert_eq!(found.bytes(), b"degraded");
}

#[test]
fn openings_cut_short_each_with_other_disks_keep_the_store_from_nothing() {
    let (a, b, c, nv) = (disk("a", 32), disk("b", 32), disk("c", 32), Counter::default());
    two_copies_on(&[&a, &b, &c], &nv);
    let (mut engine, _) = open(&[&a, &b, &c], &nv).unwrap();
    fill(&mut engine, 1, 0, 300_000);
    drop(engine);
    let before = b.image();
    // With a and b the power goes when a's superblocks are written; with b and c when both are, before the counter is raised.
    drop(open(&[&a, &b], &nv.copy()).unwrap());
    b.restore(before);
    drop(open(&[&b, &c], &nv.copy()).unwrap());
    let images = [&a, &b, &c].map(|d| d.image());
    for here in [vec![&a, &b, &c], vec![&a, &b], vec![&b, &c]] {
        for nv in [nv.copy(), Counter::default()] {
            let (mut engine, opened) = open(&here, &nv).unwrap();
            assert_eq!((&opened.damage[..], opened.rebuilt), (&[][..], false));
            holds_all(&mut engine, 1, 300_000);
            if opened.only_reads.is_none() {
                fill(&mut engine, 1, 300_000, 310_000);
            }
            if !engine.rebuilding().is_empty() {
                rebuild(&mut engine);
            }
            drop(engine);
            [&a, &b, &c].iter().zip(&images).for_each(|(d, image)| d.restore(image.clone()));
        }
    }
}

#[test]
fn a_full_store_refuses_before_it_acknowledges_and_goes_on() {
    let (a, nv) = (disk("a", 10), Counter::default());
    format(&[&a], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    let (mut offset, mut acknowledged) = (0, 0);
    let full = loop {
        match engine.append(record(1, offset, &[7; 60_000]), offset) {
            Ok(_) => offset += 60_000,
            Err(Refused::Busy) => {}
            Err(other) => break other,
        }
        acknowledged = settle(&mut engine).last().copied().unwrap_or(acknowledged);
    };
    assert_eq!(full, Refused::Full);
    assert_eq!(acknowledged, offset, "whatever was taken is kept");
    engine.close_epoch(StreamId([1; 16]), 1, 5).unwrap();
    settle(&mut engine);
    drop(engine);
    let (engine, _) = open(&[&a], &nv).unwrap();
    let state = engine.state(StreamId([1; 16])).unwrap();
    assert_eq!((state.chain.length, state.closed), (offset, 1), "a full store can still close an epoch, and restart");
}

#[test]
fn a_new_segment_whose_header_is_gone_from_every_disk_is_damage_and_not_a_cut() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    engine.append(record(1, 0, b"kept"), 1).unwrap();
    assert_eq!(settle(&mut engine), [4]);
    drop(engine);
    let first_segment = 96;
    [&a, &b].iter().for_each(|d| d.ruin(first_segment..first_segment + 1));
    let (mut engine, opened) = open(&[&a, &b], &nv).unwrap();
    assert!(opened.damage.iter().any(|d| d.contains("marked as kept")), "{opened:?}");
    let g = Generation { dataset: "land".parse().unwrap(), number: 1 };
    assert_eq!(engine.present(&g, StreamId([1; 16]), 4), Err(Refused::Alarmed { presented: 4 }), "and its agent is told");
}

#[test]
fn a_header_that_is_lost_with_all_catalogues_leaves_a_hole_that_is_told() {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let (mut engine, _) = open(&[&a, &b], &nv).unwrap();
    fill(&mut engine, 1, 0, 200_000);
    assert!(engine.segment(2).is_some(), "it goes over some segments");
    drop(engine);
    let first_segment = 96;
    [&a, &b].iter().for_each(|d| d.ruin(64..first_segment + 1));
    let (mut engine, opened) = open(&[&a, &b], &nv).unwrap();
    assert!(opened.rebuilt);
    assert!(opened.damage.iter().any(|d| d.contains("the bytes from 0 to ")), "{:?}", opened.damage);
    assert_eq!(engine.state(StreamId([1; 16])).unwrap().chain.length, 200_000);
    assert_eq!(engine.append(record(1, 0, &[0; 1000]), 1), Err(Refused::Lost { offset: 0 }), "it is no fork");
    assert!(read(&mut engine, 1, 199_000).is_ok());
}

#[test]
fn what_is_no_continuation_is_refused() {
    let (a, nv) = (disk("a", 20), Counter::default());
    format(&[&a], STORE, &nv);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    assert_eq!(engine.append(record(1, 5, b"x"), 1), Err(Refused::Gap { offset: 5, expected: 0 }));
    engine.append(record(1, 0, b"first"), 2).unwrap();
    assert_eq!(engine.append(record(1, 0, b"other"), 3), Err(Refused::Fork { offset: 0 }));
    assert_eq!(engine.append(record(1, 0, b"first"), 4), Ok(Appended::Pending), "sent again");
    assert_eq!(engine.append(Record { epoch: 0, ..record(1, 5, b"x") }, 5), Err(Refused::NotARecord("epochs count from 1")));
    let elsewhere = Generation { dataset: "people".parse().unwrap(), number: 1 };
    assert_eq!(engine.append(Record { generation: elsewhere, ..record(1, 5, b"x") }, 6), Err(Refused::Foreign));
    assert_eq!(settle(&mut engine), [5, 5]);
    let Ok(Appended::Before(place)) = engine.append(record(1, 0, b"other"), 7) else { panic!("it is stored") };
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    assert_eq!(reader.compare(&place, &record(1, 0, b"other")).unwrap(), Err(Refused::Fork { offset: 0 }));
    assert_eq!(reader.compare(&place, &record(1, 0, b"first")).unwrap(), Ok(()));
    engine.close_epoch(StreamId([1; 16]), 1, 8).unwrap();
    assert_eq!(engine.append(record(1, 5, b"x"), 9), Err(Refused::EpochOver { epoch: 1, next: 2 }));
    assert_eq!(engine.append(Record { epoch: 2, ..record(1, 5, b"x") }, 10), Ok(Appended::Pending));
    let g = Generation { dataset: "land".parse().unwrap(), number: 1 };
    assert_eq!(engine.present(&g, StreamId([1; 16]), 99), Err(Refused::Alarmed { presented: 99 }));
    settle(&mut engine);
    drop(engine);
    let (mut engine, _) = open(&[&a], &nv).unwrap();
    assert_eq!(engine.present(&g, StreamId([1; 16]), 5), Err(Refused::Alarmed { presented: 99 }), "a restart lifts no alarm");
    engine.readmit(StreamId([1; 16]), 11).unwrap();
    settle(&mut engine);
    assert_eq!(engine.present(&g, StreamId([1; 16]), 5).unwrap().chain.length, 6);
    assert_eq!(engine.present(&g, StreamId([9; 16]), 1), Err(Refused::Alarmed { presented: 1 }), "an unknown stream");
}
