//! Slow, silent and malicious peers cost bounded memory and time.

mod common;

use std::time::{Duration, Instant};

use common::*;
use hoidla_format::frame::Chain;
use hoidla_protocol::{AppendHead, Request};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// Bytes of memory in use by this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_are_few_cheap_and_short() {
    let e = Embassy::new(128 << 20);
    let running = e.start_with(impatient()).await;
    let agent = e.home.good_agent("land");
    drop(running.enter(&agent.door).await.unwrap()); // warm: the figures below are of the flood
    let before = resident();
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(TcpStream::connect(&running.target.address).await.unwrap());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "400 half-open connections took {grown} bytes");
    let since = Instant::now();
    for mut tcp in flood {
        let mut bytes = [0; 1];
        let closed = timeout(Duration::from_secs(10), tcp.read(&mut bytes)).await.expect("it is closed in time");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    assert!(since.elapsed() < Duration::from_secs(8));
    running.enter(&agent.door).await.expect("the door is free again");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_and_the_slow_are_cut_off_alone() {
    let e = Embassy::new(128 << 20);
    let running = e.start_with(impatient()).await;
    let agent = e.home.good_agent("land");
    let mut quick = running.enter(&agent.door).await.unwrap();
    let mut silent = running.enter(&agent.door).await.unwrap();
    let mut slow = running.enter(&agent.door).await.unwrap();
    let w = Writing::new(7);
    let opened = open_stream(&mut slow, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    // A frame of 1 MiB is announced, and comes byte by byte.
    let head = AppendHead { handle: opened.handle, epoch: 1, offset: 0 }.message(1 << 20);
    slow.writer.append(&head, &[0; 64]).await.unwrap();
    slow.writer.flush().await.unwrap();
    let since = Instant::now();
    let mut cut = None;
    while since.elapsed() < Duration::from_secs(6) {
        quick.ask(&Request::Health).await.expect("others go on meanwhile");
        let sent = slow.writer.append(&[], &[0; 1]).await.is_ok() && slow.writer.flush().await.is_ok();
        let gone = timeout(Duration::from_millis(100), slow.reader.next()).await;
        if !sent || matches!(gone, Ok(Err(_))) {
            cut = Some(since.elapsed());
            break;
        }
    }
    assert!(cut.expect("the slow one is cut off") < Duration::from_secs(5));
    let ended = timeout(Duration::from_secs(4), silent.reader.next()).await.expect("the silent one is cut off");
    assert!(ended.is_err());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_takes_over_cleanly() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut w = Writing::new(8);
    let mut one = running.enter(&agent.door).await.unwrap();
    let first = open_stream(&mut one, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let header = agent.header(&mut w, &e.vaults[0]);
    append(&mut one, &first, 1, 0, &header).await.unwrap();
    let mut two = running.enter(&agent.door).await.unwrap();
    let second = open_stream(&mut two, &agent.dataset, &w, w.chain).await.unwrap();
    assert_eq!(second.acknowledged, w.chain);
    let at = w.chain.length;
    let frame = agent.message(&mut w, b"from the second");
    let refused = append(&mut one, &first, 1, at, &frame).await.unwrap_err();
    assert_eq!(refused.code, hoidla_protocol::Code::Busy);
    assert_eq!(append(&mut two, &second, 1, at, &frame).await.unwrap(), w.chain.length);
    // One agent has a bounded number of connections.
    let mut more = vec![one, two];
    loop {
        match running.enter(&agent.door).await {
            Ok(c) => more.push(c),
            Err(refused) => break assert_eq!(code(refused), hoidla_protocol::Code::Busy),
        }
        assert!(more.len() <= 4);
    }
    running.stop().await;
}
