//! The life of a machine: it comes empty, is set up at its console from a signed stick, copies in,
//! loses power in the middle, comes back by itself, opens for a quorum, and ends at its power button.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hoidla_journey::{Narrator, compare::compare, sample};
use hoidla_vm::{Embassy, Machine, Parts, Start};

/// A scratch folder beside the build: on a disk, which the store's direct I/O wants.
fn scratch() -> tempfile::TempDir {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    tempfile::Builder::new().prefix("vm-").tempdir_in(beside).unwrap()
}

/// What it measured, against what the image leads to: all that its manifest foretells.
fn registers_are_foretold(machine: &Machine, embassy: &Embassy) {
    let inside = embassy.stage.programs.must("hoidla-image", &["inspect", "home/hoidla.img", "--json"]).unwrap().out;
    let inside: serde_json::Value = serde_json::from_str(&inside).unwrap();
    for register in ["4", "7", "9", "11", "12", "13"] {
        let said = machine.lines(&format!("PCR {register}: "));
        let foretold = inside["pcrs"][register].as_str().expect("a register's digits");
        assert!(said.iter().any(|l| l.ends_with(foretold)), "PCR {register} is {said:?}, foretold was {foretold}");
    }
}

/// From the stick, which somebody chose in the firmware's menu.
fn from_stick(embassy: &Embassy) -> Parts {
    Parts { start: Start::Stick(embassy.stick()), ..embassy.parts().unwrap() }
}

/// With the stick plugged in, and nobody at the firmware's menu.
fn with_stick(embassy: &Embassy) -> Parts {
    Parts { start: Start::Stick(embassy.stick()), by_entries: true, ..embassy.parts().unwrap() }
}

/// A field engineer at the serial console, from empty disks to an enrolled machine.
fn set_up(embassy: &mut Embassy) {
    let mut machine = Machine::start(&from_stick(embassy)).unwrap();
    machine.wait("this machine has no Secure Boot keys").unwrap();
    machine.type_in("no idea\nkeys\n").unwrap();
    machine.wait("Secure Boot on, lockdown on").unwrap();
    machine.wait("a machine that is not set up").unwrap();
    machine.wait("endorsement.txt is on the stick").unwrap();
    machine.type_in("\n").unwrap();
    machine.wait("put the image on the boot disks").unwrap();
    machine.type_in("install\n").unwrap();
    machine.wait("slot b of boot disk 2 is written and read back").unwrap();
    machine.type_in("\n").unwrap();
    machine.wait("Installed. Pull the stick").unwrap();
    machine.cut();
    let mut machine = Machine::start(&with_stick(embassy)).unwrap();
    // From its own disks it says who it is, and waits for home.
    machine.wait("this machine is not enrolled yet").unwrap();
    machine.wait("now it is home's turn").unwrap();
    machine.cut();
    embassy.record().unwrap();
    embassy.answer().unwrap();
    let mut machine = Machine::start(&with_stick(embassy)).unwrap();
    machine.wait("the disks that data will lie on").unwrap();
    machine.type_in("format\n").unwrap();
    machine.wait("is enrolled").unwrap();
    machine.type_in("\n").unwrap();
    machine.wait("starting again").unwrap();
    machine.cut();
    embassy.take_enrolment().unwrap();
}

fn life(folder: &Path) {
    let registry = folder.join("registry");
    sample::make(&registry, 48 << 20).unwrap();
    let mut embassy = Embassy::bare(&folder.join("stage"), Narrator::silent()).unwrap();
    set_up(&mut embassy);
    // The stick was left in, and nobody reads it.
    let mut machine = Machine::start(&with_stick(&embassy)).unwrap();
    let (program, _) = machine.wait("is PID 1").unwrap();
    let by_firmware = machine.reads_of_stick().unwrap();
    let (ready, said) = machine.wait("ready to copy in").unwrap();
    eprintln!("from PID 1 to ready to copy in: {:?}\n{said}", ready - program);
    registers_are_foretold(&machine, &embassy);
    machine.wait("Type seal and press Enter").unwrap();
    assert_eq!(machine.reads_of_stick().unwrap(), by_firmware, "a machine that serves read the stick");

    // The plug is pulled in the middle of a push; nobody does anything but put it back.
    let mut push = embassy.stage.start_push(&registry).unwrap();
    let mut waited = 0;
    while embassy.stage.acknowledged().unwrap() < 8 << 20 {
        let why = || embassy.stage.programs.tail("hoidla-agent");
        assert!(push.runs().unwrap() && waited < 600, "8 MiB were not acknowledged within a minute:\n{}", why());
        std::thread::sleep(Duration::from_millis(100));
        waited += 1;
    }
    machine.cut();
    assert!(push.runs().unwrap(), "the push was in its middle");
    let before = embassy.stage.acknowledged().unwrap();
    let mut machine = Machine::start(&Parts { by_entries: true, ..embassy.parts().unwrap() }).unwrap();
    machine.wait("ready to copy in").unwrap();
    assert_eq!(push.end().unwrap(), 0, "the push went on by itself:\n{}", embassy.stage.programs.tail("hoidla-agent"));
    assert!(embassy.stage.acknowledged().unwrap() > before);

    // A quorum opens it, and it is what it was.
    embassy.stage.new_reader().unwrap();
    embassy.stage.confirm("alpha").unwrap();
    embassy.stage.grant("alpha", 600, "a restore from a machine").unwrap();
    for custodian in ["alpha", "bravo", "charlie"] {
        embassy.stage.confirm(custodian).unwrap();
        embassy.stage.approve(custodian).unwrap();
    }
    let restored = embassy.stage.restore("laptop/restored").unwrap();
    assert_eq!(restored.code, 0, "{}{}", restored.out, restored.err);
    let back = embassy.stage.at("laptop/restored").join("registry");
    let (compared, differ) = compare(&registry, &back, &|_| {}).unwrap();
    assert!(differ.is_empty() && compared.bytes >= 48 << 20, "{differ:?}");

    // Host staff end the opening: whoever holds the grant gets no more.
    machine.wait("OPEN for a quorum's grant").unwrap();
    machine.type_in("seal\n").unwrap();
    machine.wait("sealed at the console: 1 grants ended").unwrap();
    assert_ne!(embassy.stage.restore("laptop/refused").unwrap().code, 0, "it is sealed");

    machine.press_power().unwrap();
    machine.wait("safe to switch off").unwrap();
    machine.wait_off().unwrap();
}

#[test]
fn a_machine_that_loses_power_in_the_middle_goes_on_by_itself() {
    let scratch = scratch();
    life(scratch.path());
}
