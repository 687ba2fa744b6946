//! A TPM is proven, and every other one is refused, by the real programs.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf};

use hoidla_journey::{
    Narrator, Stage,
    soft_tpm::SoftTpm,
    stage::{APPLIANCE, CUSTODIANS, RECOVERY},
};

fn refused(stage: &Stage, program: &str, args: &[&str], words: &[&str]) {
    let answer = stage.programs.must_refuse(program, args).unwrap();
    assert_eq!(answer.code, 2, "{}: {}", answer.command, answer.err);
    for word in words {
        assert!(answer.err.contains(word), "{} does not say {word:?}:\n{}", answer.command, answer.err);
    }
}

#[test]
fn one_round_trip_proves_a_tpm_and_no_other() {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    let scratch = tempfile::Builder::new().prefix("parcels-").tempdir_in(beside).unwrap();
    let mut stage = Stage::new(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    stage.new_site().unwrap();
    for name in CUSTODIANS.iter().chain(&RECOVERY) {
        stage.new_custodian(name).unwrap();
    }
    stage.sign_site().unwrap();
    stage.start_tpm().unwrap();
    refused(&stage, "hoidlad", &["endorse", "--tpm", "swtpm:host=127.0.0.1,port=1", "--out", "home/no.txt"], &["no TPM answers"]);
    stage.identify().unwrap();
    let (site, passphrase) = ("home/authority/public/site.txt", "home/authority/passphrase");

    // Half done: the engineer is back before home has dealt.
    let enrol = ["enrol", "home/authority/public", "--state", "embassy/state", "--disk-size", "1100M"];
    refused(&stage, "hoidlad", &enrol, &["no paper is the halves", "parcel"]);

    // Another machine calls itself by this one's name.
    let other = SoftTpm::start(&stage.at("other/tpm")).unwrap();
    fs::create_dir_all(stage.at("other/state")).unwrap();
    let config = fs::read_to_string(stage.at("embassy/state/appliance.toml")).unwrap();
    fs::write(stage.at("other/state/appliance.toml"), config.replace(&stage.tcti().unwrap(), &other.tcti())).unwrap();
    let theirs = ["identify", site, "--name", APPLIANCE, "--state", "other/state", "--out", "home/theirs.txt"];
    stage.programs.must("hoidlad", &theirs).unwrap();
    let deal = ["deal", "--home", "home/authority", "--passphrase-file", passphrase, "--identity"];
    refused(&stage, "hoidla-provision", &[&deal[..], &["home/theirs.txt"]].concat(), &["recorded before shipping", "another TPM"]);
    let altered = fs::read_to_string(stage.at("home/identity.txt")).unwrap().replace("hours_counter = ", "hours_counter = 1");
    fs::write(stage.at("home/altered.txt"), altered).unwrap();
    refused(&stage, "hoidla-provision", &[&deal[..], &["home/altered.txt"]].concat(), &["altered on its way"]);

    // Home deals; the parcel comes to both machines.
    stage.deal().unwrap();
    assert!(!stage.at(&format!("home/authority/public/halves-{APPLIANCE}.txt")).exists());
    let theirs = ["enrol", "home/authority/public", "--state", "other/state", "--disk-size", "1100M"];
    refused(&stage, "hoidlad", &theirs, &["sealed for another identity"]);
    fs::copy(stage.at("embassy/state/identity.txt"), stage.at("other/state/identity.txt")).unwrap();
    refused(&stage, "hoidlad", &theirs, &["not the TPM that was enrolled"]);
    let parcel = stage.at(&format!("home/authority/public/parcel-{APPLIANCE}.hoidla"));
    let good = fs::read(&parcel).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&parcel, &bad).unwrap();
    refused(&stage, "hoidlad", &enrol, &["changed on its way"]);
    bad[100] ^= 1;
    fs::write(&parcel, &bad).unwrap();
    refused(&stage, "hoidlad", &enrol, &["sealed to another TPM, or changed on its way"]);
    fs::write(&parcel, &good).unwrap();

    let answer = stage.enrol(1100).unwrap();
    assert!(answer.out.contains("it holds the endorsement key that home recorded"), "{}", answer.out);
    assert!(stage.at(&format!("home/authority/public/enrolment-{APPLIANCE}.txt")).exists(), "it came back");
    stage.enrol(1100).expect("again, with the same parcel, and what came back beside it");
}
