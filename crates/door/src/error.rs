//! Why the door stayed shut, in words that say what to do next.

use hoidla_protocol::{Refused, client::Broken};
use rustls::{AlertDescription, CertificateError};
use thiserror::Error;

/// Why a connection failed.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The network failed, or the appliance is not there.
    #[error("the appliance cannot be reached: is it up, and the address right?")]
    Network(#[from] std::io::Error),
    /// Nothing came, or nothing went, for too long.
    #[error("{0} took too long; try again, and look at the line between")]
    Slow(&'static str),
    /// The appliance let this certificate not in.
    #[error("the appliance refused this certificate: {0}")]
    NotAdmitted(&'static str),
    /// The appliance is not the one that was meant.
    #[error("this is not the appliance that was meant: {0}")]
    WrongAppliance(String),
    /// A certificate or key cannot be used.
    #[error("{0}")]
    Certificate(String),
    /// The handshake failed in another way.
    #[error("the handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The appliance said no.
    #[error("the appliance refused: {0}")]
    Refused(#[from] Refused),
    /// The appliance said what it must not.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The connection ended.
    #[error("the appliance closed the connection; connect again")]
    Closed,
}

impl From<hoidla_format::Malformed> for DoorError {
    fn from(e: hoidla_format::Malformed) -> Self {
        Self::Broken(e.into())
    }
}

impl DoorError {
    /// What an error of a TLS stream means.
    pub(crate) fn from_tls(e: std::io::Error) -> Self {
        match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::from_alert(*alert),
            Some(rustls::Error::InvalidCertificate(why)) => Self::WrongAppliance(own_verdict(why)),
            Some(other) => Self::Handshake(other.clone()),
            None if e.kind() == std::io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Network(e),
        }
    }

    fn from_alert(alert: AlertDescription) -> Self {
        use AlertDescription as A;
        Self::NotAdmitted(match alert {
            A::CertificateExpired => "it has expired or is not valid yet; ask the authority for a new one, and check both clocks",
            A::CertificateRevoked => "the site file revokes this agent; ask the authority",
            // DecryptError: signed by an authority of the same name with another key.
            A::UnknownCA | A::DecryptError => {
                "it is another site's, or its key stands in no roster and no grant that the appliance holds; \
                 agents need a certificate of this site, custodians a roster, readers a grant that was proposed and has not ended or been sealed"
            }
            A::AccessDenied => "it names another site, or a dataset that the site file doesn't have; ask the authority",
            A::CertificateRequired => "none was sent; a certificate is needed to enter",
            A::UnsupportedCertificate | A::BadCertificate => "it is not made for this door; ask the authority for a new one",
            A::HandshakeFailure => "no common key exchange; both sides need X25519MLKEM768, so use a current release",
            _ => return Self::Handshake(rustls::Error::AlertReceived(alert)),
        })
    }
}

fn own_verdict(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "its certificate is another site's; check the address and the site file".to_owned(),
        CertificateError::NotValidForName => "its certificate names another appliance; check the address and the site file".to_owned(),
        other => format!("its certificate was refused ({other}); ask the authority"),
    }
}
