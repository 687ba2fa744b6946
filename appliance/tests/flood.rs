//! Floods before authentication leave nothing behind, and keep nobody else out.

mod common;

use std::{
    fs,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use common::*;
use hoidla_door::Connection;
use hoidlad::{daemon::Settings, session::Patience};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Handle,
    task::JoinSet,
    time::{sleep, timeout},
};

/// What a process holds.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    tasks: usize,
    resident: usize,
}

impl Footprint {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            resident: resident.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10,
        }
    }
}

/// A connection from the flood's own address.
async fn flooding(to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    timeout(Duration::from_secs(5), socket.connect(to)).await.ok()?.ok()
}

/// A ClientHello's record up to somewhere in its random bytes.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half a hello";

/// The header of a record as long as they get, and noise. Made once: what the flood itself holds is
/// counted with what the door holds.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let noise = (0..70_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    b"\x16\x03\x03\xff\xff".iter().copied().chain(noise).collect()
});

/// One hostile connection, of one of five kinds.
async fn attack(to: SocketAddr, kind: usize) {
    let Some(mut tcp) = flooding(to).await else { return };
    let sent = match kind {
        0 => Ok(()),
        1 => tcp.write_all(HALF_HELLO).await,
        2 => tcp.write_all(&NOISE[5..1005]).await,
        3 => tcp.write_all(&NOISE).await,
        _ => {
            for byte in HALF_HELLO.iter().cycle().take(40) {
                if tcp.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    };
    // Most are turned away before they have said anything; the others until the door's patience ends.
    let mut answer = [0; 64];
    while sent.is_ok() && matches!(timeout(Duration::from_secs(6), tcp.read(&mut answer)).await, Ok(Ok(1..))) {}
}

/// So many hostile connections, five hundred at once.
async fn flood(to: SocketAddr, connections: usize) {
    let mut all = JoinSet::new();
    for n in 0..connections {
        // The slow kinds are fewer: each holds a place for as long as the door is patient.
        let kind = [0, 1, 2, 3, 2, 3, 0, 2, 3, 4][n % 10];
        all.spawn(attack(to, kind));
        if all.len() >= 500 {
            all.join_next().await;
        }
    }
    while all.join_next().await.is_some() {}
}

/// An agent from another address, which tries again as agents do.
async fn gets_in(running: &Running, agent: &Agent) -> Connection {
    let since = Instant::now();
    loop {
        match running.enter(&agent.door).await {
            Ok(c) => return c,
            Err(e) => assert!(since.elapsed() < Duration::from_secs(30), "an agent is kept out: {e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_leave_nothing_behind() {
    let e = Embassy::new(64 << 20);
    // Patient enough for a machine that has other work too.
    let patience = Patience { handshake: Duration::from_secs(4), ..impatient().patience };
    let running = e.start_with(Settings { patience, ..Settings::default() }).await;
    let agent = e.home.good_agent("land");
    let to: SocketAddr = running.target.address.parse().unwrap();
    // Warm: what is allocated once, for five hundred connections at a time, is not of the flood.
    flood(to, 1000).await;
    drop(gets_in(&running, &agent).await);
    sleep(Duration::from_secs(1)).await;
    let before = Footprint::now();

    let flood = tokio::spawn(flood(to, 10_000));
    let mut entered = 0;
    while !flood.is_finished() {
        drop(gets_in(&running, &agent).await);
        entered += u32::from(!flood.is_finished());
        sleep(Duration::from_millis(200)).await;
    }
    flood.await.unwrap();
    assert!(entered > 0, "the flood was over before anybody could be kept out");

    // Each of these comes back to where it was, as soon as the door's patience is over.
    let since = Instant::now();
    let after = loop {
        let now = Footprint::now();
        if (now.descriptors, now.tasks) == (before.descriptors, before.tasks) || since.elapsed() > Duration::from_secs(10) {
            break now;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert!(after.descriptors <= before.descriptors && after.tasks <= before.tasks, "before {before:?}, after {after:?}");
    assert!(after.resident < before.resident + (12 << 20), "before {before:?}, after {after:?}");
    drop(gets_in(&running, &agent).await);
    running.stop().await;
}
