//! Each way to make an appliance forget too early, and the one way to move its time forward.

mod common;

use std::{fs, process::Command, time::Duration};

use common::*;
use hoidla_crypto::{Secret, keys::AuthorityKeys};
use hoidla_format::{
    Hash32, Moment,
    disk::{
        BLOCK,
        catalogue::{Item, Piece},
        superblock::Superblock,
    },
    frame::Chain,
    statement,
    statements::Skip,
};
use hoidla_protocol::{Code, Open, Request, Response};
use hoidla_tpm::{Counter, Tpm};
use hoidlad::{
    daemon::{Panel, Settings},
    enrol::{Enrol, enrol},
    papers::Papers,
    time::skips::Skips,
};

const DAY: u64 = 86_400;

/// Looks at the clocks often, so that a test needn't wait.
fn hasty() -> Settings {
    Settings { tick: Duration::from_millis(40), ..Settings::default() }
}

/// A word about time for this appliance, issued so many days from now.
fn word(e: &Embassy, serial: u32, (from, to): (u64, u64), days: u64) -> Skip {
    let (site, appliance) = (e.home.site_name.clone(), e.identity.name.clone());
    let identity = statement::hash(&statement::write(&e.identity));
    Skip { site, appliance, identity, serial, from, to, reason: "moved to another hall".into(), issued: Moment::now().plus(days * DAY) }
}

fn take(e: &Embassy, note: &str) -> Result<Skip, String> {
    let (state, key) = (e.state(), e.home.verifying());
    let papers = Papers::kept(&state.papers(), &key, &e.identity).unwrap();
    let mut skips = Skips::kept(&state, &key, &papers).unwrap();
    skips.take(note.as_bytes(), &state, &key, &papers).map_err(|e| format!("{e:#}"))
}

async fn open(
    c: &mut hoidla_door::Connection,
    stream: &Writing,
    generation: u32,
) -> Result<hoidla_protocol::Opened, hoidla_door::DoorError> {
    let ask = Open { dataset: name("land"), stream: stream.stream, generation, last: Chain::EMPTY };
    match c.ask(&Request::Open(ask)).await? {
        Response::Opened(opened) => {
            c.session.opened(stream.stream, &Chain::EMPTY, &opened)?;
            Ok(opened)
        }
        other => panic!("not an answer to open: {other:?}"),
    }
}

/// Copies in generations 1 and 2 of the land register.
async fn two_generations(e: &Embassy, running: &Running) -> Vec<Vec<u8>> {
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let mut kept = Vec::new();
    for generation in [1, 2] {
        let mut w = Writing::new(generation as u8);
        let opened = open(&mut c, &w, generation).await.unwrap();
        let header = agent.header(&mut w, &e.vaults[0]);
        assert_eq!(append(&mut c, &opened, 1, 0, &header).await.unwrap(), header.len() as u64);
        kept.push(header);
    }
    kept
}

/// Changes a bit of these bytes on one disk.
fn rot(e: &Embassy, disk: usize, bytes: &[u8]) {
    let mut all = fs::read(e.disk(disk)).unwrap();
    let end = &bytes[bytes.len() - 64..];
    let at = all.windows(64).position(|w| w == end).expect("it is on the disk");
    all[at + 40] ^= 1;
    fs::write(e.disk(disk), all).unwrap();
}

/// The numbers of the generations that are there.
async fn generations(running: &Running) -> Vec<u32> {
    running.daemon.store.tenures().await.unwrap().iter().map(|t| t.generation.number).collect()
}

fn panel(e: &Embassy) -> Option<Panel> {
    serde_json::from_slice(&fs::read(e.state().health()).ok()?).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_ends_by_the_authority_s_word_and_not_before() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    two_generations(&e, &running).await;
    let words = "generation 1 of land may go after 31 more days of running";
    until("the panel says when", async || panel(&e).is_some_and(|p| p.ages.generations.iter().any(|l| l == words))).await;

    let off = running.daemon.store.powered().await.unwrap() + 1;
    let (thirty, more) = (off + 30 * DAY, off + 32 * DAY);
    take(&e, &e.home.sign(&word(&e, 1, (off, thirty), 40))).unwrap();
    until("time goes on", async || running.daemon.store.powered().await.unwrap() >= thirty).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(generations(&running).await, [1, 2], "30 days and not the hour");

    take(&e, &e.home.sign(&word(&e, 2, (thirty, more), 43))).unwrap();
    until("generation 1 ends", async || generations(&running).await == [2]).await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    assert_eq!(code(open(&mut c, &Writing::new(1), 1).await.unwrap_err()), Code::Expired);
    assert_eq!(code(open(&mut c, &Writing::new(9), 1).await.unwrap_err()), Code::Expired, "nor another stream of it");
    until("the panel counts it", async || panel(&e).is_some_and(|p| p.ages.ended == 1)).await;
    drop(c);
    running.stop().await;

    // It is durable, and the newest stays however much time goes on.
    take(&e, &e.home.sign(&word(&e, 3, (more, 900 * DAY), 1000))).unwrap();
    let running = e.start_with(hasty()).await;
    until("time goes on", async || running.daemon.store.powered().await.unwrap() >= 900 * DAY).await;
    assert_eq!(generations(&running).await, [2]);
    running.stop().await;
}

