//! One embassy for all tests of a program; each spoils a copy of its machine, two at a time.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
};

use hoidla_journey::Narrator;
use hoidla_vm::{Embassy, Machine, Spare};

/// Machines that are switched on at once: as many as the cores that two of them keep busy.
const AT_ONCE: usize = 2;

/// The embassy, as long as any test holds it.
pub struct Shared {
    pub embassy: Embassy,
    /// How many machines may be switched on as well.
    free: (Mutex<usize>, Condvar),
    _scratch: tempfile::TempDir,
}

/// While it lasts, a test may have one machine switched on.
pub struct Turn<'a>(&'a Shared);

impl Deref for Turn<'_> {
    type Target = Embassy;

    fn deref(&self) -> &Embassy {
        &self.0.embassy
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.free.1.notify_one();
    }
}

/// A scratch folder beside the build: on a disk, which the store's direct I/O wants.
pub fn scratch() -> tempfile::TempDir {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    tempfile::Builder::new().prefix("vm-").tempdir_in(beside).unwrap()
}

/// The embassy. Tests that run beside one another have the same; it ends with the last of them.
pub fn shared() -> Arc<Shared> {
    static FOUNDED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut founded = FOUNDED.lock().unwrap_or_else(PoisonError::into_inner);
    founded.upgrade().unwrap_or_else(|| {
        let scratch = scratch();
        let embassy = Embassy::found(&scratch.path().join("stage"), Narrator::silent()).unwrap();
        let new = Arc::new(Shared { embassy, free: (Mutex::new(AT_ONCE), Condvar::new()), _scratch: scratch });
        *founded = Arc::downgrade(&new);
        new
    })
}

impl Shared {
    pub fn turn(&self) -> Turn<'_> {
        let free = self.free.0.lock().unwrap_or_else(PoisonError::into_inner);
        *self.free.1.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

/// It says why it doesn't run, in these words, and lets nobody in.
pub fn refused(embassy: &Embassy, spare: &Spare, words: &str) -> Machine {
    let machine = spare.start().unwrap();
    let (_, why) = machine.wait("NOT RUNNING: ").unwrap();
    assert!(why.contains(words), "it should say {words:?}, and said: {why}");
    machine.wait("Host staff: photograph this screen").unwrap();
    assert!(machine.lines("the door is open").is_empty());
    assert!(embassy.is_shut(spare).unwrap(), "it lets an agent in");
    machine
}

/// It comes up and lets an agent in.
pub fn serves(embassy: &Embassy, spare: &Spare) -> Machine {
    let machine = spare.start().unwrap();
    machine.wait("ready to copy in").unwrap();
    let (serves, why) = embassy.serves(spare).unwrap();
    assert!(serves, "an agent is not let in: {why}");
    machine
}

/// What it measured, against what the image leads to.
pub fn registers_are_foretold(machine: &Machine, embassy: &Embassy) {
    for register in ["4", "11", "12", "13"] {
        let said = machine.lines(&format!("PCR {register}: "));
        let foretold = embassy.foretold[register].as_str().expect("a register's digits");
        assert!(said.iter().any(|l| l.ends_with(foretold)), "PCR {register} is {said:?}, foretold was {foretold}");
    }
}
