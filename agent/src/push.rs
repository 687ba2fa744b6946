//! `push`: one snapshot into the embassy, or the rest of one that was interrupted.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use hoidla_cli::NextStep;
use hoidla_crypto::sealing::Sealer;
use hoidla_door::{Identity, Target};
use hoidla_protocol::Opened;
use hoidla_snapshot::{Cache, Index, Message, Options, Progress, Pushed, SnapshotError, Source, push as snapshot};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    home::Home,
    line::{self, Events, Line},
    spool::{Kept, Spool, What},
    state::State,
    writer::StreamWriter,
};

/// The path that means standard input.
pub const STANDARD_INPUT: &str = "-";
/// The record of a stream is synced at least so often.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// And written, which a killed agent needs, so often.
const SAVE_EVERY: Duration = Duration::from_millis(100);

/// How to push.
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// Begin a new generation.
    pub new_generation: bool,
    /// Bytes that the spool may hold.
    pub spool: u64,
    /// How long to try without progress.
    pub give_up_after: Duration,
    /// Threads that compress.
    pub workers: usize,
}

/// What a push did.
pub struct Done {
    /// What was copied.
    pub pushed: Pushed,
    /// How the stream stands now.
    pub state: State,
    /// Bytes of this push in the embassy, sealed.
    pub sealed: u64,
    /// Bytes that an earlier push had left to send.
    pub resumed: u64,
    /// How long it took.
    pub took: Duration,
}

/// Copies `path` (or standard input, if `-`) in. `tell` gets what happens, in words.
pub fn push(home: &Home, path: &Path, settings: &Settings, progress: &Progress, tell: &(dyn Fn(&str) + Sync)) -> Result<Done> {
    let began = Instant::now();
    if path != Path::new(STANDARD_INPUT) {
        fs::metadata(path).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    let _lock = lock(&home.dir)?;
    let pusher = Pusher { home, settings, identity: home.identity()?, tell };
    let (state, epoch, resumed) = match pusher.known_stream()? {
        Some(state) => pusher.drain(state)?,
        None => (pusher.new_stream()?, 1, 0),
    };
    let start = state.acknowledged.length;
    let (pushed, state) = pusher.copy(path, state, epoch, progress)?;
    Ok(Done { pushed, sealed: state.acknowledged.length - start, state, resumed, took: began.elapsed() })
}

struct Pusher<'a> {
    home: &'a Home,
    settings: &'a Settings,
    identity: Identity,
    tell: &'a (dyn Fn(&str) + Sync),
}

