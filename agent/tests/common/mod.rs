//! An embassy in memory behind a real door, and a home that copies into it.
#![allow(dead_code)]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use hoidla_agent::{
    home::Home,
    push::{self, Done, Settings},
    reader::Reader,
    restore,
};
use hoidla_cli::PassphraseSource;
use hoidla_crypto::{
    Secret,
    datakey::{self, Binding, DataKey},
    hpke::{KeyPair, PublicKey, SUITE},
    keyfile::{Cost, KeyFile, Role as KeyRole},
    keys::{AgentKeys, AuthorityKeys, ReaderKeys},
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::{Admission, AgentNames, AgentRequest, Curve, DoorKey, Target};
use hoidla_format::{
    ByteRange, Bytes, Hash32, Kind, Leaf, Moment, Name, Statement, StreamId,
    disk::batch::Entry,
    frame::{self, Chain},
    statement,
    statements::{AgentCertificate, ApplianceEntry, Covers, Dataset, EpochHeader, Grant, Site, Vault},
};
use hoidla_papers::{Log, Office, SoftAppliance};
use hoidla_protocol::{
    AppendHead, Code, Epoch, HEAD, HELLO, Handle, Head, Health, Key, Opened, Part, Prove, Refused, Request, Response, Role, ServerSession,
    StreamEntry, Type, Welcome,
};
use hoidla_snapshot::{Only, Progress};
use p256::{ecdsa::signature::Signer as _, elliptic_curve::Generate as _};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

pub const DATASET: &str = "population";
const WINDOW: u32 = 8 << 20;

pub fn name(s: &str) -> Name {
    s.parse().unwrap()
}

struct NodeKey(p256::ecdsa::SigningKey);

impl DoorKey for NodeKey {
    fn curve(&self) -> Curve {
        Curve::P256
    }

    fn public(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature: p256::ecdsa::Signature = self.0.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// One stream as it is stored.
#[derive(Default, Clone)]
pub struct Stored {
    pub generation: u32,
    /// Epoch and bytes of each frame.
    pub frames: Vec<(u32, Vec<u8>)>,
    pub closed: u32,
}

impl Stored {
    pub fn chain(&self) -> Chain {
        self.frames.iter().fold(Chain::EMPTY, |c, (_, f)| c.then(&Hash32(blake3::hash(f).into()), f.len() as u32))
    }

    pub fn epoch(&self) -> u32 {
        self.frames.last().map_or(0, |f| f.0)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.frames.iter().flat_map(|f| f.1.clone()).collect()
    }

    fn epochs(&self) -> Vec<Epoch> {
        let (mut at, mut epochs): (u64, Vec<Epoch>) = (0, vec![]);
        for (epoch, f) in &self.frames {
            if epochs.last().is_none_or(|e| e.epoch != *epoch) {
                epochs.push(Epoch { epoch: *epoch, start: at });
            }
            at += f.len() as u64;
        }
        epochs
    }
}

/// What goes wrong on purpose.
#[derive(Default)]
pub struct Trouble {
    /// Cut the connection when so many more frames have come.
    pub cut_after: Option<usize>,
    /// Keep frames without acknowledging them.
    pub mute: bool,
    /// An opening closes the epoch when so many more frames have come.
    pub close_after: Option<usize>,
    /// From this connection on, streams are said to be at their last epoch, and closed.
    pub last_epoch_from: Option<usize>,
    /// Another key is re-wrapped than this epoch was sealed with.
    pub wrong_key_of: Option<u32>,
    /// Keys are given of epochs before this one only.
    pub keys_before: Option<u32>,
    /// The appliance has a newer site file.
    pub newer_site: Option<u32>,
    /// What is re-wrapped of this epoch is damaged.
    pub bad_key_of: Option<u32>,
    /// The disks are full after so many more frames.
    pub full_after: Option<usize>,
    /// How the appliance lies to an auditor.
    pub lie: Option<Lie>,
}

/// What an appliance may try on an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A log with another first leaf, of the same size or larger.
    Fork,
    /// A log without its last leaf.
    Shorter,
    /// The log as it was, saying that it is behind.
    Behind,
    /// A counter that went back.
    Counter,
    /// Another appliance's key.
    Key,
    /// A quote of another state.
    State,
    /// A checkpoint in the name of another appliance.
    Name,
    /// Bytes that are no checkpoint.
    Garbage,
    /// Bytes that were acknowledged are not known.
    Gone,
    /// A proof of another place.
    Place,
    /// A proof with a flipped bit.
    Proof,
    /// A frame with a flipped bit.
    Frame,
    /// The connection closes.
    Hangs,
    /// No enrolment among the papers.
    Papers,
}

#[derive(Default)]
pub struct Store {
    pub streams: HashMap<StreamId, Stored>,
    pub trouble: Trouble,
    pub connections: usize,
    pub appended: usize,
    /// A leaf for every frame.
    pub log: Log,
}

impl Store {
    pub fn only(&mut self) -> &mut Stored {
        let newest = *self.streams.iter().max_by_key(|(_, s)| s.generation).unwrap().0;
        self.streams.get_mut(&newest).unwrap()
    }
}

pub struct Embassy {
    pub dir: tempfile::TempDir,
    pub site: Site,
    pub authority: AuthorityKeys,
    pub vault: KeyPair,
    pub vault_statement: Vault,
    pub store: Arc<Mutex<Store>>,
    pub target: Target,
    pub admission: Arc<Admission>,
    /// What signs its checkpoints.
    pub appliance: Arc<SoftAppliance>,
    opened: Arc<Mutex<Option<(Hash32, PublicKey)>>>,
    runtime: tokio::runtime::Runtime,
}

impl Embassy {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = AuthorityKeys::from_seed(&Secret::random());
        let (site_name, now) = (name("lux"), Moment::now());
        let door = hoidla_door::software_key(&authority.door.to_pkcs8()).unwrap();
        let root = hoidla_door::door_root(&site_name, &*door, Moment::from_seconds(0), now.plus(86_400)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = Site {
            site: site_name.clone(),
            serial: 1,
            development: true,
            authority: Bytes(authority.statements.verifying_key().to_sec1()),
            release_key: Bytes(Office::new(7).release.public().to_sec1()),
            door_root: Bytes(root.clone()),
            appliances: vec![ApplianceEntry { name: name("lux-1"), address: address.clone(), network: None }],
            rosters: vec![],
            datasets: vec![Dataset { name: name(DATASET), title: "Population".into(), roster: name("r"), retention_days: 1, share: None }],
            revoked_agents: vec![],
        };
        let vault = KeyPair::generate();
        let vault_statement = Vault {
            site: site_name.clone(),
            dataset: name(DATASET),
            vault_epoch: 1,
            suite: SUITE.into(),
            public_key: Bytes(vault.public().to_bytes()),
            roster: Hash32([0; 32]),
            quorum: 2,
            recovery_quorum: 3,
            dealt: now,
            commitments: vec![],
        };
        let names = AgentNames { site: site_name.clone(), datasets: HashSet::from([name(DATASET)]), revoked: HashSet::new() };
        let admission = Admission::new(&root, names, &[]).unwrap();
        let node = NodeKey(p256::ecdsa::SigningKey::generate());
        let life = (Moment::from_seconds(0), now.plus(86_400));
        let certificate = hoidla_door::node_certificate(&site_name, &name("lux-1"), &node.public(), life, &root, &*door).unwrap();
        let config = hoidla_door::server_config(&certificate, Arc::new(node), admission.clone()).unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let appliance = Arc::new(SoftAppliance::new(&site, "lux-1", 5));
        let opened = Arc::default();
        let server = Server {
            store: store.clone(),
            admission: admission.clone(),
            acceptor: TlsAcceptor::from(config),
            vault: Arc::new(KeyPair::from_seed(vault.seed().duplicate())),
            opened: Arc::clone(&opened),
            appliance: appliance.clone(),
            papers: papers(&authority, &site, &appliance).into(),
        };
        runtime.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let server = server.clone();
                tokio::spawn(async move { _ = server.serve(tcp).await });
            }
        });
        let target = Target { address, site: site_name, appliance: name("lux-1"), root };
        Self { dir, site, authority, vault, vault_statement, store, target, admission, appliance, opened, runtime }
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub fn sign<S: Statement>(&self, s: &S) -> String {
        self.authority.statements.sign_statement("authority", s)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes an agent's folder, valid until so many seconds from now.
    pub fn home(&self, folder: &str, valid: i64) -> PathBuf {
        self.home_of("agent-1", folder, valid)
    }

    pub fn home_of(&self, agent: &str, folder: &str, valid: i64) -> PathBuf {
        let dir = self.path(folder);
        fs::create_dir(&dir).unwrap();
        let (secret, agent) = (Secret::random(), name(agent));
        let keys = AgentKeys::from_seed(&secret);
        let key = keys.signing.verifying_key().to_sec1();
        let (not_before, now) = (Moment::from_seconds(1), Moment::now().seconds());
        let not_after = Moment::from_seconds(now.saturating_add_signed(valid));
        let dataset = name(DATASET);
        let request = AgentRequest { site: &self.site.site, dataset: &dataset, agent: &agent, key: &key, not_before, not_after };
        let door = hoidla_door::software_key(&self.authority.door.to_pkcs8()).unwrap();
        let x509 = hoidla_door::agent_certificate(&request, &self.site.door_root.0, &*door).unwrap();
        let statement = AgentCertificate {
            site: self.site.site.clone(),
            dataset: name(DATASET),
            agent: agent.clone(),
            key: Bytes(key),
            issued: not_before,
            not_after,
        };
        let file = KeyFile::protect_at(Cost::LEAST, KeyRole::Agent, &agent, &secret, "a passphrase of words").unwrap();
        fs::write(dir.join("agent.key"), file).unwrap();
        fs::write(dir.join("passphrase"), "a passphrase of words\n").unwrap();
        fs::write(dir.join("agent.txt"), self.sign(&statement)).unwrap();
        fs::write(dir.join("agent.der"), x509).unwrap();
        fs::write(dir.join("site.txt"), self.sign(&self.site)).unwrap();
        fs::write(dir.join("vault-population-1.txt"), self.sign(&self.vault_statement)).unwrap();
        dir
    }

    pub fn settings(&self) -> Settings {
        Settings { target: self.target.clone(), new_generation: false, spool: 32 << 20, give_up_after: Duration::from_secs(20), workers: 2 }
    }

    pub fn push(&self, home: &Path, path: &Path) -> anyhow::Result<Done> {
        self.push_with(home, path, &self.settings())
    }

    pub fn push_with(&self, home: &Path, path: &Path, settings: &Settings) -> anyhow::Result<Done> {
        let home = Home::open(home, &PassphraseSource::default())?;
        push::push(&home, path, settings, &Progress::default(), &|line| eprintln!("{line}"))
    }

    /// A reader with a grant that is open.
    pub fn granted(&self) -> (Reader, String) {
        let reader = Reader { name: name("reader-1"), keys: ReaderKeys::from_seed(&Secret::random()) };
        let vault = self.sign(&self.vault_statement);
        let covers = Covers {
            dataset: name(DATASET),
            vault_epoch: 1,
            vault: sign::open::<Vault>(vault.as_bytes(), Some("authority"), &self.authority.statements.verifying_key()).unwrap().hash,
        };
        let grant = Grant {
            site: self.site.site.clone(),
            appliance: name("lux-1"),
            purpose: "a test".into(),
            created: Moment::now(),
            open_for_seconds: 60,
            nonce: Bytes(vec![1; 16]),
            reader: reader.keys.public(&reader.name),
            covers: vec![covers],
        };
        let note = reader.keys.signing.sign_statement("reader-1", &grant);
        *self.opened.lock().unwrap() = Some((statement::hash(&statement::write(&grant)), reader_key(&reader)));
        self.admission.set_readers(&[(reader.name.clone(), grant.reader.signing)]).unwrap();
        (reader, note)
    }

    pub fn restore(&self, granted: &(Reader, String), to: &Path, only: Only) -> anyhow::Result<restore::Done> {
        self.restore_as(granted, restore::Wish { to, only, dataset: None, generation: None, stream: None, at_least: None, before: None })
    }

    pub fn restore_as(&self, (reader, grant): &(Reader, String), wish: restore::Wish) -> anyhow::Result<restore::Done> {
        let site: Signed<Site> = sign::open_edited(self.sign(&self.site).as_bytes(), Some("authority"), &self.verifying()).unwrap();
        restore::restore(reader, (&site, &self.verifying()), grant.as_bytes(), &self.target, &wish, &mut |_, _| {}, &mut |_| {})
    }

    pub fn verifying(&self) -> VerifyingKey {
        self.authority.statements.verifying_key()
    }
}

/// What an auditor needs to believe the appliance.
fn papers(authority: &AuthorityKeys, site: &Site, appliance: &SoftAppliance) -> Vec<Vec<u8>> {
    let sign = |note: String| note.into_bytes();
    let approved = [4, 11, 12, 13].map(hoidla_papers::register).to_vec();
    let release = Office::new(7).release(site, 1, approved);
    vec![
        sign(authority.statements.sign_statement("authority", site)),
        sign(authority.statements.sign_statement("authority", &release)),
        sign(authority.statements.sign_statement("authority", &appliance.enrolment(site))),
        statement::write(&appliance.identity).into_bytes(),
    ]
}

fn reader_key(reader: &Reader) -> PublicKey {
    PublicKey::from_bytes(&reader.keys.hpke.public().to_bytes()).unwrap()
}

#[derive(Clone)]
struct Server {
    store: Arc<Mutex<Store>>,
    admission: Arc<Admission>,
    acceptor: TlsAcceptor,
    vault: Arc<KeyPair>,
    opened: Arc<Mutex<Option<(Hash32, PublicKey)>>>,
    appliance: Arc<SoftAppliance>,
    papers: Arc<[Vec<u8>]>,
}

impl Server {
    async fn serve(&self, tcp: TcpStream) -> anyhow::Result<()> {
        let mut tls = self.acceptor.accept(tcp).await?;
        let role = self.admission.role(tls.get_ref().1.peer_certificates().unwrap())?;
        self.store.lock().unwrap().connections += 1;
        let mut hello = [0; HELLO.len()];
        tls.read_exact(&mut hello).await?;
        assert_eq!(hello, HELLO);
        tls.write_all(&HELLO).await?;
        let window = if matches!(role, Role::Agent { .. }) { WINDOW } else { 0 };
        let welcome = Welcome {
            site: name("lux"),
            appliance: name("lux-1"),
            site_hash: Hash32([0; 32]),
            site_serial: self.store.lock().unwrap().trouble.newer_site.unwrap_or(1),
            release: name("test"),
            development: true,
            window,
        };
        tls.write_all(&Response::Welcome(welcome).encode()).await?;
        tls.flush().await?;
        let mut session = ServerSession::new(role, window);
        loop {
            let mut head = [0; HEAD];
            tls.read_exact(&mut head).await?;
            let head = Head::parse(&head)?;
            let answers = match session.accept(head) {
                Err(refused) => vec![Response::Refused(refused)],
                Ok(()) => {
                    let mut body = vec![0; head.len];
                    tls.read_exact(&mut body).await?;
                    match head.kind {
                        Type::Append => self.append(&mut session, &body)?,
                        Type::Extend | Type::Prove | Type::Papers => self.audited(&Request::parse(head.kind, &body)?)?,
                        kind => self.answer(&mut session, Request::parse(kind, &body)?),
                    }
                }
            };
            for answer in answers {
                tls.write_all(&answer.encode()).await?;
            }
            tls.flush().await?;
        }
    }

    fn append(&self, session: &mut ServerSession, body: &[u8]) -> anyhow::Result<Vec<Response>> {
        let (head, bytes) = body.split_first_chunk::<{ AppendHead::LEN }>().unwrap();
        let head = AppendHead::parse(head)?;
        let len = bytes.len() as u32;
        let mut store = self.store.lock().unwrap();
        let refuse = |session: &mut ServerSession, refused: Refused| {
            session.refuse(head.handle);
            session.give_back(len.into());
            vec![Response::Window { bytes: len }, Response::Refused(refused.about(head.handle))]
        };
        let stream = match session.append(&head, bytes.len()) {
            Ok(Some(stream)) => stream,
            Ok(None) => {
                session.give_back(len.into());
                return Ok(vec![Response::Window { bytes: len }]);
            }
            Err(refused) => return Ok(vec![Response::Refused(refused)]),
        };
        let out_of = |left: &mut Option<usize>| match left {
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        };
        if out_of(&mut store.trouble.cut_after) {
            store.trouble.cut_after = None;
            anyhow::bail!("cut on purpose");
        }
        if out_of(&mut store.trouble.full_after) {
            store.trouble.full_after = Some(0);
            return Ok(refuse(session, Refused::new(Code::Full, "the disks are full; nothing of this was kept")));
        }
        if out_of(&mut store.trouble.close_after) {
            store.trouble.close_after = None;
            let stored = store.streams.entry(stream.stream).or_default();
            stored.closed = stored.epoch();
        }
        let mute = store.trouble.mute;
        store.appended += 1;
        let stored = store.streams.entry(stream.stream).or_default();
        stored.generation = stream.generation;
        if head.epoch <= stored.closed {
            return Ok(refuse(session, Refused::new(Code::EpochClosed, "an opening closed this epoch")));
        }
        assert_eq!(head.offset, stored.chain_length(), "frames come in order");
        let (kind, frame_body, rest) = frame::split(bytes)?;
        assert!(rest.is_empty());
        assert_eq!(kind == Kind::EpochHeader, head.epoch != stored.epoch(), "an epoch begins with its header");
        _ = frame_body;
        stored.frames.push((head.epoch, bytes.to_vec()));
        let root = stored.chain().root;
        let part = ByteRange::new(head.offset, len.into())?;
        store.log.leaves.push(Leaf { dataset: name(DATASET), stream: stream.stream, epoch: head.epoch, part, root });
        let log_size = store.log.leaves.len() as u64;
        let before = head.offset + u64::from(len);
        session.give_back(len.into());
        let window = Response::Window { bytes: len };
        Ok(if mute { vec![window] } else { vec![Response::Acknowledged { handle: head.handle, before, log_size }, window] })
    }

    /// What an auditor asks, and the lies.
    fn audited(&self, request: &Request) -> anyhow::Result<Vec<Response>> {
        let store = self.store.lock().unwrap();
        let lie = store.trouble.lie;
        anyhow::ensure!(lie != Some(Lie::Hangs), "hung up on purpose");
        Ok(match request {
            Request::Papers => {
                let left = self.papers.iter().filter(|p| lie != Some(Lie::Papers) || !p.starts_with(b"hoidla = \"enrolment"));
                let mut out: Vec<Response> = left.map(|p| Response::Paper(p.clone())).collect();
                out.push(Response::End { count: out.len() as u64 });
                out
            }
            Request::Extend { old, least } => vec![self.extension(&store.log, lie, *old, *least)],
            Request::Prove(prove) => prove_part(&store, lie, prove),
            _ => unreachable!(),
        })
    }

    fn extension(&self, log: &Log, lie: Option<Lie>, old: u64, least: u64) -> Response {
        let (mut log, mut old) = (log.clone(), old);
        if lie == Some(Lie::Fork) {
            log.leaves[0].epoch += 1;
        }
        if lie == Some(Lie::Shorter) {
            log.leaves.pop();
            old = old.min(log.leaves.len() as u64);
        }
        if lie == Some(Lie::Behind) {
            return Response::Refused(Refused::new(Code::Behind, "this log has fewer leaves"));
        }
        assert!(lie.is_some() || log.leaves.len() as u64 >= least, "never asked for more than there is");
        let counter = if lie == Some(Lie::Counter) { 3 } else { 17 };
        let site = Office::new(7).site("lux", &["lux-1"]);
        let other = |named: &str, seed| SoftAppliance::new(&site, named, seed);
        let signed = match lie {
            Some(Lie::Key) => log.signed(&other("lux-1", 6), counter),
            Some(Lie::Name) => log.signed(&other("lux-2", 5), counter),
            Some(Lie::State) => {
                let mut changed = other("lux-1", 5);
                changed.registers[0].value = Hash32([99; 32]);
                log.signed(&changed, counter)
            }
            _ => log.signed(&self.appliance, counter),
        };
        let bytes = log.extension(old, &signed).write().into_bytes();
        Response::Extension(if lie == Some(Lie::Garbage) { bytes[1..].to_vec() } else { bytes })
    }

    fn answer(&self, session: &mut ServerSession, request: Request) -> Vec<Response> {
        let store = self.store.lock().unwrap();
        let no = |code, why: &str| vec![Response::Refused(Refused::new(code, why))];
        match request {
            Request::Open(open) => {
                let stored = store.streams.get(&open.stream).cloned().unwrap_or_default();
                let chain = stored.chain();
                if open.last.length > chain.length {
                    return no(Code::Behind, "this store is behind what the agent saw acknowledged: alarm");
                }
                let last = store.trouble.last_epoch_from.is_some_and(|n| store.connections >= n);
                let opened = Opened {
                    handle: Handle(0),
                    epoch: if last { u32::MAX } else { stored.epoch() },
                    closed: last || (stored.epoch() > 0 && stored.closed >= stored.epoch()),
                    acknowledged: chain,
                };
                vec![Response::Opened(session.opened(open.dataset, open.stream, open.generation, opened).unwrap())]
            }
            Request::List { .. } => {
                let mut out: Vec<_> = store
                    .streams
                    .iter()
                    .filter(|(_, s)| !s.frames.is_empty())
                    .map(|(id, s)| {
                        Response::Stream(StreamEntry {
                            stream: *id,
                            generation: s.generation,
                            bytes: s.chain_length(),
                            kept_days: u32::MAX,
                            epochs: s.epochs(),
                        })
                    })
                    .collect();
                out.push(Response::End { count: out.len() as u64 });
                out
            }
            Request::Health => vec![Response::Health(Health { log_size: store.log.leaves.len() as u64, ..Health::default() })],
            Request::Keys { grant } => match &*self.opened.lock().unwrap() {
                Some((hash, reader)) if *hash == grant => {
                    let mut out = rewrapped(&store, &self.vault, reader, &grant);
                    out.push(Response::End { count: out.len() as u64 });
                    out
                }
                _ => no(Code::Sealed, "nothing is open for this reader"),
            },
            Request::Read(read) => {
                let all = store.streams[&read.stream].bytes();
                let (at, end) = (read.range.at() as usize, (read.range.end() as usize).min(all.len()));
                let mut out: Vec<_> = (at..end)
                    .step_by(700_001)
                    .map(|offset| Response::Data { offset: offset as u64, bytes: all[offset..end.min(offset + 700_001)].to_vec() })
                    .collect();
                out.push(Response::End { count: out.len() as u64 });
                out
            }
            _ => no(Code::NotAllowed, "not here"),
        }
    }
}

impl Stored {
    fn chain_length(&self) -> u64 {
        self.frames.iter().map(|f| f.1.len() as u64).sum()
    }
}

/// The part that covers an offset: every frame is one.
fn prove_part(store: &Store, lie: Option<Lie>, ask: &Prove) -> Vec<Response> {
    let covers = |l: &Leaf| l.stream == ask.stream && (l.part.at()..l.part.end()).contains(&ask.offset);
    let Some(mut index) = store.log.leaves.iter().position(covers).filter(|_| lie != Some(Lie::Gone)) else {
        return vec![Response::Refused(Refused::new(Code::Unknown, "nothing is kept there"))];
    };
    if lie == Some(Lie::Place) {
        index = if index == 0 { 1 } else { index - 1 };
    }
    let leaf = store.log.leaves[index].clone();
    let stored = &store.streams[&leaf.stream];
    let (mut chain, mut bytes) = (Chain::EMPTY, vec![]);
    for (_, frame) in &stored.frames {
        if chain.length == leaf.part.at() {
            bytes = frame.clone();
            break;
        }
        chain = chain.then(&Hash32(blake3::hash(frame).into()), frame.len() as u32);
    }
    let frames = vec![Entry { len: bytes.len() as u32, hash: Hash32(blake3::hash(&bytes).into()) }];
    let mut proof = store.log.inclusion(index as u64, ask.size);
    if lie == Some(Lie::Proof) {
        proof[0].0[0] ^= 1;
    }
    if lie == Some(Lie::Frame) {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let offset = leaf.part.at();
    let mut out = vec![Response::Part(Part { index: index as u64, leaf, proof, before: chain.root, frames })];
    out.extend(ask.frame.then_some(Response::Data { offset, bytes }));
    out.push(Response::End { count: out.len() as u64 });
    out
}

fn rewrapped(store: &Store, vault: &KeyPair, reader: &PublicKey, grant: &Hash32) -> Vec<Response> {
    let mut out = vec![];
    for (stream, stored) in &store.streams {
        for (epoch, bytes) in &stored.frames {
            let (Kind::EpochHeader, body, _) = frame::split(bytes).unwrap() else { continue };
            let (_, header) = frame::split_epoch_header(body).unwrap();
            let Ok(header) = sign::read_unverified::<EpochHeader>(header) else { continue };
            let h = header.statement;
            if store.trouble.keys_before.is_some_and(|first| *epoch >= first) {
                continue;
            }
            let binding = Binding { site: h.site, dataset: h.dataset.clone(), stream: h.stream, epoch: *epoch, vault_epoch: h.vault_epoch };
            let wrapped = match store.trouble.wrong_key_of {
                Some(wrong) if wrong == *epoch => datakey::wrap(&DataKey::random(), vault.public(), &binding),
                _ => h.wrapped_key.0,
            };
            let mut sealed = datakey::rewrap_to_reader(vault, &binding, &wrapped, reader, grant).unwrap();
            if store.trouble.bad_key_of == Some(*epoch) {
                *sealed.last_mut().unwrap() ^= 1;
            }
            out.push(Response::Key(Key { dataset: h.dataset, stream: *stream, epoch: *epoch, sealed }));
        }
    }
    out
}

/// Bytes that don't compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A folder with some of everything.
pub fn folder(root: &Path, seed: u64) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("noise"), noise(seed, 12_000_000)).unwrap();
    fs::write(root.join("text"), format!("{seed} words\n").repeat(50_000)).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("deep/er/small"), "small").unwrap();
    std::os::unix::fs::symlink("deep", root.join("link")).unwrap();
}

/// Whether two folders hold the same names and bytes.
pub fn same(a: &Path, b: &Path) {
    let list = |root: &Path| {
        let (mut out, mut todo) = (vec![], vec![root.to_owned()]);
        while let Some(path) = todo.pop() {
            let m = path.symlink_metadata().unwrap();
            if m.is_dir() {
                todo.extend(path.read_dir().unwrap().map(|e| e.unwrap().path()));
            }
            let content = m.is_file().then(|| fs::read(&path).unwrap());
            out.push((path.strip_prefix(root).unwrap().to_owned(), m.modified().unwrap(), content));
        }
        out.sort();
        out
    };
    assert!(list(a) == list(b), "{} and {} differ", a.display(), b.display());
}
