//! The pipeline of a push: one thread reads and cuts, some name and compress, the
//! caller's packs and hands messages on. Batches keep their order; a slow taker of
//! messages stops the reader after a few batches.

use std::{
    fmt::Display,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread,
};

use hoidla_format::{Hash32, Moment};

use crate::{
    Cache, GenerationKey, Index, SnapshotError,
    batch::{Batch, CAPACITY, FileEnd, How, Step},
    cache::{CacheWriter, Old},
    chunk::{self, Cutter, Digest, Press},
    entry::{Body, Entry, Meta, Piece},
    index::Known,
    pack,
    packer::{Packer, Sink},
    read::{Feed, Job, Stopped},
    record::Record,
    walk::{Walk, root_name},
};

/// The most lines kept of what was left out or changed; all are counted.
const MOST_NOTES: usize = 1000;
/// How many messages may be ahead of what the index wrote down.
const WRITE_DOWN_EVERY: u32 = 8;

/// What is copied.
pub enum Source<'a> {
    /// A folder or a file.
    Path(&'a Path),
    /// What a program writes, as one file of this name.
    Stream(&'a str, Box<dyn Read + Send + 'a>),
}

/// How a push is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The run: the number of the epoch in which its first message is sealed.
    pub run: u32,
    /// Bytes of a full message, at least 4 KiB.
    pub message: usize,
    /// Threads that name and compress.
    pub workers: usize,
    /// Device and inode of a folder that is never entered.
    pub skip: Option<(u64, u64)>,
}

/// How far a push is; may be watched from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read, or known not to need it.
    pub read: AtomicU64,
    /// Files.
    pub files: AtomicU64,
    /// Bytes of new chunks, before compression.
    pub fresh: AtomicU64,
    /// Bytes of new chunks, as stored.
    pub stored: AtomicU64,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Files, folders, links and pipes.
    pub entries: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Bytes of chunks that weren't in the stream before.
    pub fresh: u64,
    /// Messages.
    pub messages: u32,
    /// Files that changed while they were read.
    pub changed: u64,
    /// Things that were left out.
    pub left_out: u64,
    /// A line for each of both, the first thousand.
    pub notes: Vec<String>,
}

/// What the walk found worth telling.
#[derive(Default)]
pub(crate) struct Notes {
    pub files: u64,
    changed: u64,
    left_out: u64,
    lines: Vec<String>,
}

impl Notes {
    pub fn leave_out(&mut self, path: &[u8], why: impl Display) {
        self.left_out += 1;
        self.line(path, format_args!("left out: {why}"));
    }

    pub fn changed(&mut self, path: &[u8]) {
        self.changed += 1;
        self.line(path, "changed while it was read; the copy is marked");
    }

    fn line(&mut self, path: &[u8], why: impl Display) {
        if self.lines.len() < MOST_NOTES {
            self.lines.push(format!("{}: {why}", path.escape_ascii()));
        }
    }
}

/// Copies `source` into messages of one run, which end with the snapshot's record.
///
/// `sink` gets each message in order and gives back a buffer for another. When it
/// returns, the message counts as kept: chunks in it are found again by the next push.
pub fn push(
    source: Source,
    key: &GenerationKey,
    index: &mut Index,
    cache: &mut Cache,
    options: Options,
    progress: &Progress,
    sink: &mut Sink,
) -> Result<Pushed, SnapshotError> {
    assert!(options.message >= pack::LEAST, "a message has at least 4 KiB");
    let depth = options.workers + 2;
    let (jobs, job_queue) = sync_channel::<Job>(depth);
    let (ordered, results) = sync_channel(depth);
    let (give_back, spare) = channel();
    for _ in 0..depth {
        give_back.send(Batch::new()).expect("both ends are here");
    }
    let feed = Feed { batch: Batch::new(), cutter: key.cutter(), jobs, ordered, spare, progress };
    let (old, kept) = cache.split();
    let index = Mutex::new(index);
    let job_queue = Mutex::new(job_queue);
    let (began, cutter) = (Moment::now(), key.cutter());

    thread::scope(|scope| {
        let reader = thread::Builder::new().name("read".into()).stack_size(8 << 20);
        let reader = reader.spawn_scoped(scope, || produce(source, feed, old, options, began)).map_err(SnapshotError::io("a thread"))?;
        for _ in 0..options.workers.max(1) {
            scope.spawn(|| work(&job_queue, key, &index));
        }
        let mut writer = Assembler {
            packer: Packer::new(options.run, options.message, sink),
            key,
            index: &index,
            progress,
            cutter: &cutter,
            kept,
            open: Open::new(),
            tree: Tree::default(),
            written_down: 0,
            entries: 0,
            bytes: 0,
            fresh: 0,
            press: Press::new().map_err(SnapshotError::io("zstd"))?,
            pressed: vec![],
        };
        let taken = writer.consume(results, give_back);
        let walked = reader.join().expect("the reader doesn't panic");
        if let Err(e) = taken {
            writer.write_down()?; // what was handed on is kept all the same
            return Err(e);
        }
        writer.finish(walked?, began)
    })
}