#[test]
fn a_word_that_is_not_right_is_refused() {
    let e = Embassy::new(64 << 20);
    let good = word(&e, 1, (0, 10 * DAY), 20);
    let refused = |skip: &Skip| take(&e, &e.home.sign(skip)).expect_err("it is refused");
    let forged = AuthorityKeys::from_seed(&Secret::random()).statements.sign_statement("authority", &good);
    take(&e, &forged).expect_err("forged");
    let signed = e.home.sign(&good);
    take(&e, &signed.replace("to = 864000", "to = 964000")).expect_err("changed");
    take(&e, &signed[..signed.len() / 2]).expect_err("cut");
    assert!(refused(&Skip { appliance: name("rack-2"), ..good.clone() }).contains("rack-2"));
    assert!(refused(&Skip { site: name("elsewhere"), ..good.clone() }).contains("elsewhere"));
    assert!(refused(&Skip { identity: Hash32([1; 32]), ..good.clone() }).contains("as it was enrolled before"));
    assert!(refused(&Skip { to: 25 * DAY, ..good.clone() }).contains("only"), "more than really passed");
    assert!(refused(&Skip { issued: Moment::from_seconds(0), ..good.clone() }).contains("only 0 s"));
    assert!(refused(&Skip { to: 0, ..good.clone() }).contains("nothing"));
    assert!(refused(&Skip { serial: 0, ..good.clone() }).contains("serial"));
    assert!(refused(&Skip { reason: " ".into(), ..good.clone() }).contains("reason"));
    take(&e, &signed).unwrap();
    assert!(take(&e, &signed).unwrap_err().contains("serial 1"), "brought again");
    assert!(refused(&word(&e, 1, (10 * DAY, 12 * DAY), 30)).contains("serial 1"), "an older serial");
    assert!(refused(&word(&e, 2, (5 * DAY, 12 * DAY), 40)).contains("already"), "over time that was skipped");
    assert!(refused(&word(&e, 2, (10 * DAY, 15 * DAY), 22)).contains("only"), "the last word's date counts too");
    take(&e, &e.home.sign(&word(&e, 2, (10 * DAY, 11 * DAY), 22))).unwrap();

    // A genuine word from before this enrolment, or longer than time passed, counts nothing though it lies there.
    let papers = Papers::kept(&e.state().papers(), &e.home.verifying(), &e.identity).unwrap();
    let skipped = || Skips::kept(&e.state(), &e.home.verifying(), &papers).unwrap().skipped(100 * DAY);
    assert_eq!(skipped(), 11 * DAY);
    let before = Skip { issued: Moment::from_seconds(0), ..word(&e, 3, (11 * DAY, 12 * DAY), 0) };
    let fitting = word(&e, 3, (11 * DAY, 12 * DAY), 25);
    let former = Skip { identity: Hash32([1; 32]), ..fitting.clone() };
    let silent = Skip { reason: String::new(), ..fitting };
    for planted in [before, word(&e, 3, (11 * DAY, 14 * DAY), 23), former, silent] {
        fs::write(e.state().skips().join("skip-3.txt"), e.home.sign(&planted)).unwrap();
        assert_eq!(skipped(), 11 * DAY, "{planted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_raised_a_clock_set_forward_and_planted_words_end_nothing() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    two_generations(&e, &running).await;
    running.stop().await;
    // What somebody on the TPM's bus, or its owner, can do.
    let tpm = Tpm::open(e.tpm.tcti()).unwrap();
    for _ in 0..48 {
        tpm.increment(Counter::Hours).unwrap();
    }
    let ten_years = (10 * 365 * DAY * 1000).to_string();
    let set = Command::new("tpm2_setclock").args(["-T", e.tpm.tcti().as_str(), &ten_years]).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert!(tpm.read_clock().unwrap().since_reset_ms < 600_000, "the time since reset is not the clock");
    // What somebody with the machine's own disk can do: an unsigned word, and one for another machine.
    fs::create_dir_all(e.state().skips()).unwrap();
    let (mut other, forger) = (word(&e, 1, (0, 900 * DAY), 999), AuthorityKeys::from_seed(&Secret::random()));
    fs::write(e.state().skips().join("skip-1.txt"), forger.statements.sign_statement("authority", &other)).unwrap();
    other.appliance = name("rack-2");
    fs::write(e.state().skips().join("skip-2.txt"), e.home.sign(&other)).unwrap();
    fs::write(e.state().skips().join("skip-3.txt"), e.home.sign(&word(&e, 3, (DAY, 900 * DAY), 999))).unwrap();

    let running = e.start_with(hasty()).await;
    until("the panel is written", async || panel(&e).is_some_and(|p| p.ages.generations.len() == 2)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(generations(&running).await, [1, 2]);
    assert!(panel(&e).unwrap().ages.counts < 3600, "the counter is two days ahead of the disks");
    assert!(running.daemon.store.powered().await.unwrap() < 3600, "and a signed word waits until its beginning is reached");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_s_clock_ends_nothing_and_keeps_nothing() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    let mut agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    for (generation, clock) in [(1, Moment::from_seconds(0)), (2, Moment::now().plus(80 * 365 * DAY)), (3, Moment::now())] {
        agent.clock = Some(clock);
        let mut w = Writing::new(generation as u8);
        let opened = open(&mut c, &w, generation).await.unwrap();
        let header = agent.header(&mut w, &e.vaults[0]);
        append(&mut c, &opened, 1, 0, &header).await.unwrap();
        let (at, root) = (w.chain.length, agent.root(&mut w));
        append(&mut c, &opened, 1, at, &root).await.unwrap();
    }
    drop(c);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(generations(&running).await, [1, 2, 3], "copied in by a clock of 1970");
    let tenures = running.daemon.store.tenures().await.unwrap();
    assert!(tenures.iter().all(|t| t.last < 3600), "{tenures:?}");
    let off = running.daemon.store.powered().await.unwrap() + 1;
    take(&e, &e.home.sign(&word(&e, 1, (off, off + 32 * DAY), 40))).unwrap();
    until("both end, that of the next century too", async || generations(&running).await == [3]).await;
    running.stop().await;
}

/// The machine's date is set by anybody at its console: neither what counts time nor the store asks for it.
#[test]
fn nothing_that_counts_time_asks_for_the_date() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for folder in ["src/time", "../crates/store/src", "../crates/uring/src"] {
        for file in fs::read_dir(root.join(folder)).unwrap().map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "rs"))
        {
            let text = fs::read_to_string(&file).unwrap();
            for date in ["SystemTime", "Moment::now", "CLOCK_REALTIME", "UNIX_EPOCH", "gettimeofday"] {
                assert!(!text.contains(date), "{} asks for the date: {date}", file.display());
            }
            read += 1;
        }
    }
    assert!(read > 40, "the sources were found: {read}");
}

