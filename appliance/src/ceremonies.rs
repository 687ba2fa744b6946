//! The ceremonies under way, and the re-wrapped keys of those that are open.
//!
//! Promises: a ceremony's one-time key lives in locked memory until its end; keys
//! are kept only re-wrapped to the reader, and forgotten when the machine's clock, which
//! counts sleep too, passes the grant's time or a custodian seals; each challenge carries the
//! TPM's quote of it; sealing ends an opening
//! under way; approvals are decided by
//! `hoidla-quorum`'s intake, one at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use hoidla_crypto::{
    hpke::KeyPair,
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::Admission;
use hoidla_format::{
    Bytes, Hash32, Name, statement,
    statements::{Approval, Challenge, Covers, Grant, Vault},
};
use hoidla_protocol::{Code, Key, Progress, Refused, Response, Type, VaultProgress};
use hoidla_quorum::intake::{Ceremony, Covered, Intake, LONGEST_CHALLENGE, Phase, Quorate};
use hoidla_tpm::{Clock, Tpm};
use hoidla_uring::{Store, StoreError};
use hoidla_verify::TpmName;

use crate::{
    checkpoints::Signer,
    headers::{Place, wrapped_key},
    helper::{Ended, Ground, Helpers, Wrapped},
    machine,
    papers::Papers,
};

/// Ceremonies at once.
const MOST: usize = 8;
/// Stream epochs that a dataset has at most, and data keys that one opening hands out at most.
pub const MOST_EPOCHS: usize = 10_000;

/// All ceremonies of this appliance.
pub struct Ceremonies {
    ground: Ground,
    papers: Arc<Papers>,
    signer: Arc<Signer>,
    /// What register 15 was extended by since the machine's start.
    measured: Vec<Hash32>,
    tpm: Arc<Tpm>,
    helpers: Helpers,
    admission: Arc<Admission>,
    store: Store,
    inner: Mutex<Inner>,
    /// One helper at a time: there is one TPM.
    turn: tokio::sync::Mutex<()>,
}

struct Inner {
    intake: Intake,
    held: HashMap<Hash32, Arc<Held>>,
    keys: HashMap<Hash32, Arc<Vec<Key>>>,
}

/// What one ceremony holds until it is open or ends. A ceremony of the same grant that is
/// proposed anew holds another, which the end of the former doesn't touch.
struct Held {
    one_time: KeyPair,
    /// The TPM's resets and restarts when it began.
    boots: (u32, u32),
    ended: Ended,
}

fn boots(clock: &Clock) -> (u32, u32) {
    (clock.reset_count, clock.restart_count)
}

/// Time since the machine started, the time asleep included: a suspended machine keeps nothing open longer.
pub fn since_boot() -> Duration {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    nix::time::clock_gettime(clock).expect("Linux has this clock").into()
}

fn refused(code: Code, why: impl std::fmt::Display) -> Refused {
    Refused::new(code, why.to_string())
}

fn failed(e: impl std::fmt::Display) -> Refused {
    tracing::error!("a ceremony's step failed: {e:#}");
    Refused::new(Code::Failed, format!("the appliance could not do it: {e:#}; try again, its log says more"))
}

impl Ceremonies {
    /// None under way yet.
    pub(crate) fn new(
        ground: Ground,
        (signer, measured): (Arc<Signer>, Vec<Hash32>),
        tpm: Arc<Tpm>,
        helpers: Helpers,
        admission: Arc<Admission>,
        store: Store,
    ) -> Self {
        let inner = Mutex::new(Inner { intake: Intake::new(MOST), held: HashMap::new(), keys: HashMap::new() });
        let papers = ground.papers.clone();
        Self { ground, papers, signer, measured, tpm, helpers, admission, store, inner, turn: tokio::sync::Mutex::default() }
    }

