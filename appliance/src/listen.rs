//! Where a peer may knock.
//!
//! Promises: a listener that is given a network port hears nothing of what arrives at another
//! one, whatever address it was sent to: Linux itself answers for all its addresses on every
//! network. Without a port it listens like any program.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that wait to be taken.
const WAITING: u32 = 1024;

/// Listens at an address, `host:port`; at this network port alone, if one is named.
pub async fn listen(address: &str, port: Option<&str>) -> anyhow::Result<TcpListener> {
    open(address, port).await.with_context(|| match port {
        Some(port) => format!("{address} on {port} cannot be listened on"),
        None => format!("{address} cannot be listened on"),
    })
}

async fn open(address: &str, port: Option<&str>) -> anyhow::Result<TcpListener> {
    let address = lookup_host(address).await?.next().context("it has no address")?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if let Some(port) = port {
        socket.bind_device(Some(port.as_bytes()))?;
    }
    socket.bind(address)?;
    Ok(socket.listen(WAITING)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn it_listens_and_names_a_port_that_isnt_there() {
        let listener = listen("127.0.0.1:0", Some("lo")).await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let why = listen("127.0.0.1:0", Some("nowhere")).await.unwrap_err();
        assert_eq!(why.to_string(), "127.0.0.1:0 on nowhere cannot be listened on");
        listen("127.0.0.1:0", None).await.unwrap();
    }
}
