//! A folder to messages and back, with all that makes folders hard.

mod common;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs as unix},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use common::{Home, noise, things};
use hoidla_snapshot::{Cache, Only, SnapshotError, Source, restore};
use nix::{
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::{Mode, mkdirat},
};

const SIZE: usize = 64 << 10;

/// One of each kind of thing.
fn build(root: &Path) {
    fs::create_dir(root).unwrap();
    fs::write(root.join("text"), "words, words, words\n".repeat(20_000)).unwrap();
    fs::write(root.join("noise"), noise(1, 1_500_000)).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not \xff\xfe UTF-8 \n")), "x").unwrap();
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir(root.join("empty folder")).unwrap();
    fs::write(root.join("deep/er/one"), "linked").unwrap();
    fs::hard_link(root.join("deep/er/one"), root.join("two")).unwrap();
    fs::hard_link(root.join("deep/er/one"), root.join("three")).unwrap();
    unix::symlink("../outside", root.join("link")).unwrap();
    unix::symlink(OsStr::from_bytes(b"\xff"), root.join("deep/dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRUSR).unwrap();
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(3 << 20)).unwrap();
    sparse.write_all(&noise(2, 200_000)).unwrap();
    sparse.set_len(9 << 20).unwrap();
    File::create(root.join("all hole")).unwrap().set_len(5 << 20).unwrap();
    for (name, mode) in [("text", 0o444), ("noise", 0o751), ("deep/er", 0o2750), ("empty folder", 0o700)] {
        fs::set_permissions(root.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let old = SystemTime::UNIX_EPOCH + Duration::new(86_400 * 365 * 5, 123_456_789);
    for name in ["text", "deep/er", "deep"] {
        File::open(root.join(name)).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    build(&root);
    let mut home = Home::new(SIZE);
    let (last, pushed) = home.push(&root);
    assert_eq!((pushed.changed, pushed.left_out), (0, 0), "{:?}", pushed.notes);
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!((restored.entries, restored.bytes, restored.failed), (pushed.entries, pushed.bytes, 0), "{:?}", restored.notes);
    assert_eq!(things(&root), things(&dir.path().join("to/root")));
    assert!(matches!(home.restore(last, &dir.path().join("to")), Err(SnapshotError::Exists(_))), "and doesn't overwrite");
}

#[test]
fn an_increment_is_small_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    build(&root);
    let mut home = Home::new(SIZE);
    let (first, _) = home.push(&root);
    let before = (home.stream.bytes(), things(&root));

    let mut text = File::options().append(true).open(root.join("noise")).unwrap();
    text.write_all(b"one more line").unwrap();
    fs::remove_file(root.join("empty")).unwrap();
    let (second, pushed) = home.push(&root);
    assert!(pushed.fresh < 600_000, "{} fresh bytes of one changed chunk and the tree", pushed.fresh);
    assert!(home.stream.bytes() - before.0 < 700_000);

    home.restore(second, &dir.path().join("second")).unwrap();
    assert_eq!(things(&root), things(&dir.path().join("second/root")));
    home.restore(first, &dir.path().join("first")).unwrap();
    assert_eq!(before.1, things(&dir.path().join("first/root")));
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (root, path) = (dir.path().join("root"), dir.path().join("files"));
    build(&root);
    std::thread::sleep(Duration::from_secs(4)); // times settle, so that the cache trusts them
    let mut home = Home::new(SIZE);
    let push = |home: &mut Home| {
        let mut cache = Cache::open(&path, &root).unwrap();
        let done = home.push_with(Source::Path(&root), &mut cache).unwrap();
        cache.commit().unwrap();
        done
    };
    push(&mut home);
    home.index = hoidla_snapshot::Index::in_memory(); // whatever is read now is sent again
    fs::write(root.join("text"), "other").unwrap_or_else(|_| fs::write(root.join("new"), "other").unwrap());
    let (last, pushed) = push(&mut home);
    assert!(pushed.fresh < 20_000, "{} bytes were read again", pushed.fresh);
    home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!(things(&root), things(&dir.path().join("to/root")));
}

#[test]
fn a_single_file_and_a_single_path() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    build(&root);
    let mut home = Home::new(SIZE);
    let (last, _) = home.push(&root.join("noise"));
    home.restore(last, &dir.path().join("file")).unwrap();
    assert_eq!(fs::read(dir.path().join("file/noise")).unwrap(), noise(1, 1_500_000));

    let (last, _) = home.push(&root);
    let only = |path: &str, to: &str| restore(&home.stream, last, &dir.path().join(to), &Only::Path(path.into()), &mut |_| {});
    assert_eq!(only("root/deep/er", "a").unwrap().entries, 2);
    assert_eq!(fs::read(dir.path().join("a/er/one")).unwrap(), b"linked");
    assert_eq!(only("/root/two", "b").unwrap().entries, 1, "a later name of a file restores alone");
    assert_eq!(fs::read(dir.path().join("b/two")).unwrap(), b"linked");
    for absent in ["root/nothing", "two", "root/text/x"] {
        assert!(matches!(only(absent, "c"), Err(SnapshotError::NotThere(_))), "{absent}");
    }
}

#[test]
fn standard_input_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::new(SIZE);
    for (n, len) in [0, 1, SIZE - 1, 10_000_000].into_iter().enumerate() {
        let bytes = noise(3, len);
        let (last, pushed) = home.push_with(Source::Stream("stdin", Box::new(&bytes[..])), &mut Cache::none()).unwrap();
        assert_eq!(pushed.bytes, len as u64);
        let to = dir.path().join(n.to_string());
        home.restore(last, &to).unwrap();
        assert_eq!(fs::read(to.join("stdin")).unwrap(), bytes);
    }
}

#[test]
fn two_hundred_levels_of_long_names() {
    let dir = tempfile::tempdir().unwrap();
    let name = "a-level-whose-name-makes-the-whole-path-longer-than-any-system-call-takes";
    let mut at = openat(AT_FDCWD, dir.path(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..200 {
        mkdirat(&at, name, Mode::S_IRWXU).unwrap();
        at = openat(&at, name, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&at, "bottom", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap();
    nix::unistd::write(&file, b"here").unwrap();
    nix::unistd::linkat(&at, "bottom", &at, "link", nix::fcntl::AtFlags::empty()).unwrap();
    let mut home = Home::new(SIZE);
    let (last, pushed) = home.push(&dir.path().join(name));
    assert_eq!((pushed.entries, pushed.left_out), (202, 0));
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!((restored.entries, restored.failed), (202, 0), "{:?}", restored.notes);
    let (again, pushed) = home.push(&dir.path().join("to").join(name));
    assert_eq!((pushed.entries, pushed.bytes), (202, 4), "what came back is the same tree");
    assert_ne!(again, last);
    // The shell's `rm -r` copes with such paths; so must the test's cleaning up.
    std::process::Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
}

#[test]
fn thousands_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for d in 0..30 {
        fs::create_dir_all(root.join(format!("d{d}"))).unwrap();
        for f in 0..100 {
            fs::write(root.join(format!("d{d}/f{f}")), format!("file {f} of {d}")).unwrap();
        }
    }
    let mut home = Home::new(SIZE);
    let (last, pushed) = home.push(&root);
    assert_eq!(pushed.entries, 3031);
    home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!(things(&root), things(&dir.path().join("to/root")));
}

#[test]
fn a_file_that_changes_is_marked_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("still"), "still").unwrap();
    let mut file = File::create(root.join("moving")).unwrap();
    file.write_all(&noise(4, 32 << 20)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
            }
        }
    });
    let mut home = Home::new(SIZE);
    // On a busy machine the writer may sleep through all tries of one push, but not of ten.
    let (last, pushed) = (0..10).map(|_| home.push(&root)).find(|(_, p)| p.changed > 0).expect("a change is noticed");
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(pushed.changed, 1);
    assert!(pushed.notes[0].contains("root/moving") && pushed.notes[0].contains("changed"), "{:?}", pushed.notes);
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!((restored.changed, restored.failed), (1, 0));
    assert!(restored.notes[0].contains("moving"));
    assert_eq!(fs::read(dir.path().join("to/root/still")).unwrap(), b"still");
}

