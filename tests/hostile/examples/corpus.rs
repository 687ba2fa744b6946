//! Writes the corpus: for each target a few inputs that it accepts, made by the code
//! that writes the format. To be run again when a format gets a new version:
//! `cargo run -p hoidla-hostile --example corpus`.
#![forbid(unsafe_code)]

use std::{fs, path::Path};

use hoidla_crypto::{
    Secret, envelope, hpke,
    keyfile::{Cost, KeyFile, Role},
    sign::SigningKey,
};
use hoidla_format::{
    ByteRange, Bytes, Hash32, Kind, Leaf, Moment, Name, StreamId, Writer,
    disk::{
        Geometry, SealKey,
        batch::{Entry, Head, IndexEntry, Note, Run, Tenure, What},
        catalogue::{DatasetEntry, Front, GenerationEntry, Item, Piece, SegmentEntry, SegmentState, StreamEntry},
        fences::{Fence, Fences},
        segment::SegmentHeader,
        superblock::Superblock,
    },
    frame::{self, Chain},
    state, statement,
    statements::{Covers, Grant, Reader},
};
use hoidla_hostile::{TARGETS, by_name, fixed};
use hoidla_log::{Checkpoint, Frontier, Says, SignedCheckpoint};
use hoidla_papers::{Log, Office, SoftAppliance};
use hoidla_protocol::{
    AppendHead, Code, Epoch, Handle, Health, Key, Open, Opened, Part, Progress, Prove, Read, Refused, Request, Response, VaultProgress,
    Welcome, Witness,
};
use hoidla_quorum::share;
use hoidla_verify::{Certificate, Public, pe::Image};
use rand_core::SeedableRng;

fn name(n: &str) -> Name {
    n.parse().expect("a name")
}

fn grant() -> Grant {
    Grant {
        site: name("lux"),
        appliance: name("lux-1"),
        purpose: "restore land".into(),
        created: Moment::from_seconds(1_800_000_000),
        open_for_seconds: 3600,
        nonce: Bytes(vec![1; 16]),
        reader: Reader { name: name("echo"), signing: Bytes(vec![2; 49]), hpke: Bytes(vec![3; 100]) },
        covers: vec![Covers { dataset: name("land"), vault_epoch: 1, vault: Hash32([4; 32]) }],
    }
}

const STREAM: StreamId = StreamId([7; 16]);

fn chain() -> Chain {
    Chain { root: Hash32([9; 32]), length: 4096 }
}

fn frontier(size: u8) -> Frontier {
    let mut frontier = Frontier::new();
    (0..size).for_each(|n| _ = frontier.push(Hash32([n; 32])));
    frontier
}

fn batches() -> Vec<Vec<u8>> {
    let entry = |len| Entry { len, hash: Hash32([5; 32]) };
    let run = Run { stream: STREAM, epoch: 1, leaf: 6, before: chain(), records: vec![entry(100), entry(40_000), entry(1 << 20)] };
    let note = |what| Note { stream: STREAM, what };
    let head = Head {
        previous: Hash32([1; 32]),
        incarnation: 3,
        run: 2,
        run_first: 7,
        commit: 9,
        mark: 8,
        checkpoint: 1,
        number: 4,
        part: 0,
        parts: 1,
        moved: false,
        retires: Some((5, 2)),
        tenure: Tenure { powered: 86_400, floor: 1, days: 90 },
        frontier: frontier(6).to_bytes(),
        runs: vec![run],
        notes: vec![note(What::Closed(1)), note(What::Alarmed(1 << 33)), note(What::Readmitted)],
        index: None,
    };
    let index = Some(vec![IndexEntry { stream: STREAM, offset: 0, block: 1 }, IndexEntry { stream: STREAM, offset: 4096, block: 3 }]);
    let last = Head { index, runs: vec![], notes: vec![], retires: None, moved: true, ..head.clone() };
    [head, last].iter().map(|h| h.to_bytes(&SealKey([6; 32])).0).collect()
}

