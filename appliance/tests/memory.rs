//! However much is pushed by however many, the daemon's memory stays below its bound.

mod common;

use common::*;
use hoidla_format::frame::Chain;
use hoidla_protocol::Response;

/// The largest resident memory a process ever had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A process that doesn't outlive a failing test.
struct KilledAtLast(std::process::Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends so many MiB of frames as fast as the window allows; what is in them is nobody's business.
async fn pour(target: hoidla_door::Target, agent: Agent, stream: u8, mib: u64) {
    let mut c = hoidla_door::connect(&target, &agent.door).await.unwrap();
    let w = Writing::new(stream);
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let frame: Vec<u8> = (0..1 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    let (mut sent, mut kept) = (0, 0);
    while kept < mib << 20 {
        while sent < mib && c.session.may_append(frame.len()) {
            let head = c.session.append(opened.handle, 1, sent << 20, frame.len());
            c.writer.append(&head, &frame).await.unwrap();
            sent += 1;
        }
        c.writer.flush().await.unwrap();
        let answer = c.reader.next().await.unwrap();
        c.session.received(&answer).unwrap();
        match answer {
            Response::Acknowledged { before, .. } => kept = before,
            Response::Window { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pouring_in_from_many_sides_takes_bounded_memory() {
    let e = Embassy::new(1024 << 20);
    let (child, address) = start_child(&e);
    let mut child = KilledAtLast(child);
    let before = peak_mib(child.0.id());
    let pours: Vec<_> = (0..6)
        .map(|n| {
            let agent = e.home.good_agent(DATASETS[n % 2]);
            tokio::spawn(pour(e.target(&address), agent, n as u8, 100))
        })
        .collect();
    for pour in pours {
        pour.await.unwrap();
    }
    let peak = peak_mib(child.0.id());
    child.0.kill().unwrap();
    assert!(peak <= 300, "{peak} MiB");
    assert!(peak > before, "the control: the figure moves ({before}, then {peak} MiB)");
    println!("peak {peak} MiB, {before} MiB before");
}
