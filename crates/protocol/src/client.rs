//! The client's half of a session: the window, and what may be acknowledged.
//!
//! Promises: nothing is sent past the window, and an answer that a sound
//! appliance cannot give (an acknowledgement of what was not sent, one that goes
//! back, a stream nobody opened) is an error, not data.

use std::collections::HashMap;

use hoidla_format::{Malformed, StreamId, frame::Chain};
use thiserror::Error;

use crate::{AppendHead, Handle, Opened, Response, Welcome};

/// What an appliance must not say.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// The bytes were not a message.
    #[error("the appliance's message was not understood: {0}")]
    Malformed(#[from] Malformed),
    /// The message doesn't fit what was asked.
    #[error("the appliance broke the protocol: {0}; don't trust this connection, and tell the authority")]
    Protocol(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Under {
    stream: StreamId,
    sent: u64,
    acknowledged: u64,
}

/// One connection as the client sees it.
#[derive(Debug)]
pub struct ClientSession {
    welcome: Welcome,
    window: u64,
    streams: HashMap<Handle, Under>,
}

impl ClientSession {
    /// After the appliance's welcome.
    pub fn new(welcome: Welcome) -> Self {
        Self { window: welcome.window.into(), welcome, streams: HashMap::new() }
    }

    /// Which appliance this is.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Bytes of frames that may be sent now.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether a frame of so many bytes may be sent now.
    pub fn may_append(&self, frame: usize) -> bool {
        frame as u64 <= self.window
    }

    /// Notes an answer to [`crate::Request::Open`], against the acknowledgement that was sent along.
    pub fn opened(&mut self, stream: StreamId, last: &Chain, opened: &Opened) -> Result<(), Broken> {
        let at = opened.acknowledged;
        if at.length < last.length || (at.length == last.length && at.root != last.root) {
            return Err(Broken::Protocol("it opened a stream behind what it had acknowledged"));
        }
        if (at.length == 0) != (opened.epoch == 0) {
            return Err(Broken::Protocol("an epoch without bytes, or bytes without an epoch"));
        }
        let under = Under { stream, sent: at.length, acknowledged: at.length };
        match self.streams.insert(opened.handle, under) {
            None => Ok(()),
            Some(_) => Err(Broken::Protocol("it gave one handle twice")),
        }
    }

    /// Notes a frame about to be sent and gives the head to send before it.
    ///
    /// # Panics
    /// If the window doesn't allow it, the handle is unknown or the offset is not
    /// where the stream ends: the caller's mistake.
    pub fn append(&mut self, handle: Handle, epoch: u32, offset: u64, frame: usize) -> [u8; crate::HEAD + AppendHead::LEN] {
        assert!(self.may_append(frame), "past the window");
        let under = self.streams.get_mut(&handle).expect("a stream that was opened");
        assert_eq!(under.sent, offset, "frames go in order");
        under.sent += frame as u64;
        self.window -= frame as u64;
        AppendHead { handle, epoch, offset }.message(frame)
    }

    /// Checks an answer; notes windows, acknowledgements and dead handles.
    pub fn received(&mut self, response: &Response) -> Result<(), Broken> {
        match response {
            Response::Welcome(_) => Err(Broken::Protocol("a second welcome")),
            Response::Window { bytes } => {
                self.window += u64::from(*bytes);
                if self.window > self.welcome.window.into() {
                    return Err(Broken::Protocol("a window larger than at first"));
                }
                Ok(())
            }
            Response::Acknowledged { handle, before, .. } => {
                let under = self.streams.get_mut(handle).ok_or(Broken::Protocol("an acknowledgement of a stream that is not open"))?;
                if *before < under.acknowledged || *before > under.sent {
                    return Err(Broken::Protocol("an acknowledgement of what was not sent"));
                }
                under.acknowledged = *before;
                Ok(())
            }
            Response::Refused(r) => {
                if let Some(handle) = r.handle {
                    self.streams.remove(&handle).ok_or(Broken::Protocol("a refusal about a stream that is not open"))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Bytes of a stream sent and acknowledged, while its handle lives.
    pub fn stands(&self, handle: Handle) -> Option<(StreamId, u64, u64)> {
        self.streams.get(&handle).map(|u| (u.stream, u.sent, u.acknowledged))
    }
}
