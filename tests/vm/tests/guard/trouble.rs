//! What a field engineer meets when something is wrong: each a sentence that says what to do, and
//! nothing half done.

use std::{fs, path::Path, process::Command};

use hoidla_journey::Narrator;
use hoidla_vm::{Embassy, Machine, Parts, Start, spare::copied};

use crate::{scratch, shared};

/// From the stick, as the parts are.
fn from_stick(embassy: &Embassy) -> Parts {
    Parts { start: Start::Stick(embassy.stick()), ..embassy.parts().unwrap() }
}

/// With the stick plugged in, and started from its disks.
fn with_stick(embassy: &Embassy) -> Parts {
    Parts { by_entries: true, ..from_stick(embassy) }
}

fn is_blank(disk: &Path) -> bool {
    fs::read(disk).unwrap().iter().all(|b| *b == 0)
}

/// Nobody but somebody who knows the password owns this TPM.
fn own(embassy: &mut Embassy) {
    embassy.stage.start_tpm().unwrap();
    let tcti = embassy.stage.tcti().unwrap();
    let set = Command::new("tpm2_changeauth").args(["-T", &tcti, "-c", "owner", "somebody's"]).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    embassy.stage.stop_tpm();
}

#[test]
fn a_machine_that_is_not_as_it_should_be_says_so_before_anything_is_changed() {
    let scratch = scratch();
    let mut embassy = Embassy::bare(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    embassy.give_keys().unwrap();

    let machine = Machine::start(&Parts { tpm: scratch.path().join("none"), ..from_stick(&embassy) }).unwrap();
    let (_, why) = machine.wait("NOT RUNNING: ").unwrap();
    assert!(why.contains("has no TPM 2.0, or it is switched off in the firmware's setup"), "{why}");
    drop(machine);

    let parts = from_stick(&embassy);
    let owned = copied(&parts.tpm, scratch.path()).unwrap();
    own(&mut embassy);
    let machine = Machine::start(&parts).unwrap();
    let (_, why) = machine.wait("NOT RUNNING: ").unwrap();
    assert!(why.contains("belongs to somebody else") && why.contains("clear the TPM in the firmware's setup"), "{why}");
    drop(machine);
    fs::remove_dir_all(&parts.tpm).unwrap();
    fs::rename(owned, &parts.tpm).unwrap();

    // Two sticks: the other one is as good as the first.
    let both = Parts { trays: vec![copied(&embassy.stick(), scratch.path()).unwrap()], ..from_stick(&embassy) };
    let machine = Machine::start(&both).unwrap();
    machine.wait("two sticks are plugged in: pull one of them").unwrap();
    drop(machine);

    // Too little memory, and boot disk 2 is missing.
    let boot_disks = vec![embassy.boot_disks()[0].clone(), scratch.path().join("none")];
    let mut machine = Machine::start(&Parts { memory: 320, boot_disks, ..from_stick(&embassy) }).unwrap();
    machine.wait("this machine is not what its profile says").unwrap();
    machine.wait("MiB of memory").unwrap();
    machine.wait("0000:00:1f.2 port 2").unwrap();
    machine.type_in("go on\n").unwrap();
    machine.wait("1 of 2 boot disks are there.").unwrap();
    machine.type_in("\n").unwrap();
    machine.wait("put the image on the boot disks").unwrap();
    machine.type_in("yes\n").unwrap();
    machine.wait("not agreed: nothing was changed").unwrap();
    drop(machine);
    assert!(embassy.boot_disks().iter().all(|disk| is_blank(disk)), "nothing was installed");
}

#[test]
fn an_installing_that_was_broken_off_is_begun_anew() {
    let scratch = scratch();
    let embassy = Embassy::bare(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    embassy.give_keys().unwrap();
    let install = |until: &str| {
        let mut machine = Machine::start(&from_stick(&embassy)).unwrap();
        machine.wait("a machine that is not set up").unwrap();
        machine.wait("endorsement.txt is on the stick").unwrap();
        machine.type_in("\n").unwrap();
        machine.wait("put the image on the boot disks").unwrap();
        machine.type_in("install\n").unwrap();
        machine.wait(until).unwrap();
        machine
    };
    install("slot a of boot disk 1 is written and read back").cut();
    let mut machine = install("slot b of boot disk 2 is written and read back");
    machine.type_in("\n").unwrap();
    machine.wait("starting again").unwrap();
    machine.cut();
    let machine = Machine::start(&Parts { by_entries: true, ..embassy.parts().unwrap() }).unwrap();
    machine.wait("this machine is not enrolled yet").unwrap();
}

#[test]
fn an_enrolment_waits_for_the_right_papers_the_right_time_and_all_disks() {
    let scratch = scratch();
    let mut embassy = Embassy::bare(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    embassy.give_keys().unwrap();
    let machine = Machine::start(&from_stick(&embassy)).unwrap();
    machine.wait("endorsement.txt is on the stick").unwrap();
    drop(machine);
    embassy.install(None).unwrap();
    // Without a stick it waits for one, and firmware knows its disks from then on.
    let machine = Machine::start(&Parts { by_entries: true, ..embassy.parts().unwrap() }).unwrap();
    machine.wait("this machine is not enrolled yet").unwrap();
    drop(machine);
    let own_stick = copied(&embassy.stick(), scratch.path()).unwrap();

    // Another site's file in the place of its own.
    let other = Embassy::bare(&scratch.path().join("other"), Narrator::silent()).unwrap();
    embassy.put_on_stick(&[other.stage.at("home/authority/public/site.txt")]).unwrap();
    drop(other);
    let machine = Machine::start(&with_stick(&embassy)).unwrap();
    machine.wait("another site's stick?").unwrap();
    drop(machine);
    fs::rename(own_stick, embassy.stick()).unwrap();

    let machine = Machine::start(&with_stick(&embassy)).unwrap();
    machine.wait("now it is home's turn").unwrap();
    drop(machine);
    embassy.record().unwrap();
    embassy.answer().unwrap();

    let machine = Machine::start(&Parts { clock: Some("2005-01-01"), ..with_stick(&embassy) }).unwrap();
    machine.wait("clock says 2005-01-01").unwrap();
    drop(machine);

    // Tray 2 is empty; put in, but by a clock that is far ahead.
    let mut parts = with_stick(&embassy);
    parts.trays[1] = scratch.path().join("none");
    let machine = Machine::start(&parts).unwrap();
    machine.wait("tray 2 is empty: put a disk in").unwrap();
    drop(machine);
    let mut machine = Machine::start(&Parts { clock: Some("2060-01-01"), ..with_stick(&embassy) }).unwrap();
    machine.wait("The clock says 2060-01-01").unwrap();
    machine.type_in("format\n").unwrap();
    machine.wait("home's papers hold from").unwrap();
    drop(machine);
    assert!(embassy.parts().unwrap().trays.iter().all(|disk| is_blank(disk)), "nothing was formatted");

    let mut machine = Machine::start(&with_stick(&embassy)).unwrap();
    machine.wait("the disks that data will lie on").unwrap();
    machine.type_in("format\n").unwrap();
    machine.wait("is enrolled").unwrap();
}

#[test]
fn host_staff_read_why_nothing_is_copied_in() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("why").unwrap();
    let machine = spare.start().unwrap();
    machine.wait("not since the start").unwrap();
    machine.unplug().unwrap();
    machine.wait("NO CABLE").unwrap();
    drop(machine);
    spare.parts.clock = Some("2005-01-01");
    let machine = spare.start().unwrap();
    machine.wait("not possible: the clock says 2005-01-01").unwrap();
}
