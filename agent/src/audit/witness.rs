//! Carrying a head to another appliance, to be seen and signed there.
//!
//! Promises: what comes back counts only if it is the same head with a line by the other
//! appliance's attestation key; a head that ours signed, that the other one saw before and that
//! ours doesn't extend, is an alarm with both. The other one's word alone accuses nobody. The
//! carrier is not trusted by either.

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::NextStep;
use hoidla_door::DoorError;
use hoidla_log::{Extension, SignedCheckpoint};
use hoidla_protocol::{Code, Request, Response, Witness, audit::MOST_PAPERS};
use hoidla_verify::{Known, checkpoint};

use super::{Auditor, Head, Led};

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
                    return Err(anyhow!(
                        "{} says, without proof, that it saw another head of this log before: {}",
                        other.origin,
                        no.sentence
                    ))
                    .next("ask its operators for both heads; until they show two that are signed, nothing is proven against either");
                }
                Err(e) => return Err(e.into()),
            };
            if answer.note().text == extension.checkpoint.note().text {
                return self.with_line(answer, other);
            }
            extension = self.beyond(&answer, &extension.checkpoint, other)?;
        }
        Err(anyhow!("{} saw newer heads each time", other.origin)).next("somebody else carries heads there now; try again later")
    }

    /// The extension to our newest head from the one that the other appliance saw last.
    fn beyond(&mut self, seen: &SignedCheckpoint, ours: &SignedCheckpoint, other: &Other<'_>) -> Result<Extension> {
        self.believe(seen).with_context(|| format!("{} showed a head that it says it saw, and it is none", other.origin))?;
        if let Some(what) = seen.head().contradicts(ours.head(), signer(seen) == signer(ours)) {
            let shown = [seen.write(), ours.write()].join("\n");
            return Err(self.kept.alarm(format!("by what {} saw, {what}", other.origin), shown.as_bytes()).into());
        }
        let (_, led) = self.leading_from(std::slice::from_ref(seen), ours.head().size)?;
        let Some(Led { extension, .. }) = led.into_iter().next() else { bail!("no proof from the head that {} saw", other.origin) };
        Ok(extension)
    }

    /// Believes and keeps a head with the other appliance's line.
    fn with_line(&mut self, note: SignedCheckpoint, other: &Other<'_>) -> Result<SignedCheckpoint> {
        let own = self.kept.papers()?;
        let papers = own.iter().map(|(_, p)| p.as_slice()).chain(other.papers.iter().map(Vec::as_slice));
        let known = Known::gather(&self.authority, papers)?;
        let verified = checkpoint::check(&note, &known)?;
        ensure!(verified.witnesses.iter().any(|w| w.origin == other.origin), "{} gave the head back without its line", other.origin);
        self.kept.keep_seen(&other.origin, &note, &other.papers)?;
        Ok(note)
    }
}

/// By whose key a head was signed, as far as its first line of its own appliance tells.
fn signer(head: &SignedCheckpoint) -> Option<[u8; 4]> {
    let origin = head.head().origin();
    head.note().signatures.iter().find(|l| l.name == origin).map(|l| l.key_id)
}
