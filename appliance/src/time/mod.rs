//! Time as the appliance lives it, and what ends by it: `docs/formats/time.md`.
//!
//! Promises: time moves by what two clocks that nobody sets agree on, and forward by the
//! authority's word alone; it is written down once an hour; what is over is looked for once an
//! hour, and each end is logged before it happens. It decides nothing: [`due`] does.

pub mod due;
pub mod skips;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hoidla_crypto::sign::VerifyingKey;
use hoidla_store::{
    Refused, Tenure,
    powered::{self, HOUR, Powered, Reading},
};
use hoidla_tpm::{Counter, Tpm};
use hoidla_uring::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::{
    ceremonies::{Ceremonies, since_boot},
    config::State,
    papers::Papers,
};
use skips::Skips;

/// What the panel is told of time and retention.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ages {
    /// Powered seconds.
    pub powered: u64,
    /// The time that counts for the end of generations, in powered seconds; less when the TPM's
    /// counter and the disks differ.
    pub counts: u64,
    /// Generations ended since the start.
    pub ended: u64,
    /// Each generation's time, in words.
    pub generations: Vec<String>,
    /// What is odd about the clocks, the last of it.
    pub odd: Option<String>,
}

/// Keeps time.
pub struct Keeper {
    store: Store,
    tpm: Arc<Tpm>,
    papers: Arc<Papers>,
    ceremonies: Arc<Ceremonies>,
    state: State,
    authority: VerifyingKey,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    clocks: Powered,
    /// Counted since the start, below a second included.
    counted: Duration,
    /// What of it the store was told.
    told: u64,
    /// Counted since the TPM's hours were last raised, and since the last round.
    since_hour: Duration,
    since_round: Option<Duration>,
    ages: Ages,
    tenures: Vec<Tenure>,
}

