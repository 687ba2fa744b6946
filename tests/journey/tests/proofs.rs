//! What an appliance proves, and how it shows that it was tampered with: with the real
//! programs, by somebody who knows nothing but the authority's digits.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hoidla_journey::{
    Answer, Narrator, Stage,
    compare::compare,
    programs::wait_until,
    sample,
    stage::{CUSTODIANS, DISKS},
    story,
};
use serde_json::Value;

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{}: {e}\n{}{}", answer.command, answer.out, answer.err))
}

fn push(stage: &Stage, path: &Path) -> Value {
    json(&stage.programs.must("hoidla-agent", &["push", "--home", "home/agent", "--json", path.to_str().unwrap()]).unwrap())
}

fn audit(stage: &Stage, evidence: &str) {
    stage.programs.must("hoidla-agent", &["audit", "--home", "home/agent", "--evidence", evidence]).unwrap();
}

/// The auditor's program must end with this code and say these words.
fn verify(stage: &Stage, digits: &str, args: &[&str], code: i32, words: &[&str]) {
    let all = [&["--authority", digits], args].concat();
    let answer = stage.programs.run("hoidla-verify", &all, "").unwrap();
    let said = format!("{}{}", answer.out, answer.err);
    assert_eq!(answer.code, code, "{}:\n{said}", answer.command);
    for word in words {
        assert!(said.contains(word), "{} does not say {word:?}:\n{said}", answer.command);
    }
}

fn status(stage: &Stage) -> (i32, Value) {
    let answer = stage.programs.run("hoidlad", &["status", "--state", "embassy/state", "--json"], "").unwrap();
    (answer.code, json(&answer))
}

fn tray(stage: &Stage, number: usize) -> String {
    status(stage).1["panel"]["trays"][number - 1]["says"].as_str().unwrap_or_default().to_owned()
}

fn comes_back_whole(stage: &mut Stage, registry: &Path, to: &str) {
    let _ = fs::remove_file(stage.at("laptop/grant.txt"));
    stage.grant("alpha", 600, "A drill: is all of it there?").unwrap();
    for name in &CUSTODIANS[1..4] {
        stage.approve(name).unwrap();
    }
    let answer = stage.restore(to).unwrap();
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let back = stage.at(to).join(registry.file_name().unwrap());
    assert_eq!(compare(registry, &back, &|_| ()).unwrap().1, Vec::<String>::new());
}

