//! Time, retention and scrubbing, as other threads ask for them.

use hoidla_format::Name;
use hoidla_store::{Refused, SegmentRef, Tenure, Ticket};
use tokio::sync::oneshot;

use crate::{
    Engine,
    driver::Command,
    store::{SOON, Store, StoreError, gone},
};

impl Store {
    /// Powered seconds that the store knows of.
    pub async fn powered(&self) -> Result<u64, StoreError> {
        self.ask(|e| e.powered()).await
    }

    /// Raises the log's counter, intent first; where it stands then, 0 if there is none.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.note(|e, ticket| e.count(ticket)).await?;
        self.counter().await
    }

    /// Where the log's counter stands.
    pub async fn counter(&self) -> Result<u64, StoreError> {
        self.ask(|e| e.counter()).await
    }

    /// Seconds that the machine was powered; the next batch carries them.
    pub async fn tell_powered(&self, seconds: u64) -> Result<(), StoreError> {
        self.ask(move |e| e.tell_powered(seconds)).await
    }

    /// Where time went on by the authority's word; see [`hoidla_store::Engine::tell_skipped`].
    pub async fn tell_skipped(&self, skipped: Vec<(u64, u64)>) -> Result<(), StoreError> {
        self.ask(move |e| e.tell_skipped(skipped)).await
    }

    /// Writes powered time down now.
    pub async fn note_powered(&self) -> Result<(), StoreError> {
        self.note(|e, ticket| e.note_powered(ticket)).await
    }

    /// A dataset's generations are kept for at least so many days, for good.
    pub async fn promise(&self, dataset: &Name, days: u32) -> Result<(), StoreError> {
        let dataset = dataset.clone();
        self.note(move |e, ticket| e.promise(&dataset, days, ticket)).await
    }

    /// Bytes of segments that each dataset has.
    pub async fn used(&self) -> Result<std::collections::BTreeMap<Name, u64>, StoreError> {
        self.ask(|e| e.used()).await
    }

    /// Bytes of a segment, and the generations for which one is open.
    pub async fn open_generations(&self) -> Result<(u64, Vec<hoidla_store::Generation>), StoreError> {
        self.ask(|e| e.open_generations()).await
    }

    /// The generations that hold something, with their ages.
    pub async fn tenures(&self) -> Result<Vec<Tenure>, StoreError> {
        self.ask(|e| e.tenures()).await
    }

    /// Ends a dataset's generations below `floor`, durably; see [`hoidla_store::Engine::expire`].
    pub async fn expire(&self, dataset: &Name, floor: u32, now: u64) -> Result<(), StoreError> {
        let dataset = dataset.clone();
        self.note(move |e, ticket| e.expire(&dataset, floor, now, ticket)).await
    }

    /// Segments that were not seen whole since `powered` seconds, the longest unseen first.
    pub async fn unseen(&self, powered: u64, most: usize) -> Result<Vec<u32>, StoreError> {
        self.ask(move |e| e.unseen(powered, most)).await
    }

    /// A segment was read back whole on every copy.
    pub async fn seen_whole(&self, segment: SegmentRef, powered: u64) -> Result<(), StoreError> {
        self.ask(move |e| e.seen_whole(&segment, powered)).await
    }

    /// The powered seconds since which every byte was seen whole, but for segments `without`.
    pub async fn seen_since(&self, without: Vec<u32>) -> Result<Option<u64>, StoreError> {
        self.ask(move |e| e.seen_since(&without)).await
    }

    async fn note(&self, note: impl Fn(&mut Engine, Ticket) -> Result<(), Refused> + Clone + Send + 'static) -> Result<(), StoreError> {
        loop {
            let (tell, answer) = oneshot::channel();
            self.send(Command::Note(Box::new(note.clone()), tell)).await?;
            match answer.await.map_err(|_| gone())? {
                Err(Refused::Busy) => tokio::time::sleep(SOON).await,
                other => return Ok(other?),
            }
        }
    }
}
