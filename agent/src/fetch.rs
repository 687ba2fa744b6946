//! A stream as a reader fetches it: checked from its first byte, then opened at will.
//!
//! Promises: every frame is held against the agent's signatures before anything is
//! opened: certificate by the authority, header and roots by the certificate's key,
//! chain over every byte. What follows the last root is refused, and so is what an agent
//! signed that the site file revokes, unless the reader asked for this very stream. It
//! cannot know of newer bytes that are kept from it, unless it is told how far the
//! stream was acknowledged at home. It needs as much room on disk as the stream has,
//! for ciphertext.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_crypto::{
    datakey::Binding,
    sealing::{Provider, Sealer},
    sign::{self, VerifyingKey},
};
use hoidla_format::{
    Hash32, Kind, Moment, Name, StreamId,
    frame::{self, Chain},
    statements::{AgentCertificate, EpochHeader, StreamRoot},
};
use hoidla_snapshot::{Messages, PackHead, SnapshotError};

/// Opened messages kept in memory.
const CACHED: usize = 16;

/// Where a whole snapshot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Which epoch's list.
    epoch: usize,
    /// Which message of it.
    message: usize,
    /// The offset up to which the agent signed it.
    pub signed_to: u64,
    /// When it signed that, as its clock claimed.
    pub signed_at: Moment,
}

/// What a stream is held against.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The site.
    pub site: &'a Name,
    /// The dataset.
    pub dataset: &'a Name,
    /// The stream.
    pub stream: StreamId,
    /// Its generation, as it was listed.
    pub generation: u32,
    /// Who certifies agents.
    pub authority: &'a VerifyingKey,
    /// Agents that are believed no more.
    pub revoked: &'a [Name],
    /// Whether a person asked for this very stream, whoever signed it.
    pub whoever_signed: bool,
    /// Where the agent at home saw it stand: the stream must have come so far, with these bytes.
    pub at_least: Option<Chain>,
}

struct EpochSpan {
    header: EpochHeader,
    signer: VerifyingKey,
    /// Offset and length of each message's frame.
    messages: Vec<(u64, u32)>,
}

/// Takes a stream in, in order, and checks it.
pub struct Intake<'a> {
    expected: Expected<'a>,
    staging: File,
    rest: Vec<u8>,
    chain: Chain,
    signed: u64,
    epochs: Vec<EpochSpan>,
    ends: Vec<End>,
    revoked: Vec<Name>,
    reached: bool,
}

impl<'a> Intake<'a> {
    /// A stream to be taken in; its ciphertext goes into `staging`, an empty file.
    pub fn new(expected: Expected<'a>, staging: File) -> Self {
        let (rest, epochs, ends, revoked) = (vec![], vec![], vec![], vec![]);
        let reached = expected.at_least.is_none();
        Self { expected, staging, rest, chain: Chain::EMPTY, signed: 0, epochs, ends, revoked, reached }
    }

