//! Admitted peers that send whatever they like: the session ends, or refuses, and nobody else notices.

mod common;

use std::time::{Duration, Instant};

use common::*;
use hoidla_door::{Connection, Identity};
use hoidla_format::{ByteRange, Hash32, StreamId, frame::Chain};
use hoidla_protocol::{AppendHead, Handle, Open, Read, Request};
use tokio::time::timeout;

/// Connections; what they send is the same in every run.
const PEERS: u64 = 60;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Messages of every kind, of which some are sound in some order.
fn messages(agent: &Agent, w: &mut Writing, header: &[u8]) -> Vec<Vec<u8>> {
    let land = agent.dataset.clone();
    let open = |last| Request::Open(Open { dataset: land.clone(), stream: w.stream, generation: 1, last }).encode();
    let append = |epoch, offset, frame: &[u8]| {
        let head = AppendHead { handle: Handle(1), epoch, offset }.message(frame.len());
        [&head[..], frame].concat()
    };
    let read = Read { grant: Hash32([1; 32]), dataset: land.clone(), stream: StreamId([9; 16]), range: ByteRange::new(0, 4096).unwrap() };
    vec![
        open(Chain::EMPTY),
        open(Chain { length: 12, root: Hash32([5; 32]) }),
        append(1, 0, header),
        append(1, header.len() as u64, &header[..200]),
        append(7, 0, &[0; 64]),
        Request::List { dataset: land.clone() }.encode(),
        Request::Health.encode(),
        Request::Papers.encode(),
        Request::Propose("hoidla = \"grant/1\"\nnothing more\n".into()).encode(),
        Request::Approve("hoidla = \"approval/1\"\n\n\u{2014} alpha AAAA\n".into()).encode(),
        Request::Seal { grant: None }.encode(),
        Request::Keys { grant: Hash32([1; 32]) }.encode(),
        Request::Read(read).encode(),
    ]
}

fn garbled(dice: &mut Dice, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..1 + dice.below(12) {
        let mut one = messages[dice.below(messages.len())].clone();
        let at = dice.below(one.len());
        match dice.below(8) {
            0 => one[at] ^= 1 << dice.below(8),
            1 => one.truncate(at),
            2 => one.insert(at, 0xff),
            3 => one[..8.min(at)].fill(0xff),
            _ => {}
        }
        out.extend(one);
    }
    out
}

/// Sends, hears what there is to hear, and leaves, at times without a word.
async fn annoy(mut c: Connection, bytes: &[u8], leaves_at_once: bool) {
    let sent = c.writer.append(&[], bytes).await.is_ok() && c.writer.flush().await.is_ok();
    while sent && !leaves_at_once && matches!(timeout(Duration::from_millis(150), c.reader.next()).await, Ok(Ok(_))) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_admitted_peer_sends_only_its_own_session_ends() {
    let e = Embassy::new(128 << 20);
    let running = e.start_with(impatient()).await;
    let (good, bad) = (e.home.good_agent("land"), e.home.agent("people", "people-agent", (-3600, 3600)));
    let custodian: Identity = e.home.custodian("alpha").1;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut w = Writing::new(1);
    let mut kept = running.enter(&good.door).await.unwrap();
    let opened = open_stream(&mut kept, &good.dataset, &w, Chain::EMPTY).await.unwrap();
    let header = good.header(&mut w, &e.vaults[0]);
    append(&mut kept, &opened, 1, 0, &header).await.unwrap();
    drop(kept);

    for n in 0..PEERS {
        let mut other = Writing::new(100 + n as u8);
        let header = bad.header(&mut other, &e.vaults[1]);
        let bytes = garbled(&mut dice, &messages(&bad, &mut other, &header));
        let who = if n % 3 == 0 { &custodian } else { &bad.door };
        let c = running.enter(who).await.expect("whoever is admitted gets in again");
        annoy(c, &bytes, dice.below(4) == 0).await;
    }

    // The good agent's stream is as it was, and goes on.
    let mut c = running.enter(&good.door).await.unwrap();
    let opened = open_stream(&mut c, &good.dataset, &w, w.chain).await.unwrap();
    assert_eq!(opened.acknowledged, w.chain);
    let at = w.chain.length;
    let record = good.message(&mut w, b"still here");
    assert_eq!(append(&mut c, &opened, 1, at, &record).await.unwrap(), w.chain.length);
    drop(c);
    let since = Instant::now();
    while running.daemon.writers.count() > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "{} streams are still held", running.daemon.writers.count());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
}
