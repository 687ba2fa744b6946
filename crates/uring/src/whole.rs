//! Checking all that is stored, as fast as disks and cores allow.

use std::collections::VecDeque;

use hoidla_store::{Checked, SegmentRef};
use tokio::task::JoinHandle;

use crate::{
    Store, StoreError,
    store::{READERS, gone},
};

/// A check under way; nobody waits for it any more when it is dropped.
struct Checking {
    segment: SegmentRef,
    outcome: JoinHandle<Result<Checked, StoreError>>,
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.outcome.abort();
    }
}

impl Store {
    /// Checks every byte of a segment on every copy, and repairs. One that was whole counts as
    /// seen; what needed repair does so at its next check, when the repair was read back.
    pub async fn see(&self, segment: SegmentRef) -> Result<Checked, StoreError> {
        let powered = self.powered().await?;
        let checked = self.check(segment.clone()).await?;
        if checked.repaired.is_empty() && checked.damage.is_empty() {
            self.seen_whole(segment, powered).await?;
        }
        Ok(checked)
    }

    /// Does so with all segments, several at the same time, and tells what was found in each, in order.
    pub async fn see_all(&self, mut tell: impl FnMut(&SegmentRef, Checked)) -> Result<(), StoreError> {
        let (mut from, mut under_way) = (0, VecDeque::new());
        loop {
            let next = self.segment(from).await?;
            let over = next.is_none();
            if let Some(segment) = next {
                from = segment.number() + 1;
                let (store, checked) = (self.clone(), segment.clone());
                under_way.push_back(Checking { segment, outcome: tokio::spawn(async move { store.see(checked).await }) });
            }
            while under_way.len() > if over { 0 } else { READERS - 1 } {
                let Some(mut first) = under_way.pop_front() else { break };
                let checked = (&mut first.outcome).await.map_err(|_| gone())??;
                tell(&first.segment, checked);
            }
            if over {
                return Ok(());
            }
        }
    }
}
