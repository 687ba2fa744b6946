//! Raises the log's counter in the TPM every hour: disks put back from before are told by it.
//!
//! Promises: a raise that fails is tried again soon; when none has succeeded for two hours that is
//! an alarm, which stands until one does. Until then disks put back from that time would not be
//! noticed, so somebody who holds the raise back on the TPM's bus is. Records are taken all the same.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hoidla_store::Refused;
use hoidla_uring::{Store, StoreError};

/// From one raise to the next.
const HOUR: Duration = Duration::from_secs(3600);
/// From one that failed to the next.
const SOON: Duration = Duration::from_secs(600);
/// So long may it go without.
const LATE: Duration = Duration::from_secs(2 * 3600);

/// When the counter was raised.
pub struct Hourly {
    last: Mutex<Instant>,
}

impl Default for Hourly {
    /// Raised just now, by the opening.
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }
}

impl Hourly {
    /// Raises it for ever; `alarm` is told once each time that it is late.
    pub async fn keep(&self, store: Store, alarm: impl Fn(&str)) {
        let (mut pause, mut told) = (HOUR, false);
        loop {
            tokio::time::sleep(pause).await;
            let raised = raise(&store).await;
            pause = if raised { HOUR } else { SOON };
            let late = self.tried(raised, Instant::now());
            if let Some(why) = late.as_ref().filter(|_| !told) {
                alarm(why);
            }
            told = late.is_some();
        }
    }

    /// What stands now, in words.
    pub fn standing(&self) -> Option<String> {
        self.late(Instant::now())
    }

    fn tried(&self, raised: bool, now: Instant) -> Option<String> {
        if raised {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        self.late(now)
    }

    fn late(&self, now: Instant) -> Option<String> {
        let since = now.saturating_duration_since(*self.last.lock().unwrap_or_else(PoisonError::into_inner));
        (since >= LATE).then(|| {
            format!(
                "the log's counter in the TPM could not be raised for {} hours: old disks put back would not be noticed; look at the machine and its TPM, and tell the authority",
                since.as_secs() / 3600
            )
        })
    }
}

/// Whether it was raised, or needn't be.
async fn raise(store: &Store) -> bool {
    let before = match store.counter().await {
        Ok(0) => return true, // this machine has none for this store
        Ok(before) => before,
        Err(_) => return false,
    };
    match store.count().await {
        Ok(now) => now > before,
        Err(StoreError::Refused(Refused::OnlyReads(_))) => true, // that is said already
        Err(why) => {
            tracing::warn!("the log's counter was not raised: {why}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hours_without_a_raise_are_an_alarm_until_one_succeeds() {
        let hourly = Hourly::default();
        let start = *hourly.last.lock().unwrap();
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(hourly.tried(false, after(60)), None);
        assert_eq!(hourly.tried(true, after(70)), None);
        assert_eq!(hourly.tried(false, after(189)), None, "less than two hours ago");
        assert!(hourly.tried(false, after(190)).unwrap().contains("for 2 hours"));
        assert!(hourly.tried(false, after(400)).unwrap().contains("for 5 hours"));
        assert_eq!(hourly.tried(true, after(410)), None);
    }
}
