//! Carrying heads without being asked: after a push or an audit, at most once an hour.
//!
//! The file [`WITNESSES`] in the agent's folder names who shall see the heads, a line each: an
//! appliance of the same site, or one of another site of the same authority with the agent's folder
//! there. Promises: what cannot be carried is a note, and a push stands without it; a contradiction
//! is an alarm. No passphrase is asked for: another site's folder needs its file `passphrase`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use hoidla_cli::PassphraseSource;
use hoidla_door::Target;
use hoidla_format::Name;
use hoidla_log::SignedCheckpoint;

use super::{Alarm, Auditor, Kept, Other};
use crate::home::{Home, PASSPHRASE};

/// The file in the agent's folder.
pub const WITNESSES: &str = "witnesses";
/// From one carrying to the next, to one appliance.
const PAUSE: Duration = Duration::from_secs(3600);
/// The most witnesses.
const MOST: usize = 16;

/// What became of a head that was carried.
#[derive(Debug)]
pub struct Carried {
    /// Where to: `hoidla/SITE/APPLIANCE`.
    pub witness: String,
    /// Of how many leaves it was, signed there; or why it was not.
    pub seen: Result<u64, String>,
}

/// Who shall see heads.
#[derive(Debug, PartialEq, Eq)]
struct Watcher {
    appliance: Name,
    /// The agent's folder at its site; none if it is of the same site.
    home: Option<PathBuf>,
}

/// Reads the file: `APPLIANCE`, or `APPLIANCE FOLDER`; empty lines and those that begin with `#` say nothing.
fn watchers(text: &str) -> Result<Vec<Watcher>> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let watcher = |line: &str| -> Result<Watcher> {
        let (appliance, home) = line.split_once(char::is_whitespace).map_or((line, None), |(a, h)| (a, Some(PathBuf::from(h.trim()))));
        Ok(Watcher { appliance: appliance.parse().map_err(|e: String| anyhow!(e))?, home })
    };
    let watchers = lines.map(watcher).collect::<Result<Vec<_>>>()?;
    ensure!(watchers.len() <= MOST, "more than {MOST} witnesses");
    Ok(watchers)
}

/// Has the newest head of one appliance seen by another; the head with both lines, and who saw it.
pub fn carry(from: (&Home, &Target), to: (&Home, &Target)) -> Result<(SignedCheckpoint, String)> {
    let mut auditor = Auditor::enter(from.0, from.1)?;
    let least = auditor.log_size()?;
    let head = auditor.checkpoint(least)?;
    let mut there = Auditor::enter(to.0, to.1)?;
    let papers = there.kept().papers()?.into_iter().map(|(_, paper)| paper).collect();
    let origin = there.kept().origin().to_owned();
    let seen = auditor.witnessed(&head, &mut Other { origin: origin.clone(), papers, ask: &mut |request| there.ask(request) })?;
    Ok((seen, origin))
}

/// Carries the newest head to each appliance that the file names, if an hour has passed since the last time.
pub fn carry_due(home: &Home, target: &Target) -> Result<Vec<Carried>> {
    let path = home.dir.join(WITNESSES);
    if !path.exists() {
        return Ok(vec![]);
    }
    let read = || watchers(&fs::read_to_string(&path)?);
    let named = match read() {
        Ok(named) => named,
        Err(e) => {
            let why = format!("{e:#}; write a line each: APPLIANCE, or APPLIANCE FOLDER");
            return Ok(vec![Carried { witness: path.display().to_string(), seen: Err(why) }]);
        }
    };
    let mut carried = vec![];
    for watcher in named {
        match carry_to(home, target, &watcher) {
            Ok(done) => carried.extend(done),
            Err(e) if e.is::<Alarm>() => return Err(e),
            Err(e) => carried.push(Carried { witness: watcher.appliance.to_string(), seen: Err(format!("{e:#}")) }),
        }
    }
    Ok(carried)
}

fn carry_to(home: &Home, target: &Target, watcher: &Watcher) -> Result<Option<Carried>> {
    let elsewhere = watcher.home.as_deref().map(|dir| open(&home.dir.join(dir))).transpose()?;
    let there = elsewhere.as_ref().unwrap_or(home);
    let to = there.target(Some(&watcher.appliance))?;
    let origin = format!("hoidla/{}/{}", to.site, to.appliance);
    let kept = Kept::of(&home.dir, &target.site, &target.appliance)?;
    if origin == kept.origin() || !kept.is_due(&origin, PAUSE)? {
        return Ok(None);
    }
    let (seen, witness) = carry((home, target), (there, &to))?;
    Ok(Some(Carried { witness, seen: Ok(seen.head().size) }))
}

fn open(dir: &Path) -> Result<Home> {
    let passphrase = dir.join(PASSPHRASE);
    ensure!(passphrase.exists(), "{} is missing: heads are carried there unattended", passphrase.display());
    Home::open(dir, &PassphraseSource { passphrase_file: Some(passphrase) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_appliances_and_folders() {
        let watcher = |appliance: &str, home: Option<&str>| Watcher { appliance: appliance.parse().unwrap(), home: home.map(Into::into) };
        let text = "# who sees our heads\n\nlux-2\n mun-1   /srv/agent at mun \n";
        assert_eq!(watchers(text).unwrap(), [watcher("lux-2", None), watcher("mun-1", Some("/srv/agent at mun"))]);
        assert!(watchers("Lux 2\n").is_err());
        assert!(watchers(&"lux-2\n".repeat(MOST + 1)).is_err());
    }
}
