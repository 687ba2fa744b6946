//! The real engine on the real ring on real files: kept, killed, rotten, missing, full.

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use hoidla_format::{Hash32, StreamId, frame::Chain};
use hoidla_store::{Buffer as _, Checked, Counters, Generation, Layout, Options, Refused, SealKey, SegmentRef};
use hoidla_uring::{
    DiskError, DiskFile, Kept, Record, Report, Settings, StartError, State, Store, StoreError, format,
    trays::{Seen, look},
};
use tempfile::TempDir;

const ID: [u8; 16] = [42; 16];
const KEY: SealKey = SealKey([6; 32]);
const LEN: usize = 100_000;
const STREAM: StreamId = StreamId([1; 16]);

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<u64>>);

impl Counters for Memory {
    fn membership(&self) -> std::io::Result<u64> {
        Ok(*self.0.lock().unwrap())
    }

    fn raise_membership(&mut self, to: u64) -> std::io::Result<()> {
        *self.0.lock().unwrap() = to;
        Ok(())
    }
}

struct Bench {
    folder: TempDir,
    counters: Memory,
}

impl Bench {
    fn new(disk: u64) -> Self {
        let bench = Self { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), counters: Memory::default() };
        bench.paths().iter().for_each(|p| drop(DiskFile::create(p, disk).unwrap()));
        format(&bench.paths(), ID, KEY, Layout { segment: 4 << 20, ..Layout::default() }, &mut bench.counters.clone()).unwrap();
        bench
    }

    fn paths(&self) -> Vec<PathBuf> {
        ["a", "b"].map(|n| self.folder.path().join(n)).to_vec()
    }

    fn open(&self) -> (Store, Report) {
        open(&self.paths(), &self.counters).unwrap()
    }
}

fn open(paths: &[PathBuf], counters: &Memory) -> Result<(Store, Report), StartError> {
    Store::open(paths, ID, Box::new(counters.clone()), Settings { memory: 16 << 20, options: Options::default() })
}

/// Bytes that say which record they are, everywhere.
fn bytes(n: u64) -> Vec<u8> {
    (0..LEN / 8).flat_map(|i| (n << 32 | i as u64 | 1 << 63).to_le_bytes()).collect()
}

async fn record(store: &Store, n: u64, bytes: &[u8]) -> Record {
    let mut buffer = store.buffer(bytes.len()).await;
    buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
    Record {
        generation: generation(),
        stream: STREAM,
        epoch: 1,
        offset: n * LEN as u64,
        len: bytes.len() as u32,
        hash: Hash32(blake3::hash(bytes).into()),
        blocks: buffer.freeze(bytes.len()),
    }
}

fn generation() -> Generation {
    Generation { dataset: "land-register".parse().unwrap(), number: 1 }
}

async fn append(store: &Store, n: u64) -> Result<Kept, StoreError> {
    store.append(record(store, n, &bytes(n)).await).await?.kept().await
}

async fn assert_read(store: &Store, n: u64) {
    let found = store.read(STREAM, n * LEN as u64).await.unwrap().expect("it is kept");
    assert!(found.buffer.as_ref()[found.range] == bytes(n), "record {n} reads back as other bytes");
}

/// Where in a disk's file record `n` begins.
fn find(disk: &PathBuf, n: u64) -> u64 {
    let file = fs::read(disk).unwrap();
    let wanted = &bytes(n)[..4096];
    file.chunks(4096).position(|block| block == wanted).expect("the disk holds it") as u64 * 4096
}

