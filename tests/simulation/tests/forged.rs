//! A record may look like any number of batches, at every block of it. Wherever recovery finds
//! it, nothing of it is believed.

mod common;

use common::*;
use hoidla_format::{
    Hash32, StreamId,
    disk::{
        BLOCK, SealKey,
        batch::{Head, LARGE, Tenure},
    },
};
use hoidla_simulation::{counter::Counter, memory::Memory};
use hoidla_store::{Engine, Event, Fault, Op, Options};
use std::sync::Arc;

/// What an agent can seal with.
const GUESS: SealKey = SealKey([0; 32]);

/// A batch that ends all generations of its dataset, and marks all before it as kept.
fn forged(run: u64, commit: u64, number: u32) -> Vec<u8> {
    let head = Head {
        previous: Hash32([0; 32]),
        incarnation: 1,
        run,
        run_first: 1,
        commit,
        mark: commit - 1,
        checkpoint: 1,
        number,
        part: 0,
        parts: 1,
        moved: false,
        retires: None,
        tenure: Tenure { powered: 0, floor: u32::MAX, days: 0 },
        frontier: vec![0; 8],
        runs: Vec::new(),
        notes: Vec::new(),
        index: None,
    };
    let mut block = head.to_bytes(&GUESS).0;
    block.resize(BLOCK, 0);
    block
}

/// A record of such batches, one for each guess of run and commit.
fn record_of_batches() -> Vec<u8> {
    let guesses = (0..4).flat_map(|run| (1..9).map(move |commit| (run, commit)));
    guesses.zip(100..).flat_map(|((run, commit), number)| forged(run, commit, number)).collect()
}

/// The power goes when the record has landed and the batch that it belongs to has not. What is
/// left then of a stream that was acknowledged, and what opening said.
fn cut_behind_a_record(fault: Option<Fault>, lose_catalogue: bool) -> (Option<u64>, Vec<String>, u64) {
    let (a, b, nv) = (disk("a", 20), disk("b", 20), Counter::default());
    format(&[&a, &b], STORE, &nv);
    let start = || {
        let options = Options { fault, ..Options::default() };
        Engine::open(as_disks(&[&a, &b]), STORE, Arc::new(Memory::new(64)), Box::new(nv.clone()), options).unwrap()
    };
    let (mut engine, _) = start();
    engine.append(record(1, 0, b"kept"), 1).unwrap();
    assert!(carry_out(&mut engine).iter().any(|e| matches!(e, Event::Acknowledged(_))));
    engine.append(record(2, 0, &record_of_batches()), 2).unwrap();
    let disks = engine.disks();
    let mut landed = 0;
    while let Some(request) = engine.next_request() {
        if let Op::Write { at, blocks } = &request.op
            && blocks.as_ref().len() >= LARGE as usize
        {
            disks[usize::from(request.disk)].as_ref().unwrap().write(*at, blocks.as_ref()).unwrap();
            landed += 1;
        }
    }
    assert_eq!(landed, 2, "the record is on both disks, and no head of its batch");
    drop(engine);
    if lose_catalogue {
        [&a, &b].iter().for_each(|d| d.ruin(64..96));
    }
    let (engine, opened) = start();
    assert_eq!(opened.rebuilt, lose_catalogue);
    (engine.state(StreamId([1; 16])).map(|s| s.chain.length), opened.damage, opened.cut)
}

#[test]
fn batches_inside_a_record_change_nothing() {
    for lose_catalogue in [false, true] {
        assert_eq!(cut_behind_a_record(None, lose_catalogue), (Some(4), Vec::new(), 0), "catalogue lost: {lose_catalogue}");
    }
}

#[test]
fn an_engine_whose_key_is_known_is_found() {
    for lose_catalogue in [false, true] {
        let (kept, ..) = cut_behind_a_record(Some(Fault::UnkeyedHeads), lose_catalogue);
        assert_eq!(kept, None, "a forged floor ended what was acknowledged");
    }
}
