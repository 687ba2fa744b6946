//! Every layout reads back, has one known encoding, and is refused in every other shape.

use super::{
    BLOCK, Geometry,
    batch::{Entry, Head, IndexEntry, LARGE, Note, Run, Tenure, What},
    blocks,
    catalogue::{Catalogue, DatasetEntry, GenerationEntry, SegmentEntry, SegmentState, StreamEntry, Tail},
    seal,
    segment::SegmentHeader,
    superblock::{Superblock, next_membership},
};
use crate::{Hash32, Malformed, StreamId, frame::Chain};

fn superblock() -> Superblock {
    let geometry = Geometry { segment_blocks: 16_384, catalogue_blocks: 1024, slots: 1000 };
    #[rustfmt::skip]
    let s = Superblock { store: [7; 16], place: 1, places: 2, geometry, sequence: 9, membership: 4, base: 3, members: 3, run: 5, run_first: 42, checkpoint: 8 };
    s
}

fn header() -> SegmentHeader {
    let dataset = "land".parse().unwrap();
    SegmentHeader { store: [7; 16], slot: 3, incarnation: 11, run: 5, dense: false, dataset, generation: 2 }
}

fn entry(len: u32) -> Entry {
    Entry { len, hash: Hash32([len as u8; 32]) }
}

fn head() -> Head {
    let stream = StreamId([1; 16]);
    let run = |offset, records| Run { stream, epoch: 1, leaf: 4, before: Chain { root: Hash32([2; 32]), length: offset }, records };
    Head {
        previous: Hash32([3; 32]),
        incarnation: 11,
        run: 5,
        run_first: 40,
        commit: 42,
        mark: 41,
        checkpoint: 8,
        number: 6,
        part: 0,
        parts: 2,
        moved: false,
        retires: Some((9, 10)),
        tenure: Tenure { powered: 86_400, floor: 2, days: 90 },
        frontier: vec![0; 8],
        runs: vec![run(0, vec![entry(100), entry(LARGE), entry(200)]), run(90_000, vec![entry(LARGE + 1)])],
        notes: vec![
            Note { stream, what: What::Closed(1) },
            Note { stream, what: What::Alarmed(7) },
            Note { stream, what: What::Readmitted },
        ],
        index: None,
    }
}

fn catalogue() -> Catalogue {
    let stream = StreamId([1; 16]);
    let tail = Tail { hash: Hash32([4; 32]), number: 3, index: vec![IndexEntry { stream, offset: 0, block: 1 }] };
    let segment = |slot, state| SegmentEntry {
        slot,
        incarnation: 11,
        dataset: "land".parse().unwrap(),
        generation: 2,
        dense: false,
        end: 40,
        payload: 100,
        seen: 1440,
        state,
    };
    Catalogue {
        sequence: 8,
        run: 5,
        run_first: 40,
        commit: 41,
        next_incarnation: 12,
        fresh: 6,
        powered: 86_400,
        frontier: vec![0; 8],
        reserve: vec![4, 5],
        segments: vec![segment(1, SegmentState::Open(tail)), segment(2, SegmentState::Closed(39)), segment(3, SegmentState::Damaged)],
        streams: vec![StreamEntry {
            stream,
            dataset: "land".parse().unwrap(),
            generation: 2,
            chain: Chain { root: Hash32([5; 32]), length: 500 },
            closed: 1,
            alarm: Some(600),
            epochs: vec![(1, 0), (2, 300)],
            extents: vec![(0, 2), (300, 1)],
        }],
        datasets: vec![DatasetEntry { dataset: "land".parse().unwrap(), floor: 2, days: 90 }],
        generations: vec![GenerationEntry { dataset: "land".parse().unwrap(), generation: 2, last: 80_000 }],
    }
}

/// Changes each byte in turn; `read` must refuse every one of them.
fn refuses_flips<T: PartialEq + std::fmt::Debug>(bytes: &[u8], step: usize, read: impl Fn(&[u8]) -> Result<T, Malformed>) {
    for i in (0..bytes.len()).step_by(step) {
        let mut bad = bytes.to_vec();
        bad[i] ^= 0x10;
        assert!(read(&bad).is_err(), "byte {i} may be changed");
    }
}

