//! Bytes in and out of one connection, each with a bound on time.

use std::{fmt, io};

use hoidla_door::Tcp;
use hoidla_format::{Kind, Malformed, Reader};
use hoidla_protocol::{DataHead, HEAD, HELLO, Head, Refused, Response, message::VERSION};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::Patience;

/// Why a connection ended before its peer left in order.
#[derive(Debug)]
pub(crate) enum End {
    /// The network, or the peer without a goodbye.
    Network(io::Error),
    /// Too slow.
    Slow(&'static str),
    /// Not our protocol.
    Malformed(Malformed),
    /// Refused for good.
    Refused(Refused),
    /// No room for it.
    Crowd,
    /// The daemon stops.
    Stopping,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(e) => write!(f, "{e}"),
            Self::Slow(what) => write!(f, "{what} took too long"),
            Self::Malformed(e) => write!(f, "{e}"),
            Self::Refused(e) => write!(f, "refused: {e}"),
            Self::Crowd => f.write_str("no room"),
            Self::Stopping => f.write_str("the appliance stops"),
        }
    }
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> Self {
        Self::Network(e)
    }
}

impl From<Malformed> for End {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e)
    }
}

/// What the peer sends.
pub(crate) struct Incoming {
    stream: ReadHalf<TlsStream<Tcp>>,
    patience: Patience,
}

/// What we send; whole messages, from several tasks.
pub(crate) struct Outgoing {
    stream: Mutex<WriteHalf<TlsStream<Tcp>>>,
    patience: Patience,
}

pub(crate) fn split(tls: TlsStream<Tcp>, patience: Patience) -> (Incoming, Outgoing) {
    let (read, write) = tokio::io::split(tls);
    (Incoming { stream: read, patience: patience.clone() }, Outgoing { stream: Mutex::new(write), patience })
}

impl Incoming {
    /// The peer's first bytes.
    pub async fn hello(&mut self) -> Result<(), End> {
        let hello: [u8; HELLO.len()] = self.array().await?;
        Ok(Reader::new(&hello).header(Kind::Hello, VERSION)?)
    }

    /// The next message's head; none if the peer has left between two messages.
    pub async fn head(&mut self) -> Result<Option<Head>, End> {
        let mut head = [0; HEAD];
        // The first byte may take as long as the peer is idle, the rest follows at once.
        match timeout(self.patience.idle, self.stream.read(&mut head[..1])).await {
            Err(_) => return Err(End::Slow("the next message")),
            Ok(Ok(0)) => return Ok(None),
            Ok(read) => read?,
        };
        self.fill(&mut head[1..]).await?;
        Ok(Some(Head::parse(&head)?))
    }

    /// So many bytes of a body.
    pub async fn body(&mut self, len: usize) -> Result<Vec<u8>, End> {
        let mut body = vec![0; len];
        self.fill(&mut body).await?;
        Ok(body)
    }

    /// A fixed number of bytes.
    pub async fn array<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let mut out = [0; N];
        self.fill(&mut out).await?;
        Ok(out)
    }

    /// Fills `into`, straight from the connection.
    pub async fn fill(&mut self, into: &mut [u8]) -> Result<(), End> {
        let most = self.patience.for_bytes(into.len());
        timeout(most, self.stream.read_exact(into)).await.map_err(|_| End::Slow("a message"))??;
        Ok(())
    }

    /// Reads and drops so many bytes.
    pub async fn skip(&mut self, len: usize) -> Result<(), End> {
        let most = self.patience.for_bytes(len);
        let skip = async { tokio::io::copy(&mut (&mut self.stream).take(len as u64), &mut tokio::io::sink()).await };
        let skipped = timeout(most, skip).await.map_err(|_| End::Slow("a message"))??;
        if skipped == len as u64 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
    }
}

impl Outgoing {
    async fn write(&self, parts: &[&[u8]]) -> Result<(), End> {
        let len = parts.iter().map(|p| p.len()).sum();
        let write = async {
            let mut stream = self.stream.lock().await;
            for part in parts {
                stream.write_all(part).await?;
            }
            stream.flush().await
        };
        timeout(self.patience.for_bytes(len), write).await.map_err(|_| End::Slow("taking our answer"))??;
        Ok(())
    }

    pub async fn hello(&self) -> Result<(), End> {
        self.write(&[&HELLO]).await
    }

    pub async fn send(&self, response: &Response) -> Result<(), End> {
        self.write(&[&response.encode()]).await
    }

    /// Several small messages at once.
    pub async fn send_all(&self, responses: &[Response]) -> Result<(), End> {
        let bytes: Vec<u8> = responses.iter().flat_map(Response::encode).collect();
        self.write(&[&bytes]).await
    }

    /// Bytes of a stream, from where they lie.
    pub async fn data(&self, offset: u64, bytes: &[u8]) -> Result<(), End> {
        self.write(&[&DataHead { offset }.message(bytes.len()), bytes]).await
    }

    pub async fn refuse(&self, refused: Refused) -> Result<(), End> {
        tracing::info!(code = ?refused.code, "refused: {refused}");
        self.send(&Response::Refused(refused)).await
    }

    pub async fn close(&self) {
        let close = async { self.stream.lock().await.shutdown().await };
        let _ = timeout(self.patience.grace, close).await;
    }
}