/// Makes all generations as old as the store in every catalogue on a disk, sealed anew as its writer would.
fn age_in_the_catalogue(e: &Embassy, disk: usize) -> usize {
    let mut all = fs::read(e.disk(disk)).unwrap();
    let geometry = Superblock::from_block(all.first_chunk::<BLOCK>().unwrap()).unwrap().geometry;
    let mut aged = 0;
    for area in [0, 1] {
        let at = geometry.catalogue_at(area) as usize * BLOCK;
        let area = &mut all[at..geometry.catalogue_at(area + 1) as usize * BLOCK];
        let Ok(len) = Piece::peek(&area[..BLOCK]) else { continue };
        let (mut piece, _) = Piece::read(&area[..len]).unwrap();
        assert!(piece.last, "a small store has one piece");
        for item in &mut piece.items {
            if let Item::Generation(g) = item
                && g.last.is_some_and(|last| last > 0)
            {
                (g.last, aged) = (Some(0), aged + 1);
            }
        }
        let bytes = piece.to_bytes().0;
        area[..bytes.len()].copy_from_slice(&bytes);
    }
    fs::write(e.disk(disk), all).unwrap();
    aged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_that_was_written_anew_ages_nothing() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    // Not from the beginning: what is forged to lie before the word is what the word would age.
    take(&e, &e.home.sign(&word(&e, 1, (2, 40 * DAY), 50))).unwrap();
    until("time goes on", async || running.daemon.store.powered().await.unwrap() >= 40 * DAY).await;
    two_generations(&e, &running).await;
    running.stop().await;
    e.start().await.stop().await; // its catalogue stands for all that there is
    assert!(age_in_the_catalogue(&e, 0) > 0 && age_in_the_catalogue(&e, 1) > 0);

    let running = e.start_with(hasty()).await;
    let tenures = running.daemon.store.tenures().await.unwrap();
    assert!(tenures.iter().all(|t| t.last == 0), "the store believes it: {tenures:?}");
    until("it is noticed", async || panel(&e).is_some_and(|p| p.ages.odd.is_some_and(|o| o.contains("written at")))).await;
    assert_eq!(generations(&running).await, [1, 2]);
    running.stop().await;
}