fn catalogues() -> Vec<Vec<u8>> {
    let segment = |slot, state| {
        let (incarnation, generation, dense, end, payload, seen) = (4, 0, slot == 1, 90, 12_345, 1440);
        Item::Segment(SegmentEntry { slot, incarnation, generation, dense, end, payload, seen, state })
    };
    let frontier = frontier(5).to_bytes();
    let (run, run_first, commit, next_incarnation, fresh, powered) = (2, 7, 9, 12, 20, 86_400);
    let front = Item::Front(Front { run, run_first, commit, next_incarnation, fresh, powered, frontier, reserve: vec![3, 4] });
    let items = vec![
        Item::Dataset(DatasetEntry { dataset: name("land"), floor: 1, days: 30 }),
        Item::Generation(GenerationEntry { dataset: name("land"), number: 1, last: Some(80_000) }),
        segment(0, SegmentState::Open { hash: Hash32([8; 32]), number: 3 }),
        Item::Index(vec![IndexEntry { stream: STREAM, offset: 0, block: 1 }]),
        segment(1, SegmentState::Closed(88)),
        segment(2, SegmentState::Damaged),
        Item::Stream(StreamEntry { stream: STREAM, generation: 0, chain: chain(), closed: 1, alarm: Some(9000) }),
        Item::Epochs(vec![(1, 0), (2, 2048)]),
        Item::Extents(vec![(0, 1), (2048, 2)]),
        Item::Tiles(0, vec![Hash32([6; 32]); 5]),
    ];
    let first = Piece { previous: Hash32([0; 32]), sequence: 5, number: 0, last: true, items: [vec![front], items.clone()].concat() };
    let later = Piece { previous: first.to_bytes().1, number: 1, items, ..first.clone() };
    [first, later].iter().map(|p| p.to_bytes().0).collect()
}

fn fences(count: u32) -> Vec<u8> {
    let named = (0..count).map(|slot| Fence { slot, incarnation: 4, block: 90 }).collect();
    Fences { store: [1; 16], run: 2, membership: 3, sequence: 5, unnamed: 8192, named }.to_block().to_vec()
}

fn states() -> Vec<Vec<u8>> {
    let path = |p| state::FilePath::new(p).expect("a path");
    let site = state::Change { path: path("papers/site.txt"), now: Some(b"a note".to_vec()) };
    let node = state::Change { path: path("tpm/node.bin"), now: Some(vec![7; 5000]) };
    let first = state::Entry { sequence: 1, anew: true, previous: Hash32([0; 32]), changes: vec![site.clone(), node] };
    let (first, previous) = first.to_bytes().expect("an entry");
    let later = state::Entry { sequence: 2, anew: false, previous, changes: vec![state::Change { now: None, ..site }] };
    vec![first, later.to_bytes().expect("an entry").0]
}

fn requests() -> Vec<Vec<u8>> {
    let hash = Hash32([4; 32]);
    let range = ByteRange::new(100, 5000).expect("a range");
    [
        Request::Open(Open { dataset: name("land"), stream: STREAM, generation: 1, last: chain() }),
        Request::Open(Open { dataset: name("land"), stream: STREAM, generation: 1, last: Chain::EMPTY }),
        Request::List { dataset: name("land") },
        Request::Health,
        Request::Papers,
        Request::Propose(b"a grant".to_vec()),
        Request::Approve(b"an approval".to_vec()),
        Request::Seal { grant: None },
        Request::Seal { grant: Some(hash) },
        Request::Keys { grant: hash },
        Request::Read(Read { grant: hash, dataset: name("land"), stream: STREAM, range }),
        Request::Extend { old: 3, least: 7 },
        Request::Prove(Prove { dataset: name("land"), stream: STREAM, offset: 4096, size: 7, frame: true }),
        Request::Witness(Witness { papers: vec![b"a paper".to_vec()], extension: b"an extension".to_vec() }),
    ]
    .iter()
    .map(Request::encode)
    .collect()
}

