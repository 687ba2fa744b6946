//! Ordinary days, and bad ones, with the real programs on one stage.
#![forbid(unsafe_code)]

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hoidla_journey::{
    Answer, Narrator, Stage,
    compare::compare,
    sample,
    stage::{CUSTODIANS, DISKS},
    story,
};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{}: {e}\n{}{}", answer.command, answer.out, answer.err))
}

fn push(stage: &Stage, path: &str, input: &str) -> Value {
    let answer = stage.programs.must_with("hoidla-agent", &["push", "--home", "home/agent", "--json", path], input).unwrap();
    json(&answer)
}

fn refused(stage: &Stage, program: &str, args: &[&str], words: &[&str]) {
    let answer = stage.programs.must_refuse(program, args).unwrap();
    assert_eq!(answer.code, 2, "{}: {}", answer.command, answer.err);
    for word in words {
        assert!(answer.err.contains(word), "{} does not say {word:?}:\n{}", answer.command, answer.err);
    }
}

fn opened(stage: &mut Stage, purpose: &str) {
    let _ = fs::remove_file(stage.at("laptop/grant.txt"));
    stage.grant("alpha", 600, purpose).unwrap();
    for name in &CUSTODIANS[1..4] {
        stage.approve(name).unwrap();
    }
}

#[test]
fn days_at_home_and_in_the_embassy() {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    let scratch = tempfile::Builder::new().prefix("journey-").tempdir_in(beside).unwrap();
    let registry = scratch.path().join("registry");
    sample::make(&registry, 8 << 20).unwrap();
    let mut stage = Stage::new(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    story::prologue(&mut stage, 64 << 20).unwrap_or_else(|e| panic!("{e:#}\n{}", stage.programs.tail("hoidlad")));

    the_next_push_sends_what_is_new(&stage, &registry);
    one_path_comes_back_and_sealing_ends_it(&mut stage);
    a_hundred_thousand_files(&mut stage, scratch.path());
    what_is_wrong_is_refused_in_words(&stage);
    rot_on_one_disk_is_repaired_without_keys(&mut stage);
    with_one_disk_it_goes_on_and_says_so(&mut stage, &registry);
}

fn the_next_push_sends_what_is_new(stage: &Stage, registry: &Path) {
    let path = registry.to_str().unwrap();
    let first = push(stage, path, "");
    assert!(first["fresh_bytes"].as_u64().unwrap() > 8 << 20, "{first}");
    fs::write(registry.join("new entry"), "one line that was not there yesterday").unwrap();
    let second = push(stage, path, "");
    assert_eq!(second["generation"], first["generation"]);
    assert_eq!(second["entries"].as_u64().unwrap(), first["entries"].as_u64().unwrap() + 1);
    assert!(second["fresh_bytes"].as_u64().unwrap() < 100_000, "{second}");
}

fn one_path_comes_back_and_sealing_ends_it(stage: &mut Stage) {
    stage.new_reader().unwrap();
    opened(stage, "One file was deleted by mistake.");
    let answer = stage.restore_only("laptop/one", "registry/new entry").unwrap();
    assert_eq!(answer.code, 0, "{}", answer.err);
    let back = fs::read_to_string(stage.at("laptop/one/new entry")).unwrap();
    assert_eq!(back, "one line that was not there yesterday");
    stage.custodian("echo", "seal", &[], "").unwrap();
    let answer = stage.restore("laptop/sealed").unwrap();
    assert!(answer.code != 0 && answer.err.contains("refused"), "{}", answer.err);
}

const FILES: u64 = 100_000;
const FOLDERS: u64 = 200;

fn a_hundred_thousand_files(stage: &mut Stage, beside: &Path) {
    let scratch = quick_scratch(beside);
    let many = scratch.path().join("many");
    make_many(&many);
    let path = many.to_str().unwrap();
    let first = push(stage, path, "");
    assert_eq!(first["entries"].as_u64(), Some(FILES + FOLDERS + 1), "{first}");
    fs::write(many.join("district 7/7.txt"), "an entry that was corrected").unwrap();
    let second = push(stage, path, "");
    assert_eq!((&second["generation"], &second["entries"]), (&first["generation"], &first["entries"]));
    let sent = |push: &Value| push["sealed_bytes"].as_u64().unwrap();
    assert!(sent(&second) * 8 < sent(&first), "one line was new:\n{first}\n{second}");

    opened(stage, "A drill with many files.");
    let back = scratch.path().join("back");
    let answer = stage.restore(back.to_str().unwrap()).unwrap();
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let (compared, differences) = compare(&many, &back.join("many"), &|_| ()).unwrap();
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!((compared.files, compared.folders), (FILES, FOLDERS + 1));
}

/// In memory if there is room for it: so many small files take some disks minutes to make and delete.
fn quick_scratch(beside: &Path) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let room = statvfs(memory).map_or(0, |s| s.blocks_available() * s.fragment_size());
    let place = if room > 1 << 30 { memory } else { beside };
    tempfile::Builder::new().prefix("journey-").tempdir_in(place).unwrap()
}

