//! Disks pulled, replaced, foreign and allowed, while an agent copies in.

mod common;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use common::*;
use hoidla_format::{Moment, frame::Chain, statements::DiskWord};
use hoidlad::{daemon::Settings, scrub, trays::words::Words};

const SIZE: u64 = 128 << 20;

/// A file of this size appears at once, as a disk does.
fn put(at: &Path, size: u64, write: impl Fn(&fs::File)) {
    let beside = at.with_extension("beside");
    let file = fs::File::create(&beside).unwrap();
    file.set_len(size).unwrap();
    write(&file);
    drop(file);
    fs::rename(beside, at).unwrap();
}

async fn until(running: &Running, what: &str, wanted: impl Fn(&[hoidlad::trays::TrayHealth]) -> bool) -> Vec<hoidlad::trays::TrayHealth> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(240) {
        let trays = running.daemon.trays();
        if wanted(&trays) {
            return trays;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} never comes: {:?}", running.daemon.trays());
}

fn all_well(trays: &[hoidlad::trays::TrayHealth]) -> bool {
    trays.iter().all(|t| t.well)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_disk_is_replaced_while_an_agent_copies_in_and_the_new_one_serves_alone() {
    let e = Embassy::new(SIZE);
    let agent = e.home.good_agent("land");
    let mut w = Writing::new(1);
    let running = e.start_with(Settings { trays: Duration::from_millis(100), ..Settings::default() }).await;
    let mut c = running.enter(&agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let header = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &header).await.unwrap();
    let mut sent = 1;
    macro_rules! send {
        ($times:expr) => {
            for n in 0..$times {
                let at = w.chain.length;
                let frame = agent.message(&mut w, &vec![n as u8; 300_000]);
                append(&mut c, &opened, 1, at, &frame).await.unwrap();
                sent += 1;
            }
        };
    }
    until(&running, "a whole start", |t| t.len() == 2 && all_well(t)).await;
    send!(20);
    fs::remove_file(e.disk(1)).unwrap();
    let trays = until(&running, "an empty tray", |t| t[1].says.contains("empty")).await;
    assert!(trays[1].says.contains("put a disk into tray 2") && trays[0].says.contains("do NOT"), "{trays:?}");
    send!(5);

    // What isn't blank stays as it is, until home's word names it.
    put(&e.disk(1), SIZE, |f| f.write_all_at(b"EFI PART", 512).unwrap());
    let trays = until(&running, "a strange disk", |t| t[1].says.contains("GPT")).await;
    assert!(trays[1].says.contains("not touched"), "{trays:?}");
    fs::remove_file(e.disk(1)).unwrap();
    put(&e.disk(1), SIZE / 2, |_| {});
    until(&running, "a small disk", |t| t[1].says.contains("larger disk")).await;
    fs::remove_file(e.disk(1)).unwrap();
    until(&running, "an empty tray", |t| t[1].says.contains("empty")).await;

    put(&e.disk(1), SIZE, |_| {});
    until(&running, "a newcomer", |t| t[1].says.contains("rebuilding") || all_well(t)).await;
    send!(10);
    until(&running, "a rebuilt disk", all_well).await;
    send!(2);
    drop(c);
    running.stop().await;

    fs::remove_file(e.disk(0)).unwrap();
    let found = scrub::scrub(&e.state(), &hoidla_cli::Output::default()).await.unwrap();
    assert!(found.is_whole() && found.records >= sent, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_word_lets_one_named_disk_in_once() {
    let e = Embassy::new(SIZE);
    let running = e.start_with(Settings { trays: Duration::from_millis(100), ..Settings::default() }).await;
    fs::remove_file(e.disk(0)).unwrap();
    put(&e.disk(0), SIZE, |f| f.write_all_at(b"LUKS", 0).unwrap());
    let trays = until(&running, "a strange disk", |t| t[0].says.contains("LUKS")).await;
    let seen = hoidla_format::text::from_hex(trays[0].says.split_whitespace().last().unwrap()).map(hoidla_format::Hash32).unwrap();
    let word = DiskWord { site: e.home.site_name.clone(), appliance: name("rack-1"), tray: 1, seen, serial: 1, issued: Moment::now() };
    let words = Words::new(&e.state(), e.home.verifying(), e.identity.clone());
    let wrong = |change: fn(&mut DiskWord)| {
        let mut other = word.clone();
        change(&mut other);
        e.home.sign(&other)
    };
    assert!(words.take(wrong(|w| w.appliance = name("rack-2")).as_bytes()).is_err(), "another appliance's");
    assert!(words.take(e.home.sign(&word).replace("tray = 1", "tray = 2").as_bytes()).is_err(), "changed after it was signed");
    assert!(words.take(Home::new("site-x").sign(&word).as_bytes()).is_err(), "another authority's");
    words.take(wrong(|w| w.tray = 2).as_bytes()).unwrap();
    words.take(wrong(|w| w.seen = hoidla_format::Hash32([1; 32])).as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(running.daemon.trays()[0].says.contains("not touched"), "neither is about this disk");
    let note = e.home.sign(&word);
    words.take(note.as_bytes()).unwrap();
    until(&running, "a rebuilt disk", all_well).await;
    let again = words.take(note.as_bytes()).unwrap_err().to_string();
    assert!(again.contains("used already"), "{again}");
    running.stop().await;
}
