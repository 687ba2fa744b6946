//! Signed heads of the log: one for all who ask, and the last one kept.
//!
//! Promises: a checkpoint covers acknowledged leaves only, so that no power cut takes back what
//! it vouches for. It is kept on disk before anybody sees it. The TPM signs one a second at most,
//! and spends at most a fifth of its time on them, whoever asks how often; one every ten seconds
//! while there is news that nobody asks about; none when idle. At the start the kept one is held
//! against the store: if the log doesn't extend it, or the store only reads, nothing is signed
//! until a person has looked, since this TPM would contradict itself.
//!
//! It doesn't notice disks and kept checkpoint put back together: the TPM's counter does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use hoidla_format::{
    Bytes, Hash32, Note,
    statement::Signature,
    statements::{ApplianceIdentity, Challenge},
};
use hoidla_log::{Checkpoint, Says, SignedCheckpoint, verify_consistency};
use hoidla_protocol::{Code, Refused};
use hoidla_tpm::{Counter, Tpm};
use hoidla_uring::Store;
use hoidla_verify::{Public, TpmName, opening};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::{config::replace, papers::Papers};

/// How long somebody waits for the log to reach a size, and for a signature.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the log is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// From one signature to the next, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// After a signature the TPM is left to others for so many times as long as it took.
const OTHERS: u32 = 4;
/// When news is signed that nobody asked about.
const UNASKED: Duration = Duration::from_secs(10);

/// This appliance's attestation key, and what it signs.
pub(crate) struct Signer {
    tpm: Arc<Tpm>,
    papers: Arc<Papers>,
    key: TpmName,
}

impl Signer {
    /// By the attestation key of the identity in the papers.
    pub fn new(tpm: Arc<Tpm>, papers: Arc<Papers>) -> anyhow::Result<Self> {
        let key = Public::parse(&papers.identity.ak.0)?.name();
        Ok(Self { tpm, papers, key })
    }

    /// Which log is its own.
    pub fn origin(&self) -> String {
        format!("hoidla/{}/{}", self.papers.identity.site, self.papers.identity.name)
    }

    /// Whether an identity is of the same TPM, under whatever name and release key.
    pub fn same_tpm(&self, other: &ApplianceIdentity) -> bool {
        other.ek == self.papers.identity.ek
    }

    /// A signature line that says this of a text. Blocks until the TPM has signed.
    pub fn line(&self, says: Says, text: &str) -> anyhow::Result<Signature> {
        let quote = self.tpm.quote(&self.papers.approved, &self.key, &says.qualifying(text))?;
        Ok(quote.line(&self.origin(), &self.key.0))
    }

    /// A challenge with the TPM's quote of it, by which custodians tell what runs here.
    pub async fn quoted(self: Arc<Self>, challenge: Challenge) -> anyhow::Result<Challenge> {
        let text = opening::quoted(&challenge);
        let line = tokio::task::spawn_blocking(move || self.line(Says::Asks, &text)).await??;
        Ok(Challenge { quote: Bytes(line.bytes), ..challenge })
    }

    /// Its own head, signed.
    fn sign(&self, size: u64, root: Hash32) -> anyhow::Result<SignedCheckpoint> {
        let (site, appliance) = (self.papers.identity.site.clone(), self.papers.identity.name.clone());
        let text = Checkpoint { site, appliance, size, root, counter: self.tpm.counter(Counter::Intent)? }.to_string();
        let signatures = vec![self.line(Says::Mine, &text)?];
        Ok(SignedCheckpoint::parse(Note { text, signatures }.write().as_bytes())?)
    }
}

/// What is shown to whoever asks.
#[derive(Default)]
struct Shown {
    last: Option<SignedCheckpoint>,
    /// The last try to sign failed.
    failed: bool,
    /// Nothing more is signed: the appliance stops.
    over: bool,
}

/// See the module.
pub(crate) struct Checkpoints {
    signer: Arc<Signer>,
    store: Store,
    path: PathBuf,
    /// Why nothing is signed.
    silent: Option<String>,
    asked: Notify,
    shown: watch::Sender<Shown>,
}

impl Checkpoints {
    /// Of this store's log; the last one is kept in this file. `only_reads`: why the store does.
    pub async fn open(signer: Arc<Signer>, store: Store, path: PathBuf, only_reads: Option<&str>) -> anyhow::Result<Self> {
        let kept = kept(&path);
        let silent = match (only_reads, &kept) {
            (Some(why), _) => Some(format!("the store only reads: {why}")),
            (None, Ok(Some(kept))) if kept.head().origin() == signer.origin() => contradiction(kept.head(), &store).await?,
            (None, Ok(_)) => None,
            (None, Err(e)) => {
                Some(format!("the last checkpoint that was signed here is damaged, so nobody can tell whether the disks went back: {e:#}"))
            }
        };
        let last = kept.ok().flatten().filter(|k| silent.is_none() && k.head().origin() == signer.origin());
        let shown = watch::Sender::new(Shown { last, ..Shown::default() });
        Ok(Self { signer, store, path, silent, asked: Notify::new(), shown })
    }