/// The first stage; an error here is about the source as a whole.
fn produce(source: Source, mut feed: Feed, old: &mut Old, options: Options, began: Moment) -> Result<Notes, SnapshotError> {
    let began = began.seconds() as i64;
    match source {
        Source::Path(path) => {
            let name = root_name(path).map_err(SnapshotError::at(path))?;
            let mut walk = Walk::new(feed, old, options.skip, began);
            if let Ok(Err(e)) = walk.root(path, &name) {
                return Err(SnapshotError::At { path: path.to_owned(), error: e });
            }
            let (feed, notes) = (walk.feed, walk.notes);
            _ = feed.finish(); // if nobody takes it, the taker says why
            Ok(notes)
        }
        Source::Stream(name, mut input) => {
            let meta = Meta {
                name: name.as_bytes().to_vec(),
                mode: 0o600,
                uid: nix::unistd::getuid().as_raw(),
                gid: nix::unistd::getgid().as_raw(),
                mtime: (began, 0),
            };
            match feed.content(|buffer| input.read(buffer)) {
                Ok(Err(e)) => return Err(SnapshotError::At { path: PathBuf::from(name), error: e }),
                Ok(Ok(_)) => {
                    let end = FileEnd { meta, changed: false, group: 0, seen: None };
                    _ = feed.step(Step::File(Box::new(end))).and_then(|()| feed.finish());
                }
                Err(Stopped) => {}
            }
            Ok(Notes { files: 1, ..Notes::default() })
        }
    }
}

/// The second stage. Ends when the reader has, or when zstd fails: then the batch's
/// result never comes, and the taker says so.
fn work(queue: &Mutex<Receiver<Job>>, key: &GenerationKey, index: &Mutex<&mut Index>) {
    let Ok(mut press) = Press::new() else { return };
    loop {
        let job = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
        let Ok((mut batch, done)) = job else { return };
        if batch.work(key, index, &mut press).is_err() {
            return;
        }
        _ = done.send(batch);
    }
}

/// The file that is open.
struct Open {
    digest: Digest,
    pieces: Vec<Piece>,
    size: u64,
    end: Option<(u32, u32, u32)>,
}

impl Open {
    fn new() -> Self {
        Self { digest: Digest::new(), pieces: vec![], size: 0, end: None }
    }

    fn hole(&mut self, len: u64) {
        self.digest.hole(len);
        self.size += len;
        self.end = None;
        self.pieces.push(Piece::Hole(len));
    }

    fn chunk(&mut self, id: &Hash32, len: usize, known: Known) {
        self.digest.chunk(id);
        self.size += len as u64;
        append(&mut self.pieces, &mut self.end, len, known);
    }

    fn take(&mut self) -> Body {
        let open = std::mem::replace(self, Self::new());
        Body { size: open.size, digest: open.digest.finish(), pieces: open.pieces }
    }
}

/// Adds a chunk to pieces: to the last one, if it stands right behind it.
fn append(pieces: &mut Vec<Piece>, end: &mut Option<(u32, u32, u32)>, added: usize, known: Known) {
    let place = known.place;
    match pieces.last_mut() {
        Some(Piece::Data { len, chunks, .. }) if *end == Some((place.run, place.number, place.position)) && *chunks < u32::MAX => {
            *len += added as u64;
            *chunks += 1;
        }
        _ => pieces.push(Piece::Data { len: added as u64, place, chunks: 1 }),
    }
    *end = Some((place.run, known.end.0, known.end.1));
}

/// The tree that grows.
#[derive(Default)]
struct Tree {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    end: Option<(u32, u32, u32)>,
}

/// The third stage.
struct Assembler<'a> {
    packer: Packer<'a>,
    key: &'a GenerationKey,
    index: &'a Mutex<&'a mut Index>,
    progress: &'a Progress,
    cutter: &'a Cutter,
    kept: CacheWriter<'a>,
    open: Open,
    tree: Tree,
    written_down: u32,
    entries: u64,
    bytes: u64,
    fresh: u64,
    press: Press,
    pressed: Vec<u8>,
}

