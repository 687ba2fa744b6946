//! Messages that a restore must refuse, and what a failed restore leaves behind.

mod common;

use std::fs;

use common::{Home, noise};
use hoidla_snapshot::{PackHead, SnapshotError};
use tempfile::TempDir;

const SIZE: usize = 64 << 10;

fn pushed() -> (TempDir, Home, (u32, u32)) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("big"), noise(1, 400_000)).unwrap();
    fs::write(root.join("text"), "abc ".repeat(100_000)).unwrap();
    let mut home = Home::new(SIZE);
    let (last, _) = home.push(&root);
    (dir, home, last)
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut out: Vec<_> =
        fs::read_dir(dir.path().join("to/root")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    out.sort();
    out
}

#[test]
fn a_damaged_file_is_named_left_out_and_leaves_nothing() {
    let (dir, home, last) = pushed();
    home.stream.change((1, 2), |b| b[SIZE / 2] ^= 1);
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!(restored.failed, 1);
    assert!(restored.notes[0].starts_with("root/big: not restored"), "{:?}", restored.notes);
    assert_eq!(names(&dir), ["text"]);
}

#[test]
fn a_missing_or_swapped_message_is_refused() {
    let (dir, home, last) = pushed();
    let second = home.stream.0.lock().unwrap()[&(1, 2)].clone();
    home.stream.change((1, 3), |b| b.clone_from(&second));
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!(restored.failed, 1);
    assert!(restored.notes[0].contains("another one stands there"), "{:?}", restored.notes);

    let (dir, home, last) = pushed();
    home.stream.0.lock().unwrap().remove(&(1, 1));
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!((restored.failed, names(&dir)), (1, vec!["text".into()]));
}

#[test]
fn a_cut_or_newer_last_message_is_refused() {
    for cut in [0, 8, 23, 24, 300] {
        let (dir, home, last) = pushed();
        home.stream.change(last, |b| b.truncate(cut));
        assert!(home.restore(last, &dir.path().join("to")).is_err(), "cut to {cut}");
    }
    let (dir, home, last) = pushed();
    home.stream.change(last, |b| b[7] = 2);
    let e = home.restore(last, &dir.path().join("to")).unwrap_err();
    assert!(e.to_string().contains("version 2"), "{e}");
    let (dir, home, last) = pushed();
    assert!(matches!(home.restore((last.0, last.1 - 1), &dir.path().join("to")), Err(SnapshotError::Malformed(_))), "not a last message");
}

#[test]
fn any_flipped_bit_is_noticed() {
    for at in (0..SIZE).step_by(4099) {
        let (dir, home, last) = pushed();
        let len = home.stream.0.lock().unwrap()[&last].len();
        home.stream.change(last, |b| b[at % len] ^= 0x10);
        // Either refused, or what was flipped was padding or one file, which is then left out.
        match home.restore(last, &dir.path().join("to")) {
            Err(_) => {}
            Ok(r) if r.failed == 0 => {
                assert_eq!(fs::read(dir.path().join("to/root/text")).unwrap(), "abc ".repeat(100_000).as_bytes());
                assert_eq!(fs::read(dir.path().join("to/root/big")).unwrap(), noise(1, 400_000));
            }
            Ok(r) => assert_eq!(names(&dir).len(), 2 - r.failed as usize),
        }
    }
}

#[test]
fn a_bomb_does_not_go_off() {
    // A record that claims to be a chunk of 4 GiB, and one of 512 KiB that holds more.
    let (dir, home, last) = pushed();
    let place = PackHead::parse(&home.stream.0.lock().unwrap()[&last]).unwrap().record.unwrap();
    home.stream.change((1, place.number), |b| b[place.position as usize + 1..][..4].fill(255));
    assert!(home.restore(last, &dir.path().join("to")).is_err());

    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let (dir, home, last) = pushed();
    home.stream.change((1, 0), |b| {
        b[24] = 2;
        b[25..29].copy_from_slice(&(512_u32 << 10).to_le_bytes());
        b[29..33].copy_from_slice(&(bomb.len() as u32).to_le_bytes());
        b[33..33 + bomb.len()].copy_from_slice(&bomb);
    });
    let restored = home.restore(last, &dir.path().join("to")).unwrap();
    assert_eq!(restored.failed, 1);
}
