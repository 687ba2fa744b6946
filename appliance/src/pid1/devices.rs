//! Where the kernel has what a profile names, by where it is plugged in.
//!
//! Promises: only reads sysfs, and finds the same device whatever the order in which the kernel
//! saw it; two that fit are an error, not a choice.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use hoidla_format::profile::{PciAddress, Place, Plug};
use hoidla_medium::disk::Part;

/// The kernel's name of the whole disk at a place, if one is there.
pub fn disk(sys: &Path, place: &Place) -> anyhow::Result<Option<String>> {
    let fits = |name: &str, _: &Path| place_of(sys, name) == Some(*place);
    one("disk", &place.to_string(), all(&sys.join("class/block"), fits)?)
}

/// The state partition of a boot disk, if disk and partition are there.
pub fn state_partition(sys: &Path, disk: &str) -> anyhow::Result<Option<String>> {
    let line = format!("PARTNAME={}", Part::State.name());
    let fits = |_: &str, at: &Path| {
        let uevent = fs::read_to_string(at.join("uevent")).unwrap_or_default();
        at.parent().is_some_and(|p| p.ends_with(disk)) && uevent.lines().any(|l| l == line)
    };
    one("state partition", disk, all(&sys.join("class/block"), fits)?)
}

/// The kernel's name of a network port, if it is there.
pub fn port(sys: &Path, plug: &Plug) -> anyhow::Result<Option<String>> {
    let fits = |_: &str, at: &Path| match plug {
        Plug::Pci(pci) => components(at).any(|c| c == pci.to_string()),
        Plug::Mac(mac) => fs::read_to_string(at.join("address")).is_ok_and(|a| a.trim() == mac.to_string()),
    };
    one("network port", &plug.to_string(), all(&sys.join("class/net"), fits)?)
}

/// Whether a cable is in a network port and its other end is on; none if the port doesn't say.
pub fn cable(sys: &Path, port: &str) -> Option<bool> {
    Some(read(sys.join("class/net").join(port).join("carrier")).ok()? == "1")
}

/// Where a whole disk is plugged in, if on the PCI bus. What hangs on USB is nobody's tray or boot
/// disk, whatever its controller's place: it may be the very stick.
pub fn place_of(sys: &Path, name: &str) -> Option<Place> {
    let at = fs::canonicalize(sys.join("class/block").join(name)).ok().filter(|at| !at.join("partition").exists())?;
    if components(&at).any(|c| c.starts_with("usb")) {
        return None;
    }
    let ata = components(&at).find(|c| c.strip_prefix("ata").is_some_and(|n| n.parse::<u16>().is_ok()));
    let port = match ata {
        None => None,
        Some(ata) => Some(read(sys.join("class/ata_port").join(ata).join("port_no")).ok()?.parse().ok()?),
    };
    pci_of(&at).map(|pci| Place { pci, port })
}

/// The PCI device that a device of a class belongs to: the last on its path, not a bridge before it.
pub fn pci_of(device: &Path) -> Option<PciAddress> {
    let at = fs::canonicalize(device).ok()?;
    components(&at).filter_map(|c| c.parse().ok()).last()
}

fn components(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|c| c.as_os_str().to_str())
}

/// The names in a class whose device fits.
fn all(class: &Path, fits: impl Fn(&str, &Path) -> bool) -> anyhow::Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(class) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Gone again meanwhile: then it isn't there.
        if fs::canonicalize(entry.path()).is_ok_and(|at| fits(&name, &at)) {
            names.push(name);
        }
    }
    Ok(names)
}

fn one(what: &str, wanted: &str, mut names: Vec<String>) -> anyhow::Result<Option<String>> {
    names.sort();
    ensure!(names.len() < 2, "{} fit {wanted}, and only one {what} may: the profile is another machine's", names.join(" and "));
    Ok(names.pop())
}

/// The path of a device of this name.
pub fn path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Where the kernel keeps what the firmware logged of this start.
pub fn path_of_log(sys: &Path) -> PathBuf {
    sys.join("kernel/security/tpm0/binary_bios_measurements")
}

