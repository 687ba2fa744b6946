//! What the opening helper may ask of the kernel: a list of calls, and nothing else.
//!
//! Promises: after [`close`] this process starts no program and no thread, opens no file to write
//! and no socket, and makes no memory that can be both written and executed; what isn't on the
//! list is refused. The list follows the way to the TPM: a share is checked without any, so then
//! no file is opened at all; a device is opened in the one manner of libtss2; only a TPM that
//! listens, as in tests, gets sockets. Which files may be read, landlock says where there is one
//! (PID 1's sandbox, which a helper inherits).

use std::{collections::BTreeMap, fmt};

use anyhow::Context;
use clap::ValueEnum;
use hoidla_tpm::Tcti;
use nix::libc::{self, c_int, c_long};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter};

/// How a helper reaches the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Not at all.
    None,
    /// By a device.
    Device,
    /// By a socket.
    Socket,
}

impl Way {
    /// The way to this TPM.
    pub fn to(tcti: &Tcti) -> Self {
        if tcti.as_str().starts_with("device:") { Self::Device } else { Self::Socket }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Device => "device",
            Self::Socket => "socket",
        })
    }
}

/// Any helper: its pipes, memory, chance, time and end.
const ALWAYS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// Whoever speaks to a TPM: libtss2 looks for the library of its way, and OpenSSL for its settings.
const LIBRARIES: &[c_long] = &[libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_lseek, libc::SYS_pread64, libc::SYS_poll];

/// From now on, for this thread and all that it starts; a helper has no other.
///
/// # Errors
/// If the kernel has no such filters.
pub fn close(way: Way) -> anyhow::Result<()> {
    let filter = filter(way).context("the opening helper's list of calls")?;
    apply_filter(&filter).context("the kernel doesn't filter the opening helper's calls (seccomp): no share is opened here")
}

/// One argument of a call, by its number, as far as `mask` goes.
fn argument(number: u8, mask: c_int, value: c_int) -> anyhow::Result<SeccompRule> {
    let masked = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, masked, u64::from(value.cast_unsigned()))?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn filter(way: Way) -> anyhow::Result<BpfProgram> {
    const WRITES: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    const PASSING: c_int = libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NOCTTY;
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let to_read = argument(2, WRITES, libc::O_RDONLY)?;
    let not_executable = argument(2, libc::PROT_EXEC, 0)?;
    let not_writable = argument(2, libc::PROT_WRITE, 0)?;
    rules.insert(libc::SYS_mprotect, vec![not_executable.clone()]);
    rules.insert(libc::SYS_mmap, vec![not_executable.clone()]);
    if way != Way::None {
        rules.extend(LIBRARIES.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_mmap, vec![not_executable, not_writable]);
        rules.insert(libc::SYS_openat, vec![to_read.clone()]);
    }
    match way {
        Way::None => {}
        Way::Device => {
            let as_libtss2_does = argument(2, !PASSING, libc::O_RDWR | libc::O_NONBLOCK)?;
            rules.insert(libc::SYS_openat, vec![to_read, as_libtss2_does]);
        }
        Way::Socket => {
            let kinds = [libc::AF_INET, libc::AF_INET6].into_iter().map(|kind| argument(0, -1, kind));
            rules.insert(libc::SYS_socket, kinds.collect::<Result<_, _>>()?);
            rules.insert(libc::SYS_connect, Vec::new());
        }
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{File, OpenOptions},
        io,
        net::{TcpListener, TcpStream},
        os::unix::fs::OpenOptionsExt,
        process::Command,
    };

    /// In a thread of its own, which alone is confined.
    fn confined<T: Send + 'static>(way: Way, work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(move || {
            close(way).unwrap();
            work()
        })
        .join()
        .unwrap()
    }

    fn refused<T>(what: &str, done: io::Result<T>) {
        assert_eq!(done.err().map(|e| e.kind()), Some(io::ErrorKind::PermissionDenied), "{what}");
    }

    #[test]
    fn whatever_the_way_no_program_starts_and_no_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "x").unwrap();
        for way in [Way::None, Way::Device, Way::Socket] {
            let (there, new) = (there.clone(), folder.path().join("new"));
            confined(way, move || {
                refused("execve", Command::new("/bin/true").status());
                refused("openat, a new file", File::create(&new));
                refused("openat, for writing", OpenOptions::new().write(true).open(&there));
                refused("openat, for adding", OpenOptions::new().append(true).open(&there));
                refused("openat, for both", OpenOptions::new().read(true).write(true).open(&there));
                refused("unlink", std::fs::remove_file(&there));
                refused("bind", TcpListener::bind("127.0.0.1:0"));
                refused("clone", std::thread::Builder::new().spawn(|| ()));
            });
        }
        assert!(!folder.path().join("new").exists() && there.exists());
    }

    #[test]
    fn a_file_is_read_and_a_device_or_socket_opened_only_on_the_way_that_needs_it() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, device) = (other.local_addr().unwrap(), "/dev/null");
        let open = move || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device);
        confined(Way::None, move || {
            refused("openat", File::open("/proc/self/maps"));
            refused("openat", open());
            refused("socket", TcpStream::connect(to));
        });
        confined(Way::Device, move || {
            File::open("/proc/self/maps").expect("libraries are read");
            open().expect("as libtss2 opens a TPM");
            refused("socket", TcpStream::connect(to));
        });
        confined(Way::Socket, move || {
            File::open("/proc/self/maps").expect("libraries are read");
            refused("openat", open());
            TcpStream::connect(to).expect("a TPM that listens");
            refused("another kind of socket", std::os::unix::net::UnixStream::connect("/nowhere"));
        });
    }
}
