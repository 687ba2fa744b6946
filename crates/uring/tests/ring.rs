//! The ring and its disks on real files with direct I/O.

use std::{fs, path::Path, sync::Arc};

use hoidla_store::{BLOCK, Buffer as _, Disk, MOST_BUFFER, Op, Pool as _, Request};
use hoidla_uring::{Blocks, Buffers, DiskError, DiskFile, Ring};
use tempfile::TempDir;

const LEN: u64 = 8 << 20;

/// Beside the build, since the system's temporary folder may be memory, without direct I/O.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn disk(folder: &TempDir, name: &str) -> Arc<DiskFile> {
    Arc::new(DiskFile::create(&folder.path().join(name), LEN).unwrap())
}

fn blocks(pool: &Buffers, len: usize, byte: u8) -> Blocks {
    let mut buffer = pool.take(len).expect("room in the pool");
    buffer.as_mut().fill(byte);
    buffer.freeze(len)
}

fn write(id: u64, disk: u8, at: u64, blocks: &Blocks) -> Request<Buffers> {
    Request { id, disk, op: Op::Write { at, blocks: blocks.clone() } }
}

fn flush(id: u64, disk: u8) -> Request<Buffers> {
    Request { id, disk, op: Op::Flush }
}

fn finish(ring: &mut Ring) -> Vec<(u64, Result<usize, String>)> {
    let mut done = Vec::new();
    while ring.under_way() > 0 {
        ring.wait(&mut done, None).unwrap();
    }
    if done.is_empty() {
        ring.wait(&mut done, None).unwrap();
    }
    let mut done: Vec<_> = done.into_iter().map(|(id, r)| (id, r.map_err(|e| e.to_string()))).collect();
    done.sort_by_key(|d| d.0);
    done
}

#[test]
fn the_same_blocks_reach_both_disks() {
    let folder = folder();
    let (a, b, pool) = (disk(&folder, "a"), disk(&folder, "b"), Buffers::new(2 << 20).unwrap());
    let mut ring = Ring::new(vec![Some(a.clone()), None, Some(b.clone())], &pool).unwrap();
    for n in [8, 7] {
        let bytes = blocks(&pool, MOST_BUFFER, n);
        ring.push(write(1, 0, 4096, &bytes));
        ring.push(write(2, 2, 4096, &bytes));
        assert_eq!(finish(&mut ring), [(1, Ok(MOST_BUFFER)), (2, Ok(MOST_BUFFER))]);
        ring.register().unwrap(); // the second time round it is registered already
    }
    ring.push(flush(3, 0));
    ring.push(flush(4, 2));
    assert_eq!(finish(&mut ring), [(3, Ok(0)), (4, Ok(0))]);
    for name in ["a", "b"] {
        let file = fs::read(folder.path().join(name)).unwrap();
        assert!(file[..BLOCK].iter().all(|x| *x == 0));
        assert!(file[BLOCK..BLOCK + MOST_BUFFER].iter().all(|x| *x == 7));
        assert!(file[BLOCK + MOST_BUFFER..].iter().all(|x| *x == 0));
    }
}

#[test]
fn a_missing_disk_and_a_place_past_the_end_are_errors_and_the_rest_goes_on() {
    let folder = folder();
    let (a, pool) = (disk(&folder, "a"), Buffers::new(1 << 20).unwrap());
    let mut ring = Ring::new(vec![Some(a), None], &pool).unwrap();
    let one = blocks(&pool, BLOCK, 1);
    ring.push(write(1, 1, 0, &one));
    ring.push(write(2, 9, 0, &one));
    ring.push(write(3, 0, LEN, &one));
    ring.push(write(4, 0, u64::MAX - 4095, &one));
    ring.push(flush(5, 1));
    ring.push(write(6, 0, LEN - 4096, &one));
    let done = finish(&mut ring);
    assert!(done[..5].iter().all(|(_, r)| r.is_err()), "{done:?}");
    assert_eq!(done[5], (6, Ok(BLOCK)));
    assert_eq!(fs::metadata(folder.path().join("a")).unwrap().len(), LEN, "nothing grew the file");
}

