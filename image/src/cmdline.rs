//! The kernel's command line: fixed when the image is built, measured, and signed.
//!
//! What else must be closed (kexec, /dev/mem, core dumps), PID 1 closes: here stands only what
//! must hold before it runs.

use hoidla_format::profile::Console;

/// After the consoles, in this order:
/// - the kernel's own lockdown, so that not even root reads its memory; it refuses unsigned modules;
/// - modules must be signed even where lockdown were off;
/// - an oops stops the machine, and ten seconds later it starts anew: it comes back by itself;
/// - devices reach no memory that isn't theirs, where there is an IOMMU;
/// - fresh pages are empty, slabs are not merged, the kernel's stack moves;
/// - no old system calls at fixed places, no debugging file system;
/// - the TPM's library keeps its own words off the console: what it can't do, the program says.
const FIXED: &str = "lockdown=confidentiality module.sig_enforce=1 oops=panic panic=10 \
    intel_iommu=on iommu.passthrough=0 iommu.strict=1 \
    init_on_alloc=1 slab_nomerge randomize_kstack_offset=on \
    vsyscall=none debugfs=off loglevel=4 TSS2_LOG=all+none";

/// The command line of a machine with these consoles; the last one is where PID 1 speaks.
pub fn of(consoles: &[Console]) -> String {
    let consoles = consoles.iter().map(|c| format!("console={c} "));
    consoles.chain([FIXED.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_always_there_and_nothing_asks_for_a_shell() {
        let line = of(&["ttyS0,115200", "tty0"].map(|c| c.parse().unwrap()));
        assert!(line.starts_with("console=ttyS0,115200 console=tty0 lockdown=confidentiality "), "{line}");
        assert!(!line.contains("  ") && !line.contains("init=") && !line.contains("root="), "{line}");
    }
}
