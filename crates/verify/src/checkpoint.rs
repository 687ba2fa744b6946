//! Signed checkpoints: whose TPM vouches for a log's head, in which state, and who else saw it.
//!
//! Promises: [`check`] believes a checkpoint only if the attestation key that the authority has
//! on record for the log's appliance quoted exactly this text, in a state that a release of the
//! site approves; the same for each witness that is known. What weakens that is said in words
//! ([`Doubt`]). It doesn't say whether the head is the newest: compare with other checkpoints.

use hoidla_crypto::es256;
use hoidla_format::{
    Hash32, Malformed, Name,
    statement::Signature as Line,
    statements::{ImageManifest, PcrValue, Proof, Release},
};
use hoidla_log::{Quote, Says, SignedCheckpoint};
use thiserror::Error;

use crate::{
    attest::{Attest, AttestError, endorsed},
    known::{Attester, Known},
    measured::{PAPERS, explained_by},
    policy::pcr_digest,
};

/// Secure Boot's state.
const SECURE_BOOT: u8 = 7;
/// The measured image: firmware's measure, and the image's own.
pub(crate) const IMAGE: [u8; 2] = [4, 11];

/// Why a checkpoint is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing is known of the appliance.
    #[error("nothing is on record of {0}: give its enrolment, its identity and its site file too")]
    Unknown(String),
    /// No release of the site is at hand.
    #[error("no release of the site {0} is among the papers: give those that the authority signed")]
    NoRelease(Name),
    /// No line under the log's own name.
    #[error("{0} did not sign this")]
    Unsigned(String),
    /// Signed under its name, by another key than the one on record.
    #[error("this is signed in the name of {0}, but by another key than the one on record")]
    Stranger(String),
    /// The signature line is damaged.
    #[error("the signature of {0} is damaged: {1}")]
    Line(String, Malformed),
    /// The quote is none of ours.
    #[error("the quote of {0}: {1}")]
    Quote(String, AttestError),
    /// The quote is by another key of the TPM.
    #[error("the quote of {0} names another key than the one on record")]
    Signer(String),
    /// The signature doesn't fit.
    #[error("the signature of {0} does not fit its quote: one of both was changed")]
    Forged(String),
    /// The quote is of another text.
    #[error("the quote of {0} is over another text than this: it was changed, or the quote was moved here")]
    Text(String),
    /// The registers given aren't those quoted.
    #[error("the registers given with the quote of {0} are not those that were quoted")]
    Registers(String),
    /// Quoted in a state that no release approves.
    #[error("{0} was not in a state that any release among the papers approves: it ran something else, or a release is missing here")]
    State(String),
}

impl Refusal {
    /// Whether it is for want of papers that nothing can be told; otherwise the checkpoint is wrong.
    pub fn cannot_tell(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::NoRelease(_))
    }
}

/// What makes a quote worth less than it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Doubt {
    /// A development site.
    #[error("its site is for drills and tests")]
    Development,
    /// A TPM in software.
    #[error("its TPM is software: whoever rules that machine can make it say anything")]
    SoftwareTpm,
    /// A TPM with wires of its own.
    #[error("its TPM is not known to be in the processor: whoever reaches its wires can make it vouch for another state")]
    Discrete,
    /// A later enrolment names another TPM.
    #[error("its TPM was replaced: a later enrolment is on record, and the old one can still sign")]
    Replaced,
    /// Nobody proved the TPM.
    #[error("its TPM was trusted when it was first seen: nobody proved it genuine")]
    FirstUse,
    /// No image was measured, or its release names none.
    #[error("no measured image is shown: register 4 or 11 is zero, or the release doesn't name both")]
    Unmeasured,
    /// Nobody recorded what Secure Boot's register should be.
    #[error("no release and no image's manifest on record says what Secure Boot's register (7) must hold")]
    SecureBoot,
    /// The image's manifest says another.
    #[error(
        "Secure Boot's register (7) is not what the image's manifest says: that machine's firmware knows other keys than the site's alone"
    )]
    OtherKeys,
    /// The papers in force are not measured.
    #[error("the papers in force were not measured (register 15)")]
    Papers,
    /// Other papers are measured.
    #[error(
        "the papers in force there were others than those given here (register 15): a site file or enrolment is missing, or somebody else wrote to the register"
    )]
    OtherPapers,
    /// The TPM's clock may repeat.
    #[error("its TPM was not shut down in order before: its clock may repeat")]
    Clock,
    /// A newer release is on record.
    #[error("it ran an older release than the newest on record")]
    OldRelease,
    /// The site file names it no more.
    #[error("the newest site file here no longer names it")]
    NotNamed,
}

