//! A store that only reads because somebody raised the log's counter goes on by the authority's word
//! for that very count, and by nothing else.
#![forbid(unsafe_code)]

mod common;

use std::fs;

use common::*;
use hoidla_crypto::{Secret, keys::AuthorityKeys};
use hoidla_format::{Hash32, Moment, statement, statements::CountWord};
use hoidla_log::{Checkpoint, Extension};
use hoidla_protocol::{Request, Response};
use hoidla_tpm::{Counter, Tpm};
use hoidlad::recount::recount;

/// Runs the appliance, copies a stream in, and takes the head of its log.
async fn a_day(e: &Embassy, agent: &Agent, stream: u8) -> Checkpoint {
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    three_leaves(e, &mut c, agent, stream).await;
    let size = running.daemon.store.log_head().await.unwrap().0;
    let Response::Extension(bytes) = c.ask(&Request::Extend { old: 0, least: size }).await.unwrap() else { panic!("no head") };
    drop(c);
    running.stop().await;
    Extension::parse(&bytes).unwrap().checkpoint.head().clone()
}

async fn only_reads(e: &Embassy, agent: &Agent) -> bool {
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    let refused = c.ask(&Request::Extend { old: 0, least: 0 }).await.is_err();
    drop(c);
    running.stop().await;
    refused
}

fn raise(e: &Embassy, steps: u32) -> u64 {
    let tpm = Tpm::open(e.tpm.tcti()).unwrap();
    (0..steps).for_each(|_| _ = tpm.increment(Counter::Intent).unwrap());
    tpm.counter(Counter::Intent).unwrap()
}

fn images(e: &Embassy) -> [Vec<u8>; 2] {
    [0, 1].map(|n| fs::read(e.disk(n)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_s_word_counts_for_one_count_of_one_tpm_over_the_newest_log_and_once() {
    let e = Embassy::new(64 << 20);
    let agent = e.home.good_agent("land");
    a_day(&e, &agent, 1).await;
    let before = images(&e);
    let head = a_day(&e, &agent, 2).await;
    let stands = raise(&e, 2);
    assert!(only_reads(&e, &agent).await);
    let good = CountWord {
        site: e.home.site_name.clone(),
        appliance: e.identity.name.clone(),
        identity: statement::hash(&statement::write(&e.identity)),
        stands,
        log_size: head.size,
        log_root: head.root,
        reason: "a tool on the TPM".into(),
        issued: Moment::now(),
    };
    let refused = async |note: String, why: &str| {
        let said = format!("{:#}", recount(&e.state(), note.as_bytes()).await.unwrap_err());
        assert!(said.contains(why), "{why}: {said}");
    };
    let forger = AuthorityKeys::from_seed(&Secret::random());
    refused(forger.statements.sign_statement("authority", &good), "the word about the counter").await;
    let signed = e.home.sign(&good);
    refused(signed.replace(&format!("stands = {stands}"), &format!("stands = {}", stands + 1)), "the word about the counter").await;
    refused(signed[..signed.len() / 2].to_owned(), "the word about the counter").await;
    let changed = |change: &dyn Fn(&mut CountWord)| {
        let mut word = good.clone();
        change(&mut word);
        e.home.sign(&word)
    };
    refused(changed(&|w| w.appliance = name("rack-2")), "rack-2").await;
    refused(changed(&|w| w.site = name("elsewhere")), "elsewhere").await;
    refused(changed(&|w| w.identity = Hash32([1; 32])), "another TPM").await;
    refused(changed(&|w| w.stands -= 1), "a word counts once").await;
    refused(changed(&|w| w.log_size += 1), "they were put back").await;
    refused(changed(&|w| w.log_root.0[0] ^= 1), "does not extend").await;
    assert!(only_reads(&e, &agent).await, "none of that made it go on");

    // Disks from before the newest head that home knows don't go on, with the very word that these do.
    let now = images(&e);
    before.iter().enumerate().for_each(|(n, image)| fs::write(e.disk(n), image).unwrap());
    refused(signed.clone(), "they were put back").await;
    now.iter().enumerate().for_each(|(n, image)| fs::write(e.disk(n), image).unwrap());

    assert_eq!(recount(&e.state(), signed.as_bytes()).await.unwrap(), good);
    assert!(!only_reads(&e, &agent).await);
    let later = a_day(&e, &agent, 3).await;
    assert!(later.size >= head.size + 3 && later.counter > stands, "{later:?}");
    refused(signed.clone(), "a word counts once").await;
    // Nor when the counter is raised again; and where nothing is wrong a word does nothing.
    let stands = Tpm::open(e.tpm.tcti()).unwrap().counter(Counter::Intent).unwrap();
    refused(changed(&|w| w.stands = stands), "nothing to go on from").await;
    raise(&e, 1);
    raise(&e, 1);
    refused(signed, "a word counts once").await;
    assert!(only_reads(&e, &agent).await);
}
