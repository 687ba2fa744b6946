//! Why intake says no: one sentence each, which names whose fault it is and what to do next.

use hoidla_format::Name;
use thiserror::Error;

use crate::opening::BadShare;

/// Why an approval or a grant was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// As many ceremonies as the bound allows are under way.
    #[error("{0} ceremonies are under way already: seal one, or wait until one ends")]
    TooMany(usize),
    /// As many ceremonies as one proposer may have are collecting approvals.
    #[error("{0} has proposed {most} grants that still collect approvals: seal one of them first", most = crate::intake::MOST_EACH)]
    TooManyOf(Name),
    /// This grant's ceremony is under way.
    #[error("this grant's ceremony is under way already")]
    UnderWay,
    /// The challenge isn't for this grant, or lives too long.
    #[error("the challenge doesn't belong to this grant")]
    Challenge,
    /// A covered vault is missing, or its roster isn't the one it was dealt to.
    #[error("the vaults at hand aren't the ones that the grant covers")]
    Vaults,
    /// No ceremony for this grant: never begun, expired, sealed or finished.
    #[error("no ceremony for this grant is under way: it ended or never began; submit the grant again and approve the new challenge")]
    NoCeremony,
    /// The approval is for another challenge.
    #[error(
        "this approval answers another challenge: the appliance was restarted, or the approval is an old one; review and approve again"
    )]
    OtherChallenge,
    /// Not a statement, or not signed by that custodian.
    #[error("this approval isn't signed by {0}")]
    Signature(Name),
    /// Not parseable.
    #[error("this is no approval: {0}")]
    Form(String),
    /// The custodian is on no roster of a covered vault.
    #[error("{0} is no custodian of any vault that this grant covers")]
    Stranger(Name),
    /// Another custodian's approval on this connection.
    #[error("{0} signed this approval, but another custodian sent it")]
    OtherSender(Name),
    /// The custodian approved already.
    #[error("{0} has approved this grant already; one approval counts once")]
    Twice(Name),
    /// Shares missing, or of vaults that aren't covered.
    #[error("{0}'s approval must carry exactly their share of each vault that the grant covers")]
    Shares(Name),
    /// A share is not the one dealt.
    #[error(transparent)]
    Bad(#[from] BadShare),
    /// Too many bad shares for one challenge.
    #[error("{0} has sent {most} bad shares for this challenge: another custodian must step in", most = crate::intake::MOST_BAD)]
    Barred(Name),
    /// The share could not be checked just now.
    #[error("the appliance couldn't check the shares: {0}; approve again")]
    Unchecked(String),
    /// The quorum is complete.
    #[error("the quorum is complete already; no more approvals are needed")]
    Complete,
}