impl Doubt {
    /// Whether this is for want of papers, and tells nothing of the appliance.
    pub fn general(self) -> bool {
        self == Self::SecureBoot
    }

    /// Whether no custodian of a production site may hand over a share in spite of it.
    pub fn unfit(self) -> bool {
        use Doubt::{Development, FirstUse, NotNamed, Papers, Replaced, SoftwareTpm, Unmeasured};
        matches!(self, Development | SoftwareTpm | FirstUse | Unmeasured | Papers | Replaced | NotNamed)
    }
}

/// One appliance's word, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Who: `hoidla/SITE/APPLIANCE`.
    pub origin: String,
    /// The quote.
    pub attest: Attest,
    /// The release it ran.
    pub release: Name,
    /// The image that leads to its registers, if the authority's manifest of it is among the papers.
    pub image: Option<Name>,
    /// What makes it worth less.
    pub doubts: Vec<Doubt>,
}

/// A checkpoint that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log's own appliance.
    pub own: Vouched,
    /// Other appliances that saw this head and found it consistent with all before.
    pub witnesses: Vec<Vouched>,
    /// Signature lines of appliances that nothing is known of here.
    pub strangers: usize,
}

/// Checks a signed checkpoint against the papers; see the module.
pub fn check(checkpoint: &SignedCheckpoint, known: &Known) -> Result<Verified, Refusal> {
    let (origin, note) = (checkpoint.head().origin(), checkpoint.note());
    let (own, others): (Vec<&Line>, Vec<&Line>) = note.signatures.iter().partition(|l| l.name == origin);
    if own.is_empty() {
        return Err(Refusal::Unsigned(origin));
    }
    let mut vouched: Option<(Vouched, &Attester)> = None;
    for line in own {
        if let Some(attester) = by(known, line) {
            vouched = Some((vouch(line, attester, &note.text, Says::Mine, known)?, attester));
        }
    }
    let on_record = known.attesters().iter().any(|a| a.origin == origin);
    let (own, attester) = vouched.ok_or(if on_record { Refusal::Stranger(origin) } else { Refusal::Unknown(origin) })?;
    let (mut witnesses, mut strangers) = (Vec::<Vouched>::new(), 0);
    for line in others {
        match by(known, line) {
            // One TPM under two names is no second opinion.
            Some(witness) if witness.key_name == attester.key_name => strangers += 1,
            Some(witness) => {
                let vouched = vouch(line, witness, &note.text, Says::Seen, known)?;
                if witnesses.iter().all(|w| w.origin != vouched.origin) {
                    witnesses.push(vouched);
                }
            }
            None => strangers += 1,
        }
    }
    Ok(Verified { own, witnesses, strangers })
}

/// The one who signs such lines, if known.
pub(crate) fn by<'a>(known: &'a Known, line: &Line) -> Option<&'a Attester> {
    known.attesters().iter().find(|a| a.origin == line.name && a.key_id() == line.key_id)
}