#[tokio::test]
async fn what_is_kept_is_there_again() {
    let bench = Bench::new(64 << 20);
    let (store, report) = bench.open();
    assert_eq!((report.absent.len(), report.opened.missing.len(), report.opened.damage.len()), (0, 0, 0));
    let mut chain = Chain::EMPTY;
    let mut pending = Vec::new();
    for n in 0..40 {
        pending.push(store.append(record(&store, n, &bytes(n)).await).await.unwrap());
        if n == 20 {
            // With appends under way; refused where little memory may be locked, and all goes on as well.
            _ = store.register().await;
        }
        chain = chain.then(&Hash32(blake3::hash(&bytes(n)).into()), LEN as u32);
    }
    let mut last = 0;
    for p in pending {
        let Kept::Now(kept) = p.kept().await.unwrap() else { panic!("a fresh record was there before") };
        assert!(kept.end > last, "acknowledged in order");
        last = kept.end;
    }
    assert_eq!(last, 40 * LEN as u64);
    assert!(store.tally().bytes >= 2 * last && store.tally().flushes >= 2);
    let head = store.log_head().await.unwrap();
    store.close();

    let (store, report) = bench.open();
    assert_eq!(report.opened.damage, [""; 0]);
    let state = store.state(STREAM).await.unwrap().expect("the stream is known");
    assert_eq!((state.chain, state.epoch), (chain, 1));
    assert_eq!(store.log_head().await.unwrap(), head);
    for n in 0..40 {
        assert_read(&store, n).await;
    }
    assert!(store.read(STREAM, 40 * LEN as u64).await.unwrap().is_none());
    assert_eq!(store.streams("land-register".parse().unwrap()).await.unwrap().len(), 1);
    assert_eq!(store.streams("other".parse().unwrap()).await.unwrap(), []);
}

#[tokio::test]
async fn the_same_again_is_kept_before_and_other_bytes_are_a_fork() {
    let bench = Bench::new(64 << 20);
    let (store, _) = bench.open();
    for n in 0..3 {
        append(&store, n).await.unwrap();
    }
    assert_eq!(append(&store, 1).await.unwrap(), Kept::Before);
    let other = record(&store, 1, &bytes(9)).await;
    let refused = store.append(other).await.unwrap().kept().await;
    assert!(matches!(refused, Err(StoreError::Refused(Refused::Fork { .. }))), "{refused:?}");
    let gap = append(&store, 7).await;
    assert!(matches!(gap, Err(StoreError::Refused(Refused::Gap { .. }))), "{gap:?}");
    store.close_epoch(STREAM, 1).await.unwrap();
    let over = append(&store, 3).await;
    assert!(matches!(over, Err(StoreError::Refused(Refused::EpochOver { .. }))), "{over:?}");
}

/// Not a test by itself: what the next one kills.
#[tokio::test]
async fn victim() {
    let Ok(folder) = std::env::var("HOIDLA_VICTIM") else { return };
    let paths = ["a", "b"].map(|n| PathBuf::from(&folder).join(n));
    let (store, _) = open(&paths, &Memory::default()).unwrap();
    for n in 0.. {
        append(&store, n).await.unwrap();
        println!("acknowledged {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn a_killed_store_has_all_that_it_acknowledged() {
    let bench = Bench::new(64 << 20);
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "victim", "--nocapture"]).env("HOIDLA_VICTIM", bench.folder.path());
    let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = lines.filter_map(|l| l.split_once("acknowledged ")?.1.parse::<u64>().ok());
    let some = told.find(|n| *n >= 50).expect("the victim works");
    victim.kill().unwrap();
    let last = told.last().unwrap_or(some);
    victim.wait().unwrap();

    let (store, report) = bench.open();
    assert_eq!(report.opened.damage, [""; 0]);
    let kept = store.state(STREAM).await.unwrap().unwrap().chain.length / LEN as u64;
    assert!(kept > last, "{last} was acknowledged, {kept} are kept");
    for n in 0..kept {
        assert_read(&store, n).await;
    }
    append(&store, kept).await.expect("it goes on where it was");
}

