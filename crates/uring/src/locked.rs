//! Memory for secrets: pages that don't reach swap, a core dump, or (where the kernel
//! can) any other process.
//!
//! Promises: pages from `memfd_secret` where the kernel gives them, else from `mlock`;
//! either way left out of dumps, not given to a forked child, and wiped before they are
//! given back. [`Locked::kind`] says which. It doesn't hide them from the machine's
//! owner, from DMA, or from whoever runs the kernel: see docs/threat-model.md.

use std::{
    io,
    num::NonZeroUsize,
    ops::{Deref, DerefMut},
    os::fd::{FromRawFd, OwnedFd},
    ptr::NonNull,
};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use thiserror::Error;

const PAGE: usize = 4096;

/// How pages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockedKind {
    /// `memfd_secret`: unmapped from the kernel's own view too; not even root reads them through `/proc`.
    Secret,
    /// `mlock`: they stay in memory and out of dumps; root can read them.
    Locked,
}

/// Why no pages were given.
#[derive(Debug, Error)]
pub enum LockedError {
    /// Nothing, or more than the bound, was asked for.
    #[error("{0} bytes of locked memory were asked for; between 1 and {most} are given", most = Locked::MOST)]
    Size(usize),
    /// The kernel gives no more of it.
    #[error("the kernel locks no more memory ({0}): raise the limit (ulimit -l, or LimitMEMLOCK= of the service), or grant CAP_IPC_LOCK")]
    Limit(io::Error),
    /// A call failed in another way.
    #[error("memory for secrets was refused: {0}")]
    Refused(io::Error),
}

/// Zeroed pages for secrets; wiped when dropped. No `Debug`, no `Clone`.
pub struct Locked {
    start: NonNull<u8>,
    len: usize,
    mapped: NonZeroUsize,
    kind: LockedKind,
}

// SAFETY: the pages are owned by this value alone and carry no thread's state.
unsafe impl Send for Locked {}
// SAFETY: shared references only read.
unsafe impl Sync for Locked {}

impl Locked {
    /// The most bytes of one allocation: secrets are small.
    pub const MOST: usize = 1 << 20;

    /// `len` zero bytes, from the better source that the kernel has.
    pub fn new(len: usize) -> Result<Self, LockedError> {
        match Self::secret(len) {
            Err(LockedError::Refused(_)) => Self::mlocked(len),
            other => other,
        }
    }

    /// From `memfd_secret` or not at all.
    pub fn secret(len: usize) -> Result<Self, LockedError> {
        let mapped = whole_pages(len)?;
        // SAFETY: the call takes one flag and returns a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(LockedError::Refused(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        nix::unistd::ftruncate(&fd, mapped.get() as i64).map_err(refused)?;
        let flags = MapFlags::MAP_SHARED;
        // SAFETY: a new mapping at an address of the kernel's choice; its length is not zero.
        let start = unsafe { mmap(None, mapped, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, &fd, 0) }.map_err(limit)?;
        Self::hidden(start.cast(), len, mapped, LockedKind::Secret)
    }

    /// From `mlock`.
    pub fn mlocked(len: usize) -> Result<Self, LockedError> {
        let mapped = whole_pages(len)?;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, mapped, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) };
        let pages = Self { start: start.map_err(refused)?.cast(), len, mapped, kind: LockedKind::Locked };
        // SAFETY: the range is the mapping made above.
        unsafe { mlock(pages.start.cast(), mapped.get()) }.map_err(limit)?;
        Self::hide(pages)
    }

    fn hidden(start: NonNull<u8>, len: usize, mapped: NonZeroUsize, kind: LockedKind) -> Result<Self, LockedError> {
        Self::hide(Self { start, len, mapped, kind })
    }

    fn hide(pages: Self) -> Result<Self, LockedError> {
        for advice in [MmapAdvise::MADV_DONTDUMP, MmapAdvise::MADV_DONTFORK] {
            // SAFETY: the range is this value's mapping; the advice changes no content.
            match unsafe { madvise(pages.start.cast(), pages.mapped.get(), advice) } {
                // Secret pages are never dumped in the first place, and some kernels say so with EINVAL.
                Err(nix::Error::EINVAL) if pages.kind == LockedKind::Secret => {}
                other => other.map_err(refused)?,
            }
        }
        Ok(pages)
    }

    /// How the pages are kept.
    pub fn kind(&self) -> LockedKind {
        self.kind
    }
}

fn whole_pages(len: usize) -> Result<NonZeroUsize, LockedError> {
    NonZeroUsize::new(len.next_multiple_of(PAGE)).filter(|_| len <= Locked::MOST).ok_or(LockedError::Size(len))
}

fn refused(e: nix::Error) -> LockedError {
    LockedError::Refused(e.into())
}

fn limit(e: nix::Error) -> LockedError {
    match e {
        nix::Error::EAGAIN | nix::Error::ENOMEM | nix::Error::EPERM => LockedError::Limit(e.into()),
        other => refused(other),
    }
}

impl Deref for Locked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped, initialised (zero) and ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        for i in 0..self.len {
            // SAFETY: within the mapping; volatile, so that the wipe is not optimised away.
            unsafe { self.start.as_ptr().add(i).write_volatile(0) };
        }
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        // SAFETY: the mapping is ours and nothing borrows from it any more; unmapping unlocks it.
        let _ = unsafe { munmap(self.start.cast(), self.mapped.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pages: &Locked) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let address = format!("{:x}-", pages.as_ptr() as usize);
        let from = smaps.find(&address).expect("the kernel lists the mapping");
        smaps[from..].lines().find(|l| l.starts_with("VmFlags")).unwrap().to_owned()
    }

    #[test]
    fn both_kinds_hold_bytes_and_stay_out_of_dumps() {
        for pages in [Locked::mlocked(5000), Locked::new(32)] {
            let mut pages = pages.expect("some locked memory is to be had");
            assert!(pages.iter().all(|b| *b == 0));
            pages.fill(7);
            assert!(pages.iter().all(|b| *b == 7));
            let flags = shown(&pages);
            assert!(flags.contains(" lo"), "locked: {flags}");
            assert!(flags.contains(" dd"), "left out of dumps: {flags}");
            assert!(flags.contains(" dc"), "not given to children: {flags}");
        }
    }

    #[test]
    fn secret_pages_are_unreadable_through_proc() {
        use std::os::unix::fs::FileExt;
        let Ok(mut pages) = Locked::secret(32) else { return assert_eq!(Locked::new(32).unwrap().kind(), LockedKind::Locked) };
        pages.fill(0x5a);
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut seen = [0; 32];
        assert!(memory.read_exact_at(&mut seen, pages.as_ptr() as u64).is_err(), "the kernel itself read them");
        let plain = [0x5a_u8; 32];
        memory.read_exact_at(&mut seen, plain.as_ptr() as u64).expect("ordinary memory is read this way");
        assert_eq!(seen, plain);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(matches!(Locked::new(0), Err(LockedError::Size(0))));
        assert!(matches!(Locked::new(Locked::MOST + 1), Err(LockedError::Size(_))));
    }
}
