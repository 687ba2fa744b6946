//! Holding the embassy to its word: checkpoints, receipts, samples, and what to show an auditor.
//!
//! Promises: a checkpoint counts only if it is signed by the attestation key that the authority
//! has on record and extends the one kept here; whatever contradicts that is an [`Alarm`], with
//! both sides kept as evidence. A receipt counts only if it leads from what this agent saw
//! acknowledged to such a checkpoint. It cannot tell what happened before its first checkpoint,
//! nor that bytes are there which it didn't sample.

mod alarm;
mod command;
mod evidence;
mod heads;
mod kept;
mod sample;
mod schedule;
mod seen;
mod witness;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, anyhow, bail};
use hoidla_crypto::sign::VerifyingKey;
use hoidla_door::{Connection, DoorError, Target, connect};
use hoidla_format::{StreamId, frame::Chain};
use hoidla_log::Receipt;
use hoidla_protocol::{Code, Part, Prove, Request, Response, StreamEntry, client::Broken};
use hoidla_verify::Known;
use tokio::{runtime::Runtime, time::timeout};

pub use alarm::Alarm;
pub(crate) use command::refused_push;
pub use command::{Arguments, after_push, run, run_witness};
pub use heads::{Head, Led};
pub use kept::Kept;
pub use schedule::{Carried, WITNESSES, carry_due};
pub use witness::Other;

use crate::home::Home;

/// How long the appliance may take for one answer; it waits for a checkpoint up to a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// The most streams of one dataset in a listing; as many receipts an auditor reads.
const MOST_STREAMS: usize = 100_000;

/// One visit to an appliance.
pub struct Auditor<'h> {
    home: &'h Home,
    kept: Kept,
    authority: VerifyingKey,
    runtime: Runtime,
    connection: Connection,
}

impl<'h> Auditor<'h> {
    /// Enters the door, and takes the appliance's papers in.
    pub fn enter(home: &'h Home, target: &Target) -> Result<Self> {
        let kept = Kept::of(&home.dir, &home.site.statement.site, &target.appliance)?;
        let authority = VerifyingKey::from_sec1(&home.site.statement.authority.0)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(connect(target, &home.identity()?))?;
        let mut auditor = Self { home, kept, authority, runtime, connection };
        let papers = auditor.papers()?;
        auditor.kept.add_papers(&auditor.authority, &papers)?;
        Ok(auditor)
    }

