//! What the store owes: what was submitted to it, and what it acknowledged.

use std::collections::BTreeMap;

use hoidla_format::{Hash32, StreamId, frame::Chain};
use hoidla_store::{Generation, StreamState};

/// One submitted record.
#[derive(Clone)]
pub struct Sent {
    /// Its offset.
    pub offset: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The stream's chain after it.
    pub after: Chain,
}

/// One stream, as its agent knows it.
#[derive(Clone)]
pub struct Stream {
    /// Where it belongs.
    pub generation: Generation,
    /// All that was submitted and not cut, in order.
    pub sent: Vec<Sent>,
    /// Acknowledged up to here.
    pub acknowledged: u64,
    /// The epoch that the agent is in.
    pub epoch: u32,
    /// Closed, and told so.
    pub closed: u32,
    /// Asked to be closed.
    pub closing: u32,
}

impl Stream {
    /// One without a byte.
    pub fn new(generation: Generation) -> Self {
        Self { generation, sent: Vec::new(), acknowledged: 0, epoch: 1, closed: 0, closing: 0 }
    }

    /// The chain over all that was submitted.
    pub fn chain(&self) -> Chain {
        self.sent.last().map_or(Chain::EMPTY, |s| s.after)
    }

    /// The chain at a boundary between records.
    pub fn chain_at(&self, length: u64) -> Option<Chain> {
        if length == 0 {
            return Some(Chain::EMPTY);
        }
        self.sent.iter().map(|s| s.after).find(|c| c.length == length)
    }

    fn epochs_at(&self, length: u64) -> Vec<(u32, u64)> {
        let mut epochs: Vec<(u32, u64)> = Vec::new();
        for s in self.sent.iter().filter(|s| s.offset < length) {
            if epochs.last().is_none_or(|e| e.0 != s.epoch) {
                epochs.push((s.epoch, s.offset));
            }
        }
        epochs
    }

    /// Whether the store may say this of the stream. Where an epoch began may be `lost`.
    pub fn allows(&self, state: &StreamState, lost: bool) -> Result<(), String> {
        let length = state.chain.length;
        if length < self.acknowledged {
            return Err(format!("{length} bytes are left of {} acknowledged", self.acknowledged));
        }
        match self.chain_at(length) {
            None => return Err(format!("its length {length} is no record's end")),
            Some(chain) if chain != state.chain => return Err(format!("at {length} its chain is another")),
            Some(_) => {}
        }
        if !lost && state.epochs != self.epochs_at(length) {
            return Err(format!("its epochs are {:?}, not {:?}", state.epochs, self.epochs_at(length)));
        }
        if state.closed < self.closed || state.closed > self.closing {
            return Err(format!("epoch {} is closed; told {}, asked {}", state.closed, self.closed, self.closing));
        }
        if state.generation != self.generation {
            return Err("it changed its generation".into());
        }
        Ok(())
    }

    /// After a recovery: what the store doesn't have was never kept.
    pub fn cut_to(&mut self, state: Option<&StreamState>) {
        let length = state.map_or(0, |s| s.chain.length);
        self.sent.retain(|s| s.offset < length);
        self.acknowledged = length;
        self.closed = state.map_or(0, |s| s.closed);
        self.closing = self.closed;
    }
}

/// All streams, and the log.
#[derive(Default)]
pub struct Model {
    /// By id.
    pub streams: BTreeMap<StreamId, Stream>,
    /// The last acknowledged head of the log.
    pub log: Option<(u64, Hash32)>,
    /// Something was destroyed on every copy: it may be missing, if that is told.
    pub lost: bool,
    /// An opening told that something is.
    pub told: bool,
}

impl Model {
    /// The store's word that a stream is kept up to `end`.
    pub fn acknowledge(&mut self, id: StreamId, end: u64) {
        let stream = self.streams.get_mut(&id).expect("it was submitted");
        stream.acknowledged = stream.acknowledged.max(end);
    }

    /// The store's word that epochs up to this one are closed.
    pub fn close(&mut self, id: StreamId, epoch: u32) {
        let stream = self.streams.get_mut(&id).expect("it was submitted");
        stream.closed = stream.closed.max(epoch);
    }
}
