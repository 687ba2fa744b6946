//! Buries processes that nobody waits for.
//!
//! Promises: a child that its owner waits for is left to it; any other is gone some seconds
//! after its end. PID 1 inherits the children of processes that died.

use std::time::Duration;

use nix::{
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::Pid,
};

/// How often is looked. An owner waits for its child within milliseconds of its end.
const LOOK: Duration = Duration::from_secs(5);

/// For ever.
pub async fn keep() {
    let mut seen = None;
    loop {
        seen = look(seen);
        tokio::time::sleep(LOOK).await;
    }
}

/// Buries the child that had ended when it was looked last, and still lies there; which one lies there now.
fn look(seen: Option<Pid>) -> Option<Pid> {
    let ended = |id, flags| waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | flags).ok().and_then(|s: WaitStatus| s.pid());
    let lies = ended(Id::All, WaitPidFlag::WNOWAIT)?;
    if seen != Some(lies) {
        return Some(lies);
    }
    ended(Id::Pid(lies), WaitPidFlag::empty());
    ended(Id::All, WaitPidFlag::WNOWAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_who_lies_there_twice_is_buried() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Some(Pid::from_raw(child.id().cast_signed()));
        let mut seen = None;
        for _ in 0..500 {
            seen = look(None); // seen for the first time, again and again: nobody is buried
            if seen == pid {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(seen, pid);
        assert_ne!(look(seen), pid);
        assert!(child.wait().is_err(), "it was buried");
    }
}
