//! Power cuts, lost disks, foreign disks, full disks, old papers.

mod common;

use std::{fs, process::Command};

use common::*;
use hoidla_door::Connection;
use hoidla_format::frame::Chain;
use hoidla_protocol::{Code, Request, Response};
use hoidlad::{
    enrol::{Enrol, enrol},
    scrub,
};

async fn health(c: &mut Connection) -> hoidla_protocol::Health {
    match c.ask(&Request::Health).await.unwrap() {
        Response::Health(h) => h,
        other => panic!("no health: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_mid_push_it_goes_on_from_the_last_acknowledgement() {
    let e = Embassy::new(256 << 20);
    let (mut child, address) = start_child(&e);
    let agent = e.home.good_agent("land");
    let mut w = Writing::new(1);
    let mut c = hoidla_door::connect(&e.target(&address), &agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let mut frames = vec![(0, agent.header(&mut w, &e.vaults[0]))];
    for n in 0..24u8 {
        let at = w.chain.length;
        frames.push((at, agent.message(&mut w, &vec![n; 400_000])));
    }
    for (at, frame) in &frames[..12] {
        append(&mut c, &opened, 1, *at, frame).await.unwrap();
    }
    // Some more are under way when the power goes.
    for (at, frame) in &frames[12..16] {
        let head = c.session.append(opened.handle, 1, *at, frame.len());
        c.writer.append(&head, frame).await.unwrap();
    }
    c.writer.flush().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = frames[12].0;
    drop(c);

    let (child, address) = start_child(&e);
    let mut c = hoidla_door::connect(&e.target(&address), &agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    assert!(opened.acknowledged.length >= acknowledged, "what was acknowledged is kept");
    assert!(!opened.closed && opened.epoch == 1);
    let rest = frames.iter().filter(|(at, _)| *at >= opened.acknowledged.length);
    let mut sent = 0;
    for (at, frame) in rest {
        append(&mut c, &opened, 1, *at, frame).await.unwrap();
        sent += 1;
    }
    assert!(sent >= 9);
    let again = open_stream(&mut c, &agent.dataset, &w, w.chain).await.unwrap();
    assert_eq!(again.acknowledged, w.chain, "the chain over all frames is the agent's own");

    // Told to stop, it stops in order; the keyless check finds all whole.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    drop(c);
    let mut child = child;
    assert!(child.wait().unwrap().success());
    let verified = Command::new(PROGRAM).arg("--state").arg(e.state().folder()).args(["verify", "--json"]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let found: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(found["records"].as_u64().unwrap(), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_disk_gone_it_goes_on_and_says_so() {
    let e = Embassy::new(128 << 20);
    let agent = e.home.good_agent("land");
    let mut w = Writing::new(1);
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let frame = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &frame).await.unwrap();
    drop(c);
    running.stop().await;

    let away = e.folder.path().join("away");
    fs::rename(e.disk(1), &away).unwrap();
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    let h = health(&mut c).await;
    assert_eq!((h.copies, h.current), (2, 1), "it says so");
    let opened = open_stream(&mut c, &agent.dataset, &w, w.chain).await.unwrap();
    assert_eq!(opened.acknowledged, w.chain);
    let at = w.chain.length;
    let frame = agent.message(&mut w, b"while one disk is away");
    append(&mut c, &opened, 1, at, &frame).await.unwrap();
    drop(c);
    running.stop().await;

    // The disk that missed something never serves alone: the TPM remembers.
    let other = e.folder.path().join("other");
    fs::rename(e.disk(0), &other).unwrap();
    fs::rename(&away, e.disk(1)).unwrap();
    let stale = hoidlad::daemon::start(&e.state(), Default::default(), helpers()).await;
    assert!(stale.is_err(), "a stale disk alone is refused");

    // Both are back: the stale one is made whole.
    fs::rename(&other, e.disk(0)).unwrap();
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    until_whole(&mut c).await;
    assert_eq!(open_stream(&mut c, &agent.dataset, &w, w.chain).await.unwrap().acknowledged, w.chain);
    drop(c);
    running.stop().await;
    let found = scrub::scrub(&e.state(), &hoidla_cli::Output::default()).await.unwrap();
    assert!(found.is_whole() && found.missing == 0, "{found:?}");
    assert_eq!(found.records, 2);
}

/// Waits until every disk counts.
async fn until_whole(c: &mut Connection) {
    for _ in 0..600 {
        let h = health(c).await;
        if h.copies == h.current {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is never whole");
}

fn helpers() -> hoidlad::helper::Helpers {
    hoidlad::helper::Helpers::of(PROGRAM.as_ref())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_disks_foreign_papers_and_old_papers_are_refused() {
    let e = Embassy::new(128 << 20);
    let other = Embassy::new(128 << 20);
    // A disk of another appliance: it is said and left alone, nothing of it is changed.
    let own = e.folder.path().join("own");
    fs::rename(e.disk(0), &own).unwrap();
    fs::rename(other.disk(0), e.disk(0)).unwrap();
    let before = blake3_of(&fs::read(e.disk(0)).unwrap());
    let running = e.start().await;
    let mut c = running.enter(&e.home.good_agent("land").door).await.unwrap();
    assert_eq!(health(&mut c).await.current, 1);
    drop(c);
    for _ in 0..100 {
        if running.daemon.trays()[0].says.contains("another Hoidla store") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(running.daemon.trays()[0].says.contains("not touched"), "{:?}", running.daemon.trays());
    running.stop().await;
    let ask = |papers| Enrol { papers, disk_size: None, format: false };
    assert!(!enrol(&e.state(), &ask(vec![e.papers()])).unwrap().formatted, "and enrolling again formats nothing");
    assert_eq!(blake3_of(&fs::read(e.disk(0)).unwrap()), before);
    fs::rename(&own, e.disk(0)).unwrap();
    assert!(!enrol(&e.state(), &ask(vec![e.papers()])).unwrap().formatted, "the same papers again change nothing");

    // Papers of another authority.
    let foreign = format!("{:#}", enrol(&e.state(), &ask(vec![other.papers()])).unwrap_err());
    assert!(foreign.contains("not signed by authority") || foreign.contains("site"), "{foreign}");

    // An older site file, even when the newer one was taken away from the state folder: the TPM remembers.
    let mut newer = e.home.site.clone();
    newer.serial = 7;
    fs::write(e.papers().join("site.txt"), e.home.sign(&newer)).unwrap();
    enrol(&e.state(), &ask(vec![e.papers()])).unwrap();
    fs::write(e.papers().join("site.txt"), e.home.sign(&e.home.site)).unwrap();
    let old = format!("{:#}", enrol(&e.state(), &ask(vec![e.papers()])).unwrap_err());
    assert!(old.contains("serial 5") && old.contains("serial 7"), "{old}");
    fs::remove_dir_all(e.state().papers()).unwrap();
    let old = format!("{:#}", enrol(&e.state(), &ask(vec![e.papers()])).unwrap_err());
    assert!(old.contains("the TPM knows serial 7"), "{old}");

    // A site file changed after it was signed.
    let note = e.home.sign(&newer);
    fs::write(e.papers().join("site.txt"), note.replace("serial = 7", "serial = 8")).unwrap();
    let forged = format!("{:#}", enrol(&e.state(), &ask(vec![e.papers()])).unwrap_err());
    assert!(forged.contains("signature"), "{forged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_before_it_acknowledges() {
    let e = Embassy::new(80 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut w = Writing::new(1);
    let mut c = running.enter(&agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let frame = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &frame).await.unwrap();
    let plaintext = vec![5; 1_000_000];
    let mut kept = w.chain;
    let mut count = 1;
    let refused = loop {
        let at = w.chain.length;
        let frame = agent.message(&mut w, &plaintext);
        match append(&mut c, &opened, 1, at, &frame).await {
            Ok(_) => (kept, count) = (w.chain, count + 1),
            Err(refused) => break refused,
        }
        assert!(count < 100, "80 MiB never fill up");
    };
    assert_eq!(refused.code, Code::Full, "{refused}");
    assert!(count > 20);
    let opened = open_stream(&mut c, &agent.dataset, &w, kept).await.unwrap();
    assert_eq!(opened.acknowledged, kept, "nothing acknowledged is lost, nothing else is kept");
    drop(c);
    running.stop().await;
    let found = scrub::scrub(&e.state(), &hoidla_cli::Output::default()).await.unwrap();
    assert_eq!((found.is_whole(), found.records), (true, count), "{found:?}");
}
