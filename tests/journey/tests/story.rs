//! The whole story on a small folder with everything in it that makes copying hard.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use hoidla_journey::{Narrator, Stage, sample, story};

/// A scratch folder beside the build: on a disk, which the store's direct I/O wants.
fn scratch() -> tempfile::TempDir {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    tempfile::Builder::new().prefix("journey-").tempdir_in(beside).unwrap()
}

#[test]
fn from_dealing_keys_to_restoring_after_home_is_lost() {
    let scratch = scratch();
    let path = scratch.path().join("registry");
    sample::make(&path, 224 << 20).unwrap();
    let mut stage = Stage::new(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    let told = story::tell(&mut stage, &path).unwrap_or_else(|e| {
        let logs = stage.at("logs");
        panic!("{e:#}\nthe end of hoidlad's log:\n{}\nall logs stood in {}", stage.programs.tail("hoidlad"), logs.display())
    });

    assert!(told.restart.is_some(), "hoidlad was killed in the middle");
    assert!(told.agent_killed, "the agent was killed in the middle");
    assert!(told.control > 0, "known ciphertext was found, so that finding no plaintext says something");
    assert!(!told.rebuilt.is_zero(), "the disk in the place of the one that was taken became whole");
    assert_eq!((told.disks.found, told.memory.found), (0, 0));
    assert!(told.peak <= 300 << 20, "hoidlad took {} bytes at its peak", told.peak);
    let c = told.compared;
    assert_eq!((c.links, c.hard_links, c.sparse), (3, 1, 1));
    assert!(c.files > 300 && c.folders > 200 && c.bytes > 224 << 20, "{c:?}");
}
