//! The quote over a ceremony's challenge: which machine asks, in which state, for exactly this.
//!
//! Promises: [`check`] passes a challenge only if the attestation key of the appliance's newest
//! enrolment quoted it, since the machine's last start, in a state that a release of the site
//! approves, under the papers that the challenge names. So the one-time key in it was made by
//! the released program, and shares sealed to it reach no other. In production nothing passes
//! whose TPM is in software or unproven, or whose image nobody measured. A forged machine
//! (firmware and TPM) is beyond it: profiles say how hard that is.

use hoidla_format::{
    Hash32, Name,
    statement::{Signature as Line, write},
    statements::Challenge,
};
use hoidla_log::{Quote, Says};
use thiserror::Error;

use crate::{
    Doubt, Known, Vouched,
    checkpoint::{self, vouch},
    measured::{self, PAPERS},
};

/// Why a challenge is not to be approved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unattested {
    /// No quote.
    #[error(
        "the appliance sent no quote with its challenge, so nothing tells what runs there: don't approve; have it run a release of this version"
    )]
    Missing,
    /// No papers about it.
    #[error("{0} showed no enrolment and identity of its own that your authority signed: don't approve; ask the authority")]
    Unknown(Name),
    /// Another key than the newest enrolment's.
    #[error(
        "the challenge was made with another attestation key than the newest enrolment of {0} names: another machine answers in its name; don't approve, call the authority"
    )]
    OtherKey(Name),
    /// The quote doesn't hold.
    #[error("{0}. Don't approve; call the authority")]
    Quote(#[from] checkpoint::Refusal),
    /// Quoted before the machine's last start, or another's counters.
    #[error(
        "the quote and the challenge name different starts of the machine: it restarted meanwhile; ask it for a new challenge (review again)"
    )]
    Restarted,
    /// Register 15 doesn't hold the papers that it showed.
    #[error("the appliance doesn't run under the papers that it shows (register 15 holds others): don't approve; call the authority")]
    Papers,
    /// Says of itself what its site isn't.
    #[error("the challenge says that this is {0}, and the site file says otherwise: don't approve")]
    Mode(&'static str),
    /// Good enough for a drill only.
    #[error("this is no drill, but of the appliance must be said: {0}. Don't approve; call the authority")]
    Unfit(Doubt),
}

/// The text that is quoted: the challenge before it carries the quote.
pub fn quoted(challenge: &Challenge) -> String {
    write(&Challenge { quote: Default::default(), ..challenge.clone() })
}

/// Checks a challenge's quote against the papers; see the module.
pub fn check(challenge: &Challenge, site: &Name, known: &Known) -> Result<Vouched, Unattested> {
    if challenge.quote.0.is_empty() {
        return Err(Unattested::Missing);
    }
    let unknown = || Unattested::Unknown(challenge.appliance.clone());
    let mine = known.attesters().iter().filter(|a| (&a.site, &a.appliance) == (site, &challenge.appliance));
    let newest = mine.max_by_key(|a| a.issued).ok_or_else(unknown)?;
    if challenge.attestation_key.0 != newest.key_name.0 {
        return Err(Unattested::OtherKey(challenge.appliance.clone()));
    }
    if challenge.development != newest.development {
        return Err(Unattested::Mode(if challenge.development { "a drill" } else { "production" }));
    }
    let line = Line { name: newest.origin.clone(), key_id: newest.key_id(), bytes: challenge.quote.0.clone() };
    let mut vouched = vouch(&line, newest, &quoted(challenge), Says::Asks, known)?;
    let clock = &vouched.attest.clock;
    if (clock.resets, clock.restarts) != (challenge.reset_count, challenge.restart_count) {
        return Err(Unattested::Restarted);
    }
    let quote = Quote::from_line(&line).map_err(|e| checkpoint::Refusal::Line(newest.origin.clone(), e))?;
    let shown = known.site_files(site).any(|(_, hash)| hash == challenge.site_hash);
    let in_force = measured::digest(&challenge.site_hash, &newest.enrolment);
    let register = register(&vouched, &quote, PAPERS);
    if !shown || challenge.measured.last() != Some(&in_force) || register != Some(measured::replay(&challenge.measured)) {
        return Err(Unattested::Papers);
    }
    // The challenge itself explains the register; what was in force before needn't be known.
    vouched.doubts.retain(|d| *d != Doubt::OtherPapers);
    match vouched.doubts.iter().find(|d| !newest.development && d.unfit()) {
        Some(doubt) => Err(Unattested::Unfit(*doubt)),
        None => Ok(vouched),
    }
}

/// A register's value in a quote that was verified.
fn register(vouched: &Vouched, quote: &Quote, index: u8) -> Option<Hash32> {
    vouched.attest.registers().zip(&quote.pcrs).find(|(i, _)| *i == index).map(|(_, value)| *value)
}