    /// The next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.staging.write_all(bytes).context("cannot keep the ciphertext; is the disk full?")?;
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut left = &rest[..];
        while let Some(len) = whole_frame(left)? {
            self.frame(&left[..len]).with_context(|| format!("at byte {} of the stream {}", self.chain.length, self.expected.stream))?;
            left = &left[len..];
        }
        self.rest = left.to_vec();
        Ok(())
    }

    fn frame(&mut self, bytes: &[u8]) -> Result<()> {
        let (kind, body, _) = frame::split(bytes)?;
        match kind {
            Kind::EpochHeader => self.header(body)?,
            Kind::Message => {
                let at = (self.chain.length, bytes.len() as u32);
                self.epochs.last_mut().context("a message before any epoch's header")?.messages.push(at);
            }
            _ => self.root(body)?,
        }
        self.chain = self.chain.then(&Hash32(blake3::hash(bytes).into()), bytes.len() as u32);
        if self.expected.at_least.is_some_and(|c| c.length == self.chain.length) {
            ensure!(self.expected.at_least == Some(self.chain), "these are not the bytes that were acknowledged at home");
            self.reached = true;
        }
        Ok(())
    }

    fn header(&mut self, body: &[u8]) -> Result<()> {
        let (agent, epoch) = frame::split_epoch_header(body)?;
        let agent =
            sign::open::<AgentCertificate>(agent, Some("authority"), self.expected.authority).context("the agent's certificate")?.statement;
        let signer = VerifyingKey::from_sec1(&agent.key.0)?;
        let header = sign::open::<EpochHeader>(epoch, Some(agent.agent.as_str()), &signer).context("the epoch's header")?.statement;
        let Expected { site, dataset, stream, generation, .. } = self.expected;
        ensure!(agent.site == *site && agent.dataset == *dataset, "the agent's certificate is for another site or dataset");
        ensure!(
            header.site == *site && header.dataset == *dataset && header.stream == stream && header.agent == agent.agent,
            "the epoch's header belongs to another stream"
        );
        let signed = header.generation;
        ensure!(signed == generation, "the agent signed this as generation {signed}, and the embassy lists it as {generation}");
        ensure!(
            (agent.issued..=agent.not_after).contains(&header.created),
            "the epoch was signed when the agent's certificate was not valid"
        );
        ensure!(
            header.start == self.chain.length && header.previous_root == self.chain.root,
            "the epoch's header doesn't follow what stands before it"
        );
        ensure!(self.epochs.last().is_none_or(|e| e.header.epoch < header.epoch), "epochs don't rise");
        self.heed_revocation(&header.agent)?;
        self.signed = self.chain.length;
        self.epochs.push(EpochSpan { header, signer, messages: vec![] });
        Ok(())
    }

    fn heed_revocation(&mut self, agent: &Name) -> Result<()> {
        if !self.expected.revoked.contains(agent) {
            return Ok(());
        }
        if !self.revoked.contains(agent) {
            self.revoked.push(agent.clone());
        }
        ensure!(
            self.expected.whoever_signed,
            "the agent {agent} signed this, and the site file revokes it; to restore it all the same, name it with --generation or --stream"
        );
        Ok(())
    }

    fn root(&mut self, body: &[u8]) -> Result<()> {
        let span = self.epochs.last().context("a root before any epoch's header")?;
        let root = sign::open::<StreamRoot>(body, Some(span.header.agent.as_str()), &span.signer).context("a signed root")?.statement;
        let Expected { dataset, stream, .. } = self.expected;
        ensure!(root.dataset == *dataset && root.stream == stream && root.epoch == span.header.epoch, "a root of another stream");
        ensure!(root.length == self.chain.length && root.root == self.chain.root, "the bytes are not those that the agent signed");
        self.signed = self.chain.length;
        if root.complete {
            let (epoch, message) = self.last_message().context("a snapshot without messages")?;
            self.ends.push(End { epoch, message, signed_to: root.length, signed_at: root.created });
        }
        Ok(())
    }

    fn last_message(&self) -> Option<(usize, usize)> {
        let epoch = self.epochs.iter().rposition(|e| !e.messages.is_empty())?;
        Some((epoch, self.epochs[epoch].messages.len() - 1))
    }

    /// How much of what came is signed.
    pub fn signed(&self) -> u64 {
        self.signed
    }

    /// Whether it came as far as it had to.
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// The end of the stream: opens its epochs with `key`, which may have fewer keys than epochs.
    pub fn finish(mut self, mut key: impl FnMut(&Binding) -> Result<Option<Sealer>>) -> Opened {
        let signed = self.signed;
        let (mut epochs, mut unsigned) = (Vec::with_capacity(self.epochs.len()), 0);
        for mut span in std::mem::take(&mut self.epochs) {
            let all = span.messages.len();
            span.messages.retain(|(at, len)| at + u64::from(*len) <= signed);
            unsigned += all - span.messages.len();
            let h = &span.header;
            let (site, dataset) = (h.site.clone(), h.dataset.clone());
            let binding = Binding { site, dataset, stream: h.stream, epoch: h.epoch, vault_epoch: h.vault_epoch };
            let sealer = match key(&binding) {
                Ok(Some(sealer)) => Ok(sealer),
                Ok(None) => Err(Sealed::NotCovered),
                Err(e) => Err(Sealed::Damaged(format!("{e:#}"))),
            };
            epochs.push((span, sealer));
        }
        let mut opened = Opened {
            staging: self.staging,
            dataset: self.expected.dataset.clone(),
            stream: self.expected.stream,
            epochs,
            runs: HashMap::new(),
            ends: self.ends,
            revoked: self.revoked,
            cache: Mutex::new(vec![]),
            signed,
            unsigned,
            length: self.chain.length + self.rest.len() as u64,
        };
        opened.find_runs();
        opened
    }
}

/// The length of the first frame, if all of it is there.
fn whole_frame(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<{ frame::HEAD }>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head.last_chunk().expect("a head ends with a length")) as usize + frame::HEAD;
    ensure!(len <= frame::MOST, "a frame of more than 1 MiB: this is no stream");
    Ok((bytes.len() >= len).then_some(len))
}

/// Why an epoch stays sealed.
#[derive(Clone, Debug)]
enum Sealed {
    NotCovered,
    Damaged(String),
}

impl std::fmt::Display for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotCovered => f.write_str("the grant doesn't cover it; what was copied in after the opening needs a new grant"),
            Self::Damaged(why) => write!(f, "it doesn't open: {why}"),
        }
    }
}

