//! Disks put back to what they were before: what the appliance says of it, and what it signs.
#![forbid(unsafe_code)]

mod common;

use std::{fs, process::Command};

use common::*;
use hoidla_door::{Connection, DoorError};
use hoidla_log::{Extension, SignedCheckpoint};
use hoidla_protocol::{Code, Refused, Request, Response};
use hoidlad::enrol::{Enrol, enrol};

async fn checkpoint(c: &mut Connection, least: u64) -> Result<SignedCheckpoint, Refused> {
    match c.ask(&Request::Extend { old: 0, least }).await {
        Ok(Response::Extension(bytes)) => Ok(Extension::parse(&bytes).unwrap().checkpoint),
        Err(DoorError::Refused(no)) => Err(no),
        other => panic!("{other:?}"),
    }
}

fn images(e: &Embassy) -> [Vec<u8>; 2] {
    [0, 1].map(|n| fs::read(e.disk(n)).unwrap())
}

fn put_back(e: &Embassy, images: &[Vec<u8>; 2]) {
    images.iter().enumerate().for_each(|(n, image)| fs::write(e.disk(n), image).unwrap());
}

/// What `hoidlad status` says, and whether all is well.
async fn status(e: &Embassy) -> (String, bool) {
    let _ = fs::remove_file(e.state().health());
    while !e.state().health().exists() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let out = Command::new(PROGRAM).arg("--state").arg(e.state().folder()).arg("status").output().unwrap();
    (String::from_utf8(out.stdout).unwrap(), out.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_checkpoint_is_shown_after_a_restart_and_a_store_that_only_reads_signs_none() {
    let e = Embassy::new(64 << 20);
    let agent = e.home.good_agent("land");
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    three_leaves(&e, &mut c, &agent, 1).await;
    drop(c);
    running.stop().await;
    let running = e.start().await;
    let before = images(&e);
    let mut c = running.enter(&agent.door).await.unwrap();
    three_leaves(&e, &mut c, &agent, 2).await;
    let signed = checkpoint(&mut c, 6).await.unwrap();
    assert_eq!(fs::read_to_string(e.state().checkpoint()).unwrap(), signed.write(), "kept before it is shown");
    assert_eq!(checkpoint(&mut c, 0).await.unwrap(), signed);
    assert!(status(&e).await.1, "all is well");
    drop(c);
    running.stop().await;

    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    assert_eq!(checkpoint(&mut c, 6).await.unwrap(), signed, "nothing is signed for what was signed before");
    drop(c);
    running.stop().await;

    put_back(&e, &before);
    let running = e.start().await;
    let (says, well) = status(&e).await;
    assert!(!well && says.contains("ALARM") && says.contains("only reads"), "{says}");
    let mut c = running.enter(&agent.door).await.unwrap();
    let no = checkpoint(&mut c, 1).await.unwrap_err();
    assert!(no.code == Code::Behind && no.sentence.contains("signs no head"), "{no}");
    drop(c);
    running.stop().await;
    assert_eq!(fs::read_to_string(e.state().checkpoint()).unwrap(), signed.write(), "what it signed stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_extend_the_kept_checkpoint_is_not_signed_until_the_disks_are_formatted() {
    let e = Embassy::new(64 << 20);
    let agent = e.home.good_agent("land");
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    three_leaves(&e, &mut c, &agent, 1).await;
    let before = images(&e);
    three_leaves(&e, &mut c, &agent, 2).await;
    let signed = checkpoint(&mut c, 6).await.unwrap();
    drop(c);
    running.stop().await;

    put_back(&e, &before);
    for (stream, why) in [(3, "its disks have 3"), (4, "cannot be shown to extend")] {
        let running = e.start().await;
        let (says, well) = status(&e).await;
        assert!(!well && says.contains("ALARM") && says.contains(why), "{says}");
        let mut c = running.enter(&agent.door).await.unwrap();
        three_leaves(&e, &mut c, &agent, stream).await;
        let no = checkpoint(&mut c, 1).await.unwrap_err();
        assert!(no.code == Code::Behind && no.sentence.contains(why), "{no}");
        drop(c);
        running.stop().await;
        assert_eq!(fs::read_to_string(e.state().checkpoint()).unwrap(), signed.write(), "what it signed stays");
    }

    // A damaged one can't tell, and is no reason to go on as if there had been none.
    fs::write(e.state().checkpoint(), &signed.write()[..100]).unwrap();
    let running = e.start().await;
    let (says, well) = status(&e).await;
    assert!(!well && says.contains("damaged"), "{says}");
    running.stop().await;

    enrol(&e.state(), &Enrol { papers: vec![e.papers()], format: true, ..Enrol::default() }).unwrap();
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    three_leaves(&e, &mut c, &agent, 5).await;
    assert_eq!(checkpoint(&mut c, 3).await.unwrap().head().size, 3);
    drop(c);
    running.stop().await;
}
