//! Every message reads back; everything else is refused, and never panics.

use hoidla_format::{ByteRange, Hash32, Leaf, Name, StreamId, disk::batch::Entry, frame, frame::Chain};
use hoidla_protocol::*;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9]{0,20}".prop_map(|s| s.parse().unwrap())
}

fn hash() -> impl Strategy<Value = Hash32> {
    any::<[u8; 32]>().prop_map(Hash32)
}

fn chain() -> impl Strategy<Value = Chain> {
    prop_oneof![Just(Chain::EMPTY), (1u64..1 << 62, hash()).prop_map(|(length, root)| Chain { root, length })]
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<[u8; 16]>().prop_map(StreamId)
}

fn note() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..200)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (name(), stream(), any::<u32>(), chain()).prop_map(|(dataset, stream, generation, last)| Request::Open(Open {
            dataset,
            stream,
            generation,
            last
        })),
        name().prop_map(|dataset| Request::List { dataset }),
        Just(Request::Health),
        Just(Request::Papers),
        note().prop_map(Request::Propose),
        note().prop_map(Request::Approve),
        proptest::option::of(hash()).prop_map(|grant| Request::Seal { grant }),
        hash().prop_map(|grant| Request::Keys { grant }),
        (hash(), name(), stream(), 0u64..1 << 40, 0u64..1 << 40).prop_map(|(grant, dataset, stream, at, len)| Request::Read(Read {
            grant,
            dataset,
            stream,
            range: ByteRange::new(at, len).unwrap()
        })),
        (any::<u64>(), any::<u64>()).prop_map(|(old, least)| Request::Extend { old, least }),
        (name(), stream(), any::<u64>(), any::<u64>(), any::<bool>())
            .prop_map(|(dataset, stream, offset, size, frame)| Request::Prove(Prove { dataset, stream, offset, size, frame })),
        proptest::collection::vec(note(), 0..5).prop_map(Request::Update),
        (note(), proptest::collection::vec(note(), 0..5)).prop_map(|(extension, papers)| Request::Witness(Witness { papers, extension })),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let frames = proptest::collection::vec((1u32..=1 << 20, hash()), 1..20);
    (name(), stream(), any::<u64>(), chain(), frames, proptest::collection::vec(hash(), 0..64)).prop_map(
        |(dataset, stream, index, before, frames, proof)| {
            let frames: Vec<Entry> = frames.into_iter().map(|(len, hash)| Entry { len, hash }).collect();
            let end = frames.iter().fold(before, |c, f| c.then(&f.hash, f.len));
            let part = ByteRange::new(before.length, end.length - before.length).unwrap();
            Part { index, leaf: Leaf { dataset, stream, epoch: 1, part, root: end.root }, proof, before: before.root, frames }
        },
    )
}

fn vault_progress() -> impl Strategy<Value = VaultProgress> {
    (name(), any::<u32>(), any::<u8>(), any::<u8>()).prop_map(|(dataset, vault_epoch, have, need)| VaultProgress {
        dataset,
        vault_epoch,
        have,
        need,
    })
}