#[tokio::test]
async fn rot_on_one_disk_is_repaired_from_the_other() {
    let bench = Bench::new(64 << 20);
    let (store, _) = bench.open();
    for n in 0..10 {
        append(&store, n).await.unwrap();
    }
    let [a, b] = [&bench.paths()[0], &bench.paths()[1]];
    let flip = |path: &PathBuf, n: u64| {
        let (at, file) = (find(path, n) + 5000, fs::File::options().read(true).write(true).open(path).unwrap());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        file.sync_all().unwrap();
    };
    flip(a, 3);
    flip(b, 5);
    for n in 0..10 {
        assert_read(&store, n).await;
    }
    let (mut slots, mut damage, mut records) = (Vec::new(), 0, 0);
    let tell = |segment: &SegmentRef, checked: Checked| {
        slots.push(segment.number());
        (damage, records) = (damage + checked.damage.len(), records + checked.records);
    };
    store.tell_powered(60).await.unwrap();
    store.see_all(tell).await.unwrap();
    assert_eq!((damage, records >= 10, slots.is_sorted()), (0, true, true));
    assert!(!store.unseen(60, 99).await.unwrap().is_empty(), "what was repaired is not seen whole");
    store.see_all(|_, checked| assert!(checked.repaired.is_empty())).await.unwrap();
    assert!(store.unseen(60, 99).await.unwrap().is_empty(), "it is the next time");
    for (path, n) in [(a, 3), (b, 5)] {
        let (at, mut back) = (find(path, n), vec![0; LEN]);
        fs::File::open(path).unwrap().read_exact_at(&mut back, at).unwrap();
        assert!(back == bytes(n), "record {n} was repaired where it had rotted");
    }
}

#[tokio::test]
async fn one_disk_missing_goes_on_says_so_and_is_made_whole_later() {
    let bench = Bench::new(64 << 20);
    let (store, _) = bench.open();
    append(&store, 0).await.unwrap();
    store.close();
    let away = bench.folder.path().join("away");
    fs::rename(&bench.paths()[1], &away).unwrap();

    let (store, report) = bench.open();
    assert_eq!((report.absent.len(), report.opened.missing.len()), (1, 1));
    assert!(report.absent[0].to_string().contains("b"), "{}", report.absent[0]);
    assert_read(&store, 0).await;
    append(&store, 1).await.unwrap();
    store.close();

    fs::rename(&away, &bench.paths()[1]).unwrap();
    let (store, report) = bench.open();
    assert_eq!((report.opened.missing.len(), report.opened.rebuilding.len()), (0, 1), "{report:?}");
    append(&store, 2).await.unwrap();
    make_whole(&store).await;
    store.close();

    fs::remove_file(&bench.paths()[0]).unwrap();
    let (store, _) = bench.open();
    for n in 0..3 {
        assert_read(&store, n).await;
    }
}

