//! The disk trays, as the people at the rack live with them.
//!
//! Promises: a disk of this store that comes back, and a blank one in the place of a lost
//! one, join by themselves and are rebuilt; anything else on a disk stays untouched until
//! the authority's word names exactly what was seen ([`words`]). A disk that failed is not
//! tried again before it was taken out. Each tray is said in words. Trays count from 1, in
//! the order of `appliance.toml`; two disks swapped between trays are no error.

pub mod words;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hoidla_uring::{
    DiskError, DiskFile, DiskState, State as How, Store,
    trays::{Seen, look},
};
use serde::{Deserialize, Serialize};
use words::Words;

/// One tray, as the panel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrayHealth {
    /// Its number, from 1.
    pub tray: u8,
    /// Where the system has it.
    pub path: String,
    /// Whether nobody needs to do anything.
    pub well: bool,
    /// How it is, and what to do.
    pub says: String,
}

/// What a path leads to: another disk has another identity.
type Identity = (u64, u64, u64);

struct Tray {
    path: PathBuf,
    /// The place that the disk in it has, or had last.
    place: Option<u8>,
    /// It served when it was last looked at.
    served: bool,
    /// The disk that failed here, or would not join.
    shunned: Option<(Identity, String)>,
    says: TrayHealth,
}

/// Looks after all trays.
pub struct Trays {
    store: Store,
    name: [u8; 16],
    words: Words,
    trays: Mutex<Vec<Tray>>,
    /// When rebuilding of a place was first seen, and at how many bytes.
    began: Mutex<Vec<(u8, Instant, u64)>>,
}

impl Trays {
    /// Of these paths, for the store of this name.
    pub fn new(store: Store, name: [u8; 16], paths: &[PathBuf], words: Words) -> Self {
        let tray = |path: &PathBuf| Tray { path: path.clone(), place: None, served: false, shunned: None, says: TrayHealth::default() };
        Self { store, name, words, trays: Mutex::new(paths.iter().map(tray).collect()), began: Mutex::default() }
    }

