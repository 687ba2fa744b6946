//! What is in an image, and that it is the same each time.

use hoidla_format::profile::Profile;
use hoidla_image::{
    authenticode, deb,
    initramfs::{self, AUTHORITY, ORDER, PROFILE, RELEASE, STICK},
    inspect::Inside,
    lock::Part,
    modules::Kernel,
    uki::{Parts, assemble},
};
use hoidla_medium::{Slot, stick};
use hoidla_verify::pe::Image;

use crate::world::{self, archive, build, built, lock, signed};

fn contents(image: &[u8]) -> initramfs::Contents {
    let image = Image::parse(image).unwrap();
    initramfs::read(image.section(".initrd").unwrap().content).unwrap()
}

#[test]
fn the_same_inputs_are_the_same_bytes() {
    assert!(build(world::PROFILE).unwrap().image == built().image, "two builds differ");
}

#[test]
fn an_image_holds_one_program_and_nothing_to_log_in_with() {
    let contents = contents(&built().image);
    let programs: Vec<&String> = contents.keys().filter(|p| !p.starts_with("lib") && !p.starts_with("etc/hoidla/")).collect();
    assert_eq!(programs, ["init"]);
    for needed in [AUTHORITY, PROFILE, RELEASE, ORDER, STICK, "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"] {
        assert!(contents.contains_key(needed), "{needed}");
    }
    assert_eq!(contents[PROFILE], world::PROFILE.as_bytes());
    let inside = Inside::of(&built().image).unwrap();
    assert!(inside.cmdline.contains("lockdown=confidentiality") && inside.certificate.is_none());
    assert_eq!(inside.authority, world::authority(1).statements.verifying_key().to_sec1());
    assert!(inside.note.software.iter().any(|s| s.name.starts_with("linux-image-")) && inside.note.software.len() > 3);
}

#[test]
fn modules_come_after_what_they_need_and_keep_their_signatures() {
    let contents = contents(&built().image);
    let waves = |list: &str| -> Vec<Vec<&str>> {
        std::str::from_utf8(&contents[list]).unwrap().lines().map(|line| line.split(' ').collect()).collect()
    };
    let (order, stick) = (waves(ORDER), waves(STICK));
    let wave = |name: &str| order.iter().position(|w| w.contains(&&*format!("{name}.ko"))).unwrap_or_else(|| panic!("{name} in {order:?}"));
    // Those of one wave are loaded at once.
    assert!(wave("failover") < wave("net_failover") && wave("net_failover") < wave("virtio_net"));
    assert!(wave("scsi_mod") < wave("libata") && wave("libata") < wave("ahci"));
    assert!(order.len() < 8 && order.iter().all(|wave| !wave.is_empty()), "{order:?}");
    // This machine, while it serves, has no USB; what it has anyhow isn't loaded twice.
    assert_eq!(stick, [vec!["usb_common.ko"], vec!["usbcore.ko"], vec!["xhci_hcd.ko", "usb_storage.ko"], vec!["xhci_pci.ko"]]);
    let order = [order.concat(), stick.concat()].concat();
    for module in &order {
        assert!(contents[&format!("lib/modules/{module}")].ends_with(b"~Module signature appended~\n"), "{module}");
    }
    assert_eq!(order.len(), contents.keys().filter(|p| p.ends_with(".ko")).count());
}

