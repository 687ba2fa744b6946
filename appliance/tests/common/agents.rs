//! An agent at home, and what it sends.

use hoidla_crypto::{
    datakey::{self, Binding, DataKey},
    hpke,
    keys::AgentKeys,
    sealing::{Provider, Sealer},
};
use hoidla_door::{Connection, DoorError, Identity};
use hoidla_format::{
    Bytes, Hash32, Kind, Moment, Name, StreamId, frame,
    frame::Chain,
    statement,
    statements::{EpochHeader, StreamRoot, Vault},
};
use hoidla_protocol::{Open, Opened, Refused, Request, Response};

/// An agent at home.
pub struct Agent {
    pub keys: AgentKeys,
    pub note: String,
    pub door: Identity,
    pub dataset: Name,
    pub name: Name,
    pub site: Name,
    /// What its clock says; the right time if nothing.
    pub clock: Option<Moment>,
}

/// One stream as its agent writes it.
pub struct Writing {
    pub stream: StreamId,
    pub epoch: u32,
    pub chain: Chain,
    pub key: DataKey,
}

impl Writing {
    pub fn new(stream: u8) -> Self {
        Self { stream: StreamId([stream; 16]), epoch: 0, chain: Chain::EMPTY, key: DataKey::random() }
    }

    fn took(&mut self, frame: &[u8]) {
        self.chain = self.chain.then(&Hash32(blake3_of(frame)), frame.len() as u32);
    }
}

pub fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl Agent {
    /// The header frame of the next epoch.
    pub fn header(&self, w: &mut Writing, vault: &Vault) -> Vec<u8> {
        w.epoch += 1;
        w.key = DataKey::random();
        let binding = Binding {
            site: self.site.clone(),
            dataset: self.dataset.clone(),
            stream: w.stream,
            epoch: w.epoch,
            vault_epoch: vault.vault_epoch,
        };
        let public = hpke::PublicKey::from_bytes(&vault.public_key.0).unwrap();
        let header = EpochHeader {
            site: self.site.clone(),
            dataset: self.dataset.clone(),
            stream: w.stream,
            generation: 1,
            epoch: w.epoch,
            start: w.chain.length,
            previous_root: w.chain.root,
            vault_epoch: vault.vault_epoch,
            vault: statement::hash(&statement::write(vault)),
            wrapped_key: Bytes(datakey::wrap(&w.key, &public, &binding)),
            agent: self.name.clone(),
            created: self.clock.unwrap_or_else(Moment::now),
        };
        let signed = self.keys.signing.sign_statement(self.name.as_str(), &header);
        let body = frame::join_epoch_header(self.note.as_bytes(), signed.as_bytes());
        let bytes = [&frame::head(Kind::EpochHeader, body.len())[..], &body].concat();
        w.took(&bytes);
        bytes
    }

    /// One sealed message as a frame.
    pub fn message(&self, w: &mut Writing, plaintext: &[u8]) -> Vec<u8> {
        let aad = frame::message_aad(&self.dataset, w.stream, w.epoch, w.chain.length);
        let mut sealed = Vec::new();
        Sealer::new(&w.key, Provider::AwsLc).seal(&aad, plaintext, &mut sealed).unwrap();
        let bytes = [&frame::head(Kind::Message, sealed.len())[..], &sealed].concat();
        w.took(&bytes);
        bytes
    }

    /// The signed root so far.
    pub fn root(&self, w: &mut Writing) -> Vec<u8> {
        let root = StreamRoot {
            dataset: self.dataset.clone(),
            stream: w.stream,
            epoch: w.epoch,
            length: w.chain.length,
            root: w.chain.root,
            complete: true,
            created: self.clock.unwrap_or_else(Moment::now),
        };
        let body = self.keys.signing.sign_statement(self.name.as_str(), &root).into_bytes();
        let bytes = [&frame::head(Kind::StreamRoot, body.len())[..], &body].concat();
        w.took(&bytes);
        bytes
    }
}

/// Opens a stream for writing.
pub async fn open_stream(c: &mut Connection, dataset: &Name, w: &Writing, last: Chain) -> Result<Opened, DoorError> {
    let ask = Open { dataset: dataset.clone(), stream: w.stream, generation: 1, last };
    match c.ask(&Request::Open(ask)).await? {
        Response::Opened(opened) => {
            c.session.opened(w.stream, &last, &opened)?;
            Ok(opened)
        }
        other => panic!("not an answer to open: {other:?}"),
    }
}

/// Sends one frame and waits for its acknowledgement.
pub async fn append(c: &mut Connection, opened: &Opened, epoch: u32, offset: u64, frame: &[u8]) -> Result<u64, Refused> {
    let head = c.session.append(opened.handle, epoch, offset, frame.len());
    c.writer.append(&head, frame).await.unwrap();
    c.writer.flush().await.unwrap();
    let mut kept = None;
    loop {
        let answer = c.reader.next().await.unwrap();
        c.session.received(&answer).unwrap();
        match answer {
            Response::Acknowledged { before, .. } => kept = Some(Ok(before)),
            Response::Refused(refused) if refused.code.ends() => return Err(refused),
            Response::Refused(refused) => kept = Some(Err(refused)),
            Response::Window { .. } => {
                if let Some(kept) = kept {
                    return kept;
                }
            }
            other => panic!("not an answer to append: {other:?}"),
        }
    }
}

/// A stream of three leaves.
pub async fn three_leaves(e: &super::Embassy, c: &mut Connection, agent: &Agent, stream: u8) {
    let mut w = Writing::new(stream);
    let opened = open_stream(c, &agent.dataset, &w, w.chain).await.unwrap();
    for n in 0..3 {
        let at = w.chain.length;
        let bytes = if n == 0 { agent.header(&mut w, &e.vaults[0]) } else { agent.message(&mut w, &[n; 3000]) };
        append(c, &opened, 1, at, &bytes).await.unwrap();
    }
}
