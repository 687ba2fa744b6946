//! Signed heads of an appliance's log: fetched, believed, and held against those of before.
//!
//! Promises: a [`Head`] is signed by the key on record, in a released state, and extends the one
//! kept here, whose place it takes. A [`Led`] is the proof that such a head extends another one
//! that was signed before. What contradicts that is an alarm, with both heads as evidence.

use anyhow::{Result, anyhow, bail};
use hoidla_cli::NextStep;
use hoidla_door::DoorError;
use hoidla_log::{Extension, SignedCheckpoint};
use hoidla_protocol::{Code, Request, Response};
use hoidla_verify::{Doubt, Verified, checkpoint};

use super::{Alarm, Auditor};

/// How often a newer head may be signed while proofs to the last one are fetched.
const TRIES: usize = 5;

/// A checkpoint that was believed just now.
#[derive(Clone)]
pub struct Head {
    /// The checkpoint.
    pub signed: SignedCheckpoint,
    /// Who vouches for it, and what weakens that.
    pub verified: Verified,
}

/// An older head of the same log, and the proof that the newer one extends it.
#[derive(Clone)]
pub struct Led {
    /// The older head.
    pub from: SignedCheckpoint,
    /// The proof, with the newer head.
    pub extension: Extension,
}

impl Auditor<'_> {
    /// A checkpoint of at least so many leaves, believed, held against the one kept here, and kept in its place.
    pub fn checkpoint(&mut self, least: u64) -> Result<Head> {
        let _turn = self.kept.lock()?;
        let before = self.kept.checkpoint()?;
        let (head, _) = self.fetch(before.as_ref(), least)?;
        self.kept.keep_checkpoint(&head.signed)?;
        Ok(head)
    }

    /// A checkpoint of at least so many leaves, as by [`checkpoint`](Self::checkpoint), and the
    /// proofs that it extends these older ones, which are signed.
    pub fn leading_from(&mut self, olds: &[SignedCheckpoint], mut least: u64) -> Result<(Head, Vec<Led>)> {
        for _ in 0..TRIES {
            let mut led = vec![];
            for from in olds {
                let (head, extension) = self.fetch(Some(from), least)?;
                least = least.max(head.signed.head().size);
                led.push(Led { from: from.clone(), extension });
            }
            let head = self.checkpoint(least)?;
            least = head.signed.head().size;
            if led.iter().all(|l| l.extension.checkpoint == head.signed) {
                return Ok((head, led));
            }
        }
        Err(anyhow!("the appliance signed a newer head each time that proofs to the last one were asked for"))
            .next("try again when less is copied in")
    }

    /// Believes a head that came from elsewhere, such as an auditor's file, to be one of this log.
    pub fn believe(&self, head: &SignedCheckpoint) -> Result<()> {
        let origin = self.kept.origin();
        anyhow::ensure!(head.head().origin() == origin, "it is a head of {}, not of {origin}", head.head().origin());
        checkpoint::check(head, &self.kept.known(&self.authority)?)?;
        Ok(())
    }

    /// Asks for a head of at least so many leaves that extends `before`.
    fn fetch(&mut self, before: Option<&SignedCheckpoint>, least: u64) -> Result<(Head, Extension)> {
        let old = before.map_or(0, |b| b.head().size);
        let extension = match self.ask(&Request::Extend { old, least: least.max(old) }) {
            Ok(Response::Extension(bytes)) => bytes,
            Ok(_) => bail!("the appliance answered something else than was asked; tell the authority"),
            Err(DoorError::Refused(no)) if no.code == Code::Behind => {
                let what =
                    format!("asked for its head after the {old} leaves that it signed before, it says that it went back: {}", no.sentence);
                // A head that it signs now says more than its sentence, which nobody signed.
                let shown = match self.ask(&Request::Extend { old: 0, least: 0 }) {
                    Ok(Response::Extension(head)) => head,
                    _ => no.sentence.into_bytes(),
                };
                return Err(self.contradicted(what, before, &shown).into());
            }
            Err(DoorError::Refused(no)) if no.code == Code::Damaged => {
                let what =
                    format!("it no longer shows that its log begins with the {old} leaves that it had committed to: {}", no.sentence);
                return Err(self.contradicted(what, before, no.sentence.as_bytes()).into());
            }
            Err(e) => return Err(e.into()),
        };
        self.judge(&extension, before)?.map_err(|what| self.contradicted(what, before, &extension).into())
    }

    /// An alarm about a head that was shown, with the one that it contradicts beside it.
    fn contradicted(&self, what: String, before: Option<&SignedCheckpoint>, shown: &[u8]) -> Alarm {
        match before {
            Some(before) if !matches!(self.kept.checkpoint(), Ok(Some(kept)) if kept == *before) => {
                self.kept.alarm(what, &[before.write().as_bytes(), b"\n", shown].concat())
            }
            _ => self.kept.alarm(what, shown),
        }
    }

    /// Whether an extension is what it must be. The inner error is what to raise an alarm about.
    fn judge(&self, extension: &[u8], before: Option<&SignedCheckpoint>) -> Result<Result<(Head, Extension), String>> {
        let extension = match Extension::parse(extension) {
            Ok(extension) => extension,
            Err(e) => return Ok(Err(format!("it showed a checkpoint that is none: {e}"))),
        };
        let (signed, origin) = (extension.checkpoint.clone(), self.kept.origin());
        if signed.head().origin() != origin {
            return Ok(Err(format!("it showed the checkpoint of {} for its own", signed.head().origin())));
        }
        let known = self.kept.known(&self.authority)?;
        let verified = match checkpoint::check(&signed, &known) {
            Ok(verified) => verified,
            Err(e) if e.cannot_tell() => {
                return Err(anyhow!(e))
                    .next("ask the authority for these papers and put them into the agent's folder, or wait until the appliance has them");
            }
            Err(e) => return Ok(Err(e.to_string())),
        };
        if verified.own.doubts.contains(&Doubt::Replaced) {
            return Ok(Err("its newest head is signed by a TPM that home has replaced by a later enrolment".into()));
        }
        let Some(before) = before else { return Ok(Ok((Head { signed, verified }, extension))) };
        let (old, new) = (before.head(), signed.head());
        if let Err(e) = extension.follows(old) {
            return Ok(Err(format!(
                "its log of {} leaves does not begin with the {} leaves that it had committed to: {e}",
                new.size, old.size
            )));
        }
        // Another TPM, lawfully enrolled, counts anew.
        let other_tpm = checkpoint::check(before, &known).is_ok_and(|v| v.own.attest.signer != verified.own.attest.signer);
        if new.counter < old.counter && !other_tpm {
            return Ok(Err(format!("its TPM's counter went back from {} to {}", old.counter, new.counter)));
        }
        Ok(Ok((Head { signed, verified }, extension)))
    }
}