#[test]
fn a_superblock_reads_back_and_nothing_else_does() {
    let block = superblock().to_block();
    assert_eq!(Superblock::from_block(&block), Ok(superblock()));
    assert_eq!(blake3::hash(&block).to_hex().as_str(), "2e743eaf820b1e02758832f28061bc7ff42334c77b47b68d1898b710af779f6f");
    refuses_flips(&block, 1, |b| Superblock::from_block(b.try_into().unwrap()));
    let changes: [fn(&mut Superblock); 4] =
        [|s| s.place = 2, |s| s.members = 4, |s| s.geometry.segment_blocks = 1, |s| s.geometry.slots = 0];
    for change in changes {
        let mut s = superblock();
        change(&mut s);
        assert!(Superblock::from_block(&s.to_block()).is_err());
    }
}

#[test]
fn halves_never_begin_the_same_membership_epoch() {
    for after in 0..50 {
        let (a, b, both) = (next_membership(after, 1, 2), next_membership(after, 2, 2), next_membership(after, 3, 2));
        assert!(a > after && b > after && a != b && a == both && a <= after + 2);
    }
}

#[test]
fn a_segment_header_reads_back_and_nothing_else_does() {
    let (block, hash) = header().to_block();
    assert_eq!(SegmentHeader::from_block(&block), Ok((header(), hash)));
    assert_eq!(hash.to_string(), "37677f0154e3664cc566555210593fbe97288d54b751435bfabed9c7d65adaf3");
    refuses_flips(&block, 1, |b| SegmentHeader::from_block(b.try_into().unwrap()));
}

#[test]
fn a_batch_reads_back_and_nothing_else_does() {
    let (bytes, hash) = head().to_bytes();
    let mut followed = bytes.clone();
    followed.extend([9; 100]);
    assert_eq!(Head::read(&followed), Ok((head(), hash)));
    assert_eq!(hash.to_string(), "33f76c1668c7b1f704e72a10bf4103b690dfc388f9f035c04602ce92fe7de12a");
    refuses_flips(&bytes, 1, Head::read);
    for cut in 0..bytes.len() {
        assert!(Head::read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let index = Head { index: Some(vec![IndexEntry { stream: StreamId([1; 16]), offset: 5, block: 1 }]), ..head() };
    assert_eq!(Head::read(&index.to_bytes().0).unwrap().0, index);
}

#[test]
fn a_batch_knows_where_its_records_lie() {
    let head = head();
    let (places, front) = (head.places(), blocks(head.front_len()) * BLOCK);
    assert_eq!(places[0], head.head_len());
    assert_eq!(places[2], places[0] + 100);
    assert_eq!((places[1], places[3]), (front, front + LARGE as usize));
    assert_eq!(head.blocks() as usize * BLOCK, front + LARGE as usize + LARGE as usize + BLOCK);
}

#[test]
fn a_sealed_batch_that_contradicts_itself_is_refused() {
    let changes: [fn(&mut Head); 5] = [
        |h| h.part = 2,
        |h| h.mark = 42,
        |h| h.runs[0].epoch = 0,
        |h| h.runs[0].records.clear(),
        |h| h.runs[0].records[0].len = (1 << 20) + 1,
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut bad = head();
        change(&mut bad);
        let bytes = std::panic::catch_unwind(|| bad.to_bytes().0);
        assert!(bytes.is_err() || Head::read(&bytes.unwrap()).is_err(), "change {i}");
    }
    // A length that doesn't fit what follows, sealed anew.
    let mut bytes = head().to_bytes().0;
    bytes[132] ^= 1;
    seal(&mut bytes);
    assert!(Head::read(&bytes).is_err());
}

#[test]
fn a_catalogue_reads_back_and_nothing_else_does() {
    let bytes = catalogue().to_bytes();
    let len = Catalogue::peek(&bytes[..BLOCK], bytes.len()).unwrap();
    assert_eq!(Catalogue::from_bytes(&bytes[..len]), Ok(catalogue()));
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), "69b443984dcfaf10921105da9f4abdf7988cd02e9839d40f5159027bc2c1a02c");
    refuses_flips(&bytes[..len], 1, Catalogue::from_bytes);
    assert!(Catalogue::from_bytes(&bytes[..len - 1]).is_err());
    assert!(Catalogue::peek(&bytes[..BLOCK], len - 1).is_err());
    // Counts far beyond what follows are refused without taking memory for them.
    let mut bad = bytes[..len].to_vec();
    let counts = 48 + 8 * 5 + 4 + 8 + 2 + 8;
    bad[counts..counts + 20].fill(0xff);
    seal(&mut bad);
    assert!(Catalogue::from_bytes(&bad).is_err());
}