/// Every fourth file has a line of its own; the others are empty, since what counts here is their number.
fn make_many(folder: &Path) {
    for d in 0..FOLDERS {
        let folder = folder.join(format!("district {d}"));
        fs::create_dir_all(&folder).unwrap();
        for i in (d..FILES).step_by(FOLDERS as usize) {
            let content = if i % 4 == 0 { format!("entry {i} of the register, {}", i * 7919) } else { String::new() };
            fs::write(folder.join(format!("{i}.txt")), content).unwrap();
        }
    }
}

fn what_is_wrong_is_refused_in_words(stage: &Stage) {
    let passphrase = "home/authority/passphrase";
    let toml = stage.at("home/authority/site.toml");
    let good = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, good.replacen("serial = 1", "serail = 2", 1)).unwrap();
    let line = good.lines().position(|l| l == "serial = 1").unwrap() + 1;
    let sign = ["site", "sign", "--home", "home/authority", "--passphrase-file", passphrase];
    refused(stage, "hoidla-provision", &sign, &[&format!("site.toml, line {line}"), "serail", "serial"]);
    fs::write(&toml, good.replacen("serial = 1", "serial = 2", 1)).unwrap();
    let wrong = ["site", "sign", "--home", "home/authority", "--passphrase-file", "home/agent/passphrase"];
    refused(stage, "hoidla-provision", &wrong, &["passphrase"]);
    stage.programs.must("hoidla-provision", &sign).unwrap();
    refused(stage, "hoidla-agent", &["push", "--home", "home/nowhere", "/etc/hostname"], &["home/nowhere"]);
    refused(stage, "hoidlad", &["identify", "home/authority/public/site.txt", "--name", "other", "--state", "embassy/state"], &["other"]);
    refused(stage, "hoidla-custodian", &["review", "--site", "home/pcrs.json", "--grant", "laptop/grant.txt"], &["home/pcrs.json"]);
}

fn rot_on_one_disk_is_repaired_without_keys(stage: &mut Stage) {
    stage.stop_daemon();
    let disk = OpenOptions::new().read(true).write(true).open(stage.at(DISKS[1])).unwrap();
    let needle = first_message(stage, &disk);
    disk.write_all_at(&[0xff; 700], needle + 5000).unwrap();
    let verify = ["verify", "--state", "embassy/state", "--json"];
    let found = json(&stage.programs.run("hoidlad", &verify, "").unwrap());
    assert_eq!(found["damage"].as_array().map(Vec::len), Some(0), "{found}");
    assert!(!found["repaired"].as_array().unwrap().is_empty(), "{found}");
    let again = stage.programs.must("hoidlad", &verify).unwrap();
    assert_eq!(json(&again)["repaired"].as_array().map(Vec::len), Some(0), "{}", again.out);
    stage.start_daemon().unwrap();
}

/// Where a sealed message lies on a disk.
fn first_message(stage: &Stage, disk: &fs::File) -> u64 {
    let len = disk.metadata().unwrap().len();
    let mut block = vec![0; 1 << 20];
    for at in (0..len).step_by(1 << 20) {
        let n = disk.read_at(&mut block, at).unwrap();
        if let Some(i) = block[..n].windows(8).position(|w| w == b"hoidla\x11\x01") {
            return at + i as u64;
        }
    }
    panic!("no message on {}", stage.at(DISKS[1]).display());
}

fn with_one_disk_it_goes_on_and_says_so(stage: &mut Stage, registry: &Path) {
    stage.stop_daemon();
    fs::rename(stage.at(DISKS[0]), stage.at("embassy/pulled")).unwrap();
    stage.start_daemon().unwrap();
    fs::write(registry.join("after the loss"), "written while one disk was gone").unwrap();
    push(stage, registry.to_str().unwrap(), "");
    let health = stage.programs.run("hoidla-agent", &["status", "--home", "home/agent", "--json"], "").unwrap();
    let appliance = &json(&health)["appliance"];
    assert_eq!((appliance["copies"].as_u64(), appliance["current"].as_u64()), (Some(2), Some(1)), "{appliance}");
    opened(stage, "A drill with one disk.");
    let answer = stage.restore("laptop/one-disk").unwrap();
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let back = fs::read_to_string(stage.at("laptop/one-disk/registry/after the loss")).unwrap();
    assert_eq!(back, "written while one disk was gone");
}
