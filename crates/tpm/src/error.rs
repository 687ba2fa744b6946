//! What a TPM's refusal means.

use hoidla_format::Name;
use hoidla_verify::PublicError;
use thiserror::Error;

/// Why the TPM, or the way to it, refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TpmError {
    /// No TPM there.
    #[error("no TPM answers at {tcti} (code {code:#x}): check that it runs and that no other program holds it")]
    NoTpm {
        /// Where it was looked for.
        tcti: String,
        /// libtss2's code.
        code: u32,
    },
    /// A hierarchy's password was set.
    #[error(
        "this TPM belongs to somebody else: its owner's or endorsement password is set. If the machine is new to you, clear the TPM in the firmware's setup and begin again; never clear one that holds halves"
    )]
    Owned,
    /// A credential made for another TPM, or for another prover.
    #[error(
        "this parcel was sealed to another TPM, or changed on its way: home recorded another endorsement key, or the machine's board was replaced. Compare the digits that hoidlad endorse shows with home's; if they differ, this is not the machine that home means"
    )]
    OtherTpm,
    /// Another storage root key than the pinned one.
    #[error(
        "this is not the TPM that was enrolled, it was cleared, or something on the bus answers in its place: its storage root key has another name. Put the disks back into the machine that they come from; if its board was replaced or its TPM cleared, call home: it must enrol anew"
    )]
    WrongSrk,
    /// Another attestation key than the identity's.
    #[error(
        "the TPM makes another attestation key than the one in identity.txt: its endorsement hierarchy was cleared, or the site has another release key; identify and enrol again"
    )]
    WrongAttestationKey,
    /// The registers don't have the values that the release approves.
    #[error("the TPM's PCRs are not those of the release: another image runs, or something was measured after it; boot the released image")]
    Pcrs,
    /// The release counter has passed the release's epoch.
    #[error("this release is retired: the TPM's release counter has passed its epoch; install the release that followed it")]
    Retired,
    /// The release doesn't name the vault epoch.
    #[error(
        "the release doesn't approve vault epoch {vault_epoch} of {dataset}: it was retired, or dealt after the release was signed; ask the authority for a release that names it"
    )]
    NotApproved {
        /// The dataset.
        dataset: Name,
        /// The vault epoch.
        vault_epoch: u32,
    },
    /// Wrong auth value.
    #[error("the TPM refused the auth value: these are not the shares of this vault epoch and appliance")]
    Auth,
    /// The object's policy isn't the one that was satisfied.
    #[error("the object's policy is not met: it belongs to another site, vault epoch, release key or mode")]
    Policy,
    /// A blob of another TPM, or damaged.
    #[error("the TPM can't load this object: it was made for another TPM, or damaged")]
    Integrity,
    /// The release key's signature didn't verify in the TPM.
    #[error("the TPM refused the release's signature")]
    Signature,
    /// A half that no dealing of Hoidla's makes for this site and vault epoch.
    #[error("this half of {dataset}, vault epoch {vault_epoch}, is not sealed under this site's release key: {why}; deal it again")]
    NotAHalf {
        /// The dataset.
        dataset: Name,
        /// The vault epoch.
        vault_epoch: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A counter that isn't there or isn't ours.
    #[error("the TPM has no counter of Hoidla's at {0:#x}: run `hoidlad identify` first, on a TPM that nobody else has written to")]
    NoCounter(u32),
    /// A counter would have to go too far.
    #[error("the release counter stands at {stands}, and {wanted} is too far away: check the release's epoch")]
    TooFar {
        /// Where it stands.
        stands: u64,
        /// Where it should go.
        wanted: u64,
    },
    /// A response that wasn't the TPM's own.
    #[error("the TPM's answer fails its check: something on the bus changed it; if it happens again, have the machine examined")]
    Tampered,
    /// An answer that doesn't parse.
    #[error(transparent)]
    Public(#[from] PublicError),
    /// An answer of an unexpected form.
    #[error("the TPM's answer to {0} has an unexpected form")]
    Answer(&'static str),
    /// All else.
    #[error("the TPM refused {what} (code {code:#x}); `tpm2_rc_decode` of tpm2-tools explains the code")]
    Refused {
        /// The command.
        what: &'static str,
        /// libtss2's code.
        code: u32,
    },
}
