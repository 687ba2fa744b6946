//! Every layout reads back, has one known encoding, and is refused in every other shape.

use super::{
    BLOCK, Geometry, SealKey,
    batch::{Entry, Head, IndexEntry, LARGE, Note, Run, Tenure, What},
    blocks,
    catalogue::{
        DatasetEntry, Front, GenerationEntry, Item, MOST_LINES, MOST_PIECE, MOST_RESERVE, Piece, Pieces, SegmentEntry, SegmentState,
        StreamEntry,
    },
    seal, seal_keyed,
    segment::SegmentHeader,
    superblock::{Superblock, next_membership},
};
use crate::{Hash32, Malformed, StreamId, frame::Chain};

const KEY: SealKey = SealKey([6; 32]);

fn superblock() -> Superblock {
    let geometry = Geometry { places: 2, copies: 2, segment_blocks: 16_384, catalogue_blocks: 1024, slots: 1000 };
    #[rustfmt::skip]
    let s = Superblock { store: [7; 16], key: KEY, place: 1, geometry, sequence: 9, membership: 4, base: 3, members: 3, run: 5, run_first: 42, checkpoint: 8, counter: 21 };
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

fn front() -> Front {
    Front { run: 5, run_first: 40, commit: 41, next_incarnation: 12, fresh: 6, powered: 86_400, frontier: vec![0; 8], reserve: vec![4, 5] }
}

fn items() -> Vec<Item> {
    let stream = StreamId([1; 16]);
    let segment = |slot, state| {
        let (incarnation, generation, dense, end, payload, seen) = (11, 0, false, 40, 100, 1440);
        Item::Segment(SegmentEntry { slot, incarnation, generation, dense, end, payload, seen, state })
    };
    let dataset: crate::Name = "land".parse().unwrap();
    let chain = Chain { root: Hash32([5; 32]), length: 500 };
    vec![
        Item::Front(front()),
        Item::Dataset(DatasetEntry { dataset: dataset.clone(), floor: 2, days: 90 }),
        Item::Generation(GenerationEntry { dataset: dataset.clone(), number: 2, last: Some(80_000) }),
        Item::Generation(GenerationEntry { dataset, number: 3, last: None }),
        segment(1, SegmentState::Open { hash: Hash32([4; 32]), number: 3 }),
        Item::Index(vec![IndexEntry { stream, offset: 0, block: 1 }]),
        segment(2, SegmentState::Closed(39)),
        segment(3, SegmentState::Damaged),
        Item::Stream(StreamEntry { stream, generation: 0, chain, closed: 1, alarm: Some(600) }),
        Item::Epochs(vec![(1, 0), (2, 300)]),
        Item::Extents(vec![(0, 2), (300, 1)]),
        Item::Tiles(1, vec![Hash32([7; 32]), Hash32([8; 32])]),
    ]
}

fn pieces(items: Vec<Item>, most: usize) -> Vec<Vec<u8>> {
    let (mut pieces, mut items) = (Pieces::new(8), items.into_iter().peekable());
    std::iter::from_fn(|| pieces.next(&mut items, most)).collect()
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
    assert_eq!(blake3::hash(&block).to_hex().as_str(), "03cdcf4dafa3477b0d1c154c8cae1a37c6764b73221333d6e8a3e5fd2efbee83");
    refuses_flips(&block, 1, |b| Superblock::from_block(b.try_into().unwrap()));
    #[rustfmt::skip]
    let changes: [fn(&mut Superblock); 7] = [
        |s| s.place = 2, |s| s.members = 4, |s| s.geometry.segment_blocks = 1, |s| s.geometry.slots = 0, |s| s.geometry.copies = 3,
        |s| s.run = (1 << 62) + 1, |s| s.membership = u64::MAX,
    ];
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
    let (bytes, hash) = head().to_bytes(&KEY);
    let mut followed = bytes.clone();
    followed.extend([9; 100]);
    assert_eq!(Head::read(&followed, &KEY), Ok((head(), hash)));
    assert_eq!(hash.to_string(), "1f5df1f38548ee23c800b5db1e89c203eb6fbfdc53c421c02b3e557f86781728");
    refuses_flips(&bytes, 1, |b| Head::read(b, &KEY));
    assert!(Head::read(&bytes, &SealKey([7; 32])).is_err(), "another store's key");
    let mut unkeyed = bytes.clone();
    seal(&mut unkeyed);
    assert!(Head::read(&unkeyed, &KEY).is_err(), "whoever doesn't know the key seals nothing");
    for cut in 0..bytes.len() {
        assert!(Head::read(&bytes[..cut], &KEY).is_err(), "cut at {cut}");
    }
    let index = Head { index: Some(vec![IndexEntry { stream: StreamId([1; 16]), offset: 5, block: 1 }]), ..head() };
    assert_eq!(Head::read(&index.to_bytes(&KEY).0, &KEY).unwrap().0, index);
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
        let bytes = std::panic::catch_unwind(|| bad.to_bytes(&KEY).0);
        assert!(bytes.is_err() || Head::read(&bytes.unwrap(), &KEY).is_err(), "change {i}");
    }
    // A length that doesn't fit what follows, sealed anew.
    let mut bytes = head().to_bytes(&KEY).0;
    bytes[132] ^= 1;
    seal_keyed(&mut bytes, &KEY);
    assert!(Head::read(&bytes, &KEY).is_err());
}

