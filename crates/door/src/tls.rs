//! TLS as the door speaks it: 1.3, AES-256-GCM, X25519MLKEM768, both sides with
//! certificates, nothing remembered between connections.

use std::sync::Arc;

use hoidla_format::Name;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::{Admission, DoorError, DoorKey, certificate, key::ForTls};

/// The name of our protocol in the handshake.
pub const ALPN: &[u8] = b"hoidla/1";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    })
}

fn certified(certificate: &[u8], key: Arc<dyn DoorKey>) -> Arc<SingleCertAndKey> {
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::new(ForTls(key)))))
}

fn config_error(e: rustls::Error) -> DoorError {
    DoorError::Certificate(format!("TLS cannot be set up: {e}"))
}

/// The appliance's side: its certificate (DER), its node key, and who may enter.
pub fn server_config(certificate: &[u8], key: Arc<dyn DoorKey>, admission: Arc<Admission>) -> Result<Arc<ServerConfig>, DoorError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(config_error)?
        .with_client_cert_verifier(admission)
        .with_cert_resolver(certified(certificate, key));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The other side: whom to expect, and with which certificate (DER) and key to knock.
pub(crate) fn client_config(expected: Expected, identity: Option<(&[u8], Arc<dyn DoorKey>)>) -> Result<Arc<ClientConfig>, DoorError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(config_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expected));
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_cert_resolver(certified(certificate, key)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The appliance that a client expects.
#[derive(Debug)]
pub(crate) struct Expected {
    roots: RootCertStore,
    uri: String,
    provider: Arc<CryptoProvider>,
}

impl Expected {
    /// The appliance of this site and name, whose certificate chains to `root` (DER).
    pub(crate) fn new(root: &[u8], site: &Name, appliance: &Name) -> Result<Self, DoorError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.to_vec())).map_err(config_error)?;
        Ok(Self { roots, uri: certificate::appliance_uri(site, appliance), provider: provider() })
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        if certificate::uris(end_entity) == [self.uri.as_str()] {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
