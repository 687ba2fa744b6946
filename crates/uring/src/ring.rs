//! The ring: writes and flushes of a set of disks, by one thread.
//!
//! Promises: a write ends in full or with an error, however short the kernel's steps are;
//! memory in flight is never given back early, not even when the ring is dropped. It
//! carries requests out in any order (the engine asks for a flush only after the writes
//! before it have completed) and retries no failure: that is the engine's verdict.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use hoidla_store::{Op, Request};
use io_uring::{IoUring, opcode, squeue, types};
use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;

use crate::{
    buffers::{Blocks, Buffers},
    file::DiskFile,
};

/// Requests under way at once; more wait in line.
const DEPTH: usize = 128;
/// The user data of the read that waits for a wake-up.
const WAKE: u64 = u64::MAX;

/// Why there is no ring, or none any more.
#[derive(Debug, Error)]
pub enum RingError {
    /// The kernel gives none.
    #[error(
        "the kernel gives no io_uring ({0}): it needs Linux 5.11 or newer, sysctl kernel.io_uring_disabled=0, and a limit on locked memory (ulimit -l) of at least 1 MiB"
    )]
    Setup(io::Error),
    /// The disks couldn't be registered.
    #[error("the disks could not be registered with io_uring: {0}")]
    Files(io::Error),
    /// The kernel failed while the ring ran.
    #[error("io_uring failed while running: {0}")]
    Running(io::Error),
}

/// A request that was carried out: its id, and the bytes written or why not.
pub type Done = (u64, io::Result<usize>);

struct Flight {
    id: u64,
    disk: u32,
    /// What is written; none for a flush.
    blocks: Option<Blocks>,
    at: u64,
    written: usize,
    /// Which of the disks that had this place: a rest is never written to its successor.
    turn: u64,
}

/// One io_uring with its disks registered, and its buffers once [`register`](Ring::register) was called.
pub struct Ring {
    ring: IoUring,
    disks: Vec<Option<Arc<DiskFile>>>,
    /// Raised whenever a disk is replaced.
    turns: Vec<u64>,
    registered: bool,
    wake: Arc<EventFd>,
    wake_count: Box<[u8; 8]>,
    wake_pending: bool,
    flights: Vec<Option<Flight>>,
    idle: Vec<usize>,
    line: VecDeque<Flight>,
    done: Vec<Done>,
    /// Keeps the registered memory mapped until the ring is gone.
    buffers: Buffers,
}

