//! Seeing other appliances' logs, so that a fork needs this appliance's TPM too.
//!
//! Promises: a head is signed here only if its own appliance signed it, under the same
//! authority, and it extends the last head of that log that was signed here, which is kept
//! on disk first. A head that contradicts it is an alarm, and kept too. It doesn't fetch
//! anything: whoever has a line to both carries the heads.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use hoidla_crypto::sign::VerifyingKey;
use hoidla_log::{Extension, Says, SignedCheckpoint};
use hoidla_protocol::{Code, Refused, Witness as Ask};
use hoidla_verify::{Known, checkpoint};

use crate::{checkpoints::Signer, config::replace};

/// The most logs that are watched.
const MOST_LOGS: usize = 256;
/// The most forks that are written down.
const MOST_FORKS: usize = 64;

/// What became of a head.
pub(crate) enum Seen {
    /// It was signed.
    Signed(SignedCheckpoint),
    /// It doesn't begin where the last one seen here ended, which is this one.
    Last(SignedCheckpoint),
}

/// Why it was not signed.
pub(crate) enum No {
    /// As the peer is told.
    Refused(Refused),
    /// Two heads of one log contradict each other.
    Fork(String),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// See the module.
pub(crate) struct Witness {
    folder: PathBuf,
    authority: VerifyingKey,
    signer: Arc<Signer>,
    turn: Mutex<()>,
}

impl Witness {
    /// Keeps what it has seen in this folder.
    pub fn new(folder: PathBuf, authority: VerifyingKey, signer: Arc<Signer>) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder, authority, signer, turn: Mutex::default() })
    }

    /// Looks at a head, and signs it if all is well. Blocks: disk and TPM.
    pub fn see(&self, ask: &Ask) -> Result<Seen, No> {
        let not = |why: String| Refused::new(Code::NotAllowed, why);
        let extension = Extension::parse(&ask.extension).map_err(|e| not(e.to_string()))?;
        let (signed, head) = (&extension.checkpoint, extension.checkpoint.head());
        if head.origin() == self.signer.origin() {
            return Err(not("an appliance is no witness of its own log".into()).into());
        }
        let known = Known::gather(&self.authority, ask.papers.iter().map(Vec::as_slice)).map_err(|e| not(e.to_string()))?;
        checkpoint::check(signed, &known).map_err(|e| not(e.to_string()))?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(format!("{}.{}.txt", head.site, head.appliance));
        match self.last(&path)? {
            Some(last) => {
                let seen = last.head();
                let forked = head.size == seen.size && head.root != seen.root;
                if !forked && (extension.old != seen.size || head.size < seen.size) {
                    return Ok(Seen::Last(last));
                }
                if forked || extension.follows(seen).is_err() {
                    return Err(self.fork(&last, signed));
                }
            }
            None if fs::read_dir(&self.folder).map_or(MOST_LOGS, Iterator::count) >= MOST_LOGS => {
                return Err(Refused::new(Code::Full, "this appliance watches as many logs as it can").into());
            }
            None => {}
        }
        let failed = |e: anyhow::Error| {
            tracing::error!("{} was not signed: {e:#}", head.origin());
            Refused::new(Code::Failed, "the appliance could not sign; its log says why")
        };
        replace(&path, signed.write().as_bytes()).map_err(failed)?;
        let line = self.signer.line(Says::Seen, &signed.note().text).map_err(failed)?;
        let mut note = signed.note().clone();
        note.signatures.retain(|l| l.name != line.name);
        note.signatures.push(line);
        SignedCheckpoint::parse(note.write().as_bytes()).map(Seen::Signed).map_err(|e| not(e.to_string()).into())
    }

    fn last(&self, path: &Path) -> Result<Option<SignedCheckpoint>, Refused> {
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> anyhow::Result<SignedCheckpoint> { Ok(SignedCheckpoint::parse(&fs::read(path)?)?) };
        read().map(Some).map_err(|e| {
            // Begun anew, a fork before now would pass unseen: a person must decide that.
            tracing::error!("{} is damaged, and nothing of that log is signed: {e:#}", path.display());
            Refused::new(Code::Damaged, "what this appliance saw of that log before is damaged here; its operators must look")
        })
    }

    /// Keeps both heads; says so.
    fn fork(&self, last: &SignedCheckpoint, shown: &SignedCheckpoint) -> No {
        let head = shown.head();
        let (origin, old, new) = (head.origin(), last.head().size, head.size);
        let what = format!("the log {origin} forked: its head of {new} leaves contradicts the one of {old} leaves seen here before");
        let folder = self.folder.with_extension("forks");
        let number = fs::read_dir(&folder).map_or(0, Iterator::count);
        if number < MOST_FORKS {
            let both = format!("{}\n{}", last.write(), shown.write());
            let kept = fs::create_dir_all(&folder)
                .map_err(anyhow::Error::from)
                .and_then(|()| replace(&folder.join(format!("{}.{}-{number}.txt", head.site, head.appliance)), both.as_bytes()));
            if let Err(e) = kept {
                tracing::error!("the evidence of a fork could not be kept: {e:#}");
            }
        }
        No::Fork(what)
    }
}