#[test]
fn more_requests_than_fit_at_once_all_end_and_give_their_memory_back() {
    let folder = folder();
    let (a, pool) = (disk(&folder, "a"), Buffers::new(2 << 20).unwrap());
    let mut ring = Ring::new(vec![Some(a.clone())], &pool).unwrap();
    let mut early = Vec::new();
    for id in 0..400 {
        ring.push(write(id, 0, id * 4096, &blocks(&pool, BLOCK, id as u8)));
        if id == 200 {
            ring.wait(&mut early, None).unwrap();
            ring.register().unwrap(); // with writes under way
        }
    }
    assert!(early.iter().all(|(_, r)| matches!(r, Ok(BLOCK))));
    let mut all: Vec<u64> = early.into_iter().map(|(id, _)| id).collect();
    all.extend(finish(&mut ring).into_iter().map(|(id, r)| r.map(|_| id).unwrap()));
    all.sort_unstable();
    assert_eq!(all, (0..400).collect::<Vec<_>>());
    assert!(pool.take(MOST_BUFFER).is_some() && pool.take(MOST_BUFFER).is_some());
    let mut back = pool.take(BLOCK).unwrap();
    for id in 0..400 {
        a.read(id * 4096, back.as_mut()).unwrap();
        assert!(back.as_ref().iter().all(|x| *x == id as u8), "block {id}");
    }
}

#[test]
fn a_dropped_ring_lets_go_of_memory_only_after_the_kernel_did() {
    let folder = folder();
    let (a, pool) = (disk(&folder, "a"), Buffers::new(4 << 20).unwrap());
    for round in 0..20u8 {
        let mut ring = Ring::new(vec![Some(a.clone())], &pool).unwrap();
        ring.register().unwrap();
        (0..4).for_each(|id| ring.push(write(id, 0, id << 20, &blocks(&pool, MOST_BUFFER, round))));
        ring.push(flush(9, 7)); // fails at once, so that the wait below submits all and waits for none
        ring.wait(&mut Vec::new(), None).unwrap();
        drop(ring);
        assert!((0..4).map(|_| pool.take(MOST_BUFFER)).collect::<Option<Vec<_>>>().is_some(), "round {round}");
    }
}

#[test]
fn another_thread_wakes_a_waiting_ring() {
    let folder = folder();
    let pool = Buffers::new(1 << 20).unwrap();
    let mut ring = Ring::new(vec![Some(disk(&folder, "a"))], &pool).unwrap();
    let waker = ring.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            waker.write(1).unwrap();
        });
        let mut done = Vec::new();
        ring.wait(&mut done, None).unwrap();
        other.join().unwrap();
        assert!(done.is_empty());
    }
}

#[test]
fn a_disk_is_for_one_program_only() {
    let folder = folder();
    let held = disk(&folder, "a");
    let path = held.path().to_owned();
    assert!(matches!(DiskFile::open(&path), Err(DiskError::InUse(p)) if p == path));
    drop(held);
    DiskFile::open(&path).unwrap();
}

#[test]
fn what_is_no_disk_is_refused_in_words() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let refused = |path: &Path| DiskFile::open(path).unwrap_err().to_string();
    assert!(refused(&at("none")).contains("No such file"), "{}", refused(&at("none")));
    assert!(refused(folder.path()).contains("neither a file nor a block device"));
    assert!(refused(Path::new("/dev/null")).contains("neither a file nor a block device"));
    drop(disk(&folder, "a"));
    assert!(matches!(DiskFile::create(&at("a"), LEN), Err(DiskError::Exists(_))));
    assert!(matches!(DiskFile::create(&at("b"), 1 << 50), Err(DiskError::NoRoom { .. })));
    assert!(!at("b").exists(), "what didn't fit leaves nothing behind");
}

#[test]
fn blocking_calls_are_whole_or_fail() {
    let folder = folder();
    let (a, pool) = (disk(&folder, "a"), Buffers::new(1 << 20).unwrap());
    let mut buffer = pool.take(2 * BLOCK).unwrap();
    buffer.as_mut().fill(5);
    a.write(LEN - 8192, buffer.as_ref()).unwrap();
    a.flush().unwrap();
    buffer.as_mut().fill(0);
    a.read(LEN - 8192, buffer.as_mut()).unwrap();
    assert!(buffer.as_ref().iter().all(|x| *x == 5));
    assert!(a.read(LEN - 4096, buffer.as_mut()).is_err() && a.write(LEN - 4096, buffer.as_ref()).is_err());
    assert_eq!(a.size(), LEN);
}
