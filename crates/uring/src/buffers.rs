//! Buffers for direct I/O: one aligned region, cut in halves as needed, registered with
//! the ring as a whole.
//!
//! Promises: each buffer begins at a multiple of 4 KiB, belongs to one holder, and goes
//! back when the last holder drops it; all of them together never pass the region's size.
//! A buffer holds what was there before: ciphertext only, never a secret.

use std::{
    collections::BTreeSet,
    io,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hoidla_store::{BLOCK, MOST_BUFFER, device};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Orders of sizes: a buffer of order n has `BLOCK << n` bytes.
const ORDERS: usize = (MOST_BUFFER / BLOCK).ilog2() as usize + 1;

/// Which parts of a region are free: block numbers by order (a buddy allocator).
struct Free([BTreeSet<usize>; ORDERS]);

impl Free {
    /// `count` free parts of the largest order.
    fn new(count: usize) -> Self {
        let mut free = Self(Default::default());
        free.0[ORDERS - 1] = (0..count).map(|i| i << (ORDERS - 1)).collect();
        free
    }

    /// A part of this order, cut from the smallest that is large enough.
    fn take(&mut self, order: usize) -> Option<usize> {
        let found = (order..ORDERS).find(|o| !self.0[*o].is_empty())?;
        let at = self.0[found].pop_first()?;
        (order..found).for_each(|o| _ = self.0[o].insert(at + (1 << o)));
        Some(at)
    }

    /// Gives a part back, and joins it with its other half while that is free too.
    fn give(&mut self, mut at: usize, mut order: usize) {
        while order < ORDERS - 1 && self.0[order].remove(&(at ^ (1 << order))) {
            at &= !(1 << order);
            order += 1;
        }
        self.0[order].insert(at);
    }
}

struct Region {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
    free: Mutex<Free>,
}

// SAFETY: the region is plain memory; each part of it belongs to one `Part` at a time,
// and the list of free parts is behind a lock.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made by `Buffers::new`; the last handle is gone, so nothing points into it.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

/// The pool of an appliance's ciphertext in memory.
#[derive(Clone)]
pub struct Buffers(Arc<Region>);

impl Buffers {
    /// A region of `bytes`, rounded up to whole MiB; at most 1 GiB, what one registration holds.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let count = bytes.div_ceil(MOST_BUFFER);
        let bytes = NonZeroUsize::new(count << MOST_BUFFER.ilog2()).filter(|_| count <= 1024);
        let bytes = bytes.ok_or_else(|| io::Error::other("a pool of buffers has between 1 byte and 1 GiB"))?;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) }?.cast();
        // SAFETY: advice on the mapping made above; it may be refused, which only costs speed.
        let _ = unsafe { madvise(start.cast(), bytes.get(), MmapAdvise::MADV_HUGEPAGE) };
        Ok(Self(Arc::new(Region { start, bytes, free: Mutex::new(Free::new(count)) })))
    }

    /// The whole region, as the kernel wants it for registering.
    pub(crate) fn whole(&self) -> libc::iovec {
        libc::iovec { iov_base: self.0.start.as_ptr().cast(), iov_len: self.0.bytes.get() }
    }
}

impl device::Pool for Buffers {
    type Buffer = Buffer;

    fn take(&self, len: usize) -> Option<Buffer> {
        let blocks = len.div_ceil(BLOCK).max(1);
        let order = blocks.next_power_of_two().ilog2() as usize;
        let at = (order < ORDERS).then(|| self.0.free().take(order))??;
        Some(Buffer { part: Part { region: self.0.clone(), at, order }, len: blocks * BLOCK })
    }
}

/// A part of the region that has one owner.
struct Part {
    region: Arc<Region>,
    at: usize,
    order: usize,
}

impl Part {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: the allocator gives out parts within the region only.
        unsafe { self.region.start.add(self.at * BLOCK) }
    }

    fn bytes(&self, len: usize) -> &[u8] {
        debug_assert!(len <= BLOCK << self.order);
        // SAFETY: these bytes are mapped, initialised by the kernel, and this part's alone.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), len) }
    }

    fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(len <= BLOCK << self.order);
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), len) }
    }

    /// Gives back what `len` bytes don't need.
    fn shrink(&mut self, len: usize) {
        while self.order > 0 && len <= BLOCK << (self.order - 1) {
            self.order -= 1;
            self.region.free().give(self.at + (1 << self.order), self.order);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.region.free().give(self.at, self.order);
    }
}

/// A buffer that is being filled.
pub struct Buffer {
    part: Part,
    len: usize,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.part.bytes(self.len)
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.part.bytes_mut(self.len)
    }
}

impl device::Buffer for Buffer {
    type Blocks = Blocks;

    fn freeze(mut self, len: usize) -> Blocks {
        assert!(len <= self.len, "a buffer keeps no more than it has");
        let whole = len.next_multiple_of(BLOCK);
        self.as_mut()[len..whole].fill(0);
        self.part.shrink(whole);
        Blocks(Arc::new(Self { len: whole, ..self }))
    }
}

/// Frozen blocks, shared.
#[derive(Clone)]
pub struct Blocks(Arc<Buffer>);

impl AsRef<[u8]> for Blocks {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl device::Blocks for Blocks {}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_store::{Buffer as _, Pool as _};

    #[test]
    fn parts_are_aligned_apart_and_join_again() {
        let pool = Buffers::new(1).unwrap();
        let mut held: Vec<_> = [1, 4096, 4097, 200_000, 500_000].into_iter().map(|n| pool.take(n).expect("room")).collect();
        assert_eq!(held.iter().map(|b| b.as_ref().len()).collect::<Vec<_>>(), [4096, 4096, 8192, 200_704, 503_808]);
        assert!(pool.take(MOST_BUFFER).is_none() && pool.take(600_000).is_none());
        for (i, b) in held.iter_mut().enumerate() {
            assert_eq!(b.as_ref().as_ptr() as usize % BLOCK, 0);
            b.as_mut().fill(i as u8 + 1);
        }
        for (i, b) in held.iter().enumerate() {
            assert!(b.as_ref().iter().all(|x| *x == i as u8 + 1), "buffer {i} was touched by another");
        }
        drop(held);
        let whole = pool.take(MOST_BUFFER).expect("all parts have joined again");
        assert!(pool.take(1).is_none());
        drop(whole);
        assert!(pool.take(MOST_BUFFER + 1).is_none(), "nothing is larger than the largest");
    }

    #[test]
    fn freezing_clears_the_tail_and_gives_the_rest_back() {
        let pool = Buffers::new(1).unwrap();
        let mut b = pool.take(MOST_BUFFER).unwrap();
        b.as_mut().fill(9);
        let blocks = b.freeze(5000);
        let again = blocks.clone();
        assert_eq!(again.as_ref().len(), 8192);
        assert!(again.as_ref()[..5000].iter().all(|x| *x == 9) && again.as_ref()[5000..].iter().all(|x| *x == 0));
        assert!(pool.take(MOST_BUFFER / 2).is_some());
        drop(blocks);
        assert!(pool.take(MOST_BUFFER).is_none(), "a clone still holds it");
        drop(again);
        assert!(pool.take(MOST_BUFFER).is_some());
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let mut b = Buffers::new(1).unwrap().take(1).unwrap();
        b.as_mut().fill(3);
        assert_eq!(b.as_ref()[4095], 3);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(Buffers::new(0).is_err() && Buffers::new((1 << 30) + 1).is_err() && Buffers::new(usize::MAX).is_err());
    }
}