fn responses() -> Vec<Vec<u8>> {
    let epochs = vec![Epoch { epoch: 1, start: 0 }, Epoch { epoch: 2, start: 2048 }];
    let vaults = vec![VaultProgress { dataset: name("land"), vault_epoch: 1, have: 2, need: 3 }];
    let welcome = Welcome {
        site: name("lux"),
        appliance: name("lux-1"),
        site_hash: Hash32([1; 32]),
        site_serial: 3,
        release: name("r1"),
        development: true,
        window: 1 << 23,
    };
    let frame = Entry { len: 100, hash: Hash32([5; 32]) };
    let end = chain().then(&frame.hash, frame.len);
    let range = ByteRange::new(4096, 100).expect("a range");
    let leaf = Leaf { dataset: name("land"), stream: STREAM, epoch: 1, part: range, root: end.root };
    let part = Part { index: 3, leaf, proof: vec![Hash32([6; 32]); 3], before: chain().root, frames: vec![frame] };
    let opened = Opened { handle: Handle(1), epoch: 2, closed: false, acknowledged: chain() };
    let stream = hoidla_protocol::StreamEntry { stream: STREAM, generation: 1, bytes: 4096, kept_days: 90, epochs };
    [
        Response::Welcome(welcome),
        Response::Opened(opened),
        Response::Acknowledged { handle: Handle(1), before: 4096, log_size: 7 },
        Response::Window { bytes: 65_536 },
        Response::Stream(stream),
        Response::Paper(b"a note".to_vec()),
        Response::Challenged { challenge: "text".into(), vaults: vec![b"vault".to_vec()], envelopes: vec![b"envelopes".to_vec()] },
        Response::Progress(Progress { grant: Hash32([4; 32]), opened: true, seconds_left: 60, vaults }),
        Response::Sealed { count: 2 },
        Response::Key(Key { dataset: name("land"), stream: STREAM, epoch: 1, sealed: vec![6; 64] }),
        Response::Data { offset: 100, bytes: vec![5; 32] },
        Response::End { count: 9 },
        Response::Health(Health { copies: 2, current: 2, ..Health::default() }),
        Response::Extension(b"an extension".to_vec()),
        Response::Part(part),
        Response::Witnessed(b"a checkpoint".to_vec()),
        Response::Refused(Refused::new(Code::Fork, "other bytes at the same offset").about(Handle(1))),
    ]
    .iter()
    .map(Response::encode)
    .collect()
}

fn message_frame() -> Vec<u8> {
    [&frame::head(Kind::Message, 5)[..], b"cargo"].concat()
}

fn statements() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/statements");
    let mut paths: Vec<_> = fs::read_dir(folder).expect("the statements' vectors").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|p| fs::read(p).expect("a vector")).collect()
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    fixed::sealer().seal(b"aad", plain, &mut out).expect("a short message");
    out
}

fn shares() -> Vec<Vec<u8>> {
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let shares = share::split(&Secret::filled(|b| b.fill(3)), 2, 3, &mut rng).expect("two of three");
    shares.iter().map(|s| s.encode().to_vec()).collect()
}

fn pack_heads() -> Vec<Vec<u8>> {
    let head = |run, number, at, position| {
        let mut w = Writer::with_header(Kind::Pack, 1);
        w.u32(run).u32(number).u32(at).u32(position);
        w.finish()
    };
    vec![head(1, 0, 0, 0), head(1, 7, 6, 3000)]
}

/// An appliance, its log's signed head, the same with a witness, and the log.
fn log() -> (SoftAppliance, SignedCheckpoint, SignedCheckpoint, Log) {
    let site = Office::new(1).site("lux", &["lux-1", "lux-2"]);
    let (one, two, log) = (SoftAppliance::new(&site, "lux-1", 2), SoftAppliance::new(&site, "lux-2", 3), Log::of(7, 1));
    let signed = log.signed(&one, 17);
    let seen = two.witness(&signed);
    (one, signed, seen, log)
}

/// A certificate over the statement's vector.
fn erased() -> Vec<u8> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/statements/erased.txt")).expect("a vector");
    let who = log().0;
    let line = who.line(Says::Erased, &text, &who.origin());
    Certificate::new(text, line).expect("a certificate").write().into_bytes()
}

