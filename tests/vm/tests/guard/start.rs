//! What the firmware must not start, by its own words.

use hoidla_verify::pe::Image;
use hoidla_vm::Spare;

use crate::{registers_are_foretold, serves, shared};

/// How OVMF says that an image's signature isn't worth anything.
const REFUSED: [&str; 2] = ["Access Denied", "Security Violation"];
/// What it says once nothing is left to start.
const NOTHING: &str = "No bootable option or device was found";
/// The first word of the image's only program.
const STARTED: &str = "is PID 1";

fn must_not_start(spare: &Spare, what: &str) {
    let machine = spare.start().unwrap();
    machine.wait(NOTHING).unwrap_or_else(|e| panic!("{what}: {e:#}"));
    assert!(REFUSED.iter().any(|word| !machine.lines(word).is_empty()), "{what}: nothing started, but not because it was refused");
    assert!(machine.lines(STARTED).is_empty(), "{what} was started");
}

/// The signed image with a byte changed in the middle of a section.
fn flipped(image: &[u8], section: &str) -> Vec<u8> {
    let content = Image::parse(image).unwrap().section(section).expect("the image has it").content;
    let at = content.as_ptr() as usize - image.as_ptr() as usize + content.len() / 2;
    let mut out = image.to_vec();
    out[at] ^= 1;
    out
}

#[test]
fn an_image_that_was_changed_doesnt_start() {
    let shared = shared();
    let embassy = shared.turn();
    let spare = embassy.spare("changed").unwrap();
    let image = embassy.image().unwrap();
    for section in [".linux", ".initrd", ".cmdline"] {
        spare.install(&flipped(&image, section)).unwrap();
        must_not_start(&spare, &format!("an image with a byte changed in {section}"));
    }
}

#[test]
fn an_image_that_the_boot_key_didnt_sign_doesnt_start() {
    let shared = shared();
    let embassy = shared.turn();
    let spare = embassy.spare("unsigned").unwrap();
    let unsigned = "home/hoidla.unsigned.efi";
    spare.install(&std::fs::read(embassy.stage.at(unsigned)).unwrap()).unwrap();
    must_not_start(&spare, "an image that is not signed");

    let passphrase = ["--passphrase-file", "home/authority/passphrase"];
    let run = |args: &[&str]| embassy.stage.programs.must("hoidla-image", &[args, &passphrase].concat()).unwrap();
    run(&["key", "home/other", "--name", "somebody"]);
    run(&["sign", unsigned, "--boot-key", "home/other", "--out", "home/other.efi"]);
    spare.install(&std::fs::read(embassy.stage.at("home/other.efi")).unwrap()).unwrap();
    must_not_start(&spare, "an image that somebody else signed");
}

#[test]
fn what_a_boot_entry_says_is_not_heeded() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("entry").unwrap();
    spare.parts.by_entries = true;
    let told = "console=ttyS0 init=/bin/sh rdinit=/bin/sh lockdown=none";
    spare.firmware(&spare.entry("A shell please", told).unwrap()).unwrap();
    let machine = serves(&embassy, &spare);
    assert!(!machine.lines("Secure Boot on, lockdown on").is_empty());
    assert!(!machine.lines("starting Boot0000 \"A shell please\"").is_empty(), "it was started by another entry");
    registers_are_foretold(&machine, &embassy);
}
