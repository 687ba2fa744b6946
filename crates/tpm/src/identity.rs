//! Who this TPM is, and the proof of it.
//!
//! Promises: the keys of one identity are made by this TPM and vouched for by its prover; a
//! credential opens here only if it was made for this TPM's endorsement key and prover. Doesn't
//! judge whether the TPM is genuine: home does, by what it recorded.

use hoidla_crypto::Secret;
use hoidla_verify::{Credential, PolicyRef, Public, ReleasePublic};

use crate::{
    Blob, Counter, Tpm, TpmError,
    esys::{Birth, ENDORSEMENT, Esys, Handle, OWNER},
};

/// The public areas of a TPM's keys, but for the node key: always the same in one TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Endorsement key.
    pub ek: Public,
    /// The key that vouches for the others.
    pub prover: Public,
    /// Storage root key.
    pub srk: Public,
    /// Attestation key, in the endorsement hierarchy, usable under the release policy only.
    pub ak: Public,
}

/// Where the counters stand that home counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begins {
    /// The least epoch of a release for this appliance.
    pub release: u64,
    /// Serials of the site file are counted from here.
    pub site: u64,
    /// Powered hours are counted from here.
    pub hours: u64,
}

/// A node key just made, which its TPM can still vouch for.
pub struct NewNode {
    /// The key, to be kept.
    pub blob: Blob,
    birth: Birth,
}

/// TPMS_ATTEST as signed, and r ‖ s.
pub type Word = (Vec<u8>, [u8; 64]);

impl Tpm {
    /// Its endorsement key: all that home records before shipping.
    pub fn endorsement_key(&self) -> Result<Public, TpmError> {
        self.primary(ENDORSEMENT, &Public::ek_template())
    }

    /// Its keys for sites of this release key and reference.
    pub fn keys(&self, release: &ReleasePublic, reference: &PolicyRef) -> Result<Keys, TpmError> {
        Ok(Keys {
            ek: self.endorsement_key()?,
            prover: self.primary(ENDORSEMENT, &Public::prover_template())?,
            srk: self.srk().clone(),
            ak: self.primary(ENDORSEMENT, &attestation(release, reference))?,
        })
    }

    /// Where the counters stand; makes those that aren't there.
    pub fn begins(&self) -> Result<Begins, TpmError> {
        Ok(Begins { release: self.counter(Counter::Release)?, site: self.counter(Counter::Site)?, hours: self.counter(Counter::Hours)? })
    }

    /// Makes a node key: P-256, usable only under a release that `release` signed for `reference`.
    pub fn create_node_key(&self, release: &ReleasePublic, reference: &PolicyRef) -> Result<NewNode, TpmError> {
        let template = Public::signing_template(release.policy(reference).digest(), false);
        self.with_srk(|esys, srk| {
            let (blob, birth) = esys.create(srk, &template, &esys.salted_session(srk)?)?;
            if blob.public.same_template(&template) { Ok(NewNode { blob, birth }) } else { Err(TpmError::Answer("Create")) }
        })
    }

    /// The prover's word that this TPM made storage root key, attestation key and node key.
    pub fn vouch(
        &self,
        release: &ReleasePublic,
        reference: &PolicyRef,
        node: &NewNode,
        qualifying: &[u8; 32],
    ) -> Result<[Word; 3], TpmError> {
        let primary = |hierarchy, template: Public| {
            self.with_prover(|esys, _, prover, session| {
                let (key, _, birth) = esys.create_primary(hierarchy, &template, None)?;
                esys.certify_creation(prover, session, &key, &birth, qualifying)
            })
        };
        let made = self.with_prover(|esys, srk, prover, session| {
            esys.certify_creation(prover, session, &esys.load(srk, &node.blob)?, &node.birth, qualifying)
        });
        Ok([primary(OWNER, Public::srk_template())?, primary(ENDORSEMENT, attestation(release, reference))?, made?])
    }

    /// The secret of a credential; [`TpmError::OtherTpm`] if it was made for another TPM.
    pub fn activate(&self, credential: &Credential) -> Result<Secret<32>, TpmError> {
        let activated = self.with_prover(|esys, srk, prover, session| {
            let (ek, _, _) = esys.create_primary(ENDORSEMENT, &Public::ek_template(), None)?;
            let policy = esys.policy_session(srk)?;
            esys.policy_endorsement(&policy)?;
            esys.activate(prover, session, &ek, &policy, credential)
        });
        activated.map_err(|e| if e == TpmError::Integrity { TpmError::OtherTpm } else { e })
    }

    fn primary(&self, hierarchy: u32, template: &Public) -> Result<Public, TpmError> {
        self.with_srk(|esys, srk| {
            let (_key, public, _) = esys.create_primary(hierarchy, template, Some(&esys.salted_session(srk)?))?;
            if public.same_template(template) { Ok(public) } else { Err(TpmError::Answer("CreatePrimary")) }
        })
    }

    /// With the prover loaded, and a session to use it by.
    fn with_prover<T>(&self, work: impl Fn(&Esys, &Handle<'_>, &Handle<'_>, &Handle<'_>) -> Result<T, TpmError>) -> Result<T, TpmError> {
        self.with_srk(|esys, srk| {
            let session = esys.salted_session(srk)?;
            let (prover, _, _) = esys.create_primary(ENDORSEMENT, &Public::prover_template(), Some(&session))?;
            work(esys, srk, &prover, &session)
        })
    }
}

fn attestation(release: &ReleasePublic, reference: &PolicyRef) -> Public {
    Public::signing_template(release.policy(reference).digest(), true)
}
