//! Messages over a stream of bytes, from the client's side.
//!
//! Promises: a message's length is bounded before memory is spent on it; a frame
//! is written from the caller's buffer.

use hoidla_protocol::{HEAD, Head, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::DoorError;

/// Reads the appliance's messages.
#[derive(Debug)]
pub struct MessageReader<R> {
    stream: R,
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// Over a stream whose hello was read.
    pub fn new(stream: R) -> Self {
        Self { stream, body: Vec::new() }
    }

    /// The next message. Not safe to abandon half-way: give it a task of its own.
    pub async fn next(&mut self) -> Result<Response, DoorError> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).await.map_err(DoorError::from_tls)?;
        let head = Head::parse(&head)?;
        self.body.resize(head.len, 0);
        self.stream.read_exact(&mut self.body).await.map_err(DoorError::from_tls)?;
        Ok(Response::parse(head.kind, &self.body)?)
    }

    /// The next message, a refusal becoming an error.
    pub async fn answer(&mut self) -> Result<Response, DoorError> {
        match self.next().await? {
            Response::Refused(refused) => Err(refused.into()),
            other => Ok(other),
        }
    }
}

/// Writes the client's messages.
#[derive(Debug)]
pub struct MessageWriter<W> {
    stream: W,
}

impl<W: AsyncWrite + Unpin> MessageWriter<W> {
    /// Over a stream whose hello was sent.
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Sends a request at once.
    pub async fn send(&mut self, request: &Request) -> Result<(), DoorError> {
        self.stream.write_all(&request.encode()).await.map_err(DoorError::from_tls)?;
        self.flush().await
    }

    /// Writes one frame after the head that [`hoidla_protocol::ClientSession::append`] gave. Flush when there is no more for now.
    pub async fn append(&mut self, head: &[u8], frame: &[u8]) -> Result<(), DoorError> {
        self.stream.write_all(head).await.map_err(DoorError::from_tls)?;
        self.stream.write_all(frame).await.map_err(DoorError::from_tls)
    }

    /// Sends what is still buffered.
    pub async fn flush(&mut self) -> Result<(), DoorError> {
        self.stream.flush().await.map_err(DoorError::from_tls)
    }

    /// Says goodbye.
    pub async fn close(&mut self) -> Result<(), DoorError> {
        self.stream.shutdown().await.map_err(DoorError::from_tls)
    }
}
