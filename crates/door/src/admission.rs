//! Who may enter: decided from the certificate, before a byte of our own parsing.
//!
//! * A **custodian** or a **reader** is recognised by the exact public key that
//!   stands in a roster, or in a grant that the appliance holds now.
//! * Anyone else must chain to the site's door root, as an **agent** that the site
//!   file doesn't revoke, for a dataset that it has.
//!
//! Possession of the key is proven by the handshake's signature, as for all TLS.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use hoidla_format::{Bytes, Name};
use hoidla_protocol::Role;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{DoorError, certificate, key::spki_of, tls::provider};

/// What the site file says of agents.
#[derive(Clone, Debug)]
pub struct AgentNames {
    /// The site.
    pub site: Name,
    /// Its datasets.
    pub datasets: HashSet<Name>,
    /// Agents that may no longer enter.
    pub revoked: HashSet<Name>,
}

/// Decides who enters. Readers come and go with grants; all else is fixed at the start.
#[derive(Debug)]
pub struct Admission {
    chain: Arc<dyn ClientCertVerifier>,
    names: AgentNames,
    custodians: HashMap<Vec<u8>, Name>,
    readers: RwLock<HashMap<Vec<u8>, (Name, Bytes)>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Admission {
    /// Admits agents that chain to `root` (DER) under `names`, and these custodians
    /// (name and P-384 key, SEC1, compressed).
    pub fn new(root: &[u8], names: AgentNames, custodians: &[(Name, Bytes)]) -> Result<Arc<Self>, DoorError> {
        let bad = |e: &dyn std::fmt::Display| DoorError::Certificate(format!("the site's door root cannot be used: {e}"));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.to_vec())).map_err(|e| bad(&e))?;
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let chain = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().map_err(|e| bad(&e))?;
        let custodians = custodians.iter().map(|(name, key)| Ok((spki_of(&key.0)?, name.clone()))).collect::<Result<_, DoorError>>()?;
        Ok(Arc::new(Self { chain, names, custodians, readers: RwLock::default(), algorithms }))
    }

    /// The readers that grants held now name (name and P-384 key, SEC1, compressed).
    pub fn set_readers(&self, readers: &[(Name, Bytes)]) -> Result<(), DoorError> {
        let map = readers.iter().map(|(n, k)| Ok((spki_of(&k.0)?, (n.clone(), k.clone())))).collect::<Result<_, DoorError>>()?;
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) = map;
        Ok(())
    }

    /// The role of a peer whose handshake succeeded; none if its grant has gone since.
    pub fn role(&self, certificate: &CertificateDer<'_>) -> Option<Role> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        self.by_key(&parsed).or_else(|| self.agent(certificate).ok())
    }

    fn by_key(&self, parsed: &ParsedCertificate<'_>) -> Option<Role> {
        let spki = parsed.subject_public_key_info().to_vec();
        if let Some(name) = self.custodians.get(&spki) {
            return Some(Role::Custodian { name: name.clone() });
        }
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.get(&spki).map(|(name, signing)| Role::Reader { name: name.clone(), signing: signing.clone() })
    }

    /// The agent that a chained certificate names.
    fn agent(&self, certificate: &[u8]) -> Result<Role, CertificateError> {
        let uris = certificate::uris(certificate);
        let [uri] = uris.as_slice() else { return Err(CertificateError::InvalidPurpose) };
        let parts: Vec<&str> = uri.strip_prefix("hoidla:agent/").ok_or(CertificateError::InvalidPurpose)?.split('/').collect();
        let [site, dataset, agent] = parts.as_slice() else { return Err(CertificateError::InvalidPurpose) };
        let dataset = dataset.parse::<Name>().map_err(|_| CertificateError::InvalidPurpose)?;
        let agent = agent.parse::<Name>().map_err(|_| CertificateError::InvalidPurpose)?;
        if *site != self.names.site.as_str() || !self.names.datasets.contains(&dataset) {
            return Err(CertificateError::ApplicationVerificationFailure);
        }
        if self.names.revoked.contains(&agent) {
            return Err(CertificateError::Revoked);
        }
        Ok(Role::Agent { dataset, agent })
    }
}

impl ClientCertVerifier for Admission {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.by_key(&parsed).is_some() {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.agent(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}