    async fn clock(&self) -> anyhow::Result<Clock> {
        let tpm = self.tpm.clone();
        Ok(tokio::task::spawn_blocking(move || tpm.read_clock()).await??)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants open now.
    pub fn open_now(&self) -> u16 {
        let inner = self.lock();
        inner.intake.all(since_boot()).filter(|c| matches!(c.phase(), Phase::Open { .. })).count() as u16
    }

    /// The datasets that an opening covers, or a ceremony that somebody approved beside who proposed it:
    /// one person proposing again and again holds nothing back.
    pub fn covered_now(&self) -> BTreeSet<Name> {
        let inner = self.lock();
        inner
            .intake
            .all(since_boot())
            .filter(|c| c.is_backed())
            .flat_map(|c| c.grant().statement.covers.iter().map(|c| c.dataset.clone()))
            .collect()
    }

    /// Takes a grant: its ceremony begins, or goes on.
    pub async fn propose(&self, note: &[u8], by: &Name) -> Result<Response, Refused> {
        let grant = self.grant(note, by)?;
        if let Some(known) = self.challenged(&grant.hash) {
            return Ok(known);
        }
        let clock = self.clock().await.map_err(failed)?;
        let held = Held { one_time: KeyPair::generate(), boots: boots(&clock), ended: Ended::default() };
        let covered = self.covered(&grant.statement)?;
        let challenge = self.signer.clone().quoted(self.challenge(&grant, &held.one_time, &clock)).await.map_err(failed)?;
        let answer = self.answer(&grant.statement, &challenge);
        if answer.encode().len() > Type::Challenged.bounds().1 {
            return Err(refused(Code::Grant, "the grant covers more vaults than one answer holds; grant fewer at once"));
        }
        let hash = grant.hash;
        tracing::info!(grant = %hash, purpose = %grant.statement.purpose, reader = %grant.statement.reader.name, "a ceremony begins");
        {
            let mut inner = self.lock();
            // Here, since intake sweeps when it begins one: what the ended ones held goes too.
            let ended = inner.intake.sweep(since_boot());
            inner.forget(&ended);
            if inner.intake.get(&hash, since_boot()).is_none() {
                inner.intake.begin(by, grant, challenge, covered, since_boot()).map_err(|e| refused(Code::Busy, e))?;
                inner.held.insert(hash, Arc::new(held));
            }
            self.tell_door(&inner);
        }
        self.challenged(&hash).ok_or_else(|| refused(Code::Grant, "the ceremony ended at once; submit the grant again"))
    }

    /// Reads a grant: signed by its reader or by a custodian, and allowed here.
    fn grant(&self, note: &[u8], by: &Name) -> Result<Signed<Grant>, Refused> {
        let no = |e: &dyn std::fmt::Display| refused(Code::Grant, format!("the grant was refused: {e}"));
        let claimed = sign::read_unverified::<Grant>(note).map_err(|e| no(&e))?.statement;
        let custodians = self.papers.custodians();
        let signers = custodians.iter().filter(|(name, _)| name == by).map(|(_, key)| key);
        let keys = std::iter::once(&claimed.reader.signing).chain(signers).chain(custodians.iter().map(|(_, key)| key));
        let verified =
            keys.filter_map(|key| VerifyingKey::from_sec1(&key.0).ok()).find_map(|key| sign::open::<Grant>(note, None, &key).ok());
        let grant = verified.ok_or_else(|| no(&"neither its reader nor a custodian signed it; sign it with either key"))?;
        hoidla_quorum::grant::check(&grant.statement, &self.papers.site.statement, &self.papers.vaults).map_err(|e| no(&e))?;
        if grant.statement.appliance != self.papers.identity.name {
            return Err(no(&format!("it is for the appliance {}; submit it there", grant.statement.appliance)));
        }
        Ok(grant)
    }

    fn challenge(&self, grant: &Signed<Grant>, one_time: &KeyPair, clock: &Clock) -> Challenge {
        let mut nonce = vec![0; 32];
        hoidla_crypto::random(&mut nonce);
        Challenge {
            grant: grant.hash,
            appliance: self.papers.identity.name.clone(),
            site_hash: self.papers.site.hash,
            nonce: Bytes(nonce),
            one_time_key: Bytes(one_time.public().to_bytes()),
            attestation_key: Bytes(TpmName::of(&self.papers.identity.ak.0).0.to_vec()),
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            release: self.papers.release.statement.name.clone(),
            development: self.papers.release.statement.development,
            valid_for_seconds: LONGEST_CHALLENGE,
            measured: self.measured.clone(),
            quote: Bytes::default(),
        }
    }

    fn covered(&self, grant: &Grant) -> Result<Vec<Covered>, Refused> {
        let covered = |hash: &Hash32| {
            let vault = self.papers.vaults.iter().find(|v| v.hash == *hash)?.statement.clone();
            let roster = self.papers.rosters.iter().find(|r| r.hash == vault.roster)?.statement.clone();
            Some(Covered { vault, roster })
        };
        let all: Option<Vec<Covered>> = grant.covers.iter().map(|c| covered(&c.vault)).collect();
        let all = all.ok_or_else(|| {
            refused(Code::Grant, "the appliance lacks a vault or roster that the grant covers; bring it the authority's newest papers")
        })?;
        // Before the quorum is spent on what cannot open.
        let papers = &self.papers;
        let approved =
            |c: &Covers| papers.release.statement.vaults.iter().any(|v| (&v.dataset, v.vault_epoch) == (&c.dataset, c.vault_epoch));
        let dealt = |c: &Covers| papers.halves.statement.halves.iter().any(|h| h.vault == c.vault);
        let opens = |c: &&Covers| approved(c) && dealt(c) && machine::has_half(&self.ground.state, &c.dataset, c.vault_epoch);
        let without = grant.covers.iter().find(|c| !opens(c));
        match without {
            None => Ok(all),
            Some(Covers { dataset, vault_epoch, .. }) => {
                let why = format!("this appliance has no half of {dataset}, vault epoch {vault_epoch}, that its release approves");
                Err(refused(Code::Grant, format!("{why}: leave it out of the grant, or run hoidlad enrol with the papers of its dealing")))
            }
        }
    }

    /// The answer to a grant whose ceremony is under way.
    fn challenged(&self, grant: &Hash32) -> Option<Response> {
        let inner = self.lock();
        let ceremony = inner.intake.get(grant, since_boot())?;
        Some(self.answer(&ceremony.grant().statement, ceremony.challenge()))
    }

    /// A challenge with the papers that custodians need to approve it.
    fn answer(&self, grant: &Grant, challenge: &Challenge) -> Response {
        let hashes: Vec<Hash32> = grant.covers.iter().map(|c| c.vault).collect();
        let vault = |h: &Hash32| self.papers.vaults.iter().find(|v| v.hash == *h).map(|v| v.note.clone().into_bytes());
        let envelopes = |h: &Hash32| self.papers.envelopes.iter().find(|e| e.statement.vault == *h).map(|e| e.note.clone().into_bytes());
        Response::Challenged {
            challenge: statement::write(challenge),
            vaults: hashes.iter().filter_map(vault).collect(),
            envelopes: hashes.iter().filter_map(envelopes).collect(),
        }
    }

    /// Takes an approval; the one that completes a quorum opens.
    pub async fn approve(self: Arc<Self>, note: &[u8], from: &Name) -> Result<Response, Refused> {
        let no = |e: &dyn std::fmt::Display| refused(Code::Approval, e);
        let claimed = sign::read_unverified::<Approval>(note).map_err(|e| no(&format!("the approval was refused: {e}")))?;
        let grant = claimed.statement.grant;
        let (verified, occasion, vaults, held) = {
            let inner = self.lock();
            let verified = inner.intake.verify(&grant, from, note, since_boot()).map_err(|e| no(&e))?;
            let ceremony = inner.intake.get(&grant, since_boot()).ok_or_else(|| no(&"the ceremony has ended"))?;
            let held = inner.held.get(&grant).cloned().ok_or_else(|| no(&"the ceremony has ended"))?;
            let vaults: Vec<Vault> = ceremony.covered().iter().map(|c| c.vault.clone()).collect();
            (verified, ceremony.occasion(), vaults, held)
        };
        for share in verified.shares() {
            let fits = |v: &&Vault| v.dataset == share.dataset && v.vault_epoch == share.vault_epoch;
            let vault = vaults.iter().find(fits).cloned().ok_or_else(|| no(&"a share of no vault that the grant covers"))?;
            let _turn = self.turn.lock().await;
            self.lock().intake.hears(&grant, from, since_boot()).map_err(|e| no(&e))?;
            let verdict = self.helpers.check(&held.one_time, occasion, vault, from.clone(), share.clone(), &held.ended).await;
            verdict.map_err(failed)?.map_err(|why| {
                tracing::warn!("a bad share: {why}");
                self.lock().intake.blame(&grant, from);
                no(&why)
            })?;
        }
        let complete = {
            let mut inner = self.lock();
            inner.intake.accept(verified, since_boot()).map_err(|e| no(&e))?;
            inner.intake.get(&grant, since_boot()).is_some_and(|c| matches!(c.phase(), Phase::Complete { .. }))
        };
        tracing::info!(%grant, custodian = %from, "approved");
        if complete {
            // In a task of its own: the opening goes on though the custodian's connection ends.
            let me = self.clone();
            tokio::spawn(async move { me.open(grant).await }).await.map_err(failed)?.map_err(failed)?;
        }
        self.progress(&grant).map(Response::Progress).ok_or_else(|| no(&"the ceremony has ended"))
    }

    /// Opens a complete ceremony; if that fails, the ceremony ends.
    async fn open(self: Arc<Self>, grant: Hash32) -> anyhow::Result<()> {
        let (held, quorate) = {
            let mut inner = self.lock();
            let held = inner.held.get(&grant).cloned().context("the ceremony was sealed")?;
            (held, inner.intake.take(&grant, since_boot())?)
        };
        let keys = self.rewrapped(&quorate, &held).await;
        let mut inner = self.lock();
        // Then the keys are dropped, and a ceremony of the same grant that began since goes on.
        ensure!(!held.ended.load(Ordering::SeqCst), "it was sealed during its opening; the grant must be approved anew");
        inner.held.remove(&grant);
        let opened = keys.and_then(|keys| {
            inner.intake.opened(&grant, since_boot())?;
            tracing::info!(%grant, keys = keys.len(), "opened");
            inner.keys.insert(grant, Arc::new(keys));
            Ok(())
        });
        if opened.is_err() {
            inner.intake.end(&grant);
        }
        self.tell_door(&inner);
        opened.context("the opening failed; the grant must be approved anew")
    }

    /// Closes the covered epochs and re-wraps their data keys in a helper.
    async fn rewrapped(&self, quorate: &Quorate, held: &Held) -> anyhow::Result<Vec<Key>> {
        let (datasets, wrapped): (Vec<Name>, Vec<Wrapped>) = self.covered_keys(&quorate.grant.statement).await?.into_iter().unzip();
        let _turn = self.turn.lock().await;
        ensure!(!held.ended.load(Ordering::SeqCst), "it was sealed before its opening");
        ensure!(boots(&self.clock().await?) == held.boots, "the TPM was restarted since the challenge");
        let opened = self.helpers.open(&self.ground, &held.one_time, quorate, &wrapped, &held.ended).await?;
        let key = |((dataset, from), sealed): ((Name, Wrapped), Option<Vec<u8>>)| {
            sealed.map(|sealed| Key { dataset, stream: from.key.stream, epoch: from.key.epoch, sealed })
        };
        Ok(datasets.into_iter().zip(wrapped).zip(opened).filter_map(key).collect())
    }

    /// The wrapped keys of the covered vaults: of each dataset, the newest generations' first, up to its part of
    /// [`MOST_EPOCHS`]. What is more stays sealed; it stops nothing.
    async fn covered_keys(&self, grant: &Grant) -> anyhow::Result<Vec<(Name, Wrapped)>> {
        let mut datasets: Vec<&Name> = grant.covers.iter().map(|c| &c.dataset).collect();
        datasets.sort();
        datasets.dedup();
        let part = MOST_EPOCHS / datasets.len().max(1);
        let mut all = Vec::new();
        for dataset in datasets {
            let covered = |vault: &Hash32| grant.covers.iter().any(|c| c.dataset == *dataset && c.vault == *vault);
            let (mut found, mut left) = (0, 0);
            for place in self.close_epochs(dataset).await? {
                match self.header(&place).await {
                    Ok(key) if covered(&key.vault) && found < part => {
                        found += 1;
                        all.push((dataset.clone(), key));
                    }
                    Ok(key) => left += usize::from(covered(&key.vault)),
                    Err(e) => tracing::warn!(stream = %place.stream, epoch = place.epoch, "stays sealed: {e:#}"),
                }
            }
            if left > 0 {
                tracing::warn!(%dataset, "{left} of the oldest epochs are left sealed: one opening hands out {part} keys of this dataset");
            }
        }
        Ok(all)
    }

    /// Closes every current epoch of a dataset; gives where all its epochs begin, the newest generation first.
    async fn close_epochs(&self, dataset: &Name) -> anyhow::Result<Vec<Place>> {
        let mut places = Vec::new();
        for (stream, state) in self.store.streams(dataset.clone()).await? {
            if state.epoch > state.closed {
                match self.store.close_epoch(stream, state.epoch).await {
                    // It takes nothing more, so that nothing could follow what is opened now.
                    Ok(()) | Err(StoreError::Refused(hoidla_store::Refused::OnlyReads(_))) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let place = |(epoch, start): &(u32, u64)| Place { dataset: dataset.clone(), stream, epoch: *epoch, start: *start };
            places.extend(state.epochs.iter().map(|e| (state.generation.number, place(e))));
        }
        places.sort_by_key(|(generation, place)| Reverse((*generation, place.epoch)));
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    /// The wrapped key of the epoch that begins at a place.
    async fn header(&self, place: &Place) -> anyhow::Result<Wrapped> {
        let found = self.store.read(place.stream, place.start).await?.context("nothing is kept there")?;
        let bytes = &found.buffer.as_ref()[found.range.clone()];
        wrapped_key(bytes, place, &self.papers.identity.site, &self.ground.authority)
    }

    /// How far a ceremony is.
    fn progress(&self, grant: &Hash32) -> Option<Progress> {
        let inner = self.lock();
        let ceremony = inner.intake.get(grant, since_boot())?;
        let (opened, until) = match ceremony.phase() {
            Phase::Open { until } => (true, until),
            Phase::Collecting { until } | Phase::Complete { until } | Phase::Opening { until } => (false, until),
        };
        let approved: Vec<&Name> = ceremony.approved_by().collect();
        let of = |c: &Covered| VaultProgress {
            dataset: c.vault.dataset.clone(),
            vault_epoch: c.vault.vault_epoch,
            have: if opened { c.vault.quorum } else { have(&c.vault, &approved) },
            need: c.vault.quorum,
        };
        let seconds_left = until.saturating_sub(since_boot()).as_secs().min(u32::MAX.into()) as u32;
        Some(Progress { grant: *grant, opened, seconds_left, vaults: ceremony.covered().iter().map(of).collect() })
    }

    /// Ends one ceremony or opening, or all.
    pub fn seal(&self, grant: Option<&Hash32>) -> u32 {
        let mut inner = self.lock();
        let ended = match grant {
            None => inner.intake.seal(),
            Some(one) => {
                if inner.intake.end(one) {
                    vec![*one]
                } else {
                    Vec::new()
                }
            }
        };
        inner.forget(&ended);
        self.tell_door(&inner);
        tracing::info!(count = ended.len(), "sealed");
        ended.len() as u32
    }

    /// Forgets what has expired; called often.
    pub fn sweep(&self) {
        let mut inner = self.lock();
        let ended = inner.intake.sweep(since_boot());
        inner.forget(&ended);
        if !ended.is_empty() {
            tracing::info!(count = ended.len(), "expired: sealed again");
            self.tell_door(&inner);
        }
    }

    /// The re-wrapped keys of a grant, for its reader, while it is open.
    pub fn keys(&self, grant: &Hash32, reader: &Bytes) -> Result<Arc<Vec<Key>>, Refused> {
        let inner = self.lock();
        self.opened(&inner, grant, reader)?;
        inner.keys.get(grant).cloned().ok_or_else(sealed)
    }

    /// Whether a reader may read a dataset under a grant now.
    pub fn may_read(&self, grant: &Hash32, reader: &Bytes, dataset: &Name) -> Result<(), Refused> {
        let inner = self.lock();
        let covered = covers(&self.opened(&inner, grant, reader)?.grant().statement, dataset);
        covered.then_some(()).ok_or_else(|| refused(Code::NotAllowed, format!("the grant does not cover {dataset}")))
    }

    /// Whether any open grant lets a reader list a dataset.
    pub fn may_list(&self, reader: &Bytes, dataset: &Name) -> Result<(), Refused> {
        let inner = self.lock();
        let covered = |g: &Grant| g.reader.signing == *reader && covers(g, dataset);
        let lets = |c: &Ceremony| matches!(c.phase(), Phase::Open { .. }) && covered(&c.grant().statement);
        inner.intake.all(since_boot()).any(lets).then_some(()).ok_or_else(sealed)
    }

    fn opened<'a>(&self, inner: &'a Inner, grant: &Hash32, reader: &Bytes) -> Result<&'a Ceremony, Refused> {
        let ceremony = inner.intake.get(grant, since_boot()).filter(|c| matches!(c.phase(), Phase::Open { .. })).ok_or_else(sealed)?;
        if ceremony.grant().statement.reader.signing != *reader {
            return Err(refused(Code::NotAllowed, "this grant is for another reader"));
        }
        Ok(ceremony)
    }

    /// Tells the door which readers it may let in; under the lock, so that the last word is the newest.
    fn tell_door(&self, inner: &Inner) {
        let reader = |c: &Ceremony| (c.grant().statement.reader.name.clone(), c.grant().statement.reader.signing.clone());
        let readers: Vec<(Name, Bytes)> = inner.intake.all(since_boot()).map(reader).collect();
        if let Err(e) = self.admission.set_readers(&readers) {
            tracing::error!("the door does not know a reader: {e}");
        }
    }
}

impl Inner {
    /// Forgets what ended ceremonies held, and ends their helpers.
    fn forget(&mut self, grants: &[Hash32]) {
        for grant in grants {
            if let Some(held) = self.held.remove(grant) {
                held.ended.store(true, Ordering::SeqCst);
            }
            self.keys.remove(grant);
        }
    }
}

fn have(vault: &Vault, approved: &[&Name]) -> u8 {
    let dealt = |who: &&&Name| vault.commitments.iter().any(|c| c.door == hoidla_format::statements::Door::Quorum && c.custodian == ***who);
    approved.iter().filter(dealt).count().min(255) as u8
}

fn covers(grant: &Grant, dataset: &Name) -> bool {
    grant.covers.iter().any(|c| c.dataset == *dataset)
}

fn sealed() -> Refused {
    refused(Code::Sealed, "it is sealed: no grant is open for this reader now; custodians must approve one")
}
