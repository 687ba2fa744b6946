//! Signed heads of the log, made when somebody asks for one.
//!
//! Promises: a checkpoint covers acknowledged leaves only, so that no power cut takes back what
//! it vouches for; whoever asks while one is being signed shares the next one, so that the TPM
//! signs once for any number of them. Nothing is signed that nobody asked for, and nothing at
//! all of a store that only reads: its log is older than what was signed before, so that one
//! more signature, under the counter's newer number, would make an old head look like the last.

use std::{sync::Arc, time::Duration};

use hoidla_format::{Hash32, Note, statement::Signature, statements::ApplianceIdentity};
use hoidla_log::{Checkpoint, Says, SignedCheckpoint};
use hoidla_protocol::{Code, Refused};
use hoidla_tpm::{Counter, Tpm};
use hoidla_uring::Store;
use hoidla_verify::{Public, TpmName};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::papers::Papers;

/// How long somebody waits for the log to reach a size.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the log is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);

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

    /// A signature line that says this of a checkpoint's text. Blocks until the TPM has signed.
    pub fn line(&self, says: Says, text: &str) -> anyhow::Result<Signature> {
        let quote = self.tpm.quote(&self.papers.approved, &self.key, &says.qualifying(text))?;
        Ok(quote.line(&self.origin(), &self.key.0))
    }

    /// Its own head, signed.
    fn sign(&self, size: u64, root: Hash32) -> anyhow::Result<SignedCheckpoint> {
        let (site, appliance) = (self.papers.identity.site.clone(), self.papers.identity.name.clone());
        let text = Checkpoint { site, appliance, size, root, counter: self.tpm.counter(Counter::Intent)? }.to_string();
        let signatures = vec![self.line(Says::Mine, &text)?];
        Ok(SignedCheckpoint::parse(Note { text, signatures }.write().as_bytes())?)
    }
}

/// See the module.
pub(crate) struct Checkpoints {
    signer: Arc<Signer>,
    store: Store,
    only_reads: Option<String>,
    last: Mutex<Option<SignedCheckpoint>>,
}

impl Checkpoints {
    /// Of this store's log; with why the store only reads, if it does.
    pub fn new(signer: Arc<Signer>, store: Store, only_reads: Option<String>) -> Self {
        Self { signer, store, only_reads, last: Mutex::default() }
    }

    /// A checkpoint of at least so many leaves.
    pub async fn covering(&self, least: u64) -> Result<SignedCheckpoint, Refused> {
        if let Some(why) = &self.only_reads {
            return Err(Refused::new(Code::Behind, format!("this appliance only reads, and signs no head of its log: {why}")));
        }
        let until = Instant::now() + PATIENCE;
        while self.size().await? < least {
            if Instant::now() >= until {
                return Err(Refused::new(Code::Busy, format!("the log has not reached {least} leaves yet; ask again")));
            }
            sleep(LOOK).await;
        }
        let mut last = self.last.lock().await;
        match &*last {
            Some(held) if held.head().size >= least.max(1) => Ok(held.clone()),
            _ => Ok(last.insert(self.sign().await?).clone()),
        }
    }

    /// Acknowledged leaves.
    pub async fn size(&self) -> Result<u64, Refused> {
        Ok(self.head().await?.0)
    }

    async fn head(&self) -> Result<(u64, Hash32), Refused> {
        self.store.log_head().await.map_err(|e| Refused::new(Code::Failed, e.to_string()))
    }

    async fn sign(&self) -> Result<SignedCheckpoint, Refused> {
        let (size, root) = self.head().await?;
        let signer = self.signer.clone();
        let sign = move || signer.sign(size, root);
        match tokio::task::spawn_blocking(sign).await {
            Ok(Ok(signed)) => Ok(signed),
            Ok(Err(e)) => {
                tracing::error!("no checkpoint could be signed: {e:#}");
                Err(Refused::new(Code::Failed, "the appliance could not sign a checkpoint; its log says why"))
            }
            Err(_) => Err(Refused::new(Code::Failed, "the signing of a checkpoint was given up")),
        }
    }
}
