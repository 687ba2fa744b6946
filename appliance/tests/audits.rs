//! What the log proves through the door, with quotes by a real TPM.
#![forbid(unsafe_code)]

mod common;

use common::*;
use hoidla_door::{Connection, DoorError};
use hoidla_format::{StreamId, frame::Chain};
use hoidla_log::{Checkpoint, Extension};
use hoidla_protocol::{Code, Part, Prove, Request, Response};
use hoidla_verify::{Doubt, Known, Verified, checkpoint};

async fn papers(c: &mut Connection) -> Vec<Vec<u8>> {
    let mut papers = vec![];
    let keep = |part| match part {
        Response::Paper(paper) => {
            papers.push(paper);
            Ok(())
        }
        other => panic!("{other:?}"),
    };
    c.ask_parts(&Request::Papers, keep).await.unwrap();
    papers
}

async fn extend(c: &mut Connection, old: u64, least: u64) -> Extension {
    match c.ask(&Request::Extend { old, least }).await.unwrap() {
        Response::Extension(bytes) => Extension::parse(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn check(e: &Embassy, c: &mut Connection, extension: &Extension) -> Verified {
    let papers = papers(c).await;
    let known = Known::gather(&e.home.verifying(), papers.iter().map(Vec::as_slice)).unwrap();
    checkpoint::check(&extension.checkpoint, &known).unwrap()
}

async fn prove(c: &mut Connection, ask: Prove) -> Result<(Part, Option<Vec<u8>>), DoorError> {
    let (mut part, mut frame) = (None, None);
    c.ask_parts(&Request::Prove(ask), |answer| {
        match answer {
            Response::Part(p) => part = Some(p),
            Response::Data { bytes, .. } => frame = Some(bytes),
            other => panic!("{other:?}"),
        }
        Ok(())
    })
    .await?;
    Ok((part.unwrap(), frame))
}

/// Appends a header and `messages` messages; each is a commit of its own.
async fn copy_in(e: &Embassy, c: &mut Connection, agent: &Agent, stream: u8, messages: usize) -> (StreamId, Vec<(u64, Vec<u8>)>, Chain) {
    let mut w = Writing::new(stream);
    let opened = open_stream(c, &agent.dataset, &w, w.chain).await.unwrap();
    let mut frames = vec![];
    for n in 0..=messages {
        let at = w.chain.length;
        let bytes = if n == 0 { agent.header(&mut w, &e.vaults[0]) } else { agent.message(&mut w, &[n as u8; 3000]) };
        append(c, &opened, 1, at, &bytes).await.unwrap();
        frames.push((at, bytes));
    }
    (w.stream, frames, w.chain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_receipts_and_samples_verify_and_survive_a_restart() {
    let e = Embassy::new(512 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let (stream, frames, end) = copy_in(&e, &mut c, &agent, 1, 3).await;
    let first = extend(&mut c, 0, frames.len() as u64).await;
    let verified = check(&e, &mut c, &first).await;
    assert_eq!(verified.own.origin, first.checkpoint.head().origin());
    for doubt in [Doubt::Development, Doubt::SoftwareTpm, Doubt::FirstUse, Doubt::Unmeasured] {
        assert!(verified.own.doubts.contains(&doubt), "{doubt}");
    }
    assert!(!verified.own.doubts.contains(&Doubt::Papers), "the papers in force are measured");
    let size = first.checkpoint.head().size;
    let ask = |offset, size, frame| Prove { dataset: agent.dataset.clone(), stream, offset, size, frame };
    let (part, nothing) = prove(&mut c, ask(end.length - 1, size, false)).await.unwrap();
    assert!(nothing.is_none());
    assert_eq!(part.receipt(&first.checkpoint).unwrap().covers(), end);
    for (at, bytes) in &frames {
        let (part, frame) = prove(&mut c, ask(at + 7, size, true)).await.unwrap();
        part.receipt(&first.checkpoint).unwrap();
        assert_eq!(part.frame_at(at + 7).unwrap().0, *at);
        assert_eq!(frame.as_ref(), Some(bytes));
    }

    // Asked twice, one signature; asked for more, one more.
    assert_eq!(extend(&mut c, 0, size).await.checkpoint, first.checkpoint);
    drop(c);
    running.stop().await;
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    copy_in(&e, &mut c, &agent, 2, 5).await;
    let second = extend(&mut c, size, size + 6).await;
    second.follows(first.checkpoint.head()).unwrap();
    let other = Checkpoint { root: hoidla_format::Hash32([1; 32]), ..first.checkpoint.head().clone() };
    assert!(second.follows(&other).is_err());
    check(&e, &mut c, &second).await;
    drop(c);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_gets_no_more_than_is_theirs() {
    let e = Embassy::new(512 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let (stream, _, end) = copy_in(&e, &mut c, &agent, 1, 1).await;
    let size = extend(&mut c, 0, 2).await.checkpoint.head().size;
    let ask = |dataset: &str, offset, size| Prove { dataset: name(dataset), stream, offset, size, frame: true };
    assert_eq!(code(prove(&mut c, ask("land", end.length, size)).await.unwrap_err()), Code::Unknown, "past the end");
    assert_eq!(code(prove(&mut c, ask("land", 0, 0)).await.unwrap_err()), Code::Unknown, "not in a tree so small");
    assert!(matches!(prove(&mut c, ask("land", 0, 1 << 40)).await, Err(DoorError::Refused(_))), "in a tree larger than the log");
    assert_eq!(code(prove(&mut c, ask("people", 0, size)).await.unwrap_err()), Code::NotAllowed, "another dataset");
    assert_eq!(code(c.ask(&Request::Extend { old: 1 << 40, least: 0 }).await.unwrap_err()), Code::Behind);

    let other = e.home.good_agent("people");
    let mut o = running.enter(&other.door).await.unwrap();
    assert_eq!(code(prove(&mut o, ask("people", 0, size)).await.unwrap_err()), Code::Unknown, "another's stream under one's own name");
    let (_, custodian) = e.home.custodian("alpha");
    let mut a = running.enter(&custodian).await.unwrap();
    extend(&mut a, 1, 2).await;
    assert_eq!(code(prove(&mut a, ask("land", 0, size)).await.unwrap_err()), Code::NotAllowed);
    drop((c, o, a));
    running.stop().await;
}
