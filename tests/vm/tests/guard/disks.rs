//! One boot disk is enough; an older one is not believed, and is brought up to the newer.

use std::fs;

use hoidla_vm::{Embassy, Spare};

use crate::{refused, serves, shared};

/// The authority signs its site file anew, and somebody carries it to the machine.
fn newer_site(embassy: &Embassy, spare: &Spare) {
    let (site, carrier) = (embassy.stage.at("home/authority/site.toml"), embassy.stage.at("home/carrier"));
    let text = fs::read_to_string(&site).unwrap();
    fs::write(&site, text.replacen("\nserial = 1\n", "\nserial = 2\n", 1)).unwrap();
    let authority = ["--home", "home/authority", "--passphrase-file", "home/authority/passphrase"];
    embassy.stage.programs.must("hoidla-provision", &[&["site", "sign"][..], &authority].concat()).unwrap();
    // The agent itself goes on with machines that know only the older one.
    fs::create_dir(&carrier).unwrap();
    for entry in fs::read_dir(embassy.stage.at("home/agent")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), carrier.join(entry.file_name())).unwrap();
        }
    }
    let address = format!("127.0.0.1:{}", spare.door);
    let with = ["--home", "home/carrier", "--passphrase-file", "home/carrier/passphrase", "--address", &address];
    let update = [&["update", "home/authority/public/site.txt"][..], &with].concat();
    embassy.stage.programs.must("hoidla-agent", &update).unwrap();
}

#[test]
fn one_boot_disk_is_enough_and_an_older_one_is_not_believed() {
    let shared = shared();
    let embassy = shared.turn();
    let spare = embassy.spare("disks").unwrap();

    spare.take_out(1).unwrap();
    let mut machine = serves(&embassy, &spare);
    assert!(!machine.lines("boot disk 2, at 0000:00:1f.2 port 2, is missing").is_empty());
    machine.wait("1 of 2 work, not number 2").unwrap();
    newer_site(&embassy, &spare);
    machine.wait("starting again").unwrap();
    machine.cut();
    serves(&embassy, &spare).cut();

    // The disk that was out knows of nothing newer; the TPM does.
    spare.put_back(1).unwrap();
    spare.take_out(0).unwrap();
    refused(&embassy, &spare, "the site file has serial 1, the TPM knows serial 2").cut();

    // Together the newer one is believed, and then either is enough.
    spare.put_back(0).unwrap();
    serves(&embassy, &spare).cut();
    spare.take_out(0).unwrap();
    let machine = serves(&embassy, &spare);
    assert!(!machine.lines("boot disk 1, at 0000:00:1f.2 port 1, is missing").is_empty());
}