/// Rebuilds until every disk counts.
async fn make_whole(store: &Store) {
    for _ in 0..500 {
        assert_eq!(store.rebuild().await.unwrap(), Vec::<String>::new());
        if store.disks().await.unwrap().iter().all(|d| d.state == State::Current) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never whole: {:?}", store.disks().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_disk_is_replaced_by_a_blank_one_while_records_come_in() {
    let bench = Bench::new(96 << 20);
    let (store, _) = bench.open();
    for n in 0..200 {
        append(&store, n).await.unwrap();
    }
    assert_eq!(store.pulled(), []);
    let new = bench.paths()[1].clone();
    fs::remove_file(&new).unwrap();
    assert_eq!(store.pulled(), [(1, new.clone())]);
    store.leave(1, "it was pulled".into()).await.unwrap();
    assert!(store.leave(0, "the other one too".into()).await.is_err(), "the last copy is not given up");
    append(&store, 200).await.unwrap();
    assert!(matches!(&store.disks().await.unwrap()[1].state, State::Failed(why) if why == "it was pulled"));

    drop(DiskFile::create(&new, 48 << 20).unwrap());
    assert!(store.join(1, &new).await.unwrap_err().to_string().contains("larger"), "too small");
    fs::remove_file(&new).unwrap();
    drop(DiskFile::create(&new, 96 << 20).unwrap());
    store.join(1, &new).await.unwrap();
    assert!(matches!(store.disks().await.unwrap()[1].state, State::Rebuilding(..)));
    let sender = store.clone();
    let sending = tokio::spawn(async move {
        for n in 201..260 {
            append(&sender, n).await.unwrap();
        }
    });
    make_whole(&store).await;
    sending.await.unwrap();
    append(&store, 260).await.unwrap();
    store.close();

    fs::remove_file(&bench.paths()[0]).unwrap();
    let (store, report) = bench.open();
    assert_eq!(report.opened.damage, Vec::<String>::new());
    for n in 0..=260 {
        assert_read(&store, n).await;
    }
}

#[test]
fn what_lies_on_a_disk_is_told_apart() {
    let bench = Bench::new(48 << 20);
    let path = bench.folder.path().join("c");
    let disk = DiskFile::create(&path, 48 << 20).unwrap();
    let seen = |disk: &DiskFile| look(disk, ID);
    assert_eq!(seen(&disk), Seen::Blank);
    drop(disk);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"EFI PART", 512).unwrap();
    let disk = DiskFile::open(&path).unwrap();
    let Seen::Unknown { looks, hash } = seen(&disk) else { panic!("a partition table is no blank disk") };
    assert!(looks.contains("GPT"));
    drop(disk);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"x", (48 << 20) - 1).unwrap();
    let disk = DiskFile::open(&path).unwrap();
    assert_ne!(seen(&disk).hash(), Some(hash), "its end counts too");
    let ours = DiskFile::open(&bench.paths()[1]).unwrap();
    assert_eq!(seen(&ours), Seen::Ours { place: 1 });
    assert!(matches!(look(&ours, [9; 16]), Seen::OtherStore { store, .. } if store == "2a".repeat(16)));
}

#[tokio::test]
async fn a_strange_disk_beside_ours_is_left_alone_and_said() {
    let bench = Bench::new(48 << 20);
    let (store, _) = bench.open();
    append(&store, 0).await.unwrap();
    store.close();
    fs::remove_file(&bench.paths()[1]).unwrap();
    drop(DiskFile::create(&bench.paths()[1], 48 << 20).unwrap());
    let (store, report) = bench.open();
    assert_eq!(report.strange, [(bench.paths()[1].clone(), Seen::Blank)]);
    assert_eq!(report.opened.missing, [1]);
    assert_read(&store, 0).await;
    store.close();
    assert_eq!(look(&DiskFile::open(&bench.paths()[1]).unwrap(), ID), Seen::Blank, "nothing was written to it");
}

#[tokio::test]
async fn a_full_store_refuses_before_it_acknowledges_and_keeps_what_it_has() {
    let bench = Bench::new(48 << 20);
    let (store, _) = bench.open();
    let mut kept = 0;
    let refused = loop {
        match append(&store, kept).await {
            Ok(_) => kept += 1,
            Err(why) => break why,
        }
    };
    assert!(matches!(refused, StoreError::Refused(Refused::Full)), "{refused:?}");
    assert!(kept as usize * LEN > 4 << 20, "only {kept} records fitted");
    store.close();
    let (store, _) = bench.open();
    assert_eq!(store.state(STREAM).await.unwrap().unwrap().chain.length, kept * LEN as u64);
    for n in 0..kept {
        assert_read(&store, n).await;
    }
}

#[tokio::test]
async fn sparse_segments_are_rewritten_densely_and_everything_stays_readable() {
    const STREAMS: u8 = 4;
    let bench = Bench::new(256 << 20);
    let settings = Settings { memory: 16 << 20, options: Options { open_segments: 2, ..Options::default() } };
    let (store, _) = Store::open(&bench.paths(), ID, Box::new(bench.counters.clone()), settings).unwrap();
    for n in 0..4 {
        for stream in 0..STREAMS {
            // More generations than segments may be open: each in turn closes another's, nearly empty.
            let mut record = record(&store, n, &bytes(n)).await;
            record.stream = StreamId([stream; 16]);
            record.generation.number = stream.into();
            store.append(record).await.unwrap().kept().await.unwrap();
        }
    }
    let mut rewritten = 0;
    while store.tidy().await.unwrap() {
        rewritten += 1;
        assert!(rewritten < 100, "it never ends");
    }
    assert!(rewritten > 0, "nothing was sparse");
    store.close();
    let (store, report) = bench.open();
    assert_eq!(report.opened.damage, [""; 0]);
    for stream in 0..STREAMS {
        for n in 0..4 {
            let found = store.read(StreamId([stream; 16]), n * LEN as u64).await.unwrap().expect("it is kept");
            assert!(found.bytes() == bytes(n), "record {n} of stream {stream}");
        }
    }
}