#[test]
fn a_site_file_that_keeps_shorter_is_refused() {
    let mut e = Embassy::new(64 << 20);
    let bring = |e: &mut Embassy, days: u32| {
        e.home.site.serial += 1;
        e.home.site.datasets[0].retention_days = days;
        fs::write(e.papers().join("site.txt"), e.home.sign(&e.home.site)).unwrap();
        enrol(&e.state(), &Enrol { papers: vec![e.papers()], ..Enrol::default() }).map(drop).map_err(|e| format!("{e:#}"))
    };
    let why = bring(&mut e, 29).unwrap_err();
    assert!(why.contains("land for 29 days") && why.contains("promised 30"), "{why}");
    bring(&mut e, 60).unwrap();
    assert!(bring(&mut e, 30).unwrap_err().contains("promised 60"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_repairs_what_it_can_and_says_the_rest_in_words() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    let kept = two_generations(&e, &running).await;
    running.stop().await;
    rot(&e, 0, &kept[0]);
    let running = e.start_with(hasty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.daemon.health().await.damaged, 0, "it was written today: not checked yet");
    take(&e, &e.home.sign(&word(&e, 1, (0, 8 * DAY), 10))).unwrap();
    until("it is repaired", async || panel(&e).is_some_and(|p| p.wholeness.repaired == 1)).await;
    let whole = "every byte was seen whole within the last 1 days; repaired: 1; damaged: 0";
    until("and seen whole", async || panel(&e).is_some_and(|p| p.wholeness.words(p.ages.powered) == whole)).await;
    running.stop().await;
    [0, 1].into_iter().for_each(|disk| rot(&e, disk, &kept[1]));
    take(&e, &e.home.sign(&word(&e, 2, (8 * DAY, 16 * DAY), 20))).unwrap();
    let running = e.start_with(hasty()).await;
    until("it is said", async || panel(&e).is_some_and(|p| p.damaged == 1)).await;
    let said = panel(&e).unwrap().wholeness;
    assert!(said.damage[0].starts_with("land, generation 2: segment "), "{said:?}");
    assert!(said.words(16 * DAY).starts_with("every byte but the damaged ones was seen whole within the last 1 days"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formatting_again_draws_a_new_name_and_nothing_old_comes_back() {
    let e = Embassy::new(64 << 20);
    let running = e.start_with(hasty()).await;
    two_generations(&e, &running).await;
    running.stop().await;
    let before = fs::read(e.state().store()).unwrap();
    enrol(&e.state(), &Enrol { papers: vec![e.papers()], disk_size: None, format: true }).unwrap();
    assert_ne!(fs::read(e.state().store()).unwrap(), before);
    // The former segments are still on the disks; now the catalogues are lost.
    for disk in [0, 1] {
        let mut all = fs::read(e.disk(disk)).unwrap();
        let geometry = Superblock::from_block(all.first_chunk::<BLOCK>().unwrap()).unwrap().geometry;
        let areas = geometry.catalogue_at(0) as usize * BLOCK..geometry.catalogue_at(2) as usize * BLOCK;
        all[areas].fill(0xbd);
        fs::write(e.disk(disk), all).unwrap();
    }
    let running = e.start_with(hasty()).await;
    assert_eq!(generations(&running).await, [0; 0]);
    running.stop().await;
    fs::write(e.state().store(), &before).unwrap();
    let old = hoidlad::daemon::start(&e.state(), hasty(), hoidlad::helper::Helpers::of(std::path::Path::new(PROGRAM))).await;
    assert!(old.is_err(), "the disks are another store's now");
}
