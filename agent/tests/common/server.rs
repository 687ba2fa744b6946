//! The appliance behind the door: sessions over what it holds, and its lies.

use std::sync::{Arc, Mutex};

use hoidla_crypto::{
    datakey::{self, Binding, DataKey},
    hpke::{KeyPair, PublicKey},
    keys::AuthorityKeys,
    sign,
};
use hoidla_door::Admission;
use hoidla_format::{
    ByteRange, Hash32, Kind, Leaf,
    disk::batch::Entry,
    frame::{self, Chain},
    statement,
    statements::{EpochHeader, Site},
};
use hoidla_papers::{Log, Office, SoftAppliance};
use hoidla_protocol::{
    AppendHead, Code, HEAD, HELLO, Handle, Head, Health, Key, Opened, Part, Prove, Refused, Request, Response, Role, ServerSession,
    StreamEntry, Type, Welcome,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{DATASET, Lie, Store, name};

const WINDOW: u32 = 8 << 20;

/// What an auditor needs to believe the appliance.
pub fn papers(authority: &AuthorityKeys, site: &Site, appliance: &SoftAppliance) -> Vec<Vec<u8>> {
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

#[derive(Clone)]
pub struct Server {
    pub store: Arc<Mutex<Store>>,
    pub admission: Arc<Admission>,
    pub acceptor: TlsAcceptor,
    pub vault: Arc<KeyPair>,
    pub opened: Arc<Mutex<Option<(Hash32, PublicKey)>>>,
    pub appliance: Arc<SoftAppliance>,
    pub papers: Arc<[Vec<u8>]>,
}

impl Server {
    pub async fn serve(&self, tcp: TcpStream) -> anyhow::Result<()> {
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