/// Whether this line's quote says this of the text; the quote itself, and its worth.
pub(crate) fn vouch(line: &Line, who: &Attester, text: &str, says: Says, known: &Known) -> Result<Vouched, Refusal> {
    let name = || who.origin.clone();
    let quote = Quote::from_line(line).map_err(|e| Refusal::Line(name(), e))?;
    if !es256::verify(&who.key, &quote.attest, &quote.signature) {
        return Err(Refusal::Forged(name()));
    }
    let attest = Attest::parse(&quote.attest).map_err(|e| Refusal::Quote(name(), e))?;
    if attest.signer != endorsed(&who.key_name) {
        return Err(Refusal::Signer(name()));
    }
    if attest.qualifying != says.qualifying(text) {
        return Err(Refusal::Text(name()));
    }
    let registers: Vec<PcrValue> = attest.registers().zip(&quote.pcrs).map(|(index, value)| PcrValue { index, value: *value }).collect();
    if registers.len() != quote.pcrs.len()
        || attest.registers().count() != quote.pcrs.len()
        || pcr_digest(&registers) != attest.pcr_digest.0
    {
        return Err(Refusal::Registers(name()));
    }
    let (release, newest) = release(&registers, who, known)?;
    let image = known.image(&registers);
    let mut doubts = doubts(who, &attest, &registers, release);
    doubts.extend(secure_boot(&registers, release, image));
    doubts.extend(other_papers(&registers, who, known).then_some(Doubt::OtherPapers));
    doubts.extend(known.replaced(who).then_some(Doubt::Replaced));
    doubts.extend((release.epoch < newest).then_some(Doubt::OldRelease));
    Ok(Vouched { origin: name(), attest, release: release.name.clone(), image: image.map(|m| m.name.clone()), doubts })
}

/// What Secure Boot's register leaves open. A release that names it was held against it already.
fn secure_boot(registers: &[PcrValue], release: &Release, image: Option<&ImageManifest>) -> Option<Doubt> {
    let foretold = image.and_then(|m| m.pcrs.iter().find(|p| p.index == SECURE_BOOT));
    match foretold {
        _ if release.pcrs.iter().any(|p| p.index == SECURE_BOOT) => None,
        Some(foretold) => (!registers.contains(foretold)).then_some(Doubt::OtherKeys),
        None => Some(Doubt::SecureBoot),
    }
}

/// The newest release that approves these registers, and the newest epoch on record.
fn release<'a>(registers: &[PcrValue], who: &'a Attester, known: &'a Known) -> Result<(&'a Release, u64), Refusal> {
    let newest = known.releases(&who.site).map(|r| r.epoch).max().ok_or_else(|| Refusal::NoRelease(who.site.clone()))?;
    let approves = |r: &&Release| r.development == who.development && r.pcrs.iter().all(|p| registers.contains(p));
    let release = known.releases(&who.site).filter(approves).max_by_key(|r| r.epoch);
    Ok((release.ok_or_else(|| Refusal::State(who.origin.clone()))?, newest))
}

/// Whether something was measured into the register of the papers, and these papers don't explain it.
fn other_papers(registers: &[PcrValue], who: &Attester, known: &Known) -> bool {
    let value = registers.iter().find(|r| r.index == PAPERS).map(|r| r.value).filter(|v| *v != Hash32([0; 32]));
    value.is_some_and(|value| explained_by(&value, &known.measurements(who)).is_none())
}

fn doubts(who: &Attester, attest: &Attest, registers: &[PcrValue], release: &Release) -> Vec<Doubt> {
    let zero = |index: u8| registers.iter().find(|r| r.index == index).is_none_or(|r| r.value == Hash32([0; 32]));
    [
        (who.development, Doubt::Development),
        (who.identity.tpm == "software", Doubt::SoftwareTpm),
        (!matches!(&who.identity.tpm[..], "software" | "firmware"), Doubt::Discrete),
        (who.proof != Proof::CredentialActivated, Doubt::FirstUse),
        (!IMAGE.into_iter().all(|i| !zero(i) && release.pcrs.iter().any(|p| p.index == i)), Doubt::Unmeasured),
        (zero(PAPERS), Doubt::Papers),
        (!attest.clock.safe, Doubt::Clock),
        (!who.named, Doubt::NotNamed),
    ]
    .into_iter()
    .filter_map(|(holds, doubt)| holds.then_some(doubt))
    .collect()
}
