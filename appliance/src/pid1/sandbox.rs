//! What the appliance can no longer do once its door is about to open.
//!
//! Promises: from [`close`] on, this program and its children write nothing but the state folder
//! and devices, start nothing but this program, listen at no TCP port but those named, connect
//! to none, and ask the kernel for nothing of [`NEVER`]. Whoever takes this program over through
//! what it parses has no more than that. It doesn't bound what may be done to the disks: storing
//! is what they are for.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter};

/// The kernel's version of the rules that are used: files, and TCP.
const RULES: ABI = ABI::V4;
/// What may be executed: this program, its loader and libraries.
const PROGRAMS: &[&str] = &["/init", "/lib", "/lib64"];
/// What may be written: the state folder, links to trays.
const WRITTEN: &[&str] = &["/run"];

/// What this program never asks of the kernel.
const NEVER: &[libc::c_long] = &[
    // to look into others, or be looked into
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    // to change the kernel, or to start another
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_syslog,
    // to see other files than those there are
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    // to be in another world
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_personality,
    // to keep keys where others find them
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // to set a clock
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// The kinds of sockets there are.
const SOCKETS: &[libc::c_int] = &[libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];

/// For this thread, and all threads and processes that it starts from now on; `written` may be
/// written as well.
///
/// # Errors
/// If the kernel cannot hold all of it.
pub fn close(ports: &[u16], written: &[&str]) -> anyhow::Result<()> {
    files_and_ports(ports, written)
        .context("the kernel doesn't confine this program (landlock): the image was built with too old a kernel")?;
    let filter = filter().context("the filter of calls to the kernel")?;
    apply_filter(&filter).context("the kernel doesn't filter this program's calls (seccomp)")
}

fn files_and_ports(ports: &[u16], written: &[&str]) -> anyhow::Result<()> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(RULES) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(["/"], read))?
        .add_rules(path_beneath_rules(["/dev"], read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(PROGRAMS, read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(WRITTEN.iter().chain(written), write))?
        .add_rules(ports.iter().map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(*port, AccessNet::BindTcp))))?
        .restrict_self()?;
    ensure!(status.ruleset == RulesetStatus::FullyEnforced, "only a part of the rules is held");
    Ok(())
}

fn filter() -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let another = |kind: &libc::c_int| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *kind as u64);
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(SOCKETS.iter().map(another).collect::<Result<_, _>>()?)?]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        net::{TcpListener, TcpStream},
        process::Command,
    };

    /// In a thread of its own, which alone is confined.
    fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn what_is_never_asked_is_refused_and_the_rest_is_not() {
        confined(|| {
            apply_filter(&filter().unwrap()).unwrap();
            let refused = nix::mount::mount(Some("tmpfs"), "/mnt", Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>);
            assert_eq!(refused, Err(nix::Error::EPERM));
            assert!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err());
            let packets = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Netlink,
                nix::sys::socket::SockType::Raw,
                nix::sys::socket::SockFlag::empty(),
                None,
            );
            assert_eq!(packets.err(), Some(nix::Error::EPERM));
            TcpListener::bind("127.0.0.1:0").expect("TCP is no other kind of socket");
            assert!(Command::new("/bin/true").status().unwrap().success(), "a helper can be started");
        });
    }

    #[test]
    fn no_file_is_written_no_program_started_and_no_port_opened_but_those_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = other.local_addr().unwrap();
        confined(move || {
            if let Err(e) = files_and_ports(&[free.port()], &[]) {
                // This machine's kernel is older than the image's: then it must say so.
                assert!(e.to_string().contains("landlock") || e.to_string().contains("not"), "{e:#}");
                return;
            }
            assert!(File::create(std::env::temp_dir().join("hoidla-confined")).is_err());
            assert!(File::open("/etc/hostname").is_ok());
            assert!(Command::new("/bin/true").status().is_err(), "/bin is no place of programs in the image");
            TcpListener::bind(free).expect("the door");
            assert!(TcpListener::bind("127.0.0.1:0").is_err());
            assert!(TcpStream::connect(to).is_err());
        });
    }
}
