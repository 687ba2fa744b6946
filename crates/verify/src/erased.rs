//! Certificates of erasure: a note over `erased/1` whose signature is a quote of the
//! appliance's TPM under a label of its own.
//!
//! Promises: [`Certificate::check`] believes it only if the attestation key that the authority
//! has on record for the appliance named in it quoted exactly this text as an erasure, in a
//! state that a release of the site approves. It proves what that release's program saw: that
//! the disk answered with zeros. It doesn't prove that a disk kept nothing aside where no
//! program reads.

use hoidla_format::{
    Note, StatementError,
    statement::{Signature, parse},
    statements::Erased,
};
use hoidla_log::Says;
use thiserror::Error;

use crate::{
    checkpoint::{Refusal, Vouched, by, vouch},
    known::Known,
};

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ErasedError {
    /// It is none, or damaged.
    #[error("the certificate of erasure: {0}")]
    Form(#[from] StatementError),
    /// Not one signature.
    #[error("a certificate of erasure has one signature, its appliance's; this has {0}")]
    Signatures(usize),
    /// Not vouched for.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ErasedError {
    /// Whether it is for want of papers that nothing can be told.
    pub fn cannot_tell(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.cannot_tell())
    }
}

/// A certificate as it was written; nobody has checked its signature yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    note: Note,
    says: Erased,
}

impl Certificate {
    /// Of the text of `erased/1`, and the appliance's line below it.
    pub fn new(text: String, line: Signature) -> Result<Self, ErasedError> {
        Self::parse(Note { text, signatures: vec![line] }.write().as_bytes())
    }

    /// Reads one; checks form only.
    pub fn parse(bytes: &[u8]) -> Result<Self, ErasedError> {
        let note = Note::parse(bytes)?;
        let says = parse(&note.text)?;
        if note.signatures.len() != 1 {
            return Err(ErasedError::Signatures(note.signatures.len()));
        }
        Ok(Self { note, says })
    }

    /// Its bytes.
    pub fn write(&self) -> String {
        self.note.write()
    }

    /// What it claims.
    pub fn says(&self) -> &Erased {
        &self.says
    }

    /// Who should have signed it: `hoidla/SITE/APPLIANCE`.
    pub fn origin(&self) -> String {
        format!("hoidla/{}/{}", self.says.site, self.says.appliance)
    }

    /// Whether that appliance's TPM says so.
    pub fn check(&self, known: &Known) -> Result<Vouched, ErasedError> {
        let (origin, line) = (self.origin(), &self.note.signatures[0]);
        if line.name != origin {
            return Err(Refusal::Unsigned(origin).into());
        }
        let Some(attester) = by(known, line) else {
            let on_record = known.attesters().iter().any(|a| a.origin == origin);
            return Err(if on_record { Refusal::Stranger(origin) } else { Refusal::Unknown(origin) }.into());
        };
        Ok(vouch(line, attester, &self.note.text, Says::Erased, known)?)
    }
}
