//! Binary layouts: streams, disks, sockets, keys.

use std::sync::LazyLock;

use hoidla_crypto::{
    Secret,
    datakey::DataKey,
    envelope::{self, CustodianKeys, ShareId},
    hpke::PublicKey,
    keyfile::KeyFile,
    sealing::{Provider, Sealer},
};
use hoidla_format::{
    Hash32, Kind, Leaf, Reader,
    disk::{
        self, BLOCK, SealKey,
        batch::{self, Head as BatchHead},
        catalogue::Piece,
        fences::Fences,
        segment::SegmentHeader,
        superblock::Superblock,
    },
    frame, state,
    statements::Door,
};
use hoidla_log::Frontier;
use hoidla_medium::entry::{self, Entry};
use hoidla_protocol::{AppendHead, HEAD, Head, Request, Response};
use hoidla_quorum::share::Share;
use hoidla_snapshot::PackHead;
use hoidla_verify::{Parcel, Public};

pub fn frame(bytes: &[u8]) -> bool {
    let mut left = bytes;
    let mut any = false;
    while let Ok((kind, body, rest)) = frame::split(left) {
        let again = [&frame::head(kind, body.len())[..], body].concat();
        assert_eq!(again, left[..again.len()], "one encoding");
        assert!(rest.len() < left.len(), "a frame has a head");
        (left, any) = (rest, true);
    }
    any && left.is_empty()
}

pub fn epoch_header(bytes: &[u8]) -> bool {
    let Ok((agent, epoch)) = frame::split_epoch_header(bytes) else { return false };
    assert_eq!(frame::join_epoch_header(agent, epoch), bytes, "one encoding");
    true
}

/// The first bytes choose what is read of the others.
pub fn codec(bytes: &[u8]) -> bool {
    let Some((plan, input)) = bytes.split_first_chunk::<8>() else { return false };
    let mut r = Reader::new(input);
    for step in plan {
        let before = r.left();
        let read = match step % 9 {
            0 => r.u8().map(|_| 1),
            1 => r.u16().map(|_| 2),
            2 => r.u32().map(|_| 4),
            3 => r.u64().map(|_| 8),
            4 => r.array::<32>().map(|a| a.len()),
            5 => r.short(usize::from(*step), "short").map(|s| 2 + s.len()),
            6 => r.long(usize::from(*step), "long").map(|s| 4 + s.len()),
            7 => r.header(Kind::Pack, 1).map(|()| 8),
            _ => r.take(usize::from(*step)).map(<[u8]>::len),
        };
        let Ok(len) = read else { return false };
        assert_eq!(before - r.left(), len, "a field takes what it is long");
    }
    r.finish().is_ok()
}

pub fn leaf(bytes: &[u8]) -> bool {
    let Ok(leaf) = Leaf::from_bytes(bytes) else { return false };
    assert_eq!(leaf.to_bytes(), bytes, "one encoding");
    true
}

pub fn frontier(bytes: &[u8]) -> bool {
    let Ok(frontier) = Frontier::from_bytes(bytes) else { return false };
    assert_eq!(frontier.to_bytes(), bytes, "one encoding");
    let _ = frontier.root();
    true
}

/// The key of the batches in the corpus.
const KEY: SealKey = SealKey([6; 32]);

/// The layout as it is, and with a hash that fits: the hash has no key, or one that stands
/// on the disk, so whoever writes to a disk can make it fit. `len` tells how many bytes the hash covers.
fn with_and_without_seal(
    bytes: &[u8],
    seal: impl Fn(&mut [u8]) -> Hash32,
    len: impl Fn(&[u8]) -> Option<usize>,
    run: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut sealed = bytes.to_vec();
    if let Some(layout) = len(bytes).filter(|len| *len >= 40).and_then(|len| sealed.get_mut(..len)) {
        seal(layout);
    }
    run(&sealed) | run(bytes)
}

fn block(bytes: &[u8]) -> Option<&[u8; BLOCK]> {
    bytes.first_chunk()
}

pub fn superblock(bytes: &[u8]) -> bool {
    let Some(bytes) = block(bytes) else { return false };
    with_and_without_seal(
        bytes,
        disk::seal,
        |_| Some(BLOCK),
        |bytes| {
            let block = block(bytes).expect("still a block");
            let Ok(superblock) = Superblock::from_block(block) else { return false };
            assert!(superblock.to_block() == *block, "one encoding");
            assert!(superblock.geometry.disk_blocks() > 0);
            true
        },
    )
}

pub fn fences(bytes: &[u8]) -> bool {
    let Some(bytes) = block(bytes) else { return false };
    with_and_without_seal(
        bytes,
        disk::seal,
        |_| Some(BLOCK),
        |bytes| {
            let block = block(bytes).expect("still a block");
            let Ok(fences) = Fences::from_block(block) else { return false };
            assert!(fences.to_block() == *block, "one encoding");
            true
        },
    )
}

pub fn segment(bytes: &[u8]) -> bool {
    let Some(bytes) = block(bytes) else { return false };
    with_and_without_seal(
        bytes,
        disk::seal,
        |_| Some(BLOCK),
        |bytes| {
            let block = block(bytes).expect("still a block");
            let Ok((header, hash)) = SegmentHeader::from_block(block) else { return false };
            assert!(header.to_block() == (*block, hash), "one encoding");
            true
        },
    )
}