impl Ring {
    /// A ring over `disks`, by place. Call on the thread that will use it.
    pub fn new(disks: Vec<Option<Arc<DiskFile>>>, buffers: &Buffers) -> Result<Self, RingError> {
        let ring = setup().map_err(RingError::Setup)?;
        let fds: Vec<_> = disks.iter().map(|d| d.as_ref().map_or(-1, |d| d.file().as_raw_fd())).collect();
        ring.submitter().register_files(&fds).map_err(RingError::Files)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|e| RingError::Setup(e.into()))?;
        Ok(Self {
            ring,
            turns: vec![0; disks.len()],
            disks,
            registered: false,
            wake: Arc::new(wake),
            wake_count: Box::new([0; 8]),
            wake_pending: false,
            flights: (0..DEPTH).map(|_| None).collect(),
            idle: (0..DEPTH).rev().collect(),
            line: VecDeque::new(),
            done: Vec::new(),
            buffers: buffers.clone(),
        })
    }

    /// Registers the buffers with the kernel, once: writing costs less CPU from then on. The kernel
    /// clears and pins all of them meanwhile, which takes a while.
    ///
    /// # Errors
    /// If the kernel locks no more memory; the ring works all the same.
    pub fn register(&mut self) -> Result<(), String> {
        if self.registered {
            return Ok(());
        }
        // SAFETY: the region stays mapped as long as `buffers`, which is dropped after the ring.
        unsafe { self.ring.submitter().register_buffers(&[self.buffers.whole()]) }.map_err(|why| {
            format!(
                "the store's buffers are not registered with the kernel ({why}), so writing costs more CPU: raise the limit on locked memory \
                 (ulimit -l, or LimitMEMLOCK= of the service) above the size of the buffers, or grant CAP_IPC_LOCK"
            )
        })?;
        self.registered = true;
        Ok(())
    }

    /// What another thread writes to, to end a [`wait`](Self::wait).
    pub fn waker(&self) -> Arc<EventFd> {
        self.wake.clone()
    }

    /// Puts another disk in a place, or none. What was asked of the one before and isn't under
    /// way is dropped: the engine has given that disk up.
    pub fn replace(&mut self, place: u8, disk: Option<Arc<DiskFile>>) -> Result<(), RingError> {
        let at = usize::from(place);
        let fd = disk.as_ref().map_or(-1, |d| d.file().as_raw_fd());
        self.ring.submitter().register_files_update(u32::from(place), &[fd]).map_err(RingError::Files)?;
        self.line.retain(|f| f.disk != u32::from(place));
        self.turns[at] += 1;
        self.disks[at] = disk;
        Ok(())
    }

    /// Takes one request; it is submitted with the next [`wait`](Self::wait).
    pub fn push(&mut self, request: Request<Buffers>) {
        let (id, disk) = (request.id, u32::from(request.disk));
        let Some(Some(file)) = self.disks.get(usize::from(request.disk)) else {
            return self.done.push((id, Err(io::Error::other("the disk is missing"))));
        };
        let (at, blocks) = match request.op {
            Op::Flush => (0, None),
            Op::Write { at, blocks } => (at, Some(blocks)),
        };
        let len = blocks.as_ref().map_or(0, |b| b.as_ref().len() as u64);
        if at.checked_add(len).is_none_or(|end| end > hoidla_store::Disk::size(&**file)) {
            return self.done.push((id, Err(io::Error::other("a write past the end of the disk"))));
        }
        let turn = self.turns[disk as usize];
        self.line.push_back(Flight { id, disk, blocks, at, written: 0, turn });
    }

    /// Requests that are not done yet.
    pub fn under_way(&self) -> usize {
        self.line.len() + DEPTH - self.idle.len()
    }

    /// Submits all that may be submitted and waits until something is done, or a wake-up
    /// came, or `patience` is over; then adds what is done to `done`. Whether anything came.
    pub fn wait(&mut self, done: &mut Vec<Done>, patience: Option<Duration>) -> Result<bool, RingError> {
        self.launch();
        let mut came = true;
        if self.done.is_empty() {
            came = self.enter(1, patience)?;
            self.reap();
        }
        done.append(&mut self.done);
        Ok(came)
    }

    fn launch(&mut self) {
        if !self.wake_pending {
            let fd = types::Fd(self.wake.as_fd().as_raw_fd());
            let read = opcode::Read::new(fd, self.wake_count.as_mut_ptr(), 8).build().user_data(WAKE);
            self.wake_pending = true;
            self.submit(&read);
        }
        while let Some(slot) = self.idle.pop() {
            let Some(flight) = self.line.pop_front() else { return self.idle.push(slot) };
            let entry = self.entry(&flight).user_data(slot as u64);
            self.flights[slot] = Some(flight);
            self.submit(&entry);
        }
    }

    fn entry(&self, flight: &Flight) -> squeue::Entry {
        let fd = types::Fixed(flight.disk);
        let Some(blocks) = &flight.blocks else { return opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build() };
        let rest = &blocks.as_ref()[flight.written..];
        let (start, len, at) = (rest.as_ptr(), rest.len() as u32, flight.at + flight.written as u64);
        if self.registered {
            opcode::WriteFixed::new(fd, start, len, 0).offset(at).build()
        } else {
            opcode::Write::new(fd, start, len).offset(at).build()
        }
    }

    fn submit(&mut self, entry: &squeue::Entry) {
        // SAFETY: the memory belongs to `flights` (or `wake_count`) until its completion is
        // reaped, and `drop` waits for that; the descriptors are registered or held.
        unsafe { self.ring.submission().push(entry) }.expect("the queue has room for every flight and the wake-up");
    }

    /// Whether so many completions came within `patience`.
    fn enter(&mut self, want: usize, patience: Option<Duration>) -> Result<bool, RingError> {
        let time = patience.map(|p| types::Timespec::new().sec(p.as_secs()).nsec(p.subsec_nanos()));
        loop {
            let entered = match &time {
                Some(time) => self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(time)),
                None => self.ring.submit_and_wait(want),
            };
            match entered {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ETIME) => return Ok(false),
                Err(e) => return Err(RingError::Running(e)),
                Ok(_) => return Ok(true),
            }
        }
    }

    fn reap(&mut self) {
        let results: Vec<_> = self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        for (slot, result) in results {
            if slot == WAKE {
                self.wake_pending = false;
                continue;
            }
            let slot = slot as usize;
            let Some(mut flight) = self.flights[slot].take() else { continue };
            self.idle.push(slot);
            match outcome(&mut flight, result) {
                Some(outcome) => self.done.push((flight.id, outcome)),
                None if flight.turn == self.turns[flight.disk as usize] => self.line.push_front(flight),
                None => self.done.push((flight.id, Err(io::Error::other("the disk was taken out")))),
            }
        }
    }
}

/// What a completion means for its request; none if there is more to write.
fn outcome(flight: &mut Flight, result: i32) -> Option<io::Result<usize>> {
    let whole = flight.blocks.as_ref().map_or(0, |b| b.as_ref().len());
    match usize::try_from(result) {
        Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) && whole > 0 => None,
        Err(_) => Some(Err(io::Error::from_raw_os_error(-result))),
        Ok(_) if whole == 0 => Some(Ok(0)),
        Ok(0) => Some(Err(io::Error::from(io::ErrorKind::WriteZero))),
        Ok(n) => {
            flight.written += n;
            (flight.written >= whole).then_some(Ok(whole))
        }
    }
}

fn setup() -> io::Result<IoUring> {
    let entries = (DEPTH + 1).next_power_of_two() as u32;
    // Deferred task work saves interrupts of this thread; kernels before 6.1 refuse it.
    let best = IoUring::builder().dontfork().setup_single_issuer().setup_defer_taskrun().build(entries);
    best.or_else(|_| IoUring::builder().dontfork().build(entries))
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.line.clear();
        let _ = self.wake.write(1);
        while self.wake_pending || self.idle.len() < DEPTH {
            if self.enter(1, None).is_err() {
                // The kernel may still write from this memory: better lost than given back.
                self.flights.drain(..).for_each(std::mem::forget);
                std::mem::forget(std::mem::replace(&mut self.wake_count, Box::new([0; 8])));
                return;
            }
            self.reap();
            self.line.clear();
        }
        // Else the kernel would hold the disks until it gets round to ending the ring.
        let _ = self.ring.submitter().unregister_files();
    }
}