    /// What is kept at home of this appliance.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    fn papers(&mut self) -> Result<Vec<Vec<u8>>> {
        let (mut papers, mut bytes) = (vec![], 0);
        self.parts(&Request::Papers, |part| match part {
            Response::Paper(paper) if papers.len() < kept::MOST_PAPERS && bytes + paper.len() <= kept::MOST_PAPER_BYTES => {
                bytes += paper.len();
                papers.push(paper);
                Ok(())
            }
            _ => Err(Broken::Protocol("something else than papers, or too many").into()),
        })?;
        Ok(papers)
    }

    fn ask(&mut self, request: &Request) -> Result<Response, DoorError> {
        let ask = async { timeout(PATIENCE, self.connection.ask(request)).await };
        self.runtime.block_on(ask).unwrap_or(Err(DoorError::Slow("the appliance's answer")))
    }

    fn parts(&mut self, request: &Request, part: impl FnMut(Response) -> Result<(), DoorError>) -> Result<u64, DoorError> {
        let ask = async { timeout(PATIENCE, self.connection.ask_parts(request, part)).await };
        self.runtime.block_on(ask).unwrap_or(Err(DoorError::Slow("the appliance's answer")))
    }

    /// Leaves of the log now.
    pub fn log_size(&mut self) -> Result<u64> {
        match self.ask(&Request::Health)? {
            Response::Health(health) => Ok(health.log_size),
            _ => bail!("the appliance answered something else than was asked; tell the authority"),
        }
    }

    /// The streams of the dataset that the appliance says it has.
    pub fn streams(&mut self) -> Result<Vec<StreamEntry>> {
        let (mut streams, dataset) = (vec![], self.home.dataset().clone());
        self.parts(&Request::List { dataset }, |part| match part {
            Response::Stream(stream) if streams.len() < MOST_STREAMS => {
                streams.push(stream);
                Ok(())
            }
            _ => Err(Broken::Protocol("something else in a listing, or too many streams").into()),
        })?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = streams.iter().find(|s: &&StreamEntry| !seen.insert(s.stream)) {
            bail!("the appliance lists stream {} twice; tell the authority", twice.stream);
        }
        streams.sort_by_key(|s| (s.generation, s.stream));
        Ok(streams)
    }

    /// The part of a stream that covers an offset, proven under a head; and the frame there, if wanted.
    /// What doesn't fit is an alarm.
    fn part(&mut self, head: &Head, stream: StreamId, offset: u64, frame: bool) -> Result<(Part, Receipt, Option<Vec<u8>>)> {
        let (dataset, size) = (self.home.dataset().clone(), head.signed.head().size);
        let (mut found, mut bytes) = (None, None);
        let prove = Prove { dataset: dataset.clone(), stream, offset, size, frame };
        let shown = self.parts(&Request::Prove(prove), |part| match part {
            Response::Part(part) if found.is_none() => {
                found = Some(part);
                Ok(())
            }
            Response::Data { offset, bytes: data } if frame && found.is_some() && bytes.is_none() => {
                bytes = Some((offset, data));
                Ok(())
            }
            _ => Err(Broken::Protocol("something else than the part that was asked for").into()),
        });
        match shown {
            // It was acknowledged, or listed before this head was signed.
            Err(DoorError::Refused(no)) if matches!(no.code, Code::Unknown | Code::Damaged) => {
                let what = format!("it no longer shows byte {offset} of stream {stream}, which it had: {}", no.sentence);
                return Err(self.kept.alarm(what, head.signed.write().as_bytes()).into());
            }
            shown => _ = shown?,
        }
        let part = found.ok_or_else(|| anyhow!("the appliance gave no proof for byte {offset} of stream {stream}"))?;
        let about = (&part.leaf.dataset, part.leaf.stream) == (&dataset, stream);
        let covers = (part.leaf.part.at()..part.leaf.part.end()).contains(&offset);
        let receipt = match part.receipt(&head.signed) {
            Ok(receipt) if about && covers => receipt,
            Ok(receipt) => {
                let what = format!("asked about byte {offset} of stream {stream}, it proved something about another place");
                return Err(self.kept.alarm(what, receipt.write().as_bytes()).into());
            }
            Err(e) => {
                let what = format!("byte {offset} of stream {stream} is not in its log: {e}");
                return Err(self.kept.alarm(what, &part.leaf.to_bytes()).into());
            }
        };
        let data = match bytes {
            None if frame => bail!("the appliance sent no frame for byte {offset} of stream {stream}"),
            Some((at, data)) => Some(self.whole(&part, offset, at, data)?),
            None => None,
        };
        Ok((part, receipt, data))
    }

    /// The frame, if it is the one that the log names at this offset.
    fn whole(&self, part: &Part, offset: u64, at: u64, data: Vec<u8>) -> Result<Vec<u8>> {
        let hash = blake3::hash(&data);
        let fits = |(begin, frame): (u64, hoidla_format::disk::batch::Entry)| {
            begin == at && frame.len as usize == data.len() && hash == frame.hash.0
        };
        if part.frame_at(offset).is_some_and(fits) {
            return Ok(data);
        }
        let what = format!("the frame at byte {offset} of stream {} is not the one that it had committed to", part.leaf.stream);
        Err(self.kept.alarm(what, &data).into())
    }

    /// A receipt for all that was acknowledged of a stream, kept at home.
    pub fn receipt(&mut self, head: &Head, stream: StreamId, acknowledged: Chain) -> Result<Receipt> {
        let (part, receipt, _) = self.part(head, stream, acknowledged.length - 1, false)?;
        if !passes(&part, acknowledged) {
            let what =
                format!("its log has other bytes of stream {stream} than this agent saw acknowledged, up to byte {}", acknowledged.length);
            return Err(self.kept.alarm(what, receipt.write().as_bytes()).into());
        }
        self.kept.keep_receipt(&receipt)?;
        Ok(receipt)
    }
}

/// Whether a stream stood exactly so at some frame of a part.
fn passes(part: &Part, stood: Chain) -> bool {
    let mut chain = Chain { root: part.before, length: part.leaf.part.at() };
    part.frames.iter().any(|f| {
        chain = chain.then(&f.hash, f.len);
        chain == stood
    })
}

/// The papers at home, as an auditor needs them.
impl Kept {
    /// What they say.
    pub fn known(&self, authority: &VerifyingKey) -> Result<Known> {
        let (own, others) = (self.papers()?, self.seen_papers()?);
        Ok(Known::gather(authority, own.iter().chain(&others).map(|(_, p)| p.as_slice()))?)
    }
}