#[test]
fn what_an_appliance_proves_and_what_gives_it_away() {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    let scratch = tempfile::Builder::new().prefix("journey-").tempdir_in(beside).unwrap();
    let registry = scratch.path().join("registry");
    sample::make(&registry, 24 << 20).unwrap();
    let mut stage = Stage::new(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    story::prologue(&mut stage, 64 << 20).unwrap_or_else(|e| panic!("{e:#}\n{}", stage.programs.tail("hoidlad")));
    let digits = stage.digits().unwrap();

    let receipt = push(&stage, &registry)["receipt"].clone();
    assert!(receipt["covers"].as_u64().unwrap() > 24 << 20, "{receipt}");
    audit(&stage, "audit-1");
    an_auditor_needs_nothing_but_files(&stage, &digits);
    what_was_altered_is_refused(&stage, &digits);
    the_log_only_grew(&stage, &digits, &registry);
    a_disk_is_replaced_while_copying_goes_on(&mut stage, &registry);
    disks_put_back_to_an_older_state_are_told(&mut stage, &registry, &digits);
}

/// The one receipt in a folder of evidence.
fn receipt_in(stage: &Stage, folder: &str) -> String {
    let mut receipts = fs::read_dir(stage.at(folder).join("receipts")).unwrap();
    let name = receipts.next().unwrap().unwrap().file_name().into_string().unwrap();
    assert!(receipts.next().is_none(), "one stream, one receipt");
    format!("{folder}/receipts/{name}")
}

fn an_auditor_needs_nothing_but_files(stage: &Stage, digits: &str) {
    let receipt = receipt_in(stage, "audit-1");
    verify(stage, digits, &["statement", "audit-1"], 0, &["WHOLE", "lux-1", "population"]);
    verify(stage, digits, &["receipt", &receipt], 0, &["WHOLE"]);
    verify(stage, digits, &["checkpoint", "audit-1/checkpoint.txt"], 0, &["WHOLE", "hoidla/lux/lux-1"]);
    verify(stage, digits, &["site", "audit-1/papers"], 0, &["lux-1", "drill"]);
    // What cannot be told is neither yes nor no.
    fs::copy(stage.at(&receipt), stage.at("alone.txt")).unwrap();
    verify(stage, digits, &["receipt", "alone.txt"], 2, &["next:"]);
}

fn what_was_altered_is_refused(stage: &Stage, digits: &str) {
    let receipt = stage.at(&receipt_in(stage, "audit-1"));
    let good = fs::read(&receipt).unwrap();
    let mut answers = [0; 3];
    // One bit in each tenth of it; where it is no longer a receipt at all, nothing can be told.
    for tenth in 0..10 {
        let mut bad = good.clone();
        bad[good.len() * tenth / 10 + 5] ^= 1;
        fs::write(stage.at("altered.txt"), bad).unwrap();
        let args = ["--authority", digits, "receipt", "altered.txt", "--papers", "audit-1/papers"];
        let answer = stage.programs.run("hoidla-verify", &args, "").unwrap();
        assert!([1, 2].contains(&answer.code), "bit {tenth}: {}{}", answer.out, answer.err);
        answers[answer.code as usize] += 1;
    }
    assert!(answers[1] > 0, "no altered receipt was called wrong: {answers:?}");
    // In the folder, with everything else as it was.
    for at in [good.len() / 8, good.len() * 7 / 8] {
        let mut bad = good.clone();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        fs::write(&receipt, bad).unwrap();
        verify(stage, digits, &["statement", "audit-1"], 1, &["NO"]);
    }
    fs::write(&receipt, good).unwrap();
    let other = format!("{}{}", if digits.starts_with('0') { '1' } else { '0' }, &digits[1..]);
    verify(stage, &other, &["statement", "audit-1"], 1, &["not of"]);
}

fn the_log_only_grew(stage: &Stage, digits: &str, registry: &Path) {
    fs::write(registry.join("after the audit"), "an entry of the day after").unwrap();
    push(stage, registry);
    audit(stage, "audit-2");
    let papers = ["--papers", "audit-2/papers"];
    let before = "audit-2/before.txt";
    verify(stage, digits, &["statement", "audit-2"], 0, &["WHOLE"]);
    verify(stage, digits, &[&["consistency", before, "audit-2/extension.txt"], &papers[..]].concat(), 0, &["WHOLE"]);
    // It leads from the head before it, and from no other.
    verify(
        stage,
        digits,
        &[&["consistency", "audit-1/checkpoint.txt", "audit-2/extension.txt"], &papers[..]].concat(),
        2,
        &["both heads are signed"],
    );
}

fn a_disk_is_replaced_while_copying_goes_on(stage: &mut Stage, registry: &Path) {
    let disk = stage.at(DISKS[0]);
    let size = fs::metadata(&disk).unwrap().len();
    assert!(tray(stage, 1).contains("may be taken out"), "{}", tray(stage, 1));
    fs::rename(&disk, stage.at("embassy/pulled")).unwrap();
    let minute = Duration::from_secs(60);
    wait_until("the empty tray is said", minute, || tray(stage, 1).contains("empty")).unwrap();
    assert_eq!(status(stage).0, 1, "one copy is missing");
    assert!(tray(stage, 2).contains("do NOT take it out"), "{}", tray(stage, 2));
    sample::noise(&registry.join("while one disk is gone"), 4 << 20).unwrap();
    push(stage, registry);

    fs::File::create(&disk).unwrap().set_len(size).unwrap();
    sample::noise(&registry.join("while it is rebuilt"), 4 << 20).unwrap();
    push(stage, registry);
    wait_until("the blank disk is rebuilt", minute * 2, || tray(stage, 1).contains("may be taken out")).unwrap_or_else(|e| {
        panic!("{e}\n{}\n{}", status(stage).1, stage.programs.tail("hoidlad"));
    });
    assert_eq!(status(stage).0, 0, "{}", status(stage).1);

    fs::rename(stage.at(DISKS[1]), stage.at("embassy/pulled too")).unwrap();
    wait_until("the other tray is empty", minute, || tray(stage, 2).contains("empty")).unwrap();
    stage.new_reader().unwrap();
    comes_back_whole(stage, registry, "laptop/from-the-new-disk");
    fs::rename(stage.at("embassy/pulled too"), stage.at(DISKS[1])).unwrap();
    wait_until("both are whole again", minute * 2, || status(stage).0 == 0).unwrap();
}

fn disks_put_back_to_an_older_state_are_told(stage: &mut Stage, registry: &Path, digits: &str) {
    push(stage, registry);
    stage.stop_daemon();
    for disk in DISKS {
        fs::copy(stage.at(disk), stage.at(&format!("{disk}.older"))).unwrap();
    }
    stage.start_daemon().unwrap();
    let (added, before) = (registry.join("of the days that were taken back"), fs::metadata(registry).unwrap().modified().unwrap());
    fs::write(&added, "an entry").unwrap();
    push(stage, registry);
    audit(stage, "audit-3");
    stage.stop_daemon();
    for disk in DISKS {
        fs::rename(stage.at(&format!("{disk}.older")), stage.at(disk)).unwrap();
    }
    stage.start_daemon().unwrap();
    wait_until("it says that it only reads", Duration::from_secs(30), || {
        let (code, status) = status(stage);
        code == 1 && status["panel"]["troubles"].to_string().contains("only reads")
    })
    .unwrap();

    let ends = |args: &[&str], code: i32, words: &str| {
        let answer = stage.programs.run("hoidla-agent", args, "").unwrap();
        assert_eq!(answer.code, code, "{}:\n{}{}", answer.command, answer.out, answer.err);
        assert!(answer.err.contains(words), "{} does not say {words:?}:\n{}", answer.command, answer.err);
    };
    ends(&["audit", "--home", "home/agent", "--evidence", "audit-4"], 1, "ALARM");
    assert!(!stage.at("audit-4").exists());
    ends(&["push", "--home", "home/agent", registry.to_str().unwrap()], 1, "ALARM");
    // An agent that never saw the longer log is not given a shorter one either.
    fs::rename(stage.at("home/agent/audit/lux-lux-1/checkpoint.txt"), stage.at("kept.txt")).unwrap();
    ends(&["audit", "--home", "home/agent"], 1, "signs no head");
    // The last head before stays proof of what there was.
    verify(stage, digits, &["statement", "audit-3"], 0, &["WHOLE"]);
    // And what the disks still hold is read under a grant.
    fs::remove_file(added).unwrap();
    fs::File::open(registry).unwrap().set_modified(before).unwrap();
    comes_back_whole(stage, registry, "laptop/from-older-disks");
}