    /// How each tray was when it was last looked at.
    pub fn health(&self) -> Vec<TrayHealth> {
        self.trays.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|t| t.says.clone()).collect()
    }

    /// Looks at all trays again and again, for ever.
    pub async fn keep(&self, every: Duration) {
        loop {
            if let Err(e) = self.look_around().await {
                tracing::warn!("the trays could not be looked at: {e:#}");
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn look_around(&self) -> anyhow::Result<()> {
        for (place, path) in self.store.pulled() {
            tracing::error!("the disk of place {place} was taken out of {}", path.display());
            if let Err(e) = self.store.leave(place, "it was taken out".into()).await {
                tracing::error!("it is needed: {e}");
            }
        }
        let count = self.trays.lock().unwrap_or_else(PoisonError::into_inner).len();
        for at in 0..count {
            let disks = self.store.disks().await?;
            self.look_at(at, &disks).await;
        }
        Ok(())
    }

    async fn look_at(&self, at: usize, disks: &[DiskState]) {
        let (path, shunned) = {
            let mut trays = self.trays.lock().unwrap_or_else(PoisonError::into_inner);
            notice_failure(&mut trays[at], disks);
            (trays[at].path.clone(), trays[at].shunned.clone().map(|s| s.1))
        };
        let tray = at as u8 + 1;
        let serves = disks.iter().find(|d| d.path.as_deref() == Some(&path));
        let (well, says) = match (serves, shunned) {
            (Some(_), _) if identity(&path).is_none() => {
                (false, format!("tray {tray} is empty, and nothing else holds what its disk holds: put it back"))
            }
            (Some(d), _) => self.says_of(d),
            (None, Some(why)) => (false, format!("replace the disk in tray {tray}: {why}")),
            (None, None) => self.newcomer(at, &path, disks).await,
        };
        let place = serves.map(|d| d.place);
        let mut trays = self.trays.lock().unwrap_or_else(PoisonError::into_inner);
        let t = &mut trays[at];
        t.place = place.or(t.place);
        t.served = place.is_some();
        let says = TrayHealth { tray, path: path.display().to_string(), well, says };
        if t.says != says && !matches!(serves.map(|d| &d.state), Some(How::Rebuilding(..))) {
            tracing::info!("tray {tray}: {}", says.says);
        }
        t.says = says;
    }

    fn says_of(&self, d: &DiskState) -> (bool, String) {
        match d.state {
            How::Rebuilding(done, all) => (false, self.progress(d.place, done, all)),
            _ if d.needed => (true, "whole; do NOT take it out: nothing else holds what it holds".into()),
            _ => (true, "whole; it may be taken out".into()),
        }
    }

    fn progress(&self, place: u8, done: u64, all: u64) -> String {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.iter().find(|b| b.0 == place).is_none_or(|b| b.2 > done) {
            began.retain(|b| b.0 != place);
            began.push((place, Instant::now(), done));
        }
        let since = began.iter().find(|b| b.0 == place).map_or((Duration::ZERO, 0), |b| (b.1.elapsed(), done - b.2));
        rebuilding(done, all, since)
    }

    /// A disk that doesn't serve: it joins, or is said.
    async fn newcomer(&self, at: usize, path: &Path, disks: &[DiskState]) -> (bool, String) {
        let (tray, name, there) = (at as u8 + 1, self.name, path.to_owned());
        let looked = tokio::task::spawn_blocking(move || DiskFile::open(&there).map(|d| look(&d, name))).await;
        let seen = match looked {
            Ok(Ok(seen)) => seen,
            Ok(Err(DiskError::Open { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => {
                return (false, format!("empty: put a disk into tray {tray}"));
            }
            Ok(Err(e)) => return (false, format!("replace the disk in tray {tray}: {e}")),
            Err(e) => return (false, e.to_string()),
        };
        let lost: Vec<u8> = disks.iter().filter(|d| d.path.is_none()).map(|d| d.place).collect();
        let before = self.trays.lock().unwrap_or_else(PoisonError::into_inner)[at].place;
        let allowed = seen.hash().and_then(|hash| self.words.allows(tray, hash));
        match verdict(&seen, &lost, before, allowed.is_some()) {
            Verdict::Say(why) => (false, format!("tray {tray} holds {seen}; {why}")),
            Verdict::Join(place) => {
                if let Some(serial) = allowed.filter(|_| seen.hash().is_some())
                    && let Err(e) = self.words.use_up(serial)
                {
                    return (false, format!("the word about tray {tray} cannot be used: {e:#}"));
                }
                tracing::info!("tray {tray} holds {seen}: it joins at place {place}");
                match self.store.join(place, path).await {
                    Ok(_) => (false, "rebuilding begins".into()),
                    Err(e) => {
                        let mut trays = self.trays.lock().unwrap_or_else(PoisonError::into_inner);
                        trays[at].shunned = identity(path).map(|id| (id, e.to_string()));
                        (false, format!("replace the disk in tray {tray}: {e}"))
                    }
                }
            }
        }
    }
}

/// A disk that served and is still in its tray, but was given up, is shunned; until it is out.
fn notice_failure(t: &mut Tray, disks: &[DiskState]) {
    let here = identity(&t.path);
    if t.shunned.as_ref().is_some_and(|s| Some(s.0) != here) {
        t.shunned = None;
    }
    let given_up = disks.iter().find(|d| Some(d.place) == t.place && d.path.is_none());
    if let (true, Some(id), Some(How::Failed(why))) = (t.served, here, given_up.map(|d| &d.state))
        && why != "it was taken out"
    {
        t.shunned = Some((id, why.clone()));
    }
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.rdev()))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Join(u8),
    Say(String),
}

/// What becomes of a disk that doesn't serve; `lost` are the places without a disk, `before` the
/// place that this tray had last.
fn verdict(seen: &Seen, lost: &[u8], before: Option<u8>, allowed: bool) -> Verdict {
    let place = lost.iter().copied().find(|p| Some(*p) == before).or(lost.first().copied());
    match (seen, place) {
        (Seen::Ours { place }, _) if lost.contains(place) => Verdict::Join(*place),
        (Seen::Ours { .. }, _) => {
            Verdict::Say("another disk has taken its place: take it out, and lock it away for the field engineer".into())
        }
        (Seen::Unreadable(_), _) => Verdict::Say("replace it".into()),
        (_, None) => Verdict::Say("no disk is missing, so it is not used".into()),
        (Seen::Blank, Some(place)) => Verdict::Join(place),
        (_, Some(place)) if allowed => Verdict::Join(place),
        (other, Some(_)) => {
            let hash = other.hash().map(|h| h.to_string()).unwrap_or_default();
            Verdict::Say(format!("it is not touched: put in a blank one, or ask home for its word about {hash}"))
        }
    }
}

/// Progress in words; `since`: how long it was watched, and the bytes copied meanwhile.
fn rebuilding(done: u64, all: u64, since: (Duration, u64)) -> String {
    if all == 0 {
        return "rebuilding, begins".into();
    }
    let percent = done.min(all) * 100 / all;
    let rate = since.1 as f64 / since.0.as_secs_f64().max(0.001);
    if since.1 == 0 || rate < 1.0 {
        return format!("rebuilding, {percent} %; leave it in");
    }
    let seconds = ((all - done.min(all)) as f64 / rate) as u64;
    let left = if seconds < 90 { format!("{seconds} seconds") } else { format!("{} minutes", seconds.div_ceil(60)) };
    format!("rebuilding, {percent} %, about {left} left; leave it in")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_format::Hash32;

    #[test]
    fn only_ours_and_blank_disks_join_without_a_word() {
        let strange = Seen::Unknown { looks: "a partition table (GPT)", hash: Hash32([7; 32]) };
        let other = Seen::OtherStore { store: "00".into(), hash: Hash32([8; 32]) };
        assert_eq!(verdict(&Seen::Ours { place: 2 }, &[0, 2], None, false), Verdict::Join(2));
        assert_eq!(verdict(&Seen::Blank, &[0, 2], Some(2), false), Verdict::Join(2));
        assert_eq!(verdict(&Seen::Blank, &[0, 2], Some(1), false), Verdict::Join(0));
        assert_eq!(verdict(&strange, &[1], None, true), Verdict::Join(1));
        for (seen, lost) in [(&strange, &[1][..]), (&other, &[1]), (&Seen::Blank, &[]), (&Seen::Ours { place: 0 }, &[1])] {
            assert!(matches!(verdict(seen, lost, None, false), Verdict::Say(_)), "{seen}");
        }
        assert!(matches!(verdict(&Seen::Ours { place: 0 }, &[1], None, true), Verdict::Say(_)), "an old disk of ours is no blank one");
    }

    #[test]
    fn progress_has_words() {
        assert_eq!(rebuilding(0, 0, (Duration::ZERO, 0)), "rebuilding, begins");
        assert_eq!(rebuilding(43, 100, (Duration::from_secs(1), 0)), "rebuilding, 43 %; leave it in");
        assert_eq!(rebuilding(40, 100, (Duration::from_secs(10), 40)), "rebuilding, 40 %, about 15 seconds left; leave it in");
        assert_eq!(rebuilding(100, 700, (Duration::from_secs(60), 100)), "rebuilding, 14 %, about 6 minutes left; leave it in");
    }
}
