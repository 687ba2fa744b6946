//! Seeing other appliances' logs, so that a fork needs this appliance's TPM too.
//!
//! Promises: a head is signed here only if its own appliance signed it, under the same
//! authority, and it extends the last head of that log that was signed here, which is kept
//! on disk first. Two signed heads that cannot both be true are an alarm, and kept; whoever
//! carried the second gets the first, and can judge for itself. A proof that leads nowhere
//! proves nothing, and is only refused. The TPM signs one head in a [`PAUSE`], and nothing
//! twice. It doesn't fetch anything: whoever has a line to both carries the heads. Nor does
//! it know what was seen before its folder was taken away: the first head of a log is said in
//! the appliance's log.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::statement;
use hoidla_log::{Checkpoint, Extension, Says, SignedCheckpoint};
use hoidla_protocol::{Code, Refused, Witness as Ask};
use hoidla_verify::{Attester, Known, checkpoint};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{checkpoints::Signer, config::replace};

/// The most logs that are watched.
const MOST_LOGS: usize = 256;
/// The most forks of one log that are written down.
const MOST_FORKS: usize = 16;
/// How many may ask at once; others are told so before their papers are read.
const AT_ONCE: usize = 2;
/// From one look at papers and signatures to the next, at least.
const PAUSE: Duration = Duration::from_secs(2);

/// What became of a head.
pub(crate) enum Seen {
    /// It was signed.
    Signed(SignedCheckpoint),
    /// It doesn't begin where the last one seen here ended, or contradicts it: this is that one.
    Last(SignedCheckpoint),
}

/// What one look leaves for the next.
#[derive(Default)]
struct Turn {
    /// The last head of each log as it was signed here, since the start.
    signed: HashMap<String, SignedCheckpoint>,
    looked: Option<Instant>,
}

/// See the module.
pub(crate) struct Witness {
    folder: PathBuf,
    authority: VerifyingKey,
    signer: Arc<Signer>,
    turn: Mutex<Turn>,
    room: Semaphore,
    forks: AtomicU64,
}

