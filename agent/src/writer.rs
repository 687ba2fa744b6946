//! The writing end of a stream: messages sealed into frames, epochs and roots signed.
//!
//! Promises: an epoch's key is fresh, wrapped to the vault in a header that the
//! agent signs, and never written down; what the embassy would not take because an
//! opening closed the epoch is opened and sealed again under the next one's key.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hoidla_crypto::{
    datakey::{self, Binding, DataKey},
    sealing::{Provider, Sealer, sealed_len},
};
use hoidla_format::{
    Bytes, Hash32, Kind, Moment, Name, StreamId,
    frame::{self, Chain},
    statements::{EpochHeader, StreamRoot},
};

use crate::{
    home::Home,
    spool::{About, Spool, What},
};

/// A signed root at least so often.
const ROOT_EVERY: u64 = 64 << 20;

/// See the module.
pub struct StreamWriter<'h> {
    home: &'h Home,
    spool: Arc<Spool>,
    stream: StreamId,
    generation: u32,
    epoch: u32,
    sealer: Sealer,
    chain: Chain,
    since_root: u64,
}

impl<'h> StreamWriter<'h> {
    /// Begins `epoch` where the spool ends.
    pub fn begin(home: &'h Home, spool: Arc<Spool>, stream: StreamId, generation: u32, epoch: u32) -> Result<Self> {
        let sealer = Sealer::new(&DataKey::random(), Provider::default()); // replaced before its first use
        let chain = spool.end();
        let mut writer = Self { home, spool, stream, generation, epoch, sealer, chain, since_root: 0 };
        writer.next_epoch(epoch)?;
        Ok(writer)
    }

    /// The epoch that is being written.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn dataset(&self) -> &'h Name {
        self.home.dataset()
    }

    fn next_epoch(&mut self, epoch: u32) -> Result<()> {
        let (home, vault) = (self.home, &self.home.vault);
        let key = DataKey::random();
        let binding = Binding {
            site: home.site.statement.site.clone(),
            dataset: self.dataset().clone(),
            stream: self.stream,
            epoch,
            vault_epoch: vault.statement.vault_epoch,
        };
        let header = EpochHeader {
            site: binding.site.clone(),
            dataset: binding.dataset.clone(),
            stream: self.stream,
            generation: self.generation,
            epoch,
            start: self.chain.length,
            previous_root: self.chain.root,
            vault_epoch: binding.vault_epoch,
            vault: vault.hash,
            wrapped_key: Bytes(datakey::wrap(&key, &home.vault_key, &binding)),
            agent: home.agent.statement.agent.clone(),
            created: Moment::now(),
        };
        let note = home.keys.signing.sign_statement(home.agent.statement.agent.as_str(), &header);
        self.epoch = epoch;
        self.sealer = Sealer::new(&key, Provider::default());
        self.add(Kind::EpochHeader, &frame::join_epoch_header(home.agent.note.as_bytes(), note.as_bytes()), What::Header)
    }

    /// Seals one message of a run; signs a root now and then, and at the end.
    pub fn message(&mut self, plaintext: &[u8], run: u32, number: u32, last: bool) -> Result<()> {
        let sealed = sealed_len(plaintext.len());
        let mut bytes = self.spool.buffer(frame::HEAD + sealed);
        bytes[..frame::HEAD].copy_from_slice(&frame::head(Kind::Message, sealed));
        let aad = frame::message_aad(self.dataset(), self.stream, self.epoch, self.chain.length);
        self.sealer.seal_into(&aad, plaintext, &mut bytes[frame::HEAD..])?;
        self.frame(bytes, What::Message { run, number })?;
        if last || self.since_root >= ROOT_EVERY {
            self.root(last)?;
        }
        Ok(())
    }

    fn root(&mut self, complete: bool) -> Result<()> {
        let root = StreamRoot {
            dataset: self.dataset().clone(),
            stream: self.stream,
            epoch: self.epoch,
            length: self.chain.length,
            root: self.chain.root,
            complete,
            created: Moment::now(),
        };
        let note = self.home.keys.signing.sign_statement(self.home.agent.statement.agent.as_str(), &root);
        self.add(Kind::StreamRoot, note.as_bytes(), What::Root { complete })?;
        self.since_root = 0;
        Ok(())
    }

    fn add(&mut self, kind: Kind, body: &[u8], what: What) -> Result<()> {
        self.frame([&frame::head(kind, body.len()), body].concat(), what)
    }

    fn frame(&mut self, bytes: Vec<u8>, what: What) -> Result<()> {
        let (offset, len) = (self.chain.length, bytes.len() as u32);
        self.chain = self.chain.then(&Hash32(blake3::hash(&bytes).into()), len);
        self.since_root += u64::from(len);
        self.spool.add(About { epoch: self.epoch, offset, len, after: self.chain, what }, bytes)
    }

    /// The embassy closed the epoch where the stream `stands`: what was sealed after that
    /// is sealed again, under a fresh key, from there.
    pub fn reseal(&mut self, stands: Chain, epoch: u32) -> Result<()> {
        let old = (std::mem::replace(&mut self.sealer, Sealer::new(&DataKey::random(), Provider::default())), self.epoch);
        let held = self.spool.reset(stands);
        (self.chain, self.since_root) = (stands, 0);
        self.next_epoch(epoch)?;
        for kept in held {
            let bytes = kept.bytes()?;
            match kept.about.what {
                What::Message { run, number } if kept.about.epoch == old.1 => {
                    let plaintext = self.open(&old.0, &kept.about, &bytes)?;
                    self.message(&plaintext, run, number, false)?;
                }
                What::Root { complete: true } => self.root(true)?,
                What::Header | What::Root { .. } => {}
                What::Message { .. } => bail!("an older epoch's messages were pending when this one was closed; push again"),
            }
            kept.release();
        }
        Ok(())
    }

    fn open(&self, sealer: &Sealer, about: &About, bytes: &[u8]) -> Result<Vec<u8>> {
        let (_, body, _) = frame::split(bytes)?;
        let aad = frame::message_aad(self.dataset(), self.stream, about.epoch, about.offset);
        let mut plaintext = vec![];
        sealer.open(&aad, body, &mut plaintext).context("a message of the spool")?;
        Ok(plaintext)
    }
}