#[test]
fn soft_wishes_are_followed_through_aliases_and_firmware_is_reported() {
    let package = lock().of(Part::Kernel).next().unwrap();
    let files = deb::unpack(&archive().fetch(package).unwrap(), |p| p.starts_with("lib/modules/")).unwrap();
    let kernel = Kernel::of(&files).unwrap();
    let closure = |names: &[&str]| kernel.closure(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), &[]);
    let names = |c: &hoidla_image::modules::Closure| c.modules.iter().map(|m| m.name.clone()).collect::<Vec<_>>();

    // libcrc32c asks for crypto-crc32c, an alias that several modules offer.
    let xfs = closure(&["xfs"]).unwrap().modules.into_iter().map(|m| (m.name, m.wave)).collect::<Vec<_>>();
    let at = |name: &str| xfs.iter().find(|m| m.0 == name).unwrap_or_else(|| panic!("{name} in {xfs:?}")).1;
    assert!(at("crc32c_generic") < at("libcrc32c") && at("libcrc32c") < at("xfs"));

    let ice = closure(&["ice"]).unwrap();
    assert!(ice.firmware.iter().any(|f| f.starts_with("ice: intel/ice/")), "{:?}", ice.firmware);
    let built_in = closure(&["virtio_pci", "tpm_crb"]).unwrap();
    assert_eq!((built_in.builtin.len(), built_in.modules.len()), (2, 0));
    // A name is one thing, however it is written, and comes once.
    assert_eq!(names(&closure(&["nvme-core", "nvme_core", "nvme"]).unwrap()).iter().filter(|n| *n == "nvme_core").count(), 1);
    let e = format!("{:?}", closure(&["no_such_module"]).unwrap_err());
    assert!(e.contains("no_such_module") && e.contains("profile"), "{e}");
}

#[test]
fn a_profile_that_asks_for_what_is_not_there_builds_nothing() {
    assert!(build(&world::PROFILE.replace("virtio_blk", "virtio_blc")).is_err());
    assert!(build("version = 1\n").is_err());
}

#[test]
fn a_stick_carries_the_image_and_keeps_within_its_size() {
    let slot = Slot { image: signed().clone(), manifest: world::manifest().into(), certificate: world::boot_key(0).certificate().to_vec() };
    let bytes = stick::write(&slot).unwrap();
    assert!(bytes.len() <= 40 << 20 && slot.image.len() <= 25_000_000);
    assert_eq!(stick::read(&bytes).unwrap(), slot);
}

/// What hoidlad takes in a packed initramfs, with room to grow. A stick of 40 MiB has room for more than the image may have.
const PROGRAM: usize = 7_500_000;

#[test]
fn every_machine_has_its_modules_and_an_image_within_its_size() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../hw-profiles");
    let profiles: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some()).collect();
    assert!(profiles.len() > 1);
    for path in profiles {
        let text = std::fs::read_to_string(&path).unwrap();
        let built = build(&text).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        let profile = Profile::parse(&text).unwrap();
        for module in profile.modules.iter().chain(&profile.stick_modules).map(ToString::to_string) {
            assert!(built.modules.contains(&module) || built.builtin.contains(&module), "{}: {module}", path.display());
        }
        let signed = authenticode::attach(&built.image, world::boot_key(0)).unwrap().len() + PROGRAM;
        assert!(signed <= 25_000_000, "{}: {signed} bytes", path.display());
    }
}

#[test]
fn another_stub_or_a_command_line_that_would_be_changed_is_refused() {
    let package = lock().of(Part::Stub).next().unwrap();
    let files = deb::unpack(&archive().fetch(package).unwrap(), |p| p.ends_with("/linuxx64.efi.stub")).unwrap();
    let stub = deb::by_name(&files, "linuxx64.efi.stub").unwrap();
    let mut kernel = vec![0; 4096];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let parts = Parts { stub, kernel: &kernel, initramfs: b"initramfs", cmdline: "lockdown=confidentiality", os_release: "ID=hoidla\n" };
    let image = assemble(&parts).unwrap();
    assert_eq!(Image::parse(&image).unwrap().section(".cmdline").unwrap().content, b"lockdown=confidentiality");
    // Without one, the stub would heed a boot entry's; with control characters, the kernel would measure another.
    for cmdline in ["", "quiet\n", "a\tb", "a\0b", "tõlge"] {
        assert!(assemble(&Parts { cmdline, ..parts }).is_err(), "{cmdline:?}");
    }
    let at = stub.windows(16).position(|w| w == b"systemd-stub 252").unwrap();
    let mut newer = stub.to_vec();
    newer[at + 13..at + 16].copy_from_slice(b"257");
    assert!(assemble(&Parts { stub: &newer, ..parts }).unwrap_err().to_string().contains("252"));
    assert!(assemble(&Parts { stub: &image, ..parts }).is_err(), "an image is no stub");
    assert!(assemble(&Parts { stub: &stub[..600], ..parts }).is_err());
    assert!(assemble(&Parts { kernel: b"#!/bin/sh", ..parts }).is_err());
}