impl Witness {
    /// Keeps what it has seen in this folder, and forks beside it.
    pub fn new(folder: PathBuf, authority: VerifyingKey, signer: Arc<Signer>) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let forks = fs::read_dir(folder.with_extension("forks")).map_or(0, Iterator::count) as u64;
        if forks > 0 {
            tracing::error!("ALARM: {forks} forks of other logs are kept in {}", folder.with_extension("forks").display());
        }
        let (turn, room) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Ok(Self { folder, authority, signer, turn, room, forks: AtomicU64::new(forks) })
    }

    /// Room to ask; none if as many as may are asking already.
    pub fn room(&self) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire().ok()
    }

    /// Forks that are kept, and those that could not be.
    pub fn forks(&self) -> u64 {
        self.forks.load(Ordering::Relaxed)
    }

    /// Looks at a head, and signs it if all is well. Blocks: disk, TPM and the pause.
    pub fn see(&self, ask: &Ask) -> Result<Seen, Refused> {
        let extension = Extension::parse(&ask.extension).map_err(not)?;
        let (shown, head) = (&extension.checkpoint, extension.checkpoint.head());
        if head.origin() == self.signer.origin() {
            return Err(not("an appliance is no witness of its own log"));
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(format!("{}.{}.txt", head.site, head.appliance));
        let last = self.last(&path)?;
        match (&last, turn.signed.get(&head.origin())) {
            (_, Some(signed)) if signed.head() == head => return Ok(Seen::Signed(signed.clone())),
            (Some(last), _) if !telling(head, last.head()) && (older(head, last.head()) || extension.old != last.head().size) => {
                return Ok(Seen::Last(last.clone()));
            }
            (None, _) if fs::read_dir(&self.folder).map_or(MOST_LOGS, Iterator::count) >= MOST_LOGS => {
                return Err(Refused::new(Code::Full, "this appliance watches as many logs as it can"));
            }
            _ => {}
        }
        pause(&mut turn.looked);
        let shown = self.own_line(shown, ask)?;
        match &last {
            None => tracing::warn!(
                "{} is seen here for the first time, at {} leaves: what was before, nobody here can tell",
                head.origin(),
                head.size
            ),
            Some(last) => {
                if let Some(what) = last.head().contradicts(head, signer(&shown) == signer(last)) {
                    self.fork(last, &shown, &what);
                    return Ok(Seen::Last(last.clone()));
                }
                if older(head, last.head()) || extension.old != last.head().size {
                    return Ok(Seen::Last(last.clone()));
                }
                extension.follows(last.head()).map_err(not)?;
            }
        }
        let signed = self.sign(&path, &shown).map_err(|e| {
            tracing::error!("{} was not signed: {e:#}", head.origin());
            Refused::new(Code::Failed, "the appliance could not sign; its log says why")
        })?;
        turn.signed.insert(head.origin(), signed.clone());
        Ok(Seen::Signed(signed))
    }

    /// The head with its own appliance's line alone, verified: nobody else's word is kept or handed on.
    fn own_line(&self, shown: &SignedCheckpoint, ask: &Ask) -> Result<SignedCheckpoint, Refused> {
        let known = Known::gather(&self.authority, ask.papers.iter().map(Vec::as_slice)).map_err(not)?;
        let origin = shown.head().origin();
        let mut note = shown.note().clone();
        let by = |a: &&Attester| a.origin == origin && note.signatures.iter().any(|l| l.name == origin && l.key_id == a.key_id());
        if known.attesters().iter().filter(by).any(|a| self.signer.same_tpm(&a.identity)) {
            return Err(not("that appliance has this one's TPM, and one TPM is no second opinion"));
        }
        note.signatures.retain(|l| l.name == origin && known.attesters().iter().any(|a| a.origin == origin && a.key_id() == l.key_id));
        note.signatures.truncate(1);
        let own = if note.signatures.is_empty() { shown.clone() } else { SignedCheckpoint::parse(note.write().as_bytes()).map_err(not)? };
        checkpoint::check(&own, &known).map_err(not)?;
        Ok(own)
    }

    /// Keeps a head, then signs it.
    fn sign(&self, path: &Path, shown: &SignedCheckpoint) -> anyhow::Result<SignedCheckpoint> {
        replace(path, shown.write().as_bytes())?;
        let mut note = shown.note().clone();
        note.signatures.push(self.signer.line(Says::Seen, &note.text)?);
        Ok(SignedCheckpoint::parse(note.write().as_bytes())?)
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

    /// Keeps both heads; says so, once for each pair.
    fn fork(&self, last: &SignedCheckpoint, shown: &SignedCheckpoint, what: &str) {
        match self.keep_fork(last, shown) {
            Ok(false) => return,
            Ok(true) => {}
            Err(e) => tracing::error!("the evidence of a fork could not be kept: {e:#}"),
        }
        self.forks.fetch_add(1, Ordering::Relaxed);
        tracing::error!("ALARM: another log contradicts what was seen of it here: {what}");
    }

    /// Writes down a pair of heads; not if it is there already, or enough of this log are.
    fn keep_fork(&self, last: &SignedCheckpoint, shown: &SignedCheckpoint) -> anyhow::Result<bool> {
        let (folder, head) = (self.folder.with_extension("forks"), shown.head());
        fs::create_dir_all(&folder)?;
        let log = format!("{}.{}.", head.site, head.appliance);
        let of_log = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&log);
        let pair = statement::hash(&format!("{}{}", last.note().text, shown.note().text));
        let path = folder.join(format!("{log}{pair}.txt"));
        if path.exists() || fs::read_dir(&folder)?.filter_map(Result::ok).filter(of_log).count() >= MOST_FORKS {
            return Ok(false);
        }
        replace(&path, format!("{}\n{}", last.write(), shown.write()).as_bytes())?;
        Ok(true)
    }
}

fn not(why: impl ToString) -> Refused {
    Refused::new(Code::NotAllowed, why.to_string())
}

/// Nothing new: a shorter log, or the same at an earlier counter.
fn older(head: &Checkpoint, last: &Checkpoint) -> bool {
    head.size < last.size || (head.size == last.size && head.counter < last.counter)
}

/// Whether two heads contradict each other, if one TPM signed both: reason enough to look at the signature.
fn telling(head: &Checkpoint, last: &Checkpoint) -> bool {
    head.contradicts(last, true).is_some()
}

/// Which TPM signed, as far as its line tells: the first is its own appliance's.
fn signer(head: &SignedCheckpoint) -> Option<[u8; 4]> {
    head.note().signatures.first().map(|l| l.key_id)
}

/// Waits until a look may follow the last one, and begins it.
fn pause(looked: &mut Option<Instant>) {
    if let Some(last) = *looked {
        thread::sleep(PAUSE.saturating_sub(last.elapsed()));
    }
    *looked = Some(Instant::now());
}
