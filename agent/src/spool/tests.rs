use hoidla_format::Hash32;

use super::{part::HEAD, *};

fn fill(spool: &Spool, frames: usize) -> Vec<Vec<u8>> {
    let mut all = vec![];
    for n in 0..frames {
        let (bytes, chain) = (vec![n as u8; 1000 + n], spool.end());
        let after = chain.then(&Hash32(blake3::hash(&bytes).into()), bytes.len() as u32);
        let what = What::Message { run: 1, number: n as u32 };
        spool.add(About { epoch: 1, offset: chain.length, len: bytes.len() as u32, after, what }, bytes.clone()).unwrap();
        all.push(bytes);
    }
    all
}

fn read(spool: &Spool) -> Vec<Vec<u8>> {
    let (mut at, mut all) = (spool.acknowledged().length, vec![]);
    while let Next::Frame(about, bytes) = spool.next(at).unwrap() {
        at = about.after.length;
        all.push(bytes.to_vec());
    }
    all
}

#[test]
fn frames_survive_the_process_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    let all = fill(&spool, 10);
    let (end, second) = (spool.end(), 1000 + 1001);
    spool.acknowledge(second).unwrap();
    let acknowledged = spool.acknowledged();
    drop(spool);
    let spool = Spool::open(dir.path(), acknowledged, 1 << 30).unwrap();
    assert_eq!(read(&spool), all[2..]);
    assert_eq!((spool.end(), spool.messages()), (end, Some((1, 10))));
    assert_eq!(spool.reconcile(end).unwrap(), Stands::GoOn);
    assert_eq!(spool.pending(), (0, 0));
}

#[test]
fn a_torn_or_damaged_end_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    let all = fill(&spool, 5);
    let path = dir.path().join("0000000000000000.part");
    let bytes = fs::read(&path).unwrap();
    drop(spool);
    for (change, left) in [(bytes.len() - 1, 4), (HEAD + 5, 0), (bytes.len() - 1100, 3)] {
        let mut bad = bytes.clone();
        bad[change] ^= 1;
        fs::write(&path, &bad).unwrap();
        let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
        assert_eq!(read(&spool), all[..left]);
    }
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(read(&Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap()), all[..4]);
}

#[test]
fn another_word_of_the_embassy_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    fill(&spool, 3);
    let end = spool.end();
    assert!(spool.reconcile(Chain { root: Hash32([9; 32]), ..end }).is_err(), "a fork");
    assert!(spool.reconcile(Chain { length: 17, ..end }).is_err(), "half a frame");
    assert_eq!(spool.reconcile(Chain { length: end.length + 1, ..end }).unwrap(), Stands::Lost);
    assert!(spool.acknowledge(17).is_err());
}

#[test]
fn memory_and_disk_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 4 << 20).unwrap();
    let mut chain = Chain::EMPTY;
    for n in 0..50 {
        let bytes = vec![n; 1 << 20];
        let after = chain.then(&Hash32(blake3::hash(&bytes).into()), 1 << 20);
        spool.add(About { epoch: 1, offset: chain.length, len: 1 << 20, after, what: What::Header }, bytes).unwrap();
        chain = after;
    }
    assert!(spool.lock().in_memory <= MEMORY);
    assert_eq!(read(&spool).len(), 50, "the rest comes from disk");
    spool.fail("the line is gone");
    assert_eq!(spool.wait_for_room(), Err("the line is gone".into()));
    spool.acknowledge(50 << 20).unwrap();
    spool.forget();
    assert!(fs::read_dir(dir.path()).unwrap().count() <= 4, "acknowledged files wait for their next use");
    assert!(spool.lock().buffers.len() <= SPARES.1);
    spool.reset(spool.acknowledged());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "and are removed at the end");
}

#[test]
fn a_file_is_written_over_and_its_older_frames_stay_behind() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    // Frames of one size, so that what an earlier use left stands where a head may be.
    let add = |n: u8| {
        let (bytes, chain) = (vec![n; 1 << 20], spool.end());
        let after = chain.then(&Hash32(blake3::hash(&bytes).into()), 1 << 20);
        spool.add(About { epoch: 1, offset: chain.length, len: 1 << 20, after, what: What::Header }, bytes).unwrap();
    };
    (0..20).for_each(add);
    spool.acknowledge(20 << 20).unwrap();
    assert!(spool.has_retired());
    spool.forget();
    (20..40).for_each(add);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.len() == 2 && !names.iter().any(|n| n == "0000000000000000.part"), "{names:?}");
    let (acknowledged, all) = (spool.acknowledged(), read(&spool));
    drop(spool);
    let spool = Spool::open(dir.path(), acknowledged, 1 << 30).unwrap();
    assert_eq!(read(&spool), all);
    assert_eq!((all.len(), all[0][0], all[19][0]), (20, 20, 39));
    assert_eq!(read(&Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap()).len(), 0, "older frames alone are nothing");
}

#[test]
fn nothing_that_was_given_up_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    fill(&spool, 3);
    spool.acknowledge(spool.end().length).unwrap();
    assert!(spool.has_retired(), "its file may go");
    fill(&spool, 1);
    spool.reset(spool.acknowledged()).into_iter().for_each(Kept::release);
    spool.forget();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(spool.lock().spares.is_none());
}

#[test]
fn sealing_stays_close_to_a_line_that_is_up() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Chain::EMPTY, 1 << 30).unwrap();
    fill(&spool, 3);
    let room = |ahead: u64| {
        let mut inner = spool.lock();
        inner.taken = inner.taken.map(|_| inner.frames.end().length.wrapping_sub(ahead));
        inner.has_room(spool.limit)
    };
    assert!(room(AHEAD), "no line yet");
    assert!(matches!(spool.next(0).unwrap(), Next::Frame(..)));
    spool.lock().frames.reset(Chain { length: 1 << 40, ..Chain::EMPTY });
    assert!(room(AHEAD - 1) && !room(AHEAD));
    spool.line_is_down();
    assert!(room(AHEAD));
}