impl Pusher<'_> {
    /// The stream to go on with.
    fn known_stream(&self) -> Result<Option<State>> {
        if self.settings.new_generation {
            return Ok(None);
        }
        Ok(State::all(&self.home.dir)?.first().copied())
    }

    /// A stream of a new generation, of which nobody has heard yet.
    fn new_stream(&self) -> Result<State> {
        let known = State::all(&self.home.dir)?;
        // Generations that another machine or a lost record began count too.
        let listed = line::list(&self.settings.target, &self.identity, self.home.dataset(), self.settings.give_up_after, self.tell)?;
        let newest = listed.iter().map(|s| s.generation).chain(known.iter().map(|s| s.generation)).max().unwrap_or(0);
        if known.is_empty() && newest > 0 {
            (self.tell)("this machine has no record of the dataset's streams: a new generation begins");
        }
        let state = State::new(newest + 1);
        state.save(&self.home.dir, true)?;
        known.iter().for_each(|old| old.retire(&self.home.dir));
        Ok(state)
    }

    fn spool(&self, state: &State) -> Result<Arc<Spool>> {
        let dir = state.dir(&self.home.dir).join("spool");
        Ok(Arc::new(Spool::open(&dir, state.acknowledged, self.settings.spool)?))
    }

    fn line(&self, state: &State, spool: &Arc<Spool>) -> Line<'_> {
        Line {
            target: self.settings.target.clone(),
            identity: self.identity.clone(),
            dataset: self.home.dataset().clone(),
            stream: state.stream,
            generation: state.generation,
            spool: spool.clone(),
            give_up_after: self.settings.give_up_after,
            tell: self.tell,
        }
    }

    /// Sends what an interrupted push has left; gives the epoch to begin and how many bytes there were.
    fn drain(&self, state: State) -> Result<(State, u32, u64)> {
        let spool = self.spool(&state)?;
        let resumed = spool.pending().1;
        if resumed > 0 {
            let bytes = hoidla_cli::human::bytes(resumed);
            (self.tell)(&format!("an earlier push was interrupted: {bytes} are sealed and not acknowledged; they go first"));
        }
        spool.finish();
        let mut draining = Draining { ledger: Ledger::new(&self.home.dir, &spool, state), tell: self.tell };
        self.line(&state, &spool).run(&mut draining)?;
        let mut ledger = draining.ledger;
        ledger.save(true)?;
        let next = next_epoch(ledger.epoch)?;
        Ok((ledger.state, next, resumed))
    }

    fn copy(&self, path: &Path, state: State, epoch: u32, progress: &Progress) -> Result<(Pushed, State)> {
        let dir = state.dir(&self.home.dir);
        let mut index = Index::open(&dir.join("index"), |run, number| run < state.run || (run == state.run && number < state.messages))?;
        let mut cache = match path == Path::new(STANDARD_INPUT) {
            true => Cache::none(),
            false => Cache::open(&dir.join("files"), &path.canonicalize()?)?,
        };
        let state = State { run: epoch, messages: 0, ..state };
        state.save(&self.home.dir, false)?;
        let spool = self.spool(&state)?;
        let writer = Mutex::new(StreamWriter::begin(self.home, spool.clone(), state.stream, state.generation, epoch)?);
        let mut pushing = Pushing { ledger: Ledger::new(&self.home.dir, &spool, state), writer: &writer };
        let line = self.line(&state, &spool);
        let (pushed, sent) = thread::scope(|scope| {
            let sender = scope.spawn(|| line.run(&mut pushing));
            let pushed = self.snapshot(path, &state, (&mut index, &mut cache), progress, |m| {
                spool.wait_for_room()?;
                writer_of(&writer).message(&m.bytes, m.run, m.number, m.last).map_err(|e| format!("{e:#}"))?;
                Ok(m.bytes)
            });
            spool.finish();
            (pushed, sender.join().expect("the sender doesn't panic"))
        });
        // If the line failed, the copy failed because of it.
        sent?;
        let pushed = pushed?;
        pushing.ledger.save(true)?;
        spool.reset(spool.acknowledged()).into_iter().for_each(Kept::release);
        let state = pushing.ledger.state;
        cache.commit()?;
        Ok((pushed, state))
    }

    fn snapshot(
        &self,
        path: &Path,
        state: &State,
        (index, cache): (&mut Index, &mut Cache),
        progress: &Progress,
        mut sink: impl FnMut(Message) -> Result<Vec<u8>, String>,
    ) -> Result<Pushed, SnapshotError> {
        let source = match path == Path::new(STANDARD_INPUT) {
            true => Source::Stream("stdin", Box::new(std::io::stdin())),
            false => Source::Path(path),
        };
        let skip = fs::metadata(&self.home.dir).ok().map(|m| (m.dev(), m.ino()));
        let options = Options { run: state.run, message: Sealer::most_plaintext(), workers: self.settings.workers, skip };
        let key = state.generation_key(&self.home.keys.index);
        snapshot(source, &key, index, cache, options, progress, &mut sink)
    }
}

