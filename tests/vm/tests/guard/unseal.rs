//! Under what the machine's TPM is not used: it says so, and nobody is let in.

use std::{fs, path::Path, process::Command};

use hoidla_journey::SoftTpm;
use hoidla_vm::{machine::VARIABLES, spare::copied, variables};

use crate::{refused, shared};

#[test]
fn in_setup_mode_the_tpm_is_not_used() {
    let shared = shared();
    let embassy = shared.turn();
    let spare = embassy.spare("setup").unwrap();
    variables::write(Path::new(VARIABLES), &spare.parts.variables, &[]).unwrap();
    let machine = refused(&embassy, &spare, "the firmware is in setup mode: start the machine from the stick");
    assert!(machine.lines("PCR 4: ").is_empty(), "the TPM was asked");
}

#[test]
fn without_secure_boot_the_tpm_is_not_used() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("insecure").unwrap();
    // The entry that Secure Boot makes the loader ignore is heeded without it: it does get there.
    spare.parts.by_entries = true;
    let entry = spare.entry("More words", "console=ttyS0,115200 loglevel=7 a.word=more").unwrap();
    spare.firmware(&[variables::secure_boot_off(), entry].concat()).unwrap();
    let machine = refused(&embassy, &spare, "Secure Boot is off");
    assert!(machine.lines("PCR 4: ").is_empty(), "the TPM was asked");
    assert!(machine.lines("Kernel command line: ").iter().any(|l| l.contains("a.word=more")), "the entry's words didn't get there");
}

#[test]
fn with_anything_beside_the_image_the_tpm_is_not_used() {
    let shared = shared();
    let embassy = shared.turn();
    for (n, file) in ["loader/credentials/more.cred", "EFI/BOOT/BOOTX64.EFI.extra.d/more.raw"].into_iter().enumerate() {
        let spare = embassy.spare(&format!("beside-{n}")).unwrap();
        spare.add(file, b"something").unwrap();
        let machine = refused(&embassy, &spare, "write the stick again at home");
        assert!(machine.lines("PCR 4: ").is_empty(), "{file}: the TPM was asked");
    }
}

#[test]
fn another_tpm_opens_nothing() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("moved").unwrap();
    let enrolled = spare.parts.tpm.clone();

    // The disks, in a machine with another TPM.
    spare.parts.tpm = spare.parts.folder.join("blank");
    fs::create_dir(&spare.parts.tpm).unwrap();
    refused(&embassy, &spare, "not the TPM that was enrolled");

    // The machine itself, after somebody cleared its TPM.
    spare.parts.tpm = copied(&enrolled, &spare.parts.folder.join("blank")).unwrap();
    let tpm = SoftTpm::start(&spare.parts.tpm).unwrap();
    let cleared = Command::new("tpm2_clear").args(["-c", "p", "-T", &tpm.tcti()]).status().unwrap();
    assert!(cleared.success());
    drop(tpm);
    refused(&embassy, &spare, "not the TPM that was enrolled");
}
