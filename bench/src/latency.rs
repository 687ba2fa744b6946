//! One agent over loopback TLS that appends a record of 1,000 bytes at a time, against
//! what one write and one flush of a disk cost fio at depth 1.
//!
//! The programs are set up as their users do it; the agent's half is this one: a record
//! is sealed, framed, sent, kept on both disks, flushed, acknowledged. Each round
//! measures both sides, one after the other.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use hoidla_agent::home::Home;
use hoidla_cli::PassphraseSource;
use hoidla_crypto::{
    datakey::{self, Binding, DataKey},
    sealing::{Provider, Sealer},
};
use hoidla_door::{Connection, connect};
use hoidla_format::{
    Bytes, Hash32, Kind, Moment, StreamId,
    frame::{self, Chain},
    statements::EpochHeader,
};
use hoidla_protocol::{Handle, Open, Request, Response};
use serde_json::Value;

use crate::{
    push::set_up,
    rows::{Row, Target, low_median_high},
    setup::Scratch,
};

/// Bytes of a record.
const RECORD: usize = 1000;
/// Records of a round; the first tenth is not counted.
const RECORDS: usize = 5000;

/// The row.
pub async fn rows(folder: &Path, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    eprintln!("setting up a site, an appliance and an agent");
    let stage = set_up(&scratch.path().join("stage"), 1 << 30)?;
    let home = Home::open(&stage.at("home/agent"), &PassphraseSource::default())?;
    let (mut ours, mut fio) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("one record at a time, round {round} of {rounds}");
        ours.push(Agent::enter(&home, round as u8).await?.round().await?);
        fio.push(write_and_flush(scratch.path())?);
    }
    let ratios: Vec<_> = ours.iter().zip(&fio).map(|(o, f)| o / f).collect();
    let middle = |all: &[f64]| low_median_high(all).1 / 1e3;
    let note = format!(
        "{:.0} us from sealing to acknowledgement on both disks, p50; fio {:.0} us (4 KiB write and fdatasync, one disk, p50s added); \
         limit: two flushes, and wake-ups of five threads in two processes",
        middle(&ours),
        middle(&fio)
    );
    Ok(vec![Row::over("append_1k_p50_vs_fio", &ratios, Target::AtMost(3.0), note)])
}

struct Agent<'h> {
    home: &'h Home,
    line: Connection,
    handle: Handle,
    stream: StreamId,
    sealer: Sealer,
    chain: Chain,
}

impl<'h> Agent<'h> {
    /// With a new stream, open, its first epoch begun.
    async fn enter(home: &'h Home, number: u8) -> Result<Self> {
        let mut line = connect(&home.target(None)?, &home.identity()?).await?;
        let stream = StreamId([number; 16]);
        let open = Open { dataset: home.dataset().clone(), stream, generation: 1, last: Chain::EMPTY };
        let Response::Opened(opened) = line.ask(&Request::Open(open)).await? else { bail!("no answer to open") };
        line.session.opened(stream, &Chain::EMPTY, &opened)?;
        let key = DataKey::random();
        let sealer = Sealer::new(&key, Provider::default());
        let mut agent = Self { home, line, handle: opened.handle, stream, sealer, chain: Chain::EMPTY };
        let header = agent.header(&key);
        agent.append(&header).await?;
        Ok(agent)
    }

    fn header(&self, key: &DataKey) -> Vec<u8> {
        let (home, vault) = (self.home, &self.home.vault);
        let name = &home.agent.statement.agent;
        let (site, dataset) = (home.site.statement.site.clone(), home.dataset().clone());
        let binding = Binding { site, dataset, stream: self.stream, epoch: 1, vault_epoch: vault.statement.vault_epoch };
        let header = EpochHeader {
            site: binding.site.clone(),
            dataset: binding.dataset.clone(),
            stream: self.stream,
            generation: 1,
            epoch: 1,
            start: 0,
            previous_root: Chain::EMPTY.root,
            vault_epoch: binding.vault_epoch,
            vault: vault.hash,
            wrapped_key: Bytes(datakey::wrap(key, &home.vault_key, &binding)),
            agent: name.clone(),
            created: Moment::now(),
        };
        let signed = home.keys.signing.sign_statement(name.as_str(), &header);
        let body = frame::join_epoch_header(home.agent.note.as_bytes(), signed.as_bytes());
        [&frame::head(Kind::EpochHeader, body.len())[..], &body].concat()
    }

    /// The median, in nanoseconds.
    async fn round(mut self) -> Result<f64> {
        let mut took = Vec::with_capacity(RECORDS);
        for n in 0..RECORDS {
            let record = [n as u8; RECORD];
            let began = Instant::now();
            let mut sealed = Vec::with_capacity(2 * RECORD);
            let aad = frame::message_aad(self.home.dataset(), self.stream, 1, self.chain.length);
            self.sealer.seal(&aad, &record, &mut sealed)?;
            let bytes = [&frame::head(Kind::Message, sealed.len())[..], &sealed].concat();
            self.append(&bytes).await?;
            took.push(began.elapsed().as_nanos() as f64);
        }
        self.line.writer.close().await?;
        Ok(low_median_high(&took[RECORDS / 10..]).1)
    }

    async fn append(&mut self, frame: &[u8]) -> Result<()> {
        while !self.line.session.may_append(frame.len()) {
            self.hear().await?;
        }
        let head = self.line.session.append(self.handle, 1, self.chain.length, frame.len());
        self.chain = self.chain.then(&Hash32(blake3::hash(frame).into()), frame.len() as u32);
        self.line.writer.append(&head, frame).await?;
        self.line.writer.flush().await?;
        while self.hear().await? < self.chain.length {}
        Ok(())
    }

    /// Takes one answer; gives up to where the stream is acknowledged.
    async fn hear(&mut self) -> Result<u64> {
        let answer = self.line.reader.next().await?;
        self.line.session.received(&answer)?;
        if let Response::Refused(refused) = answer {
            bail!("refused: {refused}");
        }
        Ok(self.line.session.stands(self.handle).context("the stream is open")?.2)
    }
}

/// fio's p50 of a 4 KiB write, and of the fdatasync after it, in nanoseconds.
fn write_and_flush(folder: &Path) -> Result<f64> {
    let mut fio = Command::new("fio");
    fio.current_dir(folder).args(["--name=one", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1", "--thread"]);
    fio.args(["--filename=fio.one", "--rw=write", "--bs=4k", "--iodepth=1", "--fdatasync=1", "--overwrite=1", "--output-format=json"]);
    let done = fio.arg("--size=32m").output().context("fio does not start: install the package fio")?;
    ensure!(done.status.success(), "fio failed: {}", String::from_utf8_lossy(&done.stderr));
    medians(&serde_json::from_slice(&done.stdout)?)
}

fn medians(answer: &Value) -> Result<f64> {
    let job = &answer["jobs"][0];
    let p50 = |v: &Value| v["percentile"]["50.000000"].as_f64().filter(|n| *n > 0.0).context("fio's answer has no median");
    Ok(p50(&job["write"]["clat_ns"])? + p50(&job["sync"]["lat_ns"])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_medians_are_needed() {
        let p50 = |n: f64| json!({"percentile": {"50.000000": n}});
        let job = |sync: f64| json!({"jobs": [{"write": {"clat_ns": p50(30e3)}, "sync": {"lat_ns": p50(sync)}}]});
        assert_eq!(medians(&job(25e3)).unwrap(), 55e3);
        assert!(medians(&job(0.0)).is_err());
    }
}