#[test]
fn what_cannot_be_copied_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let mut home = Home::new(SIZE);
    let (_, pushed) = home.push(&root);
    assert_eq!(pushed.left_out, 1);
    assert!(pushed.notes[0].contains("root/socket"), "{:?}", pushed.notes);
    let nowhere = home.push_with(Source::Path(&root.join("absent")), &mut Cache::none());
    assert!(matches!(nowhere, Err(SnapshotError::At { .. })));
    let socket = home.push_with(Source::Path(&root.join("socket")), &mut Cache::none());
    assert!(socket.is_err());
}

#[test]
fn a_taker_that_gives_up_ends_the_push() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("noise");
    fs::write(&root, noise(5, 40 << 20)).unwrap();
    let mut left = 10;
    let mut sink = |_| {
        left -= 1;
        if left == 0 { Err("the line is cut".to_owned()) } else { Ok(vec![]) }
    };
    let options = hoidla_snapshot::Options { run: 1, message: SIZE, workers: 2, skip: None };
    let key = hoidla_snapshot::GenerationKey::random();
    let mut index = hoidla_snapshot::Index::in_memory();
    let e = hoidla_snapshot::push(
        Source::Path(&root),
        &key,
        &mut index,
        &mut Cache::none(),
        options,
        &hoidla_snapshot::Progress::default(),
        &mut sink,
    )
    .unwrap_err();
    assert_eq!(e.to_string(), "the line is cut");
}