/// A stream whose signatures were checked.
pub struct Opened {
    staging: File,
    dataset: Name,
    stream: StreamId,
    epochs: Vec<(EpochSpan, Result<Sealer, Sealed>)>,
    /// For each run: its parts, each with the number of its first message and its epoch.
    runs: HashMap<u32, Vec<(u32, usize)>>,
    ends: Vec<End>,
    cache: Mutex<Vec<(u64, Arc<Vec<u8>>)>>,
    /// Agents whose signatures were met though the site file revokes them.
    pub revoked: Vec<Name>,
    /// How much is signed.
    pub signed: u64,
    /// Messages after that, which are not used.
    pub unsigned: usize,
    /// How much there is.
    pub length: u64,
}

impl Opened {
    /// The snapshots that are whole and signed, oldest first.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// The newest snapshot that the grant covers, and those after it, copied in too late for it.
    /// Where it covers none, the newest, so that opening it says why not.
    pub fn newest(&self) -> Option<(End, &[End])> {
        let at = self.ends.iter().rposition(|end| self.covers(end)).or(self.ends.len().checked_sub(1))?;
        Some((self.ends[at], &self.ends[at + 1..]))
    }

    /// The last snapshot that the grant covers among those signed by then.
    pub fn last_before(&self, before: Moment) -> Option<End> {
        self.ends.iter().rev().find(|end| end.signed_at <= before && self.covers(end)).copied()
    }

    fn covers(&self, end: &End) -> bool {
        !matches!(self.epochs[end.epoch].1, Err(Sealed::NotCovered))
    }

    /// A line for each epoch that ought to open and doesn't.
    pub fn damaged(&self) -> impl Iterator<Item = String> {
        self.epochs.iter().filter_map(|(span, sealer)| match sealer {
            Err(why @ Sealed::Damaged(_)) => Some(format!("epoch {} was passed over: {why}", span.header.epoch)),
            _ => None,
        })
    }

    /// The address of a snapshot's last message.
    pub fn address(&self, end: &End) -> Result<(u32, u32)> {
        let head = PackHead::parse(&self.open(end.epoch, end.message)?)?;
        Ok((head.run, head.number))
    }

    /// An epoch whose first message doesn't open is passed over: what others hold matters all the more.
    fn find_runs(&mut self) {
        for i in 0..self.epochs.len() {
            let (span, sealer) = &self.epochs[i];
            if sealer.is_err() || span.messages.is_empty() {
                continue;
            }
            match self.open(i, 0).and_then(|first| Ok(PackHead::parse(&first)?)) {
                Ok(head) => self.runs.entry(head.run).or_default().push((head.number, i)),
                Err(e) => self.epochs[i].1 = Err(Sealed::Damaged(format!("{e:#}"))),
            }
        }
    }

    fn open(&self, epoch: usize, message: usize) -> Result<Arc<Vec<u8>>> {
        let (span, sealer) = &self.epochs[epoch];
        let number = span.header.epoch;
        let sealer = sealer.as_ref().map_err(|why| anyhow!("epoch {number} is needed, and {why}"))?;
        let &(at, len) = span.messages.get(message).context("the stream has no such message")?;
        let mut cache = self.cache.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(i) = cache.iter().position(|(a, _)| *a == at) {
            let hit = cache.remove(i);
            cache.push(hit);
            return Ok(cache[cache.len() - 1].1.clone());
        }
        let mut bytes = vec![0; len as usize];
        self.staging.read_exact_at(&mut bytes, at).context("cannot read the ciphertext back")?;
        let (_, body, _) = frame::split(&bytes)?;
        let mut plaintext = Vec::with_capacity(body.len());
        sealer.open(&frame::message_aad(&self.dataset, self.stream, number, at), body, &mut plaintext)?;
        let plaintext = Arc::new(plaintext);
        if cache.len() == CACHED {
            cache.remove(0);
        }
        cache.push((at, plaintext.clone()));
        Ok(plaintext)
    }

    fn find(&self, run: u32, number: u32) -> Result<Arc<Vec<u8>>> {
        let parts = self.runs.get(&run).map_or(&[][..], |p| p);
        // The last part that begins at or before it: a run goes on in a later epoch when an opening closed the first.
        match parts.iter().rev().find(|(first, _)| *first <= number) {
            Some((first, epoch)) => self.open(*epoch, (number - first) as usize),
            None => {
                let sealed = self.epochs.iter().filter_map(|(span, s)| Some(format!("{}: {}", span.header.epoch, s.as_ref().err()?)));
                let sealed: Vec<_> = sealed.take(8).collect();
                ensure!(!sealed.is_empty(), "the stream has no such run");
                bail!("it lies in an epoch that stays sealed ({})", sealed.join("; "))
            }
        }
    }
}

impl Messages for Opened {
    fn message(&self, run: u32, number: u32) -> Result<Arc<Vec<u8>>, SnapshotError> {
        self.find(run, number).map_err(|e| SnapshotError::Message { run, number, why: format!("{e:#}") })
    }
}

/// A sealer under a data key, by the fast provider.
pub fn sealer(key: &hoidla_crypto::datakey::DataKey) -> Sealer {
    Sealer::new(key, Provider::default())
}
