//! The kernel as PID 1 finds it and leaves it: mounted, with its drivers, and its doors closed.
//!
//! Promises: no core dump, no second kernel and no magic key after [`close_doors`]; no further
//! module after [`no_more_modules`]; it mounts nothing that lies on a disk.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, bail, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::set_cad_enabled,
};

use super::devices::read;

/// What is mounted, in this order: type, where, options.
const MOUNTS: &[(&str, &str, Option<&str>)] = &[
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", Some("mode=0755")),
    ("securityfs", "/sys/kernel/security", None),
    ("tmpfs", "/run", Some("mode=0700,size=64m")),
];

/// Settings of the running kernel, and why.
const SETTINGS: &[(&str, &str)] = &[
    ("kernel/printk", "3 4 1 3"),    // the console is for people
    ("kernel/panic", "10"),          // a kernel that fell over starts again by itself
    ("kernel/panic_on_oops", "1"),   // and doesn't go on half broken
    ("kernel/sysrq", "0"),           // no key commands the kernel
    ("kernel/core_pattern", "\n"),   // no dump of memory
    ("kernel/core_pipe_limit", "0"), // nor through a pipe
    ("kernel/modprobe", "\n"),       // the kernel starts no program
    ("kernel/dmesg_restrict", "1"),  // its messages are not for everyone
    ("kernel/kptr_restrict", "2"),   // nor its addresses
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/kexec_load_disabled", "1"), // no second kernel without the firmware's check
    ("kernel/yama/ptrace_scope", "3"),   // no process looks into another
    ("user/max_user_namespaces", "0"),
    ("net/ipv4/ip_forward", "0"),          // nobody goes through this machine
    ("net/ipv4/conf/all/arp_ignore", "1"), // each network port answers for its own address
    ("net/ipv4/conf/all/rp_filter", "1"),  // and takes nothing that should have come by another
    ("net/ipv4/conf/all/accept_redirects", "0"),
];

/// What must be so afterwards, or the appliance doesn't start.
const CLOSED: &[(&str, &str)] = &[("kernel/kexec_load_disabled", "1"), ("kernel/sysrq", "0")];
/// What forbids modules until the next start.
const NO_MORE_MODULES: (&str, &str) = ("kernel/modules_disabled", "1");

/// Mounts what the kernel itself offers.
pub fn mount_all() -> anyhow::Result<()> {
    for (kind, at, options) in MOUNTS {
        fs::create_dir_all(at).with_context(|| (*at).to_owned())?;
        let exec = if *kind == "devtmpfs" { MsFlags::empty() } else { MsFlags::MS_NODEV };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | exec;
        match mount(Some(*kind), *at, Some(*kind), flags, *options) {
            // The kernel may have mounted /dev itself.
            Err(nix::Error::EBUSY) => {}
            other => other.with_context(|| format!("{at} cannot be mounted"))?,
        }
    }
    Ok(())
}

/// Where the firmware's variables are mounted, and how.
pub const FIRMWARE: &str = "/sys/firmware/efi/efivars";
const FIRMWARE_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// Mounts the firmware's variables; after the modules, since they are one. Boot entries are
/// written before the sandbox closes, which lets nobody write here.
pub fn mount_firmware() -> anyhow::Result<()> {
    mount(Some("efivarfs"), FIRMWARE, Some("efivarfs"), FIRMWARE_FLAGS, None::<&str>)
        .context("the firmware's variables cannot be read: this machine was not started by UEFI; set its firmware to UEFI without CSM")
}

