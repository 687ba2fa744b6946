//! Every profile of the repository is read, and each thing wrong in one is refused with its line.
#![forbid(unsafe_code)]

use hoidla_format::profile::{Profile, Role};

const QEMU: &str = include_str!("../../../hw-profiles/qemu-q35.toml");

#[test]
fn every_profile_is_read_and_named_like_its_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hw-profiles");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let profile = Profile::parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(profile.name.as_str(), path.file_stem().unwrap().to_str().unwrap());
            assert_eq!(Profile::parse(&profile.write()).unwrap(), profile, "it reads back");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_machine_of_the_tests_has_what_they_use() {
    let profile = Profile::parse(QEMU).unwrap();
    assert_eq!((profile.trays.len(), profile.boot_disks.len()), (2, 2));
    assert_eq!(profile.boot_disks[1].place.to_string(), "0000:00:1f.2 port 2");
    assert_eq!(profile.port(Role::Door).unwrap().plug.to_string(), "0000:00:03.0");
    assert_eq!(profile.port(Role::Health).unwrap().plug.to_string(), "0000:00:02.0");
    assert_eq!((profile.consoles[1].device(), profile.consoles[1].speed()), ("ttyS0", Some(115_200)));
}

/// One change to the profile of the tests, and what its refusal says.
#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    for (from, to, why) in [
        ("version = 1", "version = 2", "version 2; this program knows version 1"),
        ("version = 1\n", "", "missing field `version`"),
        ("title = ", "colour = 1\ntitle = ", "unknown field `colour`"),
        ("\"tty0\"", "\"console\"", "no console"),
        ("ttyS0,115200", "ttyS0,0115200", "no console"),
        ("\"virtio_net\"", "\"virtio-net\"", "no module"),
        ("\"virtio_net\"", "\"../net\"", "no module"),
        ("\"virtio_net\"", "\"ahci\"", "the module ahci stands twice"),
        ("\"crb\"", "\"spi\"", "unknown variant"),
        ("\"software\"", "\"soft\"", "unknown variant"),
        ("port 2", "port 0", "from 1 to 32"),
        ("port 2", "port 02", "from 1 to 32"),
        ("port 2", "port 1", "stands twice"),
        ("0000:00:05.0", "0000:00:04.0", "stands twice"),
        ("0000:00:05.0", "00:05.0", "no PCI address"),
        ("0000:00:05.0", "0000:00:05.8", "no PCI address"),
        ("0000:00:05.0", "0000:00:20.0", "no PCI address"),
        ("0000:00:05.0", "0000:00:1F.0", "no PCI address"),
        ("plug = \"0000:00:03.0\"", "plug = \"52:54:00:12:34\"", "is no port"),
        ("plug = \"0000:00:03.0\"", "plug = \"0000:00:04.0\"", "stands twice"),
        ("number = 2", "number = 3", "without a gap"),
        ("role = \"door\"", "role = \"health\"", "must have the role \"door\""),
        ("QEMU q35, OVMF", "QEMU\\u0007", "one line"),
        ("memory_mib = 384", "memory_mib = -1", "invalid value"),
    ] {
        assert!(QEMU.contains(from), "{from}");
        let e = Profile::parse(&QEMU.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(e.contains(why), "{to}: {e}");
    }
    let late = Profile::parse(&QEMU.replacen("number = 2", "number = \"two\"", 1)).unwrap_err();
    assert_eq!(late.line, 1 + QEMU.lines().position(|l| l == "number = 2").unwrap(), "the line is named");
    assert!(Profile::parse(&format!("{QEMU}{}", "#".repeat(64 << 10))).is_err(), "too long");
    assert!(Profile::parse("").is_err());
    let trays: String = (3..=9).map(|n| format!("\n[[tray]]\nnumber = {n}\nplace = \"0000:01:0{n}.0\"\n")).collect();
    assert!(Profile::parse(&format!("{QEMU}{trays}")).unwrap_err().why.contains("1 to 8 trays"));
}

#[test]
fn a_card_may_be_named_by_its_own_address() {
    let by_mac = QEMU.replacen("plug = \"0000:00:03.0\"", "plug = \"52:54:00:12:34:56\"", 1);
    let profile = Profile::parse(&by_mac).unwrap();
    assert_eq!(profile.port(Role::Door).unwrap().plug.to_string(), "52:54:00:12:34:56");
}