fn entry() -> impl Strategy<Value = StreamEntry> {
    (stream(), any::<u32>(), 0usize..50).prop_map(|(stream, generation, epochs)| StreamEntry {
        stream,
        generation,
        bytes: 1000,
        kept_days: 90,
        epochs: (0..epochs).map(|n| Epoch { epoch: n as u32 + 1, start: n as u64 * 20 }).collect(),
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    (name(), name(), hash(), any::<u32>(), name(), any::<bool>(), any::<u32>()).prop_map(
        |(site, appliance, site_hash, site_serial, release, development, window)| Welcome {
            site,
            appliance,
            site_hash,
            site_serial,
            release,
            development,
            window,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        welcome().prop_map(Response::Welcome),
        (1u32.., any::<u32>(), any::<bool>(), chain()).prop_map(|(h, epoch, closed, acknowledged)| Response::Opened(Opened {
            handle: Handle(h),
            epoch,
            closed,
            acknowledged
        })),
        (1u32.., any::<u64>(), any::<u64>()).prop_map(|(h, before, log_size)| Response::Acknowledged {
            handle: Handle(h),
            before,
            log_size
        }),
        any::<u32>().prop_map(|bytes| Response::Window { bytes }),
        entry().prop_map(Response::Stream),
        note().prop_map(Response::Paper),
        ("[ -~\n]{0,200}", proptest::collection::vec(note(), 0..4), proptest::collection::vec(note(), 0..4))
            .prop_map(|(challenge, vaults, envelopes)| Response::Challenged { challenge, vaults, envelopes }),
        (hash(), any::<bool>(), any::<u32>(), proptest::collection::vec(vault_progress(), 0..5))
            .prop_map(|(grant, opened, seconds_left, vaults)| Response::Progress(Progress { grant, opened, seconds_left, vaults })),
        any::<u32>().prop_map(|count| Response::Sealed { count }),
        note().prop_map(Response::Extension),
        note().prop_map(Response::Witnessed),
        (any::<u32>(), any::<bool>()).prop_map(|(serial, in_force)| Response::Updated { serial, in_force }),
        part().prop_map(Response::Part),
        (name(), stream(), any::<u32>(), note()).prop_map(|(dataset, stream, epoch, sealed)| Response::Key(Key {
            dataset,
            stream,
            epoch,
            sealed
        })),
        (any::<u64>(), note()).prop_map(|(offset, bytes)| Response::Data { offset, bytes }),
        any::<u64>().prop_map(|count| Response::End { count }),
        any::<u64>().prop_map(|n| Response::Health(Health { used: n, uptime: n, openings: n as u16, ..Health::default() })),
        ("[ -~]{0,300}", proptest::option::of(1u32..)).prop_map(|(sentence, handle)| {
            let refused = Refused::new(Code::Fork, sentence);
            Response::Refused(match handle {
                Some(h) => refused.about(Handle(h)),
                None => refused,
            })
        }),
    ]
}

fn split(bytes: &[u8]) -> (Head, &[u8]) {
    let (head, body) = bytes.split_first_chunk::<HEAD>().unwrap();
    let head = Head::parse(head).unwrap();
    assert_eq!(head.len, body.len());
    (head, body)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn requests_read_back_and_no_prefix_or_suffix_does(r in request()) {
        let bytes = r.encode();
        let (head, body) = split(&bytes);
        prop_assert!(!head.kind.from_appliance());
        prop_assert_eq!(Request::parse(head.kind, body).unwrap(), r.clone());
        prop_assert!(Response::parse(head.kind, body).is_err(), "the other side doesn't take it");
        if !matches!(r, Request::Propose(_) | Request::Approve(_)) {
            for cut in 1..=body.len() {
                let shorter = Request::parse(head.kind, &body[..body.len() - cut]);
                prop_assert!(shorter.is_err() || matches!(shorter, Ok(Request::Seal { grant: None })), "{} less", cut);
            }
            prop_assert!(Request::parse(head.kind, &[body, &[0]].concat()).is_err());
        }
    }

    #[test]
    fn responses_read_back_and_no_prefix_or_suffix_does(r in response()) {
        let bytes = r.encode();
        let (head, body) = split(&bytes);
        prop_assert!(head.kind.from_appliance());
        prop_assert_eq!(Response::parse(head.kind, body).unwrap(), r.clone());
        prop_assert!(Request::parse(head.kind, body).is_err());
        if !matches!(r, Response::Paper(_) | Response::Data { .. } | Response::Extension(_) | Response::Witnessed(_)) {
            for cut in 1..=body.len() {
                prop_assert!(Response::parse(head.kind, &body[..body.len() - cut]).is_err(), "{} less", cut);
            }
            prop_assert!(Response::parse(head.kind, &[body, &[0]].concat()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(head in any::<[u8; HEAD]>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(head) = Head::parse(&head) {
            let (least, most) = head.kind.bounds();
            prop_assert!((least..=most).contains(&head.len));
        }
        for kind in Type::ALL {
            let _ = (Request::parse(*kind, &body), Response::parse(*kind, &body));
        }
        if let Some(bytes) = body.first_chunk() {
            let _ = AppendHead::parse(bytes);
        }
    }
}

#[test]
fn a_head_is_refused_before_memory_is_spent() {
    for kind in Type::ALL {
        let (least, most) = kind.bounds();
        assert!(most <= (1 << 20) + 16, "{kind:?}: no body is longer than a frame and its head");
        let head = |len: usize| [&(len as u32).to_le_bytes()[..], &[*kind as u8]].concat().try_into().unwrap();
        assert_eq!(Head::parse(&head(most)).unwrap(), Head { kind: *kind, len: most });
        assert!(Head::parse(&head(most + 1)).is_err());
        assert!(least == 0 || Head::parse(&head(least - 1)).is_err());
    }
    for unknown in [0, 14, 63, 80, 126, 128, 255] {
        assert!(Head::parse(&[0, 0, 0, 0, unknown]).is_err());
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let good = AppendHead { handle: Handle(1), epoch: 1, offset: 5 };
    assert_eq!(AppendHead::parse(&good.bytes()).unwrap(), good);
    for bad in [
        AppendHead { handle: Handle(0), ..good },
        AppendHead { epoch: 0, ..good },
        AppendHead { offset: u64::MAX, ..good },
        AppendHead { offset: (1 << 63) - 1, ..good },
    ] {
        assert!(AppendHead::parse(&bad.bytes()).is_err(), "{bad:?}");
    }
    let root_of_nothing = Open {
        dataset: "land".parse().unwrap(),
        stream: StreamId([0; 16]),
        generation: 1,
        last: Chain { length: 0, root: Hash32([1; 32]) },
    };
    assert!(Request::parse(Type::Open, &Request::Open(root_of_nothing).encode()[HEAD..]).is_err());
    let falling = StreamEntry {
        stream: StreamId([0; 16]),
        generation: 1,
        bytes: 100,
        kept_days: 90,
        epochs: vec![Epoch { epoch: 2, start: 0 }, Epoch { epoch: 1, start: 10 }],
    };
    assert!(Response::parse(Type::Stream, &Response::Stream(falling).encode()[HEAD..]).is_err());
    let of = |bytes| StreamEntry { stream: StreamId([0; 16]), generation: 1, bytes, kept_days: 90, epochs: vec![] };
    let parse = |entry| Response::parse(Type::Stream, &Response::Stream(entry).encode()[HEAD..]);
    assert!(parse(of(1 << 63)).is_ok() && parse(of((1 << 63) + 1)).is_err());
}

/// The vectors of docs/formats/protocol.md: nobody may change the layout unawares.
#[test]
fn the_layout_is_pinned() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(&HELLO), "686f69646c614001");
    let open = Open { dataset: "land".parse().unwrap(), stream: StreamId([0x11; 16]), generation: 2, last: Chain::EMPTY };
    let expected =
        format!("42000000 01 0400 6c616e64 {} 02000000 {} {}", "11".repeat(16), "00".repeat(8), "00".repeat(32)).replace(' ', "");
    assert_eq!(hex(&Request::Open(open).encode()), expected);
    let append = AppendHead { handle: Handle(3), epoch: 4, offset: 5 };
    assert_eq!(hex(&append.message(frame::HEAD)), "1c000000".to_owned() + "02" + "03000000" + "04000000" + "0500000000000000");
    let kept = Response::Acknowledged { handle: Handle(3), before: 17, log_size: 9 };
    assert_eq!(hex(&kept.encode()), "14000000".to_owned() + "42" + "03000000" + "1100000000000000" + "0900000000000000");
    assert_eq!(hex(&Response::Window { bytes: 1 << 20 }.encode()), "04000000".to_owned() + "43" + "00001000");
    assert_eq!(hex(&Request::Extend { old: 5, least: 9 }.encode()), "10000000".to_owned() + "0b" + "0500000000000000" + "0900000000000000");
    let prove = Prove { dataset: "land".parse().unwrap(), stream: StreamId([0x11; 16]), offset: 5, size: 9, frame: true };
    let expected = format!("27000000 0c 0400 6c616e64 {} 0500000000000000 0900000000000000 01", "11".repeat(16)).replace(' ', "");
    assert_eq!(hex(&Request::Prove(prove).encode()), expected);
    let witness = Witness { papers: vec![b"p".to_vec()], extension: b"e".to_vec() };
    assert_eq!(hex(&Request::Update(vec![b"p".to_vec()]).encode()), "060000000e010100000070");
    assert_eq!(hex(&Response::Updated { serial: 6, in_force: true }.encode()), "05000000500600000001");
    assert_eq!(hex(&Request::Witness(witness).encode()), "0b000000".to_owned() + "0d" + "0100000065" + "01" + "0100000070");
    let no = Response::Refused(Refused::new(Code::Full, "full").about(Handle(3)));
    assert_eq!(hex(&no.encode()), "0b000000".to_owned() + "7f" + "08" + "03000000" + "0400" + "66756c6c");
}

#[test]
fn frames_that_do_not_lead_to_their_leaf_are_refused() {
    let hash = Hash32([5; 32]);
    let end = Chain::EMPTY.then(&hash, 100).then(&hash, 50);
    let leaf = Leaf {
        dataset: "land".parse().unwrap(),
        stream: StreamId([1; 16]),
        epoch: 1,
        part: ByteRange::new(0, 150).unwrap(),
        root: end.root,
    };
    let frames = vec![Entry { len: 100, hash }, Entry { len: 50, hash }];
    let good = Part { index: 3, leaf, proof: vec![hash], before: Chain::EMPTY.root, frames };
    let parsed = |p: &Part| Response::parse(Type::Part, &Response::Part(p.clone()).encode()[HEAD..]);
    assert_eq!(parsed(&good), Ok(Response::Part(good.clone())));
    assert_eq!(good.frame_at(99).unwrap().0, 0);
    assert_eq!(good.frame_at(100).unwrap(), (100, good.frames[1]));
    assert_eq!(good.frame_at(150), None);
    assert!(parsed(&Part { before: hash, ..good.clone() }).is_err());
    for (n, frame) in [
        (0, Entry { len: 99, hash }),
        (0, Entry { len: 100, hash: Hash32([6; 32]) }),
        (1, Entry { len: 51, hash }),
        (1, Entry { len: 0, hash }),
    ] {
        let mut bad = good.clone();
        bad.frames[n] = frame;
        assert!(parsed(&bad).is_err(), "{frame:?}");
    }
    assert!(parsed(&Part { frames: good.frames[..1].to_vec(), ..good.clone() }).is_err());
    let (mut first, mut second) = (good.frames[0], good.frames[1]);
    (first.len, second.len) = (50, 100);
    assert!(parsed(&Part { frames: vec![first, second], ..good }).is_err(), "in another order");
}

#[test]
fn a_refusal_carries_no_control_characters_and_ends() {
    let long = Refused::new(Code::Failed, "ä\u{1b}[2J\n".repeat(1000));
    assert!(long.sentence.len() <= Refused::MOST && !long.sentence.chars().any(char::is_control));
    assert!(matches!(Response::parse(Type::Refused, &Response::Refused(long).encode()[HEAD..]), Ok(Response::Refused(_))));
}
