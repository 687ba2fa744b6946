//! Segments are written before their first use, when nothing else happens; no further than needed.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Buffer as _, Counters, Generation, Layout, SealKey};
use hoidla_uring::{Record, Settings, Store, format};

const ID: [u8; 16] = [7; 16];
const KEY: SealKey = SealKey([6; 32]);
const STREAM: StreamId = StreamId([1; 16]);
const SEGMENT: usize = 1 << 20;
const DISK: usize = 48 << 20;
/// What lay on the disks before: no block of it is zero.
const LITTER: u8 = 0xaa;

#[derive(Default)]
struct Memory(u64);

impl Counters for Memory {
    fn membership(&self) -> std::io::Result<u64> {
        Ok(self.0)
    }

    fn raise_membership(&mut self, to: u64) -> std::io::Result<()> {
        self.0 = to;
        Ok(())
    }
}

fn disks(folder: &Path) -> Vec<PathBuf> {
    ["a", "b"].map(|n| folder.join(n)).to_vec()
}

fn open(folder: &Path) -> (Store, Vec<String>) {
    let (store, report) = Store::open(&disks(folder), ID, Box::new(Memory::default()), Settings::default()).unwrap();
    (store, report.opened.damage)
}

/// Megabytes of a disk that are zero.
fn zeroed(disk: &Path) -> usize {
    let mut bytes = vec![];
    File::open(disk).unwrap().read_to_end(&mut bytes).unwrap();
    // Segments begin at any block: where zeros end is found by blocks.
    bytes.chunks(4096).filter(|b| b.iter().all(|b| *b == 0)).count() * 4096 / SEGMENT
}

async fn append(store: &Store, n: u64) {
    let bytes = vec![n as u8 | 1; 10_000];
    let mut buffer = store.buffer(bytes.len()).await;
    buffer.as_mut()[..bytes.len()].copy_from_slice(&bytes);
    let generation = Generation { dataset: "population".parse().unwrap(), number: 1 };
    let (hash, len) = (Hash32(blake3::hash(&bytes).into()), bytes.len() as u32);
    let blocks = buffer.freeze(bytes.len());
    let record = Record { generation, stream: STREAM, epoch: 1, offset: n * u64::from(len), len, hash, blocks };
    store.append(record).await.unwrap().kept().await.unwrap();
}

#[tokio::test]
async fn when_idle_the_next_segments_are_written_and_then_it_rests() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (folder, cut) = (scratch.path().join("disks"), scratch.path().join("cut"));
    [&folder, &cut].iter().for_each(|f| fs::create_dir(f).unwrap());
    disks(&folder).iter().for_each(|d| fs::write(d, vec![LITTER; DISK]).unwrap());
    format(&disks(&folder), ID, KEY, Layout { segment: SEGMENT as u64, ..Layout::default() }, &mut Memory::default()).unwrap();
    let (store, _) = open(&folder);
    append(&store, 0).await;

    // The power is cut somewhere in it: the disks as they are while it goes on.
    let written = |store: &Store| store.tally().bytes;
    let (began, before) = (Instant::now(), written(&store));
    while written(&store) < before + 6 * SEGMENT as u64 {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is written while the store is idle");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    disks(&folder).iter().zip(disks(&cut)).for_each(|(from, to)| _ = fs::copy(from, to).unwrap());
    let (after, damage) = open(&cut);
    assert_eq!(damage, [""; 0]);
    assert_eq!(after.state(STREAM).await.unwrap().unwrap().chain.length, 10_000);
    append(&after, 1).await;
    let found = after.read(STREAM, 10_000).await.unwrap().unwrap();
    assert_eq!(found.buffer.as_ref()[found.range], [1; 10_000]);

    // It comes to rest, with some segments zero and most left alone.
    let rest = async |store: &Store| {
        loop {
            let seen = written(store);
            tokio::time::sleep(Duration::from_millis(400)).await;
            if written(store) == seen {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "an idle store doesn't come to rest");
        }
    };
    rest(&store).await;
    for disk in disks(&folder) {
        assert!((16..=17).contains(&zeroed(&disk)), "{} MiB of {} are zero", zeroed(&disk), disk.display());
    }
    // What is taken into use is made up for.
    let (used, zeros) = (written(&store), zeroed(&disks(&folder)[0]));
    for n in 1..300 {
        append(&store, n).await;
    }
    rest(&store).await;
    assert!(written(&store) - used > 300 * 20_000 + 2 * 2 * SEGMENT as u64);
    assert!(zeroed(&disks(&folder)[0]).abs_diff(zeros) <= 2);
}
