//! What an agent remembers of a stream: how far it is acknowledged.
//!
//! A store that presents less is behind, and the agent says so; so this file is
//! synced. Everything else at home (spool, index, cache) may be lost.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hoidla_crypto::{Secret, labels::AGENT_INDEX, wrap};
use hoidla_format::{Hash32, Kind, Malformed, Reader, StreamId, Writer, frame::Chain};
use hoidla_snapshot::GenerationKey;

const VERSION: u8 = 1;
const STREAMS: &str = "streams";

/// One stream as its agent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The stream.
    pub stream: StreamId,
    /// Its generation.
    pub generation: u32,
    /// What the embassy has acknowledged.
    pub acknowledged: Chain,
    /// How much of that the agent's key has signed.
    pub signed: u64,
    /// How much of that ends with a whole snapshot.
    pub complete: u64,
    /// The run of the last acknowledged message.
    pub run: u32,
    /// How many messages of that run are acknowledged.
    pub messages: u32,
}

impl State {
    /// A new stream's.
    pub fn new(generation: u32) -> Self {
        let mut id = [0; 16];
        hoidla_crypto::random(&mut id);
        Self { stream: StreamId(id), generation, acknowledged: Chain::EMPTY, signed: 0, complete: 0, run: 0, messages: 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::Spool, VERSION);
        w.put(&self.stream.0).u32(self.generation).u64(self.acknowledged.length).put(&self.acknowledged.root.0);
        w.u64(self.signed).u64(self.complete).u32(self.run).u32(self.messages);
        let mut bytes = w.finish();
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::Spool, VERSION)?;
        let state = Self {
            stream: StreamId(r.array()?),
            generation: r.u32()?,
            acknowledged: Chain { length: r.u64()?, root: Hash32(r.array()?) },
            signed: r.u64()?,
            complete: r.u64()?,
            run: r.u32()?,
            messages: r.u32()?,
        };
        let hashed = bytes.len() - r.left();
        let hash: [u8; 32] = r.array()?;
        r.finish()?;
        if blake3::hash(&bytes[..hashed]) == hash { Ok(state) } else { Err(Malformed::Field("the agent's record of a stream is damaged")) }
    }

    /// The key that cuts and names this stream's chunks.
    pub fn generation_key(&self, index: &Secret<32>) -> GenerationKey {
        GenerationKey::from_secret(wrap::derive(AGENT_INDEX, &[index.expose()], &[&self.stream.0]))
    }

    /// Where this stream's things are kept.
    pub fn dir(&self, home: &Path) -> PathBuf {
        home.join(STREAMS).join(self.stream.to_string())
    }

    /// Writes it down; with `sync`, so that a power cut doesn't lose it.
    pub fn save(&self, home: &Path, sync: bool) -> Result<()> {
        let (dir, bytes) = (self.dir(home), self.bytes());
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&dir)?;
            let mut file = File::create(dir.join("state.new"))?;
            file.write_all(&bytes)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(dir.join("state.new"), dir.join("state"))?;
            if sync {
                File::open(&dir)?.sync_all()?;
            }
            Ok(())
        };
        write().with_context(|| format!("cannot write the stream's record in {}", dir.display()))
    }

    /// All streams that this agent knows, newest generation first.
    pub fn all(home: &Path) -> Result<Vec<Self>> {
        let mut all = vec![];
        let Ok(dirs) = fs::read_dir(home.join(STREAMS)) else { return Ok(all) };
        for dir in dirs {
            let path = dir?.path().join("state");
            if path.is_file() {
                let bytes = super::home::read_bounded(&path)?;
                let parsed = Self::parse(&bytes).with_context(|| {
                    format!("{}: move it away, and push with --new-generation; nothing in the embassy is lost", path.display())
                });
                all.push(parsed?);
            }
        }
        all.sort_by_key(|s| std::cmp::Reverse(s.generation));
        Ok(all)
    }

    /// Drops what only spared work: index, cache and spool of a stream that gets no more.
    pub fn retire(&self, home: &Path) {
        let dir = self.dir(home);
        for file in ["index", "files", "files.new"] {
            _ = fs::remove_file(dir.join(file));
        }
        _ = fs::remove_dir_all(dir.join("spool"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::new(3);
        state.acknowledged = Chain { length: 9, root: Hash32([4; 32]) };
        state.save(dir.path(), true).unwrap();
        State::new(2).save(dir.path(), false).unwrap();
        let all = State::all(dir.path()).unwrap();
        assert_eq!((all.len(), all[0]), (2, state));
        let bytes = state.bytes();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(State::parse(&bad).is_err(), "flipped at {at}");
            assert!(State::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
