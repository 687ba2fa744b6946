//! Carrying a head to another appliance, to be seen and signed there.
//!
//! Promises: what comes back counts only if it is the same head with a line by the other
//! appliance's attestation key; a head that the other one saw before, and that ours doesn't
//! extend, is an alarm. The carrier is not trusted by either.

use anyhow::{Result, anyhow, bail, ensure};
use hoidla_cli::NextStep;
use hoidla_door::DoorError;
use hoidla_log::{Extension, SignedCheckpoint};
use hoidla_protocol::{Code, Request, Response, Witness, audit::MOST_PAPERS};
use hoidla_verify::{Known, checkpoint};

use super::{Auditor, Head};

/// How often the other appliance may have seen a newer head meanwhile.
const TRIES: usize = 3;

/// The appliance that shall see the head.
pub struct Other<'a> {
    /// What its line is named.
    pub origin: String,
    /// Its papers.
    pub papers: Vec<Vec<u8>>,
    /// Asks it.
    pub ask: &'a mut dyn FnMut(&Request) -> Result<Response, DoorError>,
}

impl Auditor<'_> {
    /// Has a head of this appliance seen by another; keeps it with that one's line.
    pub fn witnessed(&mut self, head: &Head, other: &mut Other<'_>) -> Result<SignedCheckpoint> {
        let papers: Vec<Vec<u8>> = self.kept.papers()?.into_iter().map(|(_, paper)| paper).collect();
        ensure!(papers.len() <= MOST_PAPERS, "too many papers of this appliance are kept: move old releases out of audit/.../papers");
        let mut extension = Extension { old: 0, proof: vec![], checkpoint: head.signed.clone() };
        for _ in 0..TRIES {
            let bytes = extension.write().into_bytes();
            let answer = match (other.ask)(&Request::Witness(Witness { papers: papers.clone(), extension: bytes })) {
                Ok(Response::Witnessed(note)) => SignedCheckpoint::parse(&note)?,
                Ok(_) => bail!("{} answered something else than was asked; tell the authority", other.origin),
                Err(DoorError::Refused(no)) if no.code == Code::Fork => {
                    let what = format!("{} says, unsigned, that it saw another head of its log before: {}", other.origin, no.sentence);
                    return Err(self.kept.alarm(what, extension.write().as_bytes()).into());
                }
                Err(e) => return Err(e.into()),
            };
            if answer.note().text == extension.checkpoint.note().text {
                return self.with_line(answer, other);
            }
            extension = self.extension_since(&answer, other)?;
        }
        Err(anyhow!("{} saw newer heads each time", other.origin)).next("somebody else carries heads there now; try again later")
    }

    /// The extension from the head that the other appliance saw last.
    fn extension_since(&mut self, seen: &SignedCheckpoint, other: &Other<'_>) -> Result<Extension> {
        let known = self.kept.known(&self.authority)?;
        checkpoint::check(seen, &known).map_err(|e| anyhow!("{} showed a head that it says it saw, and it is none: {e}", other.origin))?;
        ensure!(seen.head().origin() == self.kept.origin(), "{} showed the head of another log", other.origin);
        let old = seen.head().size;
        let bytes = match self.ask(&Request::Extend { old, least: old }) {
            Ok(Response::Extension(bytes)) => bytes,
            Ok(_) => bail!("the appliance answered something else than was asked; tell the authority"),
            Err(DoorError::Refused(no)) if no.code == Code::Behind => {
                let what = format!(
                    "asked to go on from the {old} leaves that {} saw signed, it says that it went back: {}",
                    other.origin, no.sentence
                );
                return Err(self.kept.alarm(what, seen.write().as_bytes()).into());
            }
            Err(e) => return Err(e.into()),
        };
        let extension = Extension::parse(&bytes)?;
        checkpoint::check(&extension.checkpoint, &known)?;
        if let Err(e) = extension.follows(seen.head()) {
            let what = format!("its log does not begin with the {old} leaves that {} saw signed: {e}", other.origin);
            return Err(self.kept.alarm(what, format!("{}\n{}", seen.write(), extension.write()).as_bytes()).into());
        }
        Ok(extension)
    }

    /// Believes and keeps a head with the other appliance's line.
    fn with_line(&mut self, note: SignedCheckpoint, other: &Other<'_>) -> Result<SignedCheckpoint> {
        let own = self.kept.papers()?;
        let papers = own.iter().map(|(_, p)| p.as_slice()).chain(other.papers.iter().map(Vec::as_slice));
        let known = Known::gather(&self.authority, papers)?;
        let verified = checkpoint::check(&note, &known)?;
        ensure!(verified.witnesses.iter().any(|w| w.origin == other.origin), "{} gave the head back without its line", other.origin);
        let _turn = self.kept.lock()?;
        if self.kept.checkpoint()?.is_none_or(|kept| kept.note().text == note.note().text) {
            self.kept.keep_checkpoint(&note)?;
        }
        Ok(note)
    }
}