/// Nothing of the firmware's is written from now on, by anybody.
pub fn firmware_is_settled() -> anyhow::Result<()> {
    mount(None::<&str>, FIRMWARE, None::<&str>, FIRMWARE_FLAGS | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
        .context("the firmware's variables cannot be closed")
}

/// Drivers of what nobody waits for later: loading them returns once their devices are there.
const AT_ONCE: &[&str] = &["button.ko", "evdev.ko"];

/// Loads the modules of one of the image's lists, line after line; those of one line need nothing of
/// one another, and each processor takes some. Their devices may appear later: disks, network
/// ports and watchdog are waited for by those who need them.
pub fn load_modules(folder: &Path, list: &str) -> anyhow::Result<usize> {
    let order = fs::read_to_string(folder.join(list))
        .context("the image lacks a list of modules: it was built wrongly; call home, which builds it again")?;
    let hands = thread::available_parallelism().map_or(1, usize::from);
    for line in order.lines() {
        let (wave, next): (Vec<&str>, _) = (line.split(' ').collect(), AtomicUsize::new(0));
        let work = || {
            while let Some(name) = wave.get(next.fetch_add(1, Ordering::Relaxed)) {
                load_module(folder, name)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..hands.min(wave.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|_| bail!("loading a module fell over")))
                .chain([own])
                .collect::<anyhow::Result<()>>()
        })?;
    }
    Ok(order.split_whitespace().count())
}

fn load_module(folder: &Path, name: &str) -> anyhow::Result<()> {
    ensure!(!name.contains('/') && name.ends_with(".ko"), "{name:?} in the list of modules is no file name");
    let file = fs::File::open(folder.join(name)).with_context(|| format!("the module {name} is missing from the image"))?;
    let how = if AT_ONCE.contains(&name) { c"" } else { c"async_probe" };
    match finit_module(file, how, ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        // A driver without its device says so and is not wanted.
        Err(nix::Error::ENODEV) => {
            tracing::debug!("{name}: no such device");
            Ok(())
        }
        Err(e) => bail!("the module {name} is refused by the kernel ({e}): the image was built with another kernel's modules"),
    }
}

/// Closes what nobody needs any more, and sees that it is closed.
pub fn close_doors() -> anyhow::Result<()> {
    let sys = Path::new("/proc/sys");
    for (name, value) in SETTINGS {
        if let Err(e) = fs::write(sys.join(name), value) {
            tracing::debug!("{name}: {e}"); // not every kernel has every one; what must be is looked at below
        }
    }
    set_cad_enabled(false).context("Ctrl-Alt-Del cannot be caught")?;
    for device in ["mem", "kmem", "port"] {
        // Lockdown refuses them; without a name nobody even asks.
        _ = fs::remove_file(Path::new("/dev").join(device));
    }
    CLOSED.iter().try_for_each(|setting| is_closed(sys, *setting))
}

/// Whatever is plugged in from now on finds no driver that isn't there already.
pub fn no_more_modules() -> anyhow::Result<()> {
    let (sys, (name, value)) = (Path::new("/proc/sys"), NO_MORE_MODULES);
    fs::write(sys.join(name), value).context("modules cannot be forbidden")?;
    is_closed(sys, NO_MORE_MODULES)
}

fn is_closed(sys: &Path, (name, value): (&str, &str)) -> anyhow::Result<()> {
    ensure!(read(sys.join(name))? == value, "{name} is not {value}: this kernel keeps a door open that must be closed");
    Ok(())
}

/// Refuses a kernel that doesn't keep even root out of its memory.
pub fn lockdown(sys: &Path) -> anyhow::Result<()> {
    let text = read(sys.join("kernel/security/lockdown"))?;
    ensure!(
        text.contains("[confidentiality]"),
        "the kernel's lockdown is {text:?} and must be confidentiality: this image was changed or built wrongly; call home, which builds it again"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_strictest_lockdown_will_do() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("kernel/security")).unwrap();
        let says = |text: &str| {
            fs::write(sys.path().join("kernel/security/lockdown"), text).unwrap();
            lockdown(sys.path())
        };
        says("none integrity [confidentiality]\n").unwrap();
        for text in ["none [integrity] confidentiality\n", "[none] integrity confidentiality\n", ""] {
            assert!(says(text).unwrap_err().to_string().contains("must be confidentiality"));
        }
    }
}