/// A whole file of sysfs or proc, without the newline at its end.
pub fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    Ok(fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fake::Machine;

    fn disk_at(sys: &Machine, place: &str) -> anyhow::Result<Option<String>> {
        disk(&sys.kernel().sys, &place.parse().unwrap())
    }

    #[test]
    fn disks_are_found_by_where_they_are_plugged_in() {
        let sys = Machine::bare();
        sys.device("block", "pci0000:00/0000:00:05.0/virtio2/block/vda", &[]);
        sys.device("block", "pci0000:00/0000:00:04.0/virtio1/block/vdb", &[]);
        sys.device(
            "block",
            "pci0000:00/0000:00:04.0/virtio1/block/vdb/vdb1",
            &[("partition", "1"), ("uevent", "X=1\nPARTNAME=hoidla-state\n")],
        );
        sys.device("block", "pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1", &[]);
        sys.device("block", "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda", &[]);
        sys.device("block", "pci0000:00/0000:00:1f.2/ata4/host3/target3:0:0/3:0:0:0/block/sdb", &[]);
        sys.device("block", "pci0000:00/0000:00:06.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0/block/sdc", &[]);
        sys.device("ata_port", "pci0000:00/0000:00:1f.2/ata3/ata_port/ata3", &[("port_no", "1\n")]);
        sys.device("ata_port", "pci0000:00/0000:00:1f.2/ata4/ata_port/ata4", &[("port_no", "2\n")]);
        for (place, name) in [
            ("0000:00:04.0", Some("vdb")),
            ("0000:00:05.0", Some("vda")),
            ("0000:01:00.0", Some("nvme0n1")),
            ("0000:00:01.0", None), // the bridge before it
            ("0000:00:06.0", None), // a stick
            ("0000:00:1f.2 port 1", Some("sda")),
            ("0000:00:1f.2 port 2", Some("sdb")),
            ("0000:00:1f.2 port 3", None),
            ("0000:00:1f.2", None),
            ("0000:00:04.0 port 1", None),
        ] {
            assert_eq!(disk_at(&sys, place).unwrap().as_deref(), name, "{place}");
        }
        assert_eq!(state_partition(&sys.kernel().sys, "vdb").unwrap().as_deref(), Some("vdb1"));
        assert_eq!(state_partition(&sys.kernel().sys, "vda").unwrap(), None);
        sys.device("block", "pci0000:00/0000:00:04.0/virtio9/block/vdz", &[]);
        assert!(disk_at(&sys, "0000:00:04.0").unwrap_err().to_string().contains("vdb and vdz"));
    }

    #[test]
    fn ports_are_found_by_slot_or_by_their_own_address() {
        let sys = Machine::bare();
        sys.device("net", "pci0000:00/0000:00:03.0/virtio0/net/eth1", &[("address", "52:54:00:00:00:01\n")]);
        sys.device("net", "pci0000:00/0000:00:06.0/net/eth2", &[("carrier", "0\n")]);
        sys.device("net", "pci0000:00/0000:00:07.0/net/eth3", &[("carrier", "1\n")]);
        let there = ["eth1", "eth2", "eth3"].map(|port| cable(&sys.kernel().sys, port));
        assert_eq!(there, [None, Some(false), Some(true)]);
        sys.device("net", "virtual/net/lo", &[("address", "00:00:00:00:00:00\n")]);
        let find = |plug: &str| port(&sys.kernel().sys, &plug.parse().unwrap()).unwrap();
        assert_eq!(find("0000:00:03.0").as_deref(), Some("eth1"));
        assert_eq!(find("52:54:00:00:00:01").as_deref(), Some("eth1"));
        assert_eq!(find("0000:00:04.0"), None);
        assert_eq!(find("52:54:00:00:00:02"), None);
        assert_eq!(port(Path::new("/nowhere"), &"0000:00:04.0".parse().unwrap()).unwrap(), None);
    }
}
