//! A machine that is set up, started from a stick: what was asked for happens, and nothing else.

use std::fs::{self, File};

use hoidla_medium::{papers, stick::PAPERS};
use hoidla_vm::{Machine, Parts, Spare, Start, boot_disk, spare::copied};

use crate::{serves, shared};

/// Started from the stick, at its menu.
fn visited(spare: &Spare, stick: &std::path::Path) -> Machine {
    let parts = Parts { start: Start::Stick(stick.to_owned()), by_entries: false, ..spare.parts.clone() };
    let machine = Machine::start(&parts).unwrap();
    machine.wait("change nothing and start the machine again").unwrap();
    machine
}

#[test]
fn a_stick_repairs_updates_retires_and_forgets_what_it_was_asked_to() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("visit").unwrap();
    spare.parts.by_entries = true;
    let stick = copied(&embassy.stick(), &spare.parts.folder).unwrap();
    // Boot disk 2 was replaced by a blank one.
    let new = File::create(&spare.parts.boot_disks[1]).unwrap();
    new.set_len(boot_disk::DISK).unwrap();
    let mut machine = visited(&spare, &stick);
    machine.type_in("repair\n").unwrap();
    machine.wait("put the image on the boot disks").unwrap();
    machine.type_in("install\n").unwrap();
    machine.wait("slot b of boot disk 2 is written and read back").unwrap();
    machine.wait("starting again").unwrap();
    drop(machine);

    let mut machine = visited(&spare, &stick);
    machine.type_in("update\n").unwrap();
    machine.wait("try another image").unwrap();
    machine.type_in("install\n\n").unwrap();
    machine.wait("starting again").unwrap();
    drop(machine);
    let machine = serves(&embassy, &spare);
    machine.wait("the state is on 2 of 2 boot disks").unwrap();
    machine.wait("an update is tried: slot b").unwrap();
    machine.wait("the update to drill came up").unwrap();
    drop(machine);

    // What home says to it counts, and nobody else's word.
    let seen = "7".repeat(64);
    let allow = ["disk", "allow", "lux-1", "--tray", "2", "--seen", &seen, "--home", "home/authority"];
    let passphrase = ["--passphrase-file", "home/authority/passphrase"];
    let signed = embassy.stage.programs.must("hoidla-provision", &[&allow[..], &passphrase, &["--json"]].concat()).unwrap().out;
    let signed: serde_json::Value = serde_json::from_str(&signed).unwrap();
    let word = fs::read(embassy.stage.at(signed["file"].as_str().unwrap())).unwrap();
    let forged = String::from_utf8(word.clone()).unwrap().replacen("tray = 2", "tray = 1", 1);
    let mut bytes = fs::read(&stick).unwrap();
    papers::put(&mut bytes[PAPERS], "word.txt", &word).unwrap();
    papers::put(&mut bytes[PAPERS], "forged.txt", forged.as_bytes()).unwrap();
    fs::write(&stick, bytes).unwrap();
    let mut machine = visited(&spare, &stick);
    machine.type_in("words\n").unwrap();
    machine.wait("forged.txt: NOT taken").unwrap();
    machine.wait("word.txt: taken: the disk in tray 2 may be erased").unwrap();
    drop(machine);

    // Another name than its own ends nothing; its own ends it for good.
    let mut machine = visited(&spare, &stick);
    machine.type_in("retire\n").unwrap();
    machine.wait("this machine leaves for good").unwrap();
    machine.type_in("lux-2\n").unwrap();
    drop(machine);
    drop(serves(&embassy, &spare));
    let mut machine = visited(&spare, &stick);
    machine.type_in("retire\n").unwrap();
    machine.wait("this machine leaves for good").unwrap();
    machine.type_in("lux-1\n\n").unwrap();
    machine.wait("lux-1 is retired: 2 disks erased").unwrap();
    machine.wait_off().unwrap();
    let on_it = papers::read(&fs::read(&stick).unwrap()[PAPERS]).unwrap();
    assert!(on_it.contains_key("erased-lux-1-1.txt") && on_it.contains_key("erased-lux-1-2.txt"), "{:?}", on_it.keys());
    drop(machine);
    let machine = spare.start().unwrap();
    machine.wait("NOT RUNNING: ").unwrap();
    drop(machine);

    let mut machine = visited(&spare, &stick);
    machine.type_in("anew\n").unwrap();
    machine.wait("begin the enrolment anew").unwrap();
    machine.type_in("lux-1\n\n").unwrap();
    machine.wait("starting again").unwrap();
    drop(machine);
    let machine = spare.start().unwrap();
    machine.wait("this machine is not enrolled yet").unwrap();
}