#[test]
fn a_piece_of_a_catalogue_reads_back_and_nothing_else_does() {
    let [bytes] = &pieces(items(), BLOCK)[..] else { panic!("one piece holds it") };
    let (piece, hash) = Piece::read(bytes).unwrap();
    assert_eq!((piece.items.clone(), piece.last, piece.number, piece.sequence), (items(), true, 0, 8));
    assert_eq!((piece.front(), piece.len()), (Some(&front()), bytes.len()));
    assert_eq!(piece.to_bytes(), (bytes.clone(), hash));
    assert_eq!(hash.to_string(), "5dab636d1ef8405064acdb6b7744b0a6da9060a4845751a24ef24d94e6e26f59");
    assert_eq!(Piece::peek(&bytes[..100]), Ok(bytes.len()));
    assert_eq!(Piece::read(&[&bytes[..], &[0; 9]].concat()).unwrap().1, hash, "what goes on after it isn't its own");
    refuses_flips(bytes, 1, Piece::read);
    for cut in 0..bytes.len() {
        assert!(Piece::read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_catalogue_of_many_pieces_holds_the_same_items_in_a_chain() {
    let many: Vec<_> = items().into_iter().chain((0..300).map(|i| Item::Epochs(vec![(i, 7); MOST_LINES]))).collect();
    for most in [BLOCK, 3 * BLOCK + 5, MOST_PIECE] {
        let read: Vec<_> = pieces(many.clone(), most).iter().map(|b| Piece::read(b).unwrap()).collect();
        assert!(read.iter().all(|(p, _)| p.len() <= most) && read.len() >= (300 * 12 * MOST_LINES).div_ceil(most));
        let last = read.len() - 1;
        assert!((0..).zip(&read).all(|(i, (p, _))| (p.number, p.last, p.sequence) == (i, i as usize == last, 8)));
        assert!(read.windows(2).all(|w| w[1].0.previous == w[0].1));
        assert_eq!(read.into_iter().flat_map(|(p, _)| p.items).collect::<Vec<_>>(), many);
    }
}

#[test]
fn a_sealed_piece_that_contradicts_itself_is_refused() {
    let good = Piece { previous: Hash32([0; 32]), sequence: 8, number: 0, last: true, items: items() };
    assert!(Piece::read(&good.to_bytes().0).is_ok());
    let changes: [fn(&mut Piece); 9] = [
        |p| p.items.clear(),
        |p| p.items.swap(0, 1),
        |p| p.items.push(Item::Front(front())),
        |p| p.previous = Hash32([1; 32]),
        |p| p.number = 1,
        |p| (p.number, p.previous) = (1, Hash32([1; 32])),
        |p| p.items.push(Item::Extents(vec![(0, 0); MOST_LINES + 1])),
        |p| p.items[0] = Item::Front(Front { reserve: vec![1; MOST_RESERVE + 1], ..front() }),
        |p| p.items[0] = Item::Front(Front { frontier: vec![0; 3000], ..front() }),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(Piece::read(&bad.to_bytes().0).is_err(), "change {i}");
    }
    // An item of no known kind, and a count far beyond what follows, sealed anew.
    let bytes = good.to_bytes().0;
    let (first, epochs) = (89, bytes.len() - (3 + 2 * 12) * 2 - (4 + 2 * 32));
    for (at, byte) in [(first, 9), (epochs, 0), (epochs + 1, 60), (80, 9)] {
        let mut bad = bytes.clone();
        bad[at] = byte;
        seal(&mut bad);
        assert!(Piece::read(&bad).is_err(), "byte {at}");
    }
}
