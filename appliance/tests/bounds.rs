//! What one agent may take of the appliance, and what sealing stops.

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use common::*;
use hoidla_crypto::{Secret, keys::ReaderKeys};
use hoidla_format::{StreamId, frame::Chain, statements::Grant};
use hoidla_protocol::{Code, Open, Request, Response};
use hoidlad::{
    daemon::{self, Settings},
    helper::Helpers,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_streams_leave_nothing_behind() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let mut w = Writing::new(1);
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let header = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &header).await.unwrap();
    for n in 2..40 {
        let unknown = Open { dataset: agent.dataset.clone(), stream: StreamId([n; 16]), generation: 1, last: w.chain };
        assert_eq!(code(c.ask(&Request::Open(unknown)).await.unwrap_err()), Code::Behind);
        let far = Open { dataset: agent.dataset.clone(), stream: StreamId([n; 16]), generation: 1000, last: Chain::EMPTY };
        let refused = c.ask(&Request::Open(far)).await.unwrap_err();
        assert!(refused.to_string().contains("newest generation of land here is 1"), "{refused}");
        assert_eq!(code(refused), Code::NotAllowed);
    }
    for _ in 0..40 {
        open_stream(&mut c, &agent.dataset, &w, w.chain).await.expect("the stream that is there may be opened again and again");
    }
    assert_eq!(running.daemon.writers.count(), 1);
    drop(c);
    for _ in 0..100 {
        if running.daemon.writers.count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(running.daemon.writers.count(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_stops_an_opening_and_spares_its_successor() {
    let e = Embassy::new(64 << 20);
    // Checks are answered; an opening (the question's ninth byte is a 2) takes for ever.
    let (script, question, opening) = (e.folder.path().join("slow"), e.folder.path().join("question"), e.folder.path().join("opening"));
    let text = format!(
        "#!/bin/sh\ncat > {q}\nif [ $(od -An -tu1 -j{at} -N1 {q}) = 2 ]; then touch {o}; exec sleep 600; fi\nexec {PROGRAM} \"$@\" < {q}\n",
        q = question.display(),
        at = hoidla_format::Header::LEN,
        o = opening.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let running = daemon::start(&e.state(), Settings::default(), Helpers::of(&script)).await.unwrap();
    let (daemon, target) = (running.daemon.clone(), e.target(&running.address.to_string()));
    let served = tokio::spawn(running.serve());

    let reader = ReaderKeys::from_seed(&Secret::random());
    let note = grant(&e, &reader, 60, &["land"]);
    let hash = hoidla_crypto::sign::read_unverified::<Grant>(note.as_bytes()).unwrap().hash;
    let mut a = hoidla_door::connect(&target, &e.home.custodian("alpha").1).await.unwrap();
    let mut b = hoidla_door::connect(&target, &e.home.custodian("bravo").1).await.unwrap();
    let (challenge, envelopes) = propose(&mut a, &note).await.unwrap();
    let first = approval(&e, "alpha", &note, &challenge, &envelopes, |s| s);
    assert!(matches!(a.ask(&Request::Approve(first.into())).await.unwrap(), Response::Progress(_)));
    let (_, envelopes) = propose(&mut b, &note).await.unwrap();
    let second = approval(&e, "bravo", &note, &challenge, &envelopes, |s| s);
    let approving = tokio::spawn(async move { b.ask(&Request::Approve(second.into())).await });
    for _ in 0..200 {
        if opening.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(opening.exists(), "the opening runs");

    assert!(matches!(a.ask(&Request::Seal { grant: Some(hash) }).await.unwrap(), Response::Sealed { count: 1 }));
    let (successor, _) = propose(&mut a, &note).await.unwrap();
    assert_ne!(successor, challenge);
    let answer = tokio::time::timeout(Duration::from_secs(5), approving).await.expect("the opening was stopped").unwrap();
    assert!(answer.unwrap_err().to_string().contains("sealed"), "its custodian is told why");
    assert_eq!(propose(&mut a, &note).await.unwrap().0, successor, "the ceremony proposed since goes on");
    assert_eq!(daemon.health().await.openings, 0);
    daemon.ask_to_stop();
    drop((a, daemon));
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_could_not_open_is_refused_before_its_quorum_is_asked() {
    let e = Embassy::new(64 << 20);
    let running = e.start().await;
    let mut alpha = running.enter(&e.home.custodian("alpha").1).await.unwrap();
    let reader = ReaderKeys::from_seed(&Secret::random());
    propose(&mut alpha, &grant(&e, &reader, 60, &["land"])).await.expect("its half is there");
    fs::remove_file(e.state().tpm().join("half-land-1.bin")).unwrap();
    let refused = propose(&mut alpha, &grant(&e, &reader, 60, &["people", "land"])).await.unwrap_err();
    assert!(refused.to_string().contains("no half of land, vault epoch 1"), "{refused}");
    assert_eq!(code(refused), Code::Grant);
    propose(&mut alpha, &grant(&e, &reader, 60, &["people"])).await.expect("the other vault's is there");
    running.stop().await;
}
