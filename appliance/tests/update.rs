//! Newer papers through the door: taken from whoever carries them, by the authority's word alone.

mod common;

use std::{path::Path, sync::Weak, time::Duration};

use common::*;
use hoidla_crypto::{Secret, keys::ReaderKeys};
use hoidla_door::{DoorError, Identity};
use hoidla_format::{
    Bytes,
    statements::{Dataset, Release, Site},
};
use hoidla_protocol::{Code, Request, Response};
use hoidla_tpm::{Counter, Tpm};
use hoidla_verify::{Terms, release};
use hoidlad::{
    daemon::{self, Settings},
    helper::Helpers,
    update::Next,
};

/// A daemon whose end is told.
struct Serving {
    target: hoidla_door::Target,
    /// Its own: a second one would sweep away what it has loaded.
    tpm: Weak<Tpm>,
    end: tokio::task::JoinHandle<Next>,
}

impl Serving {
    async fn new(e: &Embassy) -> Self {
        let running = daemon::start(&e.state(), Settings::default(), Helpers::of(Path::new(PROGRAM))).await.unwrap();
        let target = e.target(&running.address.to_string());
        Self { target, tpm: running.daemon.tpm.clone(), end: tokio::spawn(async { running.serve().await.unwrap() }) }
    }

    /// How it ended, once nobody speaks to the TPM for it any more.
    async fn ended(self) -> Next {
        let next = self.end.await.unwrap();
        while self.tpm.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        next
    }

    fn releases(&self) -> u64 {
        counter(&self.tpm)
    }

    async fn update(&self, by: &Identity, notes: &[String]) -> Result<(u32, bool), DoorError> {
        let mut c = hoidla_door::connect(&self.target, by).await?;
        match c.ask(&Request::Update(notes.iter().map(|n| n.clone().into_bytes()).collect())).await? {
            Response::Updated { serial, in_force } => Ok((serial, in_force)),
            other => panic!("{other:?}"),
        }
    }

    async fn no(&self, by: &Identity, notes: &[String]) -> String {
        match self.update(by, notes).await {
            Err(DoorError::Refused(no)) if no.code == Code::NotAllowed => no.sentence,
            other => panic!("{other:?}"),
        }
    }
}

fn counter(tpm: &Weak<Tpm>) -> u64 {
    tpm.upgrade().unwrap().counter(Counter::Release).unwrap()
}

