//! What an appliance's TPM says it is, and what of it is proven.
//!
//! Promises: [`check`] passes an identity only if its prover, a key that signs nothing but a
//! TPM's own words, says of storage root key, attestation key and node key that its TPM made
//! them, and says so under the hash of everything else in the identity. So whoever knows where
//! the prover is knows where they all are, and nothing in the identity can be altered. That the
//! prover sits beside the endorsement key that home recorded, only [`crate::credential`] proves.

use hoidla_crypto::es256;
use hoidla_format::{
    Bytes, Hash32, Name, statement,
    statements::{ApplianceIdentity, Site},
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    AttestError, PolicyRef, Public, PublicError, ReleaseError, ReleasePublic, TpmName,
    attest::{Created, endorsed},
    credential,
};

/// Why an identity is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Made for another site.
    #[error(
        "this identity is of the site {found}, not of {wanted}: take the file of the right appliance, or run hoidlad identify with this site's file"
    )]
    Site {
        /// The site whose authority reads it.
        wanted: Name,
        /// The site it names.
        found: Name,
    },
    /// A key that isn't one.
    #[error("the identity's {0}: {1}; run hoidlad identify again")]
    Key(&'static str, PublicError),
    /// A key of another template.
    #[error("the identity's {0} is not one that hoidlad makes for this site: run hoidlad identify with the site's newest file")]
    Template(&'static str),
    /// The site's release key is none.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Not one word for each of the three keys.
    #[error("the identity carries no proof of its {0}: run hoidlad identify again, with this release of hoidlad")]
    Missing(&'static str),
    /// A damaged word.
    #[error("the proof of the identity's {0}: {1}; fetch the file again")]
    Attest(&'static str, AttestError),
    /// Signed by another key, or changed after it was signed.
    #[error(
        "the identity's {0} was not made by the TPM of its prover, or the file was altered on its way: fetch it again from the appliance; if it is the same, don't enrol this machine"
    )]
    Forged(&'static str),
}

/// An identity whose keys are all in one TPM: the one where the prover is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Endorsement key. Nothing of this says that the prover is beside it.
    pub ek: Public,
    /// The key that vouched for the others.
    pub prover: Public,
    /// Storage root key.
    pub srk: Public,
    /// Attestation key.
    pub ak: Public,
    /// Node key.
    pub node: Public,
}

/// What the prover is given to sign: the hash of the identity before it carries any proof.
pub fn qualifying(identity: &ApplianceIdentity) -> [u8; 32] {
    let bare = ApplianceIdentity { created: Vec::new(), ..identity.clone() };
    Sha256::new().chain_update("hoidla identity 1\n").chain_update(statement::write(&bare)).finalize().into()
}

/// Checks an identity for a site; see the module.
pub fn check(identity: &ApplianceIdentity, site: &Site) -> Result<Keys, IdentityError> {
    if identity.site != site.site {
        return Err(IdentityError::Site { wanted: site.site.clone(), found: identity.site.clone() });
    }
    let node_policy = ReleasePublic::from_sec1(&site.release_key.0)?.policy(&PolicyRef::node(&site.site, site.development)).digest();
    let keys = Keys {
        ek: key("endorsement key", &identity.ek, &Public::ek_template())?,
        prover: key("prover", &identity.prover, &Public::prover_template())?,
        srk: key("storage root key", &identity.srk, &Public::srk_template())?,
        ak: key("attestation key", &identity.ak, &Public::signing_template(node_policy, true))?,
        node: key("node key", &identity.node, &Public::signing_template(node_policy, false))?,
    };
    vouched(identity, &keys)?;
    Ok(keys)
}

fn key(what: &'static str, bytes: &Bytes, template: &Public) -> Result<Public, IdentityError> {
    let public = Public::parse(&bytes.0).map_err(|e| IdentityError::Key(what, e))?;
    if !public.same_template(template) {
        return Err(IdentityError::Template(what));
    }
    public.point().ok_or(IdentityError::Template(what))?.key().map_err(|e| IdentityError::Key(what, e))?;
    Ok(public)
}

/// Whether the prover says of each key that its TPM made it.
fn vouched(identity: &ApplianceIdentity, keys: &Keys) -> Result<(), IdentityError> {
    let prover: p256::ecdsa::VerifyingKey = keys.prover.point().expect("checked").key().expect("checked").into();
    let (signer, qualifying) = (endorsed(&keys.prover.name()), qualifying(identity));
    let all = [("storage root key", &keys.srk), ("attestation key", &keys.ak), ("node key", &keys.node)];
    for (n, (what, public)) in all.into_iter().enumerate() {
        let word = identity.created.get(n).ok_or(IdentityError::Missing(what))?;
        if !es256::verify(&prover, &word.attest.0, &word.signature.0) {
            return Err(IdentityError::Forged(what));
        }
        let created = Created::parse(&word.attest.0).map_err(|e| IdentityError::Attest(what, e))?;
        if (created.signer, created.object, created.qualifying) != (signer, public.name(), qualifying) {
            return Err(IdentityError::Forged(what));
        }
    }
    if identity.created.len() == all.len() { Ok(()) } else { Err(IdentityError::Forged("list of proofs")) }
}

/// The digits of an endorsement key, as both ends show them.
pub fn ek_hash(ek: &Public) -> Hash32 {
    Hash32(Sha256::digest(ek.marshal()).into())
}

/// The name of the prover in an identity, if it is one; nothing is checked of where it is.
pub fn prover_name(identity: &ApplianceIdentity) -> Result<TpmName, IdentityError> {
    Ok(key("prover", &identity.prover, &Public::prover_template())?.name())
}

/// An endorsement key as recorded.
pub fn recorded_ek(bytes: &Bytes) -> Result<Public, IdentityError> {
    let public = Public::parse(&bytes.0).map_err(|e| IdentityError::Key("endorsement key", e))?;
    credential::is_ek(&public).map_err(|e| IdentityError::Key("endorsement key", e))?;
    Ok(public)
}