impl<'a> Assembler<'a> {
    fn consume(&mut self, results: Receiver<Receiver<Batch>>, give_back: Sender<Batch>) -> Result<(), SnapshotError> {
        for result in results {
            let mut batch = result.recv().map_err(|_| SnapshotError::Sink("compression failed: is there enough memory?".into()))?;
            self.batch(&batch.bytes, &batch.pressed, std::mem::take(&mut batch.steps))?;
            batch.clear();
            _ = give_back.send(batch); // the reader may have ended
        }
        Ok(())
    }

    fn batch(&mut self, bytes: &[u8], pressed: &[u8], steps: Vec<Step>) -> Result<(), SnapshotError> {
        debug_assert!(bytes.len() <= CAPACITY);
        for step in steps {
            match step {
                Step::Entry(entry) => self.entry(&entry)?,
                Step::Hole(len) => self.open.hole(len),
                Step::Again => _ = self.open.take(),
                Step::Chunk { at, len, id, how } => {
                    let known = match how {
                        How::Known(known) => known,
                        How::Plain => self.fresh_chunk(&id, &bytes[at..at + len], None)?,
                        How::Pressed { at: p, len: n } => self.fresh_chunk(&id, &bytes[at..at + len], Some(&pressed[p..p + n]))?,
                    };
                    self.open.chunk(&id, len, known);
                }
                Step::File(end) => {
                    let body = self.open.take();
                    self.file(*end, body)?;
                }
                Step::Kept(end, body) => self.file(*end, body)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, end: FileEnd, body: Body) -> Result<(), SnapshotError> {
        self.bytes += body.size;
        if let Some((path, seen)) = &end.seen {
            self.kept.keep(path, seen, &body)?;
        }
        self.entry(&Entry::File { meta: end.meta, changed: end.changed, group: end.group, body })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        if *entry != Entry::Up {
            self.entries += 1;
        }
        entry.write(&mut self.tree.bytes);
        while self.tree.bytes.len() >= chunk::MOST {
            self.tree_chunk()?;
        }
        Ok(())
    }

    /// A chunk that wasn't known when its batch was worked on; it may be now.
    fn fresh_chunk(&mut self, id: &Hash32, raw: &[u8], pressed: Option<&[u8]>) -> Result<Known, SnapshotError> {
        if let Some(known) = self.index().get(id) {
            return Ok(known);
        }
        let known = match pressed {
            Some(pressed) => self.packer.pressed(raw.len(), pressed)?,
            None => self.packer.plain(raw)?,
        };
        self.fresh += raw.len() as u64;
        self.progress.fresh.fetch_add(raw.len() as u64, Ordering::Relaxed);
        self.progress.stored.fetch_add(pressed.map_or(raw.len(), <[u8]>::len) as u64, Ordering::Relaxed);
        self.index().insert(id, known);
        if self.packer.number() >= self.written_down + WRITE_DOWN_EVERY {
            self.write_down()?;
        }
        Ok(known)
    }

    fn write_down(&mut self) -> Result<(), SnapshotError> {
        self.written_down = self.packer.number();
        self.index().write_down(self.packer.run(), self.written_down)
    }

    fn index(&self) -> MutexGuard<'a, &'a mut Index> {
        self.index.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn tree_chunk(&mut self) -> Result<(), SnapshotError> {
        let bytes = std::mem::take(&mut self.tree.bytes);
        let len = self.cutter.cut(&bytes[..bytes.len().min(chunk::MOST)]);
        let id = self.key.id(&bytes[..len]);
        let mut pressed = std::mem::take(&mut self.pressed);
        pressed.clear();
        let worth = self.press.press(&bytes[..len], &mut pressed).map_err(SnapshotError::io("zstd"))?;
        let known = self.fresh_chunk(&id, &bytes[..len], worth.map(|_| &pressed[..]))?;
        append(&mut self.tree.pieces, &mut self.tree.end, len, known);
        self.pressed = pressed;
        self.tree.bytes = bytes;
        self.tree.bytes.drain(..len);
        Ok(())
    }

    fn finish(mut self, notes: Notes, began: Moment) -> Result<Pushed, SnapshotError> {
        while !self.tree.bytes.is_empty() {
            self.tree_chunk()?;
        }
        let record = Record {
            taken: (began, Moment::now()),
            entries: self.entries,
            bytes: self.bytes,
            changed: notes.changed,
            left_out: notes.left_out,
            key: GenerationKey::from_secret(self.key.secret().duplicate()),
            tree: self.tree.pieces,
        };
        let run = self.packer.run();
        let messages = self.packer.finish(&record.write())?;
        let mut index = self.index.lock().unwrap_or_else(|e| e.into_inner());
        index.write_down(run, messages)?;
        Ok(Pushed {
            entries: self.entries,
            bytes: self.bytes,
            fresh: self.fresh,
            messages,
            changed: notes.changed,
            left_out: notes.left_out,
            notes: notes.lines,
        })
    }
}