fn newer(e: &Embassy, serial: u32) -> Site {
    let mut site = e.home.site.clone();
    site.serial = serial;
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_more_an_agent_less_and_days_added_without_anybody_at_the_rack() {
    let e = Embassy::new(128 << 20);
    let first = Serving::new(&e).await;
    let agent = e.home.good_agent("land");
    let mut site = newer(&e, 6);
    site.datasets.push(Dataset { name: name("courts"), ..site.datasets[0].clone() });
    site.datasets[1].retention_days = 40;
    site.revoked_agents.push(name("people-agent"));
    assert_eq!(first.update(&agent.door, &[e.home.sign(&e.home.site)]).await.unwrap(), (5, true), "what it has");
    assert_eq!(first.update(&agent.door, &[e.home.sign(&site)]).await.unwrap(), (6, true));
    assert_eq!(first.ended().await, Next::Again, "it begins anew by itself");

    let again = Serving::new(&e).await;
    let enter = async |who: &Identity| hoidla_door::connect(&again.target, who).await;
    enter(&e.home.good_agent("courts").door).await.unwrap();
    assert!(enter(&e.home.good_agent("people").door).await.is_err(), "revoked");
    let c = enter(&agent.door).await.unwrap();
    assert_eq!(c.session.welcome().site_serial, 6);
    drop(c);
    let old = again.no(&agent.door, &[e.home.sign(&e.home.site)]).await;
    assert!(old.contains("serial 5") && old.contains("serial 6"), "{old}");
    // A custodian may carry too, and the same again changes nothing.
    assert_eq!(again.update(&e.home.custodian("alpha").1, &[e.home.sign(&site)]).await.unwrap(), (6, true));
    again.end.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_newer_longer_and_the_authority_s_is_refused() {
    let e = Embassy::new(128 << 20);
    let serving = Serving::new(&e).await;
    let agent = e.home.good_agent("land").door;
    let refused = async |change: &dyn Fn(&mut Site)| {
        let mut site = newer(&e, 6);
        change(&mut site);
        serving.no(&agent, &[e.home.sign(&site)]).await
    };
    assert!(refused(&|s| s.datasets[0].retention_days = 29).await.contains("retention only grows"));
    assert!(refused(&|s| _ = s.datasets.pop()).await.contains("people"));
    assert!(refused(&|s| s.serial = 4).await.contains("bring the newest one"));
    assert!(refused(&|s| s.title_of_the_same_serial()).await.contains("two different site files"));
    assert!(refused(&|s| s.release_key = Bytes(Home::new("testland").release_key.public().to_sec1())).await.contains("release key"));
    assert!(refused(&|s| s.door_root = Bytes(Home::new("testland").root)).await.contains("door root"));
    assert!(refused(&|s| s.appliances.clear()).await.contains("does not name the appliance"));
    assert!(refused(&|s| s.rosters[0].hash.0[0] ^= 1).await.contains("roster"));
    assert!(!refused(&|s| s.development = false).await.is_empty());
    let other = Home::new("testland");
    assert!(!serving.no(&agent, &[other.sign(&newer(&e, 6))]).await.is_empty(), "another authority's signature");
    let note = e.home.sign(&newer(&e, 6));
    assert!(!serving.no(&agent, &[note.replace("serial = 6", "serial = 7")]).await.is_empty(), "changed after it was signed");
    assert_eq!(serving.update(&agent, &[]).await.unwrap(), (5, true), "nothing at all changes nothing");
    let kept = hoidlad::papers::Papers::kept(&e.state().papers(), &e.home.verifying(), &e.identity).unwrap();
    assert_eq!(kept.site.statement.serial, 5);
    assert!(!serving.end.is_finished());
    serving.end.abort();
}

trait SameSerial {
    fn title_of_the_same_serial(&mut self);
}

impl SameSerial for Site {
    fn title_of_the_same_serial(&mut self) {
        self.serial = 5;
        self.datasets[0].title = "Another land".into();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_under_way_is_not_cut_short() {
    let e = Embassy::new(128 << 20);
    let serving = Serving::new(&e).await;
    let reader = ReaderKeys::from_seed(&Secret::random());
    let mut custodian = hoidla_door::connect(&serving.target, &e.home.custodian("alpha").1).await.unwrap();
    let note = grant(&e, &reader, 60, &["land"]);
    let (challenge, envelopes) = propose(&mut custodian, &note).await.unwrap();
    let mut second = hoidla_door::connect(&serving.target, &e.home.custodian("bravo").1).await.unwrap();
    let yes = approval(&e, "bravo", &note, &challenge, &envelopes, |s| s);
    second.ask(&Request::Approve(yes.into())).await.unwrap();
    let agent = e.home.good_agent("land").door;
    assert_eq!(serving.update(&agent, &[e.home.sign(&newer(&e, 6))]).await.unwrap(), (6, false));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!serving.end.is_finished());
    custodian.ask(&Request::Seal { grant: None }).await.unwrap();
    assert_eq!(serving.ended().await, Next::Again);
}

/// A release of this epoch for an image whose register 11 is the one that runs, or another.
fn release_of(e: &Embassy, epoch: u64, runs: bool) -> Release {
    let mut pcrs = Tpm::open(e.tpm.tcti()).unwrap().pcr_read(&[4, 11, 12, 13]).unwrap();
    pcrs[1].value.0[0] ^= u8::from(!runs);
    let (site, vaults) = (e.home.site_name.clone(), DATASETS.map(|d| (name(d), 1)).to_vec());
    let terms = Terms { site, name: name(&format!("drill-{epoch}")), development: true, epoch, pcrs, vaults };
    release::approve(&e.home.release_key, terms).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_goes_on_until_the_image_of_a_newer_release_has_come_up() {
    let e = Embassy::new(128 << 20);
    // Made before anybody speaks to the TPM: what they ask of it would sweep away what is loaded.
    let begins = e.identity.release_counter;
    let [other, newest] = [(begins + 1, false), (begins + 2, true)].map(|(epoch, here)| e.home.sign(&release_of(&e, epoch, here)));
    let first = Serving::new(&e).await;
    let agent = e.home.good_agent("land").door;
    assert_eq!(first.releases(), begins);

    // A release for an image that doesn't run yet: what runs is served under its own.
    first.update(&agent, &[other]).await.unwrap();
    assert_eq!(first.ended().await, Next::Again);
    let second = Serving::new(&e).await;
    let c = hoidla_door::connect(&second.target, &agent).await.unwrap();
    assert_eq!(c.session.welcome().release.as_str(), "drill-1");
    drop(c);
    assert_eq!(second.releases(), begins, "nothing is retired: what runs is what an update falls back to");

    // The same image under a newer release: once its door is open, all before are over.
    second.update(&agent, &[newest]).await.unwrap();
    assert_eq!(second.ended().await, Next::Again);
    let running = daemon::start(&e.state(), Settings::default(), Helpers::of(Path::new(PROGRAM))).await.unwrap();
    assert_eq!(running.daemon.papers.release.statement.epoch, begins + 2);
    assert_eq!(counter(&running.daemon.tpm), begins, "the door is open, and the machine may still go back");
    let (appliance, end) = (running.daemon.clone(), tokio::spawn(running.serve()));
    appliance.ask_to_stop();
    end.await.unwrap().unwrap();
    let tpm = Tpm::open(e.tpm.tcti()).unwrap();
    assert_eq!(tpm.counter(Counter::Release).unwrap(), begins + 2, "and nobody else speaks to it now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_release_for_what_runs_no_door_is_opened() {
    let e = Embassy::new(128 << 20);
    let tpm = Tpm::open(e.tpm.tcti()).unwrap();
    tpm.pcr_extend(11, &hoidla_format::Hash32([7; 32])).unwrap();
    let stands = || ([0, 1].map(|n| std::fs::read(e.disk(n)).unwrap()), tpm.counter(Counter::Intent).unwrap());
    let before = stands();
    let started = daemon::start(&e.state(), Settings::default(), Helpers::of(Path::new(PROGRAM))).await;
    let why = started.err().expect("another image").to_string();
    assert!(why.contains("approves what runs here"), "{why}");
    // What was never approved didn't open the store either: the former goes on with what it left.
    assert!(stands() == before, "disks or counter were changed by a program that no release approves");
}
