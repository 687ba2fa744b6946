//! Keeps a process's memory off disks and away from its neighbours.

use nix::{
    libc,
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl,
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    },
};

/// What [`harden`] reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardened {
    /// No core dump, and no other process of the same user may look in.
    pub undumpable: bool,
    /// No page of this process is ever swapped out. Secrets' own pages are
    /// locked besides, by `hoidla-crypto`.
    pub locked: bool,
}

/// Forbids core dumps and tracing, and locks all memory where the system allows it.
///
/// Call it first in `main`, before any thread. It never fails: what it could not
/// do is in the answer.
pub fn harden() -> Hardened {
    let undumpable = prctl::set_dumpable(false).is_ok() & setrlimit(Resource::RLIMIT_CORE, 0, 0).is_ok();
    Hardened { undumpable, locked: lock_all() }
}

/// Locks pages as they are first touched, so that reserved but unused ones cost nothing.
fn lock_all() -> bool {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return false };
    if soft < hard && setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).is_err() {
        return false;
    }
    // Under a limit, a later allocation would fail instead of going unlocked.
    if hard != RLIM_INFINITY && !nix::unistd::geteuid().is_root() {
        return false;
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_writes_no_core() {
        assert!(harden().undumpable);
        assert_eq!(prctl::get_dumpable(), Ok(false));
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
    }
}
