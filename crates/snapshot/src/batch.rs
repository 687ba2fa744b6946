//! What travels through the pipeline: two megabytes of content and what to make of it.

use hoidla_format::Hash32;

use crate::{
    GenerationKey, Index,
    cache::Seen,
    chunk::Press,
    entry::{Body, Entry, Meta},
    index::Known,
};
use std::sync::Mutex;

/// Bytes of content in one batch.
pub const CAPACITY: usize = 2 << 20;
/// The most steps in one batch.
pub const MOST_STEPS: usize = 8192;

/// What becomes of a chunk.
pub enum How {
    /// It goes as it is.
    Plain,
    /// Its compressed bytes are in `pressed`.
    Pressed { at: usize, len: usize },
    /// It is in the stream already.
    Known(Known),
}

/// One step of writing a snapshot, in the walk's order.
pub enum Step {
    /// A line of the tree that has no content.
    Entry(Entry),
    /// Content of the file that is open.
    Chunk { at: usize, len: usize, id: Hash32, how: How },
    /// A hole in it.
    Hole(u64),
    /// It changed: what was read of it doesn't count.
    Again,
    /// It ends.
    File(Box<FileEnd>),
    /// A file that need not be read.
    Kept(Box<FileEnd>, Body),
}

/// What is known of a file when all of it has been read.
pub struct FileEnd {
    pub meta: Meta,
    pub changed: bool,
    pub group: u32,
    /// Its path, and how it looked, if that may be trusted the next time.
    pub seen: Option<(Vec<u8>, Seen)>,
}

/// See the module.
pub struct Batch {
    /// Content; only the first `filled` bytes count.
    pub bytes: Vec<u8>,
    pub filled: usize,
    pub pressed: Vec<u8>,
    pub steps: Vec<Step>,
}

impl Batch {
    pub fn new() -> Self {
        Self { bytes: vec![0; CAPACITY], filled: 0, pressed: vec![], steps: vec![] }
    }

    pub fn clear(&mut self) {
        self.filled = 0;
        self.pressed.clear();
        self.steps.clear();
    }

    /// The work that needs no order: names, whether known, compression.
    pub fn work(&mut self, key: &GenerationKey, index: &Mutex<&mut Index>, press: &mut Press) -> std::io::Result<()> {
        for step in &mut self.steps {
            let Step::Chunk { at, len, id, how } = step else { continue };
            let chunk = &self.bytes[*at..*at + *len];
            *id = key.id(chunk);
            *how = match index.lock().unwrap_or_else(|e| e.into_inner()).get(id) {
                Some(known) => How::Known(known),
                None => How::Plain,
            };
            if matches!(how, How::Plain) {
                let at = self.pressed.len();
                if let Some(len) = press.press(chunk, &mut self.pressed)? {
                    *how = How::Pressed { at, len };
                }
            }
        }
        Ok(())
    }
}
