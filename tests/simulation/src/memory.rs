//! A bounded pool of plain memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hoidla_store::{BLOCK, Blocks, Buffer, MOST_BUFFER, Pool};

/// At most so many buffers at once.
pub struct Memory {
    out: Arc<AtomicUsize>,
    most: usize,
}

impl Memory {
    /// A pool of `most` buffers.
    pub fn new(most: usize) -> Self {
        Self { out: Arc::default(), most }
    }

    /// Buffers handed out and not returned.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }
}

struct Lent(Arc<AtomicUsize>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A buffer of the pool.
pub struct Page {
    bytes: Vec<u8>,
    lent: Lent,
}

/// A frozen one.
#[derive(Clone)]
pub struct Frozen(Arc<Page>);

impl Pool for Memory {
    type Buffer = Page;

    fn take(&self, len: usize) -> Option<Page> {
        assert!(len <= MOST_BUFFER, "no buffer holds {len} bytes");
        if self.out.load(Ordering::Relaxed) >= self.most {
            return None;
        }
        self.out.fetch_add(1, Ordering::Relaxed);
        // Dirty, as a reused buffer is.
        Some(Page { bytes: vec![0xa5; len.max(1).div_ceil(BLOCK) * BLOCK], lent: Lent(self.out.clone()) })
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Page {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Buffer for Page {
    type Blocks = Frozen;

    fn freeze(mut self, len: usize) -> Frozen {
        self.bytes[len..].fill(0);
        self.bytes.truncate(len.div_ceil(BLOCK) * BLOCK);
        let Self { bytes, lent } = self;
        Frozen(Arc::new(Page { bytes, lent }))
    }
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Blocks for Frozen {}