pub fn batch(bytes: &[u8]) -> bool {
    _ = batch::may_begin(bytes);
    with_and_without_seal(
        bytes,
        |b| disk::seal_keyed(b, &KEY),
        |b| BatchHead::peek(b).ok(),
        |bytes| {
            let Ok((head, hash)) = BatchHead::read(bytes, &KEY) else { return false };
            assert!(head.to_bytes(&KEY) == (bytes[..head.head_len()].to_vec(), hash), "one encoding");
            let end = head.blocks() as usize * BLOCK;
            for (at, record) in head.places().into_iter().zip(head.records()) {
                assert!(at + record.len as usize <= end, "a record lies within its batch");
            }
            true
        },
    )
}

pub fn catalogue(bytes: &[u8]) -> bool {
    with_and_without_seal(
        bytes,
        disk::seal,
        |b| Piece::peek(b).ok(),
        |bytes| {
            let Ok((piece, hash)) = Piece::read(bytes) else { return false };
            assert!(piece.to_bytes() == (bytes[..piece.len()].to_vec(), hash), "one encoding");
            assert_eq!(piece.front().is_some(), piece.number == 0);
            true
        },
    )
}

/// A message's head and body; a body that a head would not announce is not read.
fn message(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (head, body) = bytes.split_first_chunk::<HEAD>()?;
    let head = Head::parse(head).ok()?;
    assert_eq!(head.bytes()[..], bytes[..HEAD], "one encoding");
    (head.len == body.len()).then_some((head, body))
}

pub fn request(bytes: &[u8]) -> bool {
    let Some((head, body)) = message(bytes) else { return false };
    let Ok(request) = Request::parse(head.kind, body) else { return false };
    assert_eq!(request.encode(), bytes, "one encoding");
    true
}

pub fn response(bytes: &[u8]) -> bool {
    let Some((head, body)) = message(bytes) else { return false };
    let Ok(response) = Response::parse(head.kind, body) else { return false };
    // A refusal's sentence loses its control characters, so it is read once more.
    let again = response.encode();
    assert_eq!(Response::parse(head.kind, &again[HEAD..]).as_ref(), Ok(&response), "a response reads back");
    true
}

pub fn append(bytes: &[u8]) -> bool {
    let Some((head, frame)) = bytes.split_first_chunk::<{ AppendHead::LEN }>() else { return false };
    let Ok(append) = AppendHead::parse(head) else { return false };
    assert_eq!(append.bytes(), *head, "one encoding");
    frame::split(frame).is_ok()
}

pub fn key_file(bytes: &[u8]) -> bool {
    KeyFile::parse(bytes).is_ok()
}

/// The custodian to whom the corpus's envelope is sealed.
pub fn custodian() -> CustodianKeys {
    CustodianKeys::from_seed(&Secret::from_bytes_wiping(&mut [7; 32]))
}

/// The share that the corpus's envelope holds.
pub fn share_id() -> ShareId {
    let name = |n: &str| n.parse().expect("a name");
    ShareId { site: name("lux"), dataset: name("land"), vault_epoch: 1, door: Door::Quorum, custodian: name("alpha"), index: 3 }
}

pub fn envelope(bytes: &[u8]) -> bool {
    static KEYS: LazyLock<CustodianKeys> = LazyLock::new(custodian);
    let Ok(share) = envelope::open(&KEYS, &share_id(), bytes) else { return false };
    assert_eq!(share.len() + envelope::OVERHEAD, bytes.len());
    true
}

/// The sealer whose message the corpus holds.
pub fn sealer() -> Sealer {
    Sealer::new(&DataKey::from_secret(Secret::from_bytes_wiping(&mut [7; 32])), Provider::default())
}

pub fn sealed_message(bytes: &[u8]) -> bool {
    let mut plain = Vec::new();
    let opened = sealer().open(b"aad", bytes, &mut plain).is_ok();
    assert!(opened || plain.is_empty(), "nothing of a refused message is given out");
    opened
}

pub fn hpke_public_key(bytes: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_bytes(bytes) else { return false };
    assert_eq!(key.to_bytes(), bytes, "one encoding");
    true
}

pub fn share(bytes: &[u8]) -> bool {
    let Ok(share) = Share::decode(bytes) else { return false };
    assert_eq!(share.encode()[..], *bytes, "one encoding");
    true
}

pub fn parcel(bytes: &[u8]) -> bool {
    let Ok(parcel) = Parcel::from_bytes(bytes) else { return false };
    assert_eq!(parcel.to_bytes(), bytes, "one encoding");
    // Opened by a secret that isn't its own, or that is: never a panic.
    _ = parcel.open(&Secret::filled(|b| b.fill(6)));
    true
}

pub fn tpm_public(bytes: &[u8]) -> bool {
    let Ok(public) = Public::parse(bytes) else { return false };
    assert_eq!(public.marshal(), bytes, "one encoding");
    let _ = (public.name(), public.point().map(|p| p.key().is_ok()));
    true
}

pub fn pack_head(bytes: &[u8]) -> bool {
    PackHead::parse(bytes).is_ok()
}

/// An entry has one encoding.
pub fn state(bytes: &[u8]) -> bool {
    _ = state::Entry::len_of(bytes);
    let Ok((entry, hash)) = state::Entry::from_bytes(bytes) else { return false };
    assert_eq!(entry.to_bytes(), Ok((bytes.to_vec(), hash)), "one encoding");
    true
}

/// Firmware's boot entries, anybody's: what is read is written as it was.
pub fn boot_entry(bytes: &[u8]) -> bool {
    _ = entry::parse_order(bytes).map(|order| assert_eq!(entry::write_order(&order), bytes, "one encoding"));
    let Ok(entry) = Entry::parse(bytes) else { return false };
    assert_eq!(entry.to_bytes(), bytes, "one encoding");
    let _ = (entry.title(), entry.partition());
    true
}
