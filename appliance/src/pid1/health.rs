//! The host's port: how the machine is, for whoever connects.
//!
//! Promises: it only ever sends. Not a byte of what a peer sends is looked at: all get the same
//! answer, page and numbers in one (docs/decisions/0132). A peer has two seconds, and eight may
//! be there at once. It listens on the host's network alone, and only if the site file says so.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::listen::listen;
use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};

/// How long a peer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many may be there at once.
const CROWD: usize = 8;

/// What is sent: the page, and the numbers.
pub type Told = watch::Receiver<(String, String)>;

/// Listens and answers, for ever.
pub async fn serve(address: SocketAddr, port: &str, told: Told) -> anyhow::Result<()> {
    let listener = listen(&address.to_string(), Some(port)).await.context("the health port")?;
    answer(listener, told, PATIENCE).await;
    Ok(())
}

async fn answer(listener: TcpListener, told: Told, patience: Duration) {
    let crowd = Arc::new(Semaphore::new(CROWD));
    loop {
        let Ok((peer, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // One too many is hung up on.
        if let Ok(place) = crowd.clone().try_acquire_owned() {
            let text = told.borrow().1.clone();
            tokio::spawn(async move {
                _ = timeout(patience, send(peer, &text)).await;
                drop(place);
            });
        }
    }
}

async fn send(mut peer: TcpStream, text: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    peer.write_all(head.as_bytes()).await?;
    peer.write_all(text.as_bytes()).await?;
    peer.shutdown().await?;
    // What the peer sent is thrown away unread: else the kernel would answer it with a reset.
    let mut thrown = [0; 512];
    while peer.read(&mut thrown).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut peer = TcpStream::connect(address).await.unwrap();
        _ = peer.write_all(request).await;
        let mut answer = String::new();
        _ = timeout(Duration::from_secs(5), peer.read_to_string(&mut answer)).await;
        answer
    }

    /// A server with so much patience.
    async fn server(patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, receiver) = watch::channel((String::new(), "hoidla_sealed 1\n".into()));
        tokio::spawn(async move {
            answer(listener, receiver, patience).await;
            drop(told);
        });
        address
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_is_asked_the_answer_is_the_same() {
        let address = server(Duration::from_secs(60)).await;
        let first = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(first.starts_with("HTTP/1.0 200 OK") && first.ends_with("\r\n\r\nhoidla_sealed 1\n"), "{first}");
        for other in [&b""[..], b"POST / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\0", &[0xff; 4000]] {
            assert_eq!(ask(address, other).await, first);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crowd_that_says_nothing_is_bounded_and_sent_away() {
        for (patience, waits, answered) in [(60, 0, false), (1, 4, true)] {
            let address = server(Duration::from_secs(patience)).await;
            let mut silent = Vec::new();
            for _ in 0..CROWD {
                let mut peer = TcpStream::connect(address).await.unwrap();
                peer.read_exact(&mut [0; 8]).await.unwrap(); // it has its place
                silent.push(peer);
            }
            tokio::time::sleep(Duration::from_secs(waits)).await;
            assert_eq!(ask(address, b"").await.contains("hoidla_sealed"), answered, "after {waits} s of {patience}");
        }
    }
}
