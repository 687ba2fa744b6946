//! The statements, a file each group: what a [`site`] is, how its [`vaults`] were
//! dealt, what a [`ceremony`] says, what [`streams`] carry, what an [`audit`] found,
//! which disk an [`erasure`] emptied, and what a boot [`image`] is.

pub mod audit;
pub mod ceremony;
pub mod erasure;
pub mod image;
pub mod site;
pub mod streams;
pub mod vaults;

pub use audit::{Completeness, KeptStream};
pub use ceremony::{Approval, Challenge, Covers, Grant, Reader, SealedShare};
pub use erasure::Erased;
pub use image::{ImageManifest, ReleaseNote, Software};
pub use site::{
    AgentCertificate, ApplianceEntry, ApplianceIdentity, CountWord, Custodian, Dataset, DiskWord, Endorsement, Enrolment, HealthPort,
    KeyCreated, Network, PcrValue, Proof, Release, Roster, RosterEntry, Site, Skip, Subnet, VaultApproval,
};
pub use streams::{EpochHeader, StreamRoot};
pub use vaults::{Commitment, Door, Envelopes, Halves, RecoveryWrap, ShareEnvelope, TpmHalf, Vault};

macro_rules! statements {
    ($($t:ty: $kind:literal, $title:literal;)*) => { $(
        impl crate::Statement for $t {
            const KIND: &'static str = $kind;
            const TITLE: &'static str = $title;
        }
    )* };
}

statements! {
    Site: "site", "a site file";
    Roster: "roster", "a roster";
    Release: "release", "a release";
    Endorsement: "endorsement", "a TPM's endorsement key";
    ApplianceIdentity: "appliance", "an appliance's identity";
    Enrolment: "enrolment", "an enrolment";
    AgentCertificate: "agent", "an agent's certificate";
    Skip: "skip", "a word about time";
    DiskWord: "disk", "a word about a disk";
    CountWord: "count", "a word about the log's counter";
    Custodian: "custodian", "a custodian's public card";
    Vault: "vault", "a vault certificate";
    Envelopes: "envelopes", "a vault's envelopes";
    Halves: "halves", "an appliance's sealed halves";
    RecoveryWrap: "recovery", "a vault's recovery wrap";
    Reader: "reader", "a reader's public key";
    Grant: "grant", "a grant";
    Challenge: "challenge", "an appliance's challenge";
    Approval: "approval", "a custodian's approval";
    EpochHeader: "epoch", "an epoch's header";
    StreamRoot: "root", "a stream's root";
    Erased: "erased", "a certificate of erasure";
    Completeness: "completeness", "a completeness statement";
    ImageManifest: "image", "a boot image's manifest";
}