#[tokio::test]
async fn one_damaged_segment_keeps_no_other_from_being_rewritten() {
    let bench = Bench::new(256 << 20);
    let settings = Settings { memory: 16 << 20, options: Options { open_segments: 1, ..Options::default() } };
    let (store, _) = Store::open(&bench.paths(), ID, Box::new(bench.counters.clone()), settings).unwrap();
    // Two streams' generations in turn, so that each closes the other's segment, nearly empty.
    for n in 0..8 {
        let mut record = record(&store, n / 2, &bytes(n)).await;
        (record.stream, record.generation.number) = (StreamId([n as u8 % 2; 16]), n as u32 % 2);
        store.append(record).await.unwrap().kept().await.unwrap();
    }
    for path in bench.paths() {
        let at = find(&path, 0);
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0; 4096], at).unwrap();
    }
    let lost = store.tidy().await.unwrap_err();
    assert!(matches!(lost, StoreError::Read(hoidla_store::ReadError::Lost(_))), "{lost}");
    let mut rewritten = 0;
    while store.tidy().await.unwrap() {
        rewritten += 1;
        assert!(rewritten < 100, "it never ends");
    }
    assert!(rewritten > 1, "the others were");
}

#[tokio::test]
async fn what_is_not_ours_or_in_use_does_not_open() {
    let bench = Bench::new(64 << 20);
    let (store, _) = bench.open();
    assert!(matches!(open(&bench.paths(), &bench.counters), Err(StartError::Disk(DiskError::InUse(_)))));
    store.close();
    let other = Store::open(&bench.paths(), [7; 16], Box::new(bench.counters.clone()), Settings::default());
    assert!(matches!(other, Err(StartError::Open(_))), "the disks of another store");
    fs::remove_dir_all(bench.folder.path()).unwrap();
    assert!(open(&bench.paths(), &bench.counters).is_err(), "no disk at all");
}

#[tokio::test]
async fn generations_end_when_told_and_not_before() {
    let bench = Bench::new(64 << 20);
    let (store, _) = bench.open();
    let dataset = generation().dataset;
    append(&store, 0).await.unwrap();
    store.promise(&dataset, 1).await.unwrap();
    let later = Record {
        generation: Generation { number: generation().number + 1, ..generation() },
        stream: StreamId([2; 16]),
        ..record(&store, 0, &bytes(0)).await
    };
    store.append(later).await.unwrap().kept().await.unwrap();
    let tenures = store.tenures().await.unwrap();
    assert_eq!((tenures.len(), tenures[0].newest, tenures[1].newest), (2, false, true));
    let floor = tenures[1].generation.number;
    let refused = store.expire(&dataset, floor, u64::MAX).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(Refused::NotOver)), "{refused}");
    store.tell_powered(2 * 86_400).await.unwrap();
    store.expire(&dataset, floor, u64::MAX).await.unwrap();
    assert_eq!(store.tenures().await.unwrap().len(), 1);
    store.note_powered().await.unwrap();
    let unseen = store.unseen(2 * 86_400, 9).await.unwrap();
    let segment = store.segment(unseen[0]).await.unwrap().unwrap();
    assert!(store.check(segment.clone()).await.unwrap().damage.is_empty());
    store.seen_whole(segment, 2 * 86_400).await.unwrap();
    assert_eq!((store.unseen(2 * 86_400, 9).await.unwrap(), store.seen_since(vec![]).await.unwrap()), (vec![], Some(2 * 86_400)));
}
