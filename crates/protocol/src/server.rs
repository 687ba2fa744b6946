//! The appliance's half of a session: who may ask what, in which order, within which window.
//!
//! Promises: a message is refused by its head alone when the role may not send
//! it or the window is used up, so that no memory is spent on it; appends of a
//! stream come without gaps and with epochs that only rise; a stream that was
//! refused takes nothing more until it is opened again. It doesn't know what the
//! store holds: forks and acknowledgements are the store's.

use std::collections::HashMap;

use hoidla_format::{Name, StreamId};

use crate::{AppendHead, Code, Handle, Head, Opened, Refused, Role, Type};

/// The most streams that one connection has open.
pub const MOST_STREAMS: usize = 16;

/// One stream that the peer has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// The generation.
    pub generation: u32,
    epoch: u32,
    closed: bool,
    refused: bool,
    next: u64,
}

/// One connection as the appliance sees it.
#[derive(Clone, Debug)]
pub struct ServerSession {
    role: Role,
    window: u64,
    used: u64,
    streams: HashMap<Handle, OpenStream>,
    last_handle: u32,
}

impl ServerSession {
    /// A session of a peer that the door admitted, with so many bytes of window.
    pub fn new(role: Role, window: u32) -> Self {
        Self { role, window: window.into(), used: 0, streams: HashMap::new(), last_handle: 0 }
    }

    /// Bytes of appends that may be under way.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Who the peer is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether the body may be read at all: by role, and for an append by window.
    pub fn accept(&mut self, head: Head) -> Result<(), Refused> {
        if head.kind.from_appliance() {
            return Err(Refused::new(Code::Order, "only the appliance sends such a message"));
        }
        if !self.role.may_send(head.kind) {
            return Err(Refused::new(Code::NotAllowed, format!("{} may not ask for {:?}", self.role.label(), head.kind)));
        }
        if head.kind == Type::Append {
            self.used += (head.len - AppendHead::LEN) as u64;
            if self.used > self.window {
                return Err(Refused::new(Code::Order, "more was sent than the window allows"));
            }
        }
        Ok(())
    }

    /// Whether the role may name the dataset.
    pub fn may_name(&self, dataset: &Name) -> Result<(), Refused> {
        if self.role.may_name(dataset) {
            Ok(())
        } else {
            Err(Refused::new(Code::NotAllowed, format!("{} has no business with the dataset {dataset}", self.role.label())))
        }
    }

    /// The next handle, for a stream that the store has opened.
    ///
    /// `opened.handle` is filled in. A former handle of the same stream is gone: what
    /// the peer had under way there came before it asked again.
    pub fn opened(&mut self, dataset: Name, stream: StreamId, generation: u32, mut opened: Opened) -> Result<Opened, Refused> {
        self.streams.retain(|_, s| s.stream != stream || s.dataset != dataset);
        if self.streams.len() >= MOST_STREAMS {
            return Err(Refused::new(Code::Busy, format!("a connection has at most {MOST_STREAMS} streams: use another connection")));
        }
        self.last_handle += 1;
        opened.handle = Handle(self.last_handle);
        let next = opened.acknowledged.length;
        let entry = OpenStream { dataset, stream, generation, epoch: opened.epoch, closed: opened.closed, refused: false, next };
        self.streams.insert(opened.handle, entry);
        Ok(opened)
    }

    /// Checks an append's head. `None`: its stream was refused before; read its
    /// payload, drop it, and give the window back.
    pub fn append(&mut self, head: &AppendHead, frame: usize) -> Result<Option<OpenStream>, Refused> {
        let Some(s) = self.streams.get_mut(&head.handle) else {
            return Err(Refused::new(Code::Order, "an append to a stream that is not open"));
        };
        if s.refused {
            return Ok(None);
        }
        if head.offset > s.next {
            return Err(Refused::new(Code::Order, "an append that leaves a gap"));
        }
        if head.offset == s.next {
            let goes_on = !s.closed && s.epoch > 0 && head.epoch == s.epoch;
            let epoch_fits = goes_on || s.epoch.checked_add(1) == Some(head.epoch);
            if !epoch_fits {
                return Err(Refused::new(Code::Order, format!("epoch {} cannot follow epoch {} here", head.epoch, s.epoch)));
            }
            (s.epoch, s.closed) = (head.epoch, false);
            s.next += frame as u64;
        }
        Ok(Some(s.clone()))
    }

    /// The stream behind a handle was refused: what is still under way is dropped.
    /// Whether this is the first refusal, which the peer must be told.
    pub fn refuse(&mut self, handle: Handle) -> bool {
        self.streams.get_mut(&handle).is_some_and(|s| !std::mem::replace(&mut s.refused, true))
    }

    /// Gives `bytes` of the window back; to be told by [`crate::Response::Window`].
    pub fn give_back(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }
}
