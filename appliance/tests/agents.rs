//! Five hundred agents at once, slow and stalled ones among them, within one pool of bytes.

mod common;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::*;
use hoidla_door::{Connection, DoorError};
use hoidla_format::frame::Chain;
use hoidla_protocol::AppendHead;
use hoidlad::{daemon::Settings, session::Patience};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

const AGENTS: usize = 500;
/// So many bad ones come first and take most of the pool; later every so many-eth is one, so that some are always there.
const FIRST_BAD: usize = 40;
const EVERY: usize = 46;

#[derive(PartialEq)]
enum Manner {
    Quick,
    /// Stops in the middle of a frame.
    Stalls,
    /// Sends a frame byte by byte.
    Trickles,
}

fn manner(n: usize) -> Manner {
    match n {
        n if n >= FIRST_BAD && !n.is_multiple_of(EVERY) => Manner::Quick,
        n if n.is_multiple_of(4) => Manner::Stalls,
        _ => Manner::Trickles,
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Comes again while the door is crowded or its memory is lent to others, as agents do.
async fn enter(site: &Site, agent: &Agent) -> Connection {
    let since = Instant::now();
    loop {
        let turn = site.arrivals.acquire().await.unwrap();
        let answer = hoidla_door::connect(&site.target, &agent.door).await;
        drop(turn);
        match answer {
            Ok(c) => return c,
            Err(DoorError::Refused(r)) => assert_eq!(r.code, hoidla_protocol::Code::Busy, "{r}"),
            Err(_) => {}
        }
        assert!(since.elapsed() < Duration::from_secs(120), "{} never got in", agent.name);
        sleep(Duration::from_millis(300)).await;
    }
}

struct Site {
    target: hoidla_door::Target,
    vault: hoidla_format::statements::Vault,
    /// How many knock at the same moment: the door shakes few hands of one address at once.
    arrivals: Semaphore,
    kept: AtomicU64,
    /// Of these, while a bad one held its window.
    kept_beside: AtomicU64,
    bad_now: AtomicU64,
    ended: AtomicU64,
}

/// Two records and it leaves; from the start again if it was cut off on a busy machine.
async fn quick(site: &Site, agent: &Agent, w: &mut Writing) {
    let mut c = enter(site, agent).await;
    let opened = open_stream(&mut c, &agent.dataset, w, Chain::EMPTY).await.unwrap();
    let header = agent.header(w, &site.vault);
    append(&mut c, &opened, 1, 0, &header).await.unwrap();
    let at = w.chain.length;
    let record = agent.message(w, &[7; 20_000]);
    assert_eq!(append(&mut c, &opened, 1, at, &record).await.unwrap(), w.chain.length);
    site.kept.fetch_add(1, Ordering::Relaxed);
    site.kept_beside.fetch_add(site.bad_now.load(Ordering::Relaxed).min(1), Ordering::Relaxed);
}

/// Announces a frame and doesn't send it, or a byte now and then, until it is cut off.
async fn bad(site: &Site, agent: &Agent, w: &mut Writing, trickles: bool) {
    let mut c = enter(site, agent).await;
    let opened = open_stream(&mut c, &agent.dataset, w, Chain::EMPTY).await.unwrap();
    let head = AppendHead { handle: opened.handle, epoch: 1, offset: 0 }.message(1 << 20);
    c.writer.append(&head, &[0; 64]).await.unwrap();
    c.writer.flush().await.unwrap();
    site.bad_now.fetch_add(1, Ordering::Relaxed);
    let since = Instant::now();
    loop {
        let heard = timeout(Duration::from_millis(200), c.reader.next()).await;
        let sent = !trickles || (c.writer.append(&[], &[0]).await.is_ok() && c.writer.flush().await.is_ok());
        if !sent || matches!(heard, Ok(Err(_))) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{} was never cut off", agent.name);
    }
    site.bad_now.fetch_sub(1, Ordering::Relaxed);
    site.ended.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_agents_share_one_pool() {
    let e = Embassy::new(256 << 20);
    let patience =
        Patience { handshake: Duration::from_secs(5), idle: Duration::from_secs(10), grace: Duration::from_secs(6), least_rate: 1 << 20 };
    let running = e.start_with(Settings { patience, ..Settings::default() }).await;
    let pool = running.daemon.windows_left();
    let site = Arc::new(Site {
        target: running.target.clone(),
        vault: e.vaults[0].clone(),
        arrivals: Semaphore::new(8),
        kept: AtomicU64::new(0),
        kept_beside: AtomicU64::new(0),
        bad_now: AtomicU64::new(0),
        ended: AtomicU64::new(0),
    });
    let agents: Vec<Agent> = (0..AGENTS).map(|n| e.home.agent("land", &format!("agent-{n}"), (-3600, 3600))).collect();
    let before = resident();
    let mut all = JoinSet::new();
    for (n, agent) in agents.into_iter().enumerate() {
        let site = site.clone();
        all.spawn(async move {
            let mut w = Writing::new(0);
            w.stream.0[..8].copy_from_slice(&(n as u64 + 1).to_le_bytes());
            match manner(n) {
                Manner::Quick => quick(&site, &agent, &mut w).await,
                bad_one => bad(&site, &agent, &mut w, bad_one == Manner::Trickles).await,
            }
        });
    }
    let (mut most, mut least_left) = (0, pool);
    while !all.is_empty() {
        _ = timeout(Duration::from_millis(50), all.join_next()).await.map(|done| done.map(Result::unwrap));
        most = most.max(resident().saturating_sub(before));
        least_left = least_left.min(running.daemon.windows_left());
    }
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed) as usize;
    let good = (0..AGENTS).filter(|&n| manner(n) == Manner::Quick).count();
    assert_eq!((count(&site.kept), count(&site.ended)), (good, AGENTS - good));
    assert!(count(&site.kept_beside) > 0, "others go on while the slow and the stalled are still there");
    assert!(least_left < pool / 2, "the crowd took {} of {pool} bytes", pool - least_left);
    // The store's buffers are all that appends are received into; connections and their keys are small.
    assert!(most < (128 << 20) + (AGENTS as u64) * (128 << 10), "{most} bytes were taken");
    let since = Instant::now();
    while running.daemon.windows_left() < pool {
        assert!(since.elapsed() < Duration::from_secs(15), "{} of {pool} bytes came back", running.daemon.windows_left());
        sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
}