impl Keeper {
    /// For a store that is open.
    pub fn new(
        store: Store,
        tpm: Arc<Tpm>,
        papers: Arc<Papers>,
        ceremonies: Arc<Ceremonies>,
        state: State,
        authority: VerifyingKey,
    ) -> Self {
        Self { store, tpm, papers, ceremonies, state, authority, now: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the panel is told.
    pub fn ages(&self) -> Ages {
        self.lock().ages.clone()
    }

    /// Days of running for which a generation is kept at least, if time ends it at all.
    pub fn days_left(&self, generation: &hoidla_store::Generation) -> Option<u32> {
        let now = self.lock();
        now.tenures.iter().find(|t| t.generation == *generation).and_then(|t| due::days_left(t, now.ages.counts))
    }

    /// Tells the store what the site file promises. The longest that was ever said holds; one that
    /// only reads ends nothing, and needs not be told.
    pub async fn promise(&self) -> anyhow::Result<()> {
        for d in &self.papers.site.statement.datasets {
            match self.store.promise(&d.name, d.retention_days).await {
                // Nothing ends in it, whatever was promised.
                Ok(()) | Err(StoreError::Refused(Refused::OnlyReads(_))) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Looks at the clocks every `tick`, for ever.
    pub async fn keep(self: Arc<Self>, tick: Duration) {
        let mut every = tokio::time::interval(tick);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(e) = self.tick().await {
                tracing::warn!("time was not kept: {e:#}; nothing ends meanwhile");
            }
        }
    }

    async fn tick(&self) -> anyhow::Result<()> {
        let tpm = self.tpm.clone();
        let reading = tokio::task::spawn_blocking(move || read(&tpm)).await??;
        let whole = self.look(reading);
        let mut powered = self.store.powered().await? + whole;
        let skips = Skips::kept(&self.state, &self.authority, &self.papers)?;
        let mut round = self.lock().since_round.is_none_or(|since| since.as_secs() >= HOUR);
        while let Some(skip) = skips.next(powered) {
            tracing::warn!(serial = skip.serial, from = powered, to = skip.to, reason = %skip.reason, "time goes on by the authority's word");
            powered = skip.to;
            round = true;
        }
        self.store.tell_powered(powered).await?;
        self.store.tell_skipped(skips.spans().collect()).await?;
        let hours = self.hours(powered, skips.skipped(powered)).await?;
        let counts = powered::counts(powered, hours, skips.skipped(powered));
        if round {
            self.store.note_powered().await?;
            self.end_what_is_over(counts).await?;
            self.lock().since_round = Some(Duration::ZERO);
        }
        let tenures = self.store.tenures().await?;
        let mut now = self.lock();
        now.ages.generations = tenures.iter().filter(|t| t.days > 0).map(|t| due::words(t, counts)).collect();
        (now.ages.powered, now.ages.counts, now.tenures) = (powered, counts, tenures);
        Ok(())
    }

    /// The whole seconds that the clocks have passed since the store was told last.
    fn look(&self, reading: Reading) -> u64 {
        let mut now = self.lock();
        let look = now.clocks.look(reading);
        if let Some(odd) = look.odd {
            tracing::warn!("{odd}");
            now.ages.odd = Some(odd);
        }
        now.counted += look.counted;
        now.since_hour += look.counted;
        now.since_round = now.since_round.map(|since| since + look.counted);
        let whole = now.counted.as_secs() - now.told;
        now.told = now.counted.as_secs();
        whole
    }

    /// The TPM's count of powered hours; raised by one when another is full, at most once in each
    /// hour that this run has lived through.
    async fn hours(&self, powered: u64, skipped: u64) -> anyhow::Result<u64> {
        let (tpm, first) = (self.tpm.clone(), self.papers.identity.hours_counter);
        let full = powered.saturating_sub(skipped) / HOUR;
        let may = self.lock().since_hour.as_secs() >= HOUR;
        let (hours, raised) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let stands = tpm.counter(Counter::Hours)?.saturating_sub(first);
            if may && stands < full { Ok((tpm.increment(Counter::Hours)?.saturating_sub(first), true)) } else { Ok((stands, false)) }
        })
        .await??;
        if raised {
            self.lock().since_hour = Duration::ZERO;
        }
        Ok(hours)
    }

    async fn end_what_is_over(&self, now: u64) -> anyhow::Result<()> {
        let tenures = self.store.tenures().await?;
        for (dataset, floor) in due::due(&tenures, now, &self.ceremonies.covered_now()) {
            let over: Vec<_> = tenures.iter().filter(|t| t.generation.dataset == dataset && t.generation.number < floor).collect();
            if let Err(why) = self.really_over(&over, now).await {
                tracing::error!("ALARM: {dataset} stays, for its disks contradict themselves: {why:#}; tell the authority");
                self.lock().ages.odd = Some(format!("{dataset} stays: {why:#}"));
                continue;
            }
            for t in &over {
                tracing::warn!(%dataset, generation = t.generation.number, last = t.last, days = t.days, now, "over: the store lets go of it");
            }
            match self.store.expire(&dataset, floor, now).await {
                Ok(()) => self.lock().ages.ended += over.len() as u64,
                Err(e) => tracing::warn!(%dataset, "stays for now: {e}"),
            }
        }
        Ok(())
    }

    /// The catalogue is a summary that whoever writes to a disk can write anew: what ends must be
    /// over by every batch that is kept of it, on every copy.
    async fn really_over(&self, over: &[&Tenure], now: u64) -> anyhow::Result<()> {
        let mut from = 0;
        while let Some(segment) = self.store.segment(from).await? {
            from = segment.number() + 1;
            let Some(t) = over.iter().find(|t| t.generation == *segment.generation()) else { continue };
            let last = self.store.last_powered(segment).await?.unwrap_or(t.last);
            anyhow::ensure!(
                hoidla_store::may_end(last, t.days) <= now,
                "a record of generation {} was written at {last} s of powered time, and the catalogue says that the last was at {} s",
                t.generation.number,
                t.last
            );
        }
        Ok(())
    }
}

fn read(tpm: &Tpm) -> anyhow::Result<Reading> {
    let clock = tpm.read_clock()?;
    Ok(Reading { tpm: Duration::from_millis(clock.since_reset_ms), boots: (clock.reset_count, clock.restart_count), machine: since_boot() })
}
