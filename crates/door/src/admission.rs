//! Who may enter: decided from the certificate, before a byte of our own parsing.
//!
//! 1. A **custodian** is recognised by the exact public key that stands in a roster.
//! 2. Whoever chains to the site's door root is an **agent**, if the site file doesn't
//!    revoke it and has its dataset.
//! 3. A **reader** is recognised by the public key in a grant that the appliance holds now.
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

    /// The role of a peer whose handshake succeeded, from the certificates it sent; an
    /// error if its grant has ended since.
    pub fn role(&self, certificates: &[CertificateDer<'_>]) -> Result<Role, Error> {
        let (end_entity, intermediates) = certificates.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.decide(end_entity, intermediates, UnixTime::now())
    }

    /// The one decision. A grant's reader comes last: what somebody wrote into a grant
    /// takes no role away from a custodian or an agent, and gives none but the reader's.
    fn decide(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Result<Role, Error> {
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info().to_vec();
        if let Some(name) = self.custodians.get(&spki) {
            return Ok(Role::Custodian { name: name.clone() });
        }
        match self.chain.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => Ok(self.agent(end_entity)?),
            Err(foreign) => self.reader(&spki).ok_or(foreign),
        }
    }

    fn reader(&self, spki: &[u8]) -> Option<Role> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.get(spki).map(|(name, signing)| Role::Reader { name: name.clone(), signing: signing.clone() })
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
        self.decide(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentRequest, DoorKey, agent_certificate, door_root, key::ForCertificates, self_signed};
    use hoidla_format::Moment;

    const SITE: &str = "testland";

    fn name(s: &str) -> Name {
        s.parse().unwrap()
    }

    fn key(seed: u8) -> p384::ecdsa::SigningKey {
        p384::ecdsa::SigningKey::from_slice(&[seed; 48]).unwrap()
    }

    /// An authority, and a door that knows the custodian alpha.
    fn door() -> (Vec<u8>, Arc<Admission>) {
        let root = door_root(&name(SITE), &key(1), Moment::from_seconds(0), Moment::now().plus(3600)).unwrap();
        let names = AgentNames { site: name(SITE), datasets: HashSet::from([name("land")]), revoked: HashSet::from([name("dismissed")]) };
        let door = Admission::new(&root, names, &[(name("alpha"), Bytes(key(2).public()))]).unwrap();
        (root, door)
    }

    fn agent(root: &[u8], who: &str, key: &dyn DoorKey) -> CertificateDer<'static> {
        let (site, dataset, agent) = (name(SITE), name("land"), name(who));
        let (not_before, not_after) = (Moment::from_seconds(0), Moment::now().plus(3600));
        let request = AgentRequest { site: &site, dataset: &dataset, agent: &agent, key: &key.public(), not_before, not_after };
        agent_certificate(&request, root, &self::key(1)).unwrap().into()
    }

    /// A certificate that nobody vouches for and that calls itself an agent's.
    fn impostor(key: &dyn DoorKey) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        let uri = certificate::agent_uri(&name(SITE), &name("land"), &name("land-agent"));
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        params.self_signed(&ForCertificates::signer(key)).unwrap().der().clone()
    }

    #[test]
    fn a_reader_stays_a_reader_whatever_its_certificate_says() {
        let (_, door) = door();
        let certificate = [impostor(&key(3))];
        assert!(door.role(&certificate).is_err(), "no grant names it");
        door.set_readers(&[(name("restorer"), Bytes(key(3).public()))]).unwrap();
        assert!(matches!(door.role(&certificate), Ok(Role::Reader { .. })));
        // Its grant ends between the certificate's check and the end of the handshake.
        door.set_readers(&[]).unwrap();
        assert!(door.role(&certificate).is_err(), "without its grant it is nobody, and no agent");
        assert!(door.role(&[]).is_err());
    }

    #[test]
    fn a_grant_that_names_another_peers_key_takes_nothing_from_it() {
        let (root, door) = door();
        let (agent_key, alpha) = (key(4), key(2));
        let agents = [agent(&root, "land-agent", &agent_key)];
        let alphas: [CertificateDer<'_>; 1] = [self_signed(&name("alpha"), &alpha).unwrap().into()];
        let dismissed = [agent(&root, "dismissed", &key(5))];
        door.set_readers(&[
            (name("restorer"), Bytes(agent_key.public())),
            (name("restorer"), Bytes(alpha.public())),
            (name("restorer"), Bytes(key(5).public())),
        ])
        .unwrap();
        assert_eq!(door.role(&agents).unwrap(), Role::Agent { dataset: name("land"), agent: name("land-agent") });
        assert_eq!(door.role(&alphas).unwrap(), Role::Custodian { name: name("alpha") });
        assert_eq!(door.role(&dismissed), Err(CertificateError::Revoked.into()));
    }
}
