//! A machine against its hardware profile: written down when it is new, compared when it is not.
//!
//! Promises: both only read what the kernel tells, change nothing, and name devices by where they
//! are plugged in. What cannot be read off a machine (what its TPM is worth, which port leads
//! where) is written down as the lesser and left to a person.

mod capture;
mod check;

use std::path::{Path, PathBuf};

use anyhow::Context;

pub use capture::capture;
pub use check::check;

/// Where a machine's kernel tells of it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// sysfs.
    pub sys: PathBuf,
    /// proc.
    pub proc: PathBuf,
}

impl Kernel {
    /// The kernel that this program runs on.
    pub fn here() -> Self {
        Self { sys: PathBuf::from("/sys"), proc: PathBuf::from("/proc") }
    }

    /// MiB of memory.
    fn memory_mib(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let kib: u64 = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
        u32::try_from(kib / 1024).ok()
    }

    /// The names in a class of devices, in order.
    fn class(&self, class: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.sys.join("class").join(class)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A file of a device of a class.
    fn says(&self, class: &str, name: &str, file: &str) -> Option<String> {
        crate::pid1::devices::read(self.sys.join("class").join(class).join(name).join(file)).ok()
    }

    /// What the firmware logged of this start, as the kernel keeps it.
    pub(crate) fn event_log(&self) -> anyhow::Result<Vec<u8>> {
        let path = crate::pid1::devices::path_of_log(&self.sys);
        let bytes = std::fs::read(&path).with_context(|| {
            format!("{} cannot be read, so what the firmware measured isn't known: be root, and mount securityfs there", path.display())
        })?;
        Ok(bytes)
    }

    /// What a link in a device's folder leads to: its driver, that driver's module.
    fn linked(at: &Path, link: &str) -> Option<String> {
        Some(std::fs::canonicalize(at.join(link)).ok()?.file_name()?.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A machine made of files.

    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use hoidla_verify::firmware::{CALLING, SEPARATOR};
    use sha2::{Digest, Sha256};

    use super::Kernel;

    /// An event of a log: its type, what is hashed, and data.
    pub type Event = (u32, &'static [u8], &'static [u8]);
    /// What every firmware measures before the image.
    pub const USUAL: &[Event] = &[(0x8000_0007, CALLING, CALLING), (4, SEPARATOR, SEPARATOR)];
    /// The image, from a disk.
    pub const IMAGE: &[Event] = &[(0x8000_0003, b"image", b"")];
    /// A program in the firmware itself: its path is 20 bytes in its flash, and an end.
    pub const AGENT: &[Event] = &[(
        0x8000_0003,
        b"agent",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x18\0\0\0\0\0\0\0\x04\x07\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x7f\xff\x04\0",
    )];

    pub struct Machine(tempfile::TempDir);

    impl Machine {
        /// Nothing is plugged in.
        pub fn bare() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Two disks in trays, one to boot from, one network port, a TPM, a watchdog, a sensor.
        pub fn new() -> Self {
            let machine = Self::bare();
            machine.device("block", "pci0000:00/0000:00:04.0/virtio1/block/vda", &[("removable", "0"), ("size", "1000000")]);
            machine.device("block", "pci0000:00/0000:00:05.0/virtio2/block/vdb", &[("removable", "0"), ("size", "1000000")]);
            machine.device("block", "pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1", &[("removable", "0"), ("size", "1000000")]);
            let part = "pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/nvme0n1p1";
            machine.device("block", part, &[("partition", "1"), ("uevent", "PARTNAME=hoidla-state\n")]);
            machine.device("block", "pci0000:00/0000:00:07.0/usb1/1-1/host9/block/sdz", &[("removable", "1"), ("size", "1000")]);
            machine.device("net", "pci0000:00/0000:00:03.0/virtio0/net/eth0", &[("address", "52:54:00:00:00:01\n"), ("carrier", "1\n")]);
            machine.device("net", "virtual/net/lo", &[("address", "00:00:00:00:00:00\n")]);
            machine.device("tpm", "LNXSYSTM:00/MSFT0101:00/tpm/tpm0", &[("tpm_version_major", "2\n")]);
            machine.device("watchdog", "platform/iTCO/watchdog/watchdog0", &[("identity", "iTCO_wdt\n")]);
            machine.device(
                "hwmon",
                "platform/coretemp.0/hwmon/hwmon0",
                &[("name", "coretemp\n"), ("temp1_input", "40000\n"), ("temp1_max", "90000\n")],
            );
            machine.device("tty", "virtual/tty/console", &[("active", "tty0 ttyS0\n")]);
            machine.driver("pci0000:00/0000:00:04.0/virtio1", "virtio_blk");
            machine.driver("pci0000:00/0000:00:03.0/virtio0", "virtio_net");
            machine.driver("pci0000:00/0000:00:06.0", "nvme");
            machine.driver("LNXSYSTM:00/MSFT0101:00", "tpm_crb");
            machine.link("LNXSYSTM:00/MSFT0101:00/tpm/tpm0/device", "devices/LNXSYSTM:00/MSFT0101:00");
            machine.file("proc/meminfo", "MemTotal:        1048576 kB\n");
            machine.log(&[USUAL, IMAGE].concat());
            machine
        }

        /// What the firmware logged: events of register 4, each a type, what is hashed, and data.
        pub fn log(&self, events: &[(u32, &[u8], &[u8])]) {
            let path = self.0.path().join("kernel/security/tpm0/binary_bios_measurements");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let spec = [&b"Spec ID Event03\0"[..], &[0; 8], &1u32.to_le_bytes(), &[11, 0, 32, 0], &[0]].concat();
            let mut out = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &(spec.len() as u32).to_le_bytes(), &spec].concat();
            for (kind, hashed, data) in events {
                out.extend([4u32.to_le_bytes(), kind.to_le_bytes(), 1u32.to_le_bytes()].concat());
                out.extend([&[11, 0][..], &Sha256::digest(hashed), &(data.len() as u32).to_le_bytes(), data].concat());
            }
            fs::write(path, out).unwrap();
        }

        pub fn kernel(&self) -> Kernel {
            Kernel { sys: self.0.path().to_owned(), proc: self.0.path().join("proc") }
        }

        pub fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub fn remove(&self, path: &str) {
            let path: PathBuf = self.0.path().join(path);
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
        }

        /// A device of a class, at its place among the others, with what the kernel tells of it.
        pub fn device(&self, class: &str, at: &str, files: &[(&str, &str)]) {
            let at = self.0.path().join("devices").join(at);
            fs::create_dir_all(&at).unwrap();
            files.iter().for_each(|(name, text)| fs::write(at.join(name), text).unwrap());
            let class = self.0.path().join("class").join(class);
            fs::create_dir_all(&class).unwrap();
            symlink(&at, class.join(at.file_name().unwrap())).unwrap();
        }

        fn driver(&self, device: &str, name: &str) {
            let driver = self.0.path().join("bus/drivers").join(name);
            let module = self.0.path().join("module").join(name);
            fs::create_dir_all(&driver).unwrap();
            fs::create_dir_all(&module).unwrap();
            symlink(&module, driver.join("module")).unwrap();
            symlink(&driver, self.0.path().join("devices").join(device).join("driver")).unwrap();
        }

        fn link(&self, from: &str, to: &str) {
            symlink(self.0.path().join(to), self.0.path().join("devices").join(from)).unwrap();
        }
    }
}