    /// The alarm of a log that nothing is signed for, and what to do.
    pub fn alarm(&self) -> Option<String> {
        self.silent.as_ref().map(|why| {
            format!(
                "{why}. Nothing is signed; what is there can still be opened. Change nothing, copy the state folder, and tell the authority (runbook: the store was rolled back)"
            )
        })
    }

    /// A checkpoint of at least so many leaves.
    pub async fn covering(&self, least: u64) -> Result<SignedCheckpoint, Refused> {
        if let Some(why) = &self.silent {
            return Err(Refused::new(Code::Behind, format!("this appliance signs no head of its log: {why}")));
        }
        let until = Instant::now() + PATIENCE;
        let size = loop {
            let size = self.size().await?;
            if size >= least {
                break size;
            }
            if Instant::now() >= until {
                return Err(Refused::new(Code::Busy, format!("the log has not reached {least} leaves yet; ask again")));
            }
            sleep(LOOK).await;
        };
        self.signed(least.max(size.min(1)), until).await
    }

    /// The first one of so many leaves, which the log has.
    async fn signed(&self, least: u64, until: Instant) -> Result<SignedCheckpoint, Refused> {
        let mut shown = self.shown.subscribe();
        let mut waited = false;
        loop {
            {
                let now = shown.borrow_and_update();
                match &now.last {
                    Some(last) if last.head().size >= least => return Ok(last.clone()),
                    _ if now.over => return Err(Refused::new(Code::Busy, "the appliance stops; ask again when it is back")),
                    _ if waited && now.failed => {
                        return Err(Refused::new(Code::Failed, "the appliance could not sign a checkpoint; its log says why"));
                    }
                    _ => {}
                }
            }
            self.asked.notify_one();
            if !matches!(timeout_at(until, shown.changed()).await, Ok(Ok(()))) {
                return Err(Refused::new(Code::Busy, "the TPM has not signed yet; ask again"));
            }
            waited = true;
        }
    }

    /// Acknowledged leaves.
    pub async fn size(&self) -> Result<u64, Refused> {
        Ok(self.head().await?.0)
    }

    async fn head(&self) -> Result<(u64, Hash32), Refused> {
        self.store.log_head().await.map_err(|e| Refused::new(Code::Failed, e.to_string()))
    }

    /// Signs what is new, for ever. The first of a run is always new: papers and counter are.
    pub async fn keep(&self) {
        let _ends = Ends(&self.shown);
        let mut first = true;
        while self.silent.is_none() {
            tokio::select! {
                () = self.asked.notified() => {}
                () = sleep(UNASKED) => {}
            }
            let Ok((size, root)) = self.head().await else { continue };
            let known = self.shown.borrow().last.as_ref().map(|l| l.head().size);
            if first || known.is_none_or(|known| known < size) {
                let began = Instant::now();
                first &= !self.sign(size, root).await;
                sleep(PAUSE.max(began.elapsed() * OTHERS)).await;
            }
        }
        std::future::pending().await
    }

    /// Signs, keeps and shows a head; whether it could.
    async fn sign(&self, size: u64, root: Hash32) -> bool {
        let (signer, path) = (self.signer.clone(), self.path.clone());
        let sign = move || {
            let signed = signer.sign(size, root)?;
            replace(&path, signed.write().as_bytes())?;
            anyhow::Ok(signed)
        };
        let signed = tokio::task::spawn_blocking(sign).await.map_err(anyhow::Error::from).flatten();
        let done = signed.is_ok();
        if let Err(e) = &signed {
            tracing::error!("no checkpoint could be signed and kept; it is tried again: {e:#}");
        }
        self.shown.send_modify(|shown| {
            shown.failed = !done;
            shown.last = signed.ok().or(shown.last.take());
        });
        done
    }
}

/// Tells those who wait that nobody signs any more.
struct Ends<'a>(&'a watch::Sender<Shown>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|shown| shown.over = true);
    }
}

fn kept(path: &Path) -> anyhow::Result<Option<SignedCheckpoint>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(SignedCheckpoint::parse(&read.with_context(|| path.display().to_string())?)?)),
    }
}

/// How the store's log contradicts a head that was signed here; none if it extends it.
async fn contradiction(kept: &Checkpoint, store: &Store) -> anyhow::Result<Option<String>> {
    let (size, root) = store.log_head().await?;
    if size < kept.size {
        let why = format!(
            "this appliance signed a log of {} leaves, and its disks have {size}; somebody put back old disks or images",
            kept.size
        );
        return Ok(Some(why));
    }
    let grown = match store.consistency(kept.size, size).await {
        Ok(proof) => verify_consistency(kept.size, &kept.root, size, &root, &proof).map_err(anyhow::Error::from),
        Err(e) => Err(e.into()),
    };
    let why = |e| format!("the log on the disks cannot be shown to extend the {} leaves that this appliance signed: {e:#}", kept.size);
    Ok(grown.err().map(why))
}