/// One push at a time.
fn lock(home: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(home.join("streams")).with_context(|| format!("cannot write into {}", home.display()))?;
    let file = File::create(home.join("streams/lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| anyhow!("{}: another push is running ({e})", home.display()))
        .next("wait until it is done; each dataset has one agent")
}

/// The epoch after one that the embassy named, which may be any number.
fn next_epoch(epoch: u32) -> Result<u32> {
    epoch.checked_add(1).context("this stream has had all its epochs").next("push with --new-generation")
}

fn writer_of<'a, 'h>(writer: &'a Mutex<StreamWriter<'h>>) -> MutexGuard<'a, StreamWriter<'h>> {
    writer.lock().unwrap_or_else(|e| e.into_inner())
}

/// Keeps the stream's record in step with acknowledgements.
struct Ledger {
    home: PathBuf,
    spool: Arc<Spool>,
    state: State,
    /// The last epoch that the embassy is known to hold.
    epoch: u32,
    saved: Instant,
    synced: Instant,
}

impl Ledger {
    fn new(home: &Path, spool: &Arc<Spool>, state: State) -> Self {
        Self { home: home.to_owned(), spool: spool.clone(), state, epoch: 0, saved: Instant::now(), synced: Instant::now() }
    }

    fn note(&mut self) -> Result<()> {
        for frame in self.spool.take_seen() {
            self.state.acknowledged = frame.after;
            self.epoch = self.epoch.max(frame.epoch);
            match frame.what {
                What::Header => self.state.signed = frame.offset,
                What::Message { run, number } => (self.state.run, self.state.messages) = (run, number + 1),
                What::Root { complete } => {
                    self.state.signed = frame.offset;
                    if complete {
                        self.state.complete = frame.offset;
                    }
                }
            }
        }
        if self.saved.elapsed() >= SAVE_EVERY || self.spool.has_retired() {
            let sync = self.synced.elapsed() >= SYNC_EVERY;
            self.save(sync)?;
        }
        Ok(())
    }

    /// First the record, then the spool's files: a kill between loses nothing.
    fn save(&mut self, sync: bool) -> Result<()> {
        self.state.save(&self.home, sync)?;
        self.spool.forget();
        self.saved = Instant::now();
        if sync {
            self.synced = self.saved;
        }
        Ok(())
    }
}

/// While the rest of an interrupted push is sent: its data keys are gone.
struct Draining<'a> {
    ledger: Ledger,
    tell: &'a (dyn Fn(&str) + Sync),
}

impl Events for Draining<'_> {
    fn opened(&mut self, opened: &Opened) -> Result<()> {
        self.ledger.epoch = self.ledger.epoch.max(opened.epoch);
        if opened.closed && self.ledger.spool.pending().0 > 0 {
            (self.tell)("an opening closed the epoch that was interrupted: what the embassy hadn't got is sealed anew");
            self.ledger.spool.reset(opened.acknowledged).into_iter().for_each(Kept::release);
        }
        Ok(())
    }

    fn lost(&mut self, opened: &Opened) -> Result<()> {
        (self.tell)("the embassy holds more than this machine remembers having sent: a new epoch begins there");
        self.ledger.spool.reset(opened.acknowledged).into_iter().for_each(Kept::release);
        (self.ledger.epoch, self.ledger.state.acknowledged) = (opened.epoch, opened.acknowledged);
        Ok(())
    }

    fn acknowledged(&mut self) -> Result<()> {
        self.ledger.note()
    }
}

/// While messages are sealed.
struct Pushing<'a, 'h> {
    ledger: Ledger,
    writer: &'a Mutex<StreamWriter<'h>>,
}

impl Events for Pushing<'_, '_> {
    fn opened(&mut self, opened: &Opened) -> Result<()> {
        let mut writer = writer_of(self.writer);
        if opened.closed && writer.epoch() <= opened.epoch {
            writer.reseal(opened.acknowledged, next_epoch(opened.epoch)?)?;
        }
        Ok(())
    }

    fn lost(&mut self, _: &Opened) -> Result<()> {
        bail!(
            "something else writes to this stream: is the agent's folder in use on two machines? push with --new-generation from one of them"
        )
    }

    fn acknowledged(&mut self) -> Result<()> {
        self.ledger.note()
    }
}
