//! What the embassy in memory holds, and what goes wrong with it on purpose.

use std::collections::HashMap;

use hoidla_format::{Hash32, StreamId, frame::Chain};
use hoidla_papers::Log;
use hoidla_protocol::Epoch;

/// One stream as it is stored.
#[derive(Default, Clone)]
pub struct Stored {
    pub generation: u32,
    /// Epoch and bytes of each frame.
    pub frames: Vec<(u32, Vec<u8>)>,
    pub closed: u32,
}

impl Stored {
    pub fn chain(&self) -> Chain {
        self.frames.iter().fold(Chain::EMPTY, |c, (_, f)| c.then(&Hash32(blake3::hash(f).into()), f.len() as u32))
    }

    pub fn epoch(&self) -> u32 {
        self.frames.last().map_or(0, |f| f.0)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.frames.iter().flat_map(|f| f.1.clone()).collect()
    }

    pub fn epochs(&self) -> Vec<Epoch> {
        let (mut at, mut epochs): (u64, Vec<Epoch>) = (0, vec![]);
        for (epoch, f) in &self.frames {
            if epochs.last().is_none_or(|e| e.epoch != *epoch) {
                epochs.push(Epoch { epoch: *epoch, start: at });
            }
            at += f.len() as u64;
        }
        epochs
    }
}

/// What goes wrong on purpose.
#[derive(Default)]
pub struct Trouble {
    /// Cut the connection when so many more frames have come.
    pub cut_after: Option<usize>,
    /// Keep frames without acknowledging them.
    pub mute: bool,
    /// An opening closes the epoch when so many more frames have come.
    pub close_after: Option<usize>,
    /// From this connection on, streams are said to be at their last epoch, and closed.
    pub last_epoch_from: Option<usize>,
    /// Another key is re-wrapped than this epoch was sealed with.
    pub wrong_key_of: Option<u32>,
    /// Keys are given of epochs before this one only.
    pub keys_before: Option<u32>,
    /// The appliance has a newer site file.
    pub newer_site: Option<u32>,
    /// What is re-wrapped of this epoch is damaged.
    pub bad_key_of: Option<u32>,
    /// The disks are full after so many more frames.
    pub full_after: Option<usize>,
    /// How the appliance lies to an auditor.
    pub lie: Option<Lie>,
}

/// What an appliance may try on an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A log with another first leaf, of the same size or larger.
    Fork,
    /// A log without its last leaf.
    Shorter,
    /// The log as it was, saying that it is behind.
    Behind,
    /// A counter that went back.
    Counter,
    /// Another appliance's key.
    Key,
    /// A quote of another state.
    State,
    /// A checkpoint in the name of another appliance.
    Name,
    /// Bytes that are no checkpoint.
    Garbage,
    /// Bytes that were acknowledged are not known.
    Gone,
    /// A proof of another place.
    Place,
    /// A proof with a flipped bit.
    Proof,
    /// A frame with a flipped bit.
    Frame,
    /// The connection closes.
    Hangs,
    /// No enrolment among the papers.
    Papers,
}

#[derive(Default)]
pub struct Store {
    pub streams: HashMap<StreamId, Stored>,
    pub trouble: Trouble,
    pub connections: usize,
    pub appended: usize,
    /// A leaf for every frame.
    pub log: Log,
}

impl Store {
    pub fn only(&mut self) -> &mut Stored {
        let newest = *self.streams.iter().max_by_key(|(_, s)| s.generation).unwrap().0;
        self.streams.get_mut(&newest).unwrap()
    }
}

impl Stored {
    pub fn chain_length(&self) -> u64 {
        self.frames.iter().map(|f| f.1.len() as u64).sum()
    }
}
