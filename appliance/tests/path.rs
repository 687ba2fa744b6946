//! The sealed path through the door: copy in, a ceremony, read back, sealed again.

mod common;

use std::time::Duration;

use common::*;
use hoidla_crypto::{
    Secret,
    datakey::{self, Binding},
    keys::ReaderKeys,
    sealing::{Provider, Sealer},
};
use hoidla_format::{ByteRange, Hash32, frame};
use hoidla_protocol::{Code, Read, Request, Response};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_in_opened_by_a_quorum_read_and_sealed_again() {
    let e = Embassy::new(512 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    assert!(c.session.welcome().development);
    let mut w = Writing::new(1);
    let opened = open_stream(&mut c, &agent.dataset, &w, w.chain).await.unwrap();
    assert_eq!((opened.epoch, opened.acknowledged.length), (0, 0));
    let plaintext: Vec<u8> = (0..700_000u32).map(|i| (i * 7) as u8).collect();
    let mut all = Vec::new();
    for step in 0..4 {
        let at = w.chain.length;
        let bytes = match step {
            0 => agent.header(&mut w, &e.vaults[0]),
            3 => agent.root(&mut w),
            _ => agent.message(&mut w, &plaintext),
        };
        let kept = append(&mut c, &opened, 1, at, &bytes).await.unwrap();
        assert_eq!(kept, w.chain.length);
        all.extend(bytes);
    }

    // Sealed: a reader whom no grant names doesn't even enter.
    let reader = ReaderKeys::from_seed(&Secret::random());
    let door = hoidla_door::Identity::own(&name("restorer"), door_key(&reader.signing)).unwrap();
    assert!(running.enter(&door).await.is_err());

    // The ceremony: one approval is not enough, the second opens.
    let note = grant(&e, &reader, 10, &["land"]);
    let hash = hoidla_crypto::sign::read_unverified::<hoidla_format::statements::Grant>(note.as_bytes()).unwrap().hash;
    let (_, alpha) = e.home.custodian("alpha");
    let (_, bravo) = e.home.custodian("bravo");
    let mut a = running.enter(&alpha).await.unwrap();
    let mut b = running.enter(&bravo).await.unwrap();
    let (challenge, envelopes) = propose(&mut a, &note).await.unwrap();
    let first = approval(&e, "alpha", &note, &challenge, &envelopes, |s| s);
    let Response::Progress(p) = a.ask(&Request::Approve(first.clone().into())).await.unwrap() else { panic!("no progress") };
    assert_eq!((p.opened, p.vaults[0].have, p.vaults[0].need), (false, 1, 2));
    assert_eq!(code(a.ask(&Request::Approve(first.clone().into())).await.unwrap_err()), Code::Approval, "one approval counts once");
    assert_eq!(code(b.ask(&Request::Approve(first.into())).await.unwrap_err()), Code::Approval, "another's approval");
    let mut r = running.enter(&door).await.expect("its grant is held now");
    assert_eq!(code(r.ask(&Request::Keys { grant: hash }).await.unwrap_err()), Code::Sealed);
    let (challenge_again, envelopes) = propose(&mut b, &note).await.unwrap();
    assert_eq!(challenge_again, challenge);
    let spoiled = approval(&e, "bravo", &note, &challenge, &envelopes, |mut s| {
        *s.last_mut().unwrap() ^= 1;
        s
    });
    let refused = b.ask(&Request::Approve(spoiled.into())).await.unwrap_err();
    assert!(refused.to_string().contains("bravo"), "a bad share names its custodian: {refused}");
    let second = approval(&e, "bravo", &note, &challenge, &envelopes, |s| s);
    let Response::Progress(p) = b.ask(&Request::Approve(second.into())).await.unwrap() else { panic!("no progress") };
    assert!(p.opened);

    // The approval closed the epoch: the agent begins the next.
    let frame = agent.message(&mut w, b"too late");
    let refused = append(&mut c, &opened, 1, w.chain.length - frame.len() as u64, &frame).await.unwrap_err();
    assert_eq!(refused.code, Code::EpochClosed);

    // The reader fetches keys and bytes, and opens them.
    let mut keys = Vec::new();
    r.ask_parts(&Request::Keys { grant: hash }, |part| {
        if let Response::Key(k) = part {
            keys.push(k);
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(keys.len(), 1);
    let read = Read { grant: hash, dataset: name("land"), stream: w.stream, range: ByteRange::new(0, 1 << 40).unwrap() };
    let mut back = Vec::new();
    r.ask_parts(&Request::Read(read.clone()), |part| {
        if let Response::Data { offset, bytes } = part {
            assert_eq!(offset, back.len() as u64);
            back.extend(bytes);
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(back, all);
    let binding = Binding { site: e.home.site_name.clone(), dataset: name("land"), stream: w.stream, epoch: 1, vault_epoch: 1 };
    let key = datakey::unwrap_as_reader(&reader.hpke, &binding, &hash, &keys[0].sealed).unwrap();
    let (_, _, rest) = frame::split(&back).unwrap();
    let at = (back.len() - rest.len()) as u64;
    let (_, body, _) = frame::split(rest).unwrap();
    let mut out = Vec::new();
    Sealer::new(&key, Provider::AwsLc).open(&frame::message_aad(&name("land"), w.stream, 1, at), body, &mut out).unwrap();
    assert_eq!(out, plaintext);

    // Not the other dataset, not under another grant.
    let other = Read { dataset: name("people"), ..read.clone() };
    assert!(r.ask(&Request::Read(other)).await.is_err());
    assert_eq!(code(r.ask(&Request::List { dataset: name("people") }).await.unwrap_err()), Code::Sealed);
    let none = Read { grant: Hash32([7; 32]), ..read.clone() };
    assert_eq!(code(r.ask(&Request::Read(none)).await.unwrap_err()), Code::Sealed);

    // It ends by itself.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(code(r.ask(&Request::Read(read)).await.unwrap_err()), Code::Sealed);
    assert!(running.enter(&door).await.is_err(), "its grant has ended");
    drop((a, b, c, r));
    running.stop().await;
}
