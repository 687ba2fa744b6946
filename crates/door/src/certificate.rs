//! X.509 certificates of the door, as the authority and the peers make them.
//!
//! Promises: an agent's certificate cannot serve as an appliance's or the other
//! way round (key usage and name differ); who it is stands in one URI. A
//! self-signed one only carries a key: rosters and grants admit the key.

use std::time::Duration;

use hoidla_format::{Moment, Name};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, date_time_ymd};

use crate::{
    Curve, DoorError, DoorKey,
    key::{ForCertificates, uncompressed},
};

/// The URI that names an agent in its certificate.
pub fn agent_uri(site: &Name, dataset: &Name, agent: &Name) -> String {
    format!("hoidla:agent/{site}/{dataset}/{agent}")
}

/// The URI that names an appliance in its certificate.
pub fn appliance_uri(site: &Name, appliance: &Name) -> String {
    format!("hoidla:appliance/{site}/{appliance}")
}

fn error(e: rcgen::Error) -> DoorError {
    DoorError::Certificate(format!("the certificate could not be made: {e}"))
}

fn params(common_name: &str, uri: Option<String>, not_before: Moment, not_after: Moment) -> Result<CertificateParams, DoorError> {
    let at = |m: Moment| date_time_ymd(1970, 1, 1) + Duration::from_secs(m.seconds());
    let mut p = CertificateParams::default();
    p.distinguished_name = rcgen::DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, common_name);
    (p.not_before, p.not_after) = (at(not_before), at(not_after));
    if let Some(uri) = uri {
        p.subject_alt_names.push(SanType::URI(uri.try_into().map_err(error)?));
    }
    p.use_authority_key_identifier_extension = true;
    Ok(p)
}

/// The authority's certificate (DER), to which agents' and appliances' chain.
pub fn door_root(site: &Name, authority: &dyn DoorKey, not_before: Moment, not_after: Moment) -> Result<Vec<u8>, DoorError> {
    let mut p = params(&format!("Hoidla door of {site}"), None, not_before, not_after)?;
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(p.self_signed(&ForCertificates::signer(authority)).map_err(error)?.der().to_vec())
}

fn issue(
    mut p: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    key: &ForCertificates<'_>,
    root: &[u8],
    authority: &dyn DoorKey,
) -> Result<Vec<u8>, DoorError> {
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.extended_key_usages = vec![usage];
    let (_, parsed) = x509_parser::parse_x509_certificate(root).map_err(|_| DoorError::Certificate("the door root is damaged".into()))?;
    if parsed.public_key().subject_public_key.data.as_ref() != authority.public() {
        return Err(DoorError::Certificate("this authority key is not the one in the site's door root".into()));
    }
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    let name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default();
    issuer.distinguished_name.push(DnType::CommonName, name);
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(issuer, ForCertificates::signer(authority));
    Ok(p.signed_by(key, &issuer).map_err(error)?.der().to_vec())
}

/// Who an agent's certificate is for, and for how long.
#[derive(Clone, Debug)]
pub struct AgentRequest<'a> {
    /// The site.
    pub site: &'a Name,
    /// The only dataset it may append to.
    pub dataset: &'a Name,
    /// The agent.
    pub agent: &'a Name,
    /// Its key: P-384, SEC1.
    pub key: &'a [u8],
    /// From when.
    pub not_before: Moment,
    /// Until when.
    pub not_after: Moment,
}

/// An agent's certificate (DER). `root` is the site's door root, `authority` its key.
pub fn agent_certificate(request: &AgentRequest<'_>, root: &[u8], authority: &dyn DoorKey) -> Result<Vec<u8>, DoorError> {
    let uri = agent_uri(request.site, request.dataset, request.agent);
    let p = params(request.agent.as_str(), Some(uri), request.not_before, request.not_after)?;
    let key = ForCertificates::public(Curve::P384, request.key)?;
    issue(p, ExtendedKeyUsagePurpose::ClientAuth, &key, root, authority)
}

/// An appliance's certificate (DER) for its TPM's node key (`node`: P-256, SEC1).
pub fn node_certificate(
    site: &Name,
    appliance: &Name,
    node: &[u8],
    (not_before, not_after): (Moment, Moment),
    root: &[u8],
    authority: &dyn DoorKey,
) -> Result<Vec<u8>, DoorError> {
    let p = params(appliance.as_str(), Some(appliance_uri(site, appliance)), not_before, not_after)?;
    let key = ForCertificates::public(Curve::P256, node)?;
    issue(p, ExtendedKeyUsagePurpose::ServerAuth, &key, root, authority)
}

/// A custodian's or reader's certificate (DER) for its own key, valid for a day:
/// it is made for each connection and only carries the key.
pub fn self_signed(name: &Name, key: &dyn DoorKey) -> Result<Vec<u8>, DoorError> {
    let now = Moment::now();
    let before = Moment::from_seconds(now.seconds().saturating_sub(86_400));
    let mut p = params(name.as_str(), None, before, now.plus(86_400))?;
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(p.self_signed(&ForCertificates::signer(key)).map_err(error)?.der().to_vec())
}

/// The URIs in a certificate that rustls has accepted.
pub(crate) fn uris(der: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(der) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uri = |n: &x509_parser::extensions::GeneralName<'_>| match n {
        x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// From when and until when a certificate holds.
pub fn validity(der: &[u8]) -> Result<(Moment, Moment), DoorError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| DoorError::Certificate("the certificate is damaged".into()))?;
    let at = |time: x509_parser::time::ASN1Time| Moment::from_seconds(u64::try_from(time.timestamp()).unwrap_or(0));
    Ok((at(parsed.validity().not_before), at(parsed.validity().not_after)))
}

/// Checks that a certificate is for this appliance and this node key (P-256, SEC1).
pub fn is_node_certificate(der: &[u8], site: &Name, appliance: &Name, node: &[u8]) -> Result<(), DoorError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|_| DoorError::Certificate("the node certificate is damaged".into()))?;
    if parsed.public_key().subject_public_key.data.as_ref() != uncompressed(Curve::P256, node)? {
        return Err(DoorError::Certificate("the node certificate is for another TPM's key: enrol again".into()));
    }
    if uris(der) != [appliance_uri(site, appliance)] {
        return Err(DoorError::Certificate("the node certificate names another appliance".into()));
    }
    Ok(())
}
