//! An update of the image: tried once, given up by itself, made the usual start once it is ready;
//! and a slot whose image firmware refuses.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use hoidla_medium::{Slot, disk::Part, slot};
use hoidla_verify::pe::Image;
use hoidla_vm::{Embassy, Machine, Spare, boot_disk, nvram};

use crate::shared;

/// How long the machine may take to come back from an update that fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Another image: the same but for a word that it says of itself; signed by the boot key, with a
/// manifest of the authority's. What firmware starts from it lies in a slot.
fn another_image(embassy: &Embassy, name: &str) -> Vec<u8> {
    let mut image = fs::read(embassy.stage.at("home/hoidla.unsigned.efi")).unwrap();
    let content = Image::parse(&image).unwrap().section(".osrel").unwrap().content;
    let at = content.as_ptr() as usize - image.as_ptr() as usize + content.windows(4).position(|w| w == b"NAME").unwrap() + 6;
    image[at] = name.as_bytes()[0];
    let file = |end: &str| format!("home/{name}{end}");
    fs::write(embassy.stage.at(&file(".unsigned.efi")), image).unwrap();
    let passphrase = ["--passphrase-file", "home/authority/passphrase"];
    let run = |args: &[&str]| embassy.stage.programs.must("hoidla-image", &[args, &passphrase].concat()).unwrap();
    run(&["sign", &file(".unsigned.efi"), "--boot-key", "home/boot", "--out", &file(".efi")]);
    run(&["manifest", &file(".efi"), "--authority-key", "home/authority/keys/authority.key", "--out", &file(".txt")]);
    let read = |path: &str| fs::read(embassy.stage.at(path)).unwrap();
    slot::write(&Slot { image: read(&file(".efi")), manifest: read(&file(".txt")), certificate: read("home/boot/boot.crt") }).unwrap()
}

/// The authority approves an image by another release; its file.
fn release(embassy: &Embassy, name: &str) -> Vec<u8> {
    let pcrs = embassy.stage.programs.must("hoidla-image", &["pcrs", &format!("home/{name}.efi")]).unwrap().out;
    fs::write(embassy.stage.at("home/pcrs-next.json"), pcrs).unwrap();
    let sign = ["release", "sign", "--name", name, "--pcrs", "home/pcrs-next.json", "--home", "home/authority"];
    embassy.stage.programs.must("hoidla-provision", &[&sign[..], &["--passphrase-file", "home/authority/passphrase"]].concat()).unwrap();
    fs::read(embassy.stage.at("home/authority/public/release-2.txt")).unwrap()
}

/// As the machine itself does it: into slot b of each disk, noted, and to be started once.
fn install(spare: &Spare, image: &[u8], name: &str) {
    spare.parts.boot_disks.iter().for_each(|disk| boot_disk::put(disk, Part::B, image).unwrap());
    let note = format!("version = 1\n\n[trial]\nslot = \"b\"\nrelease = \"{name}\"\n");
    boot_disk::change(&spare.parts.boot_disks, |state| Ok(fs::write(state.join("start.toml"), note)?)).unwrap();
    nvram::set(&spare.parts.variables, "BootNext", &2u16.to_le_bytes()).unwrap();
}

/// Waits until the machine has said something so many times.
fn wait_times(machine: &Machine, words: &str, times: usize) {
    let since = Instant::now();
    while machine.lines(words).len() < times {
        assert!(since.elapsed() < PATIENCE, "the machine didn't say {words:?} {times} times");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A byte of an image's kernel on a disk is another.
fn damage(disk: &Path, part: Part) {
    let file = fs::File::options().read(true).write(true).open(disk).unwrap();
    let (at, mut byte) = (part.range().start + (8 << 20), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn an_update_is_tried_once_and_stays_only_if_it_comes_up() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("update").unwrap();
    spare.parts.by_entries = true;
    spare.firmware(&[]).unwrap();
    nvram::of_slots(&spare.parts.variables, &spare.parts.boot_disks).unwrap();
    let order = || nvram::order(&spare.parts.variables).unwrap();

    // No release approves it: it is given up, and the former comes back by itself and says so.
    install(&spare, &another_image(&embassy, "wrong"), "wrong");
    let mut machine = spare.start().unwrap();
    machine.wait("an update is tried: slot b of boot disk 1").unwrap();
    machine.wait("NOT RUNNING: no release among this appliance's papers approves what runs here").unwrap();
    machine.wait("Host staff: photograph this screen").unwrap(); // from within the sandbox
    machine.wait_any(&["UPDATE FAILED: the release wrong in slot b did not come up (no release"], PATIENCE).unwrap();
    machine.wait("ready to copy in").unwrap();
    let (lets_in, why) = embassy.serves(&spare).unwrap();
    assert!(lets_in, "the former serves as before: {why}");
    machine.cut();
    assert_eq!(order()[..4], ["Hoidla a, disk 1", "Hoidla a, disk 2", "Hoidla b, disk 1", "Hoidla b, disk 2"]);

    // One that a release approves: it comes up, and is the usual one from then on.
    let image = another_image(&embassy, "next");
    let paper = release(&embassy, "next");
    boot_disk::change(&spare.parts.boot_disks, |state| Ok(fs::write(state.join("papers/release-next.txt"), &paper)?)).unwrap();
    install(&spare, &image, "next");
    let mut machine = spare.start().unwrap();
    machine.wait("the update to next came up").unwrap();
    let (lets_in, why) = embassy.serves(&spare).unwrap();
    assert!(lets_in, "nothing was sealed anew, and its keys are there: {why}");
    machine.cut();
    assert_eq!(order()[..4], ["Hoidla b, disk 1", "Hoidla b, disk 2", "Hoidla a, disk 1", "Hoidla a, disk 2"]);

    // Firmware refuses the image of disk 1: that of disk 2 is put first, and serves after one restart.
    damage(&spare.parts.boot_disks[0], Part::B);
    let mut machine = spare.start().unwrap();
    machine.wait("the firmware tried something else before slot b of boot disk 2").unwrap();
    assert!(!machine.lines("Access Denied").is_empty());
    wait_times(&machine, "is PID 1", 2);
    machine.wait("started from slot b of boot disk 2").unwrap();
    machine.wait("ready to copy in").unwrap();
    let (lets_in, why) = embassy.serves(&spare).unwrap();
    assert!(lets_in, "the same image of the other disk is as good: {why}");
    machine.wait("slot b of boot disk 1 held something else: it was written anew from slot b of boot disk 2").unwrap();
    machine.cut();
    assert_eq!(order()[..2], ["Hoidla b, disk 2", "Hoidla b, disk 1"]);
    let range = Part::B.range();
    let again = fs::read(&spare.parts.boot_disks[0]).unwrap();
    assert!(again[range.start as usize..range.end as usize] == image, "the disk holds it again");

    // The former image is over: what is retired in the TPM doesn't come back with an old slot.
    nvram::set(&spare.parts.variables, "BootNext", &0u16.to_le_bytes()).unwrap();
    let machine = spare.start().unwrap();
    machine.wait("NOT RUNNING: the release drill has epoch 1, the TPM has retired all below 2").unwrap();
}