fn boot_vector(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/boot").join(file)).expect("a committed vector")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let note = fixed::signer().sign_statement("alpha", &grant());
    let other = SigningKey::from_secret(&Secret::filled(|b| b.fill(8)));
    let cosigned = other.cosign("bravo", note.as_bytes()).expect("a note");
    let checkpoint = Checkpoint { site: name("lux"), appliance: name("lux-1"), size: 6, root: frontier(6).root(), counter: 17 };
    let geometry = Geometry { places: 2, copies: 2, segment_blocks: 4096, catalogue_blocks: 256, slots: 64 };
    let superblock = Superblock {
        store: [1; 16],
        key: SealKey([6; 32]),
        place: 1,
        geometry,
        sequence: 9,
        membership: 2,
        base: 1,
        members: 3,
        run: 4,
        run_first: 3,
        checkpoint: 5,
        counter: 21,
    };
    let segment = SegmentHeader { store: [1; 16], slot: 3, incarnation: 4, run: 2, dense: false, dataset: name("land"), generation: 1 };
    let leaf =
        Leaf { dataset: name("land"), stream: STREAM, epoch: 1, part: ByteRange::new(4096, 1000).expect("a range"), root: Hash32([9; 32]) };
    let append = AppendHead { handle: Handle(1), epoch: 2, offset: 4096 };
    let header = frame::join_epoch_header(b"agent", b"epoch");
    match target {
        "note" | "signed" => vec![note.into_bytes(), cosigned.into_bytes()],
        "statement" => statements().into_iter().chain([statement::write(&grant()).into_bytes()]).collect(),
        "checkpoint" => vec![checkpoint.to_string().into_bytes()],
        "signed_checkpoint" => vec![log().1.write().into_bytes(), log().2.write().into_bytes()],
        "erased" => vec![erased()],
        "boot_image" => {
            let unsigned = boot_vector("image.efi");
            let signed = Image::parse(&unsigned).expect("the committed image").with_signature(&[7; 45]);
            vec![unsigned, signed]
        }
        "event_log" => vec![boot_vector("eventlog.bin")],
        "created" => vec![hex("created")],
        "parcel" => vec![hex("parcel")],
        "attest" => vec![log().0.attest([5; 32]).marshal()],
        "receipt" => vec![log().3.receipt(5, &log().1).write().into_bytes(), log().3.receipt(0, &log().2).write().into_bytes()],
        "extension" => vec![log().3.extension(3, &log().1).write().into_bytes(), log().3.extension(7, &log().2).write().into_bytes()],
        "frame" => vec![
            message_frame(),
            [&frame::head(Kind::EpochHeader, header.len())[..], &header, &message_frame()].concat(),
            [&frame::head(Kind::StreamRoot, 0)[..], &message_frame(), &message_frame()].concat(),
        ],
        "epoch_header" => vec![header, frame::join_epoch_header(b"", b"")],
        "codec" => vec![vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], b"\x05\x06\0\0\0\0\0\0\x01\0a\x02\0\0\0bcdefghi".to_vec()],
        "leaf" => vec![leaf.to_bytes()],
        "frontier" => vec![frontier(0).to_bytes(), frontier(1).to_bytes(), frontier(7).to_bytes()],
        "fences" => vec![fences(2), fences(0)],
        "superblock" => vec![superblock.to_block().to_vec()],
        "segment" => vec![segment.to_block().0.to_vec()],
        "batch" => batches(),
        "catalogue" => catalogues(),
        "request" => requests(),
        "response" => responses(),
        "append" => vec![[&append.bytes()[..], &message_frame()].concat()],
        "server_session" => fixed::server_seeds(),
        "client_session" => fixed::client_seeds(),
        "key_file" => {
            let secret = Secret::filled(|b| b.fill(7));
            vec![KeyFile::protect_at(Cost::LEAST, Role::Reader, &name("echo"), &secret, "correct horse").expect("a key file")]
        }
        "envelope" => {
            let card = fixed::custodian().public_card(&name("alpha"));
            vec![envelope::seal(&card, &fixed::share_id(), &[9; 65]).expect("a card")]
        }
        "sealed_message" => vec![sealed(b""), sealed(b"a record")],
        "hpke_public_key" => vec![hpke::KeyPair::from_seed(Secret::filled(|b| b.fill(7))).public().to_bytes()],
        "share" => shares(),
        "tpm_public" => {
            let areas = [Public::srk_template(), Public::ek_template(), Public::signing_template(Hash32([1; 32]), true)];
            areas.iter().map(Public::marshal).collect()
        }
        "pack_head" => pack_heads(),
        "state" => states(),
        "boot_entry" => vec![
            include_bytes!("../../vectors/boot/entry.bin").to_vec(),
            include_bytes!("../../vectors/boot/entry-disk.bin").to_vec(),
            include_bytes!("../../vectors/boot/entry-shell.bin").to_vec(),
        ],
        "profile" => vec![include_bytes!("../../../hw-profiles/qemu-q35.toml").to_vec()],
        other => panic!("no seeds for {other}: write some here"),
    }
}

fn main() {
    for target in TARGETS {
        let folder = by_name(target.name).corpus();
        fs::create_dir_all(&folder).expect("the corpus's folder");
        for (n, seed) in seeds(target.name).iter().enumerate() {
            assert!((target.run)(seed), "{} refuses its seed {n}", target.name);
            fs::write(folder.join(format!("{n:02}")), seed).expect("a seed is written");
        }
    }
}

/// Bytes of `tests/vectors/tpm/structures.txt`.
fn hex(name: &str) -> Vec<u8> {
    let all = include_str!("../../vectors/tpm/structures.txt");
    let hex = all.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).expect("a vector");
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}
