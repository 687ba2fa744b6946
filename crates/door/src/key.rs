//! Keys that prove who is at the door, wherever they are kept: in memory or in a TPM.

use std::{fmt, sync::Arc};

use p384::{ecdsa::signature::Signer as _, pkcs8::DecodePrivateKey as _};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    sign::{Signer, SigningKey},
};

use crate::DoorError;

/// The curve of a key, and the hash that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// P-256 with SHA-256: what TPMs speak.
    P256,
    /// P-384 with SHA-384: everyone else.
    P384,
}

/// A private key for ECDSA, which may be remote.
pub trait DoorKey: Send + Sync {
    /// Its curve.
    fn curve(&self) -> Curve;
    /// Its public point: SEC1, uncompressed.
    fn public(&self) -> Vec<u8>;
    /// Hashes and signs `message`; the signature is ASN.1 DER. May block for a while.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

impl DoorKey for p384::ecdsa::SigningKey {
    fn curve(&self) -> Curve {
        Curve::P384
    }

    fn public(&self) -> Vec<u8> {
        self.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature: p384::ecdsa::Signature = self.try_sign(message).map_err(|e| e.to_string())?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// A key in memory, from PKCS#8 (DER), as `hoidla_crypto::sign::SigningKey::to_pkcs8` gives it.
pub fn software_key(pkcs8: &[u8]) -> Result<Arc<dyn DoorKey>, DoorError> {
    let key = p384::ecdsa::SigningKey::from_pkcs8_der(pkcs8).map_err(|_| DoorError::Certificate("not a private key of P-384".into()))?;
    Ok(Arc::new(key))
}

/// A key as rustls wants it.
#[derive(Clone)]
pub(crate) struct ForTls(pub Arc<dyn DoorKey>);

impl fmt::Debug for ForTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a door key")
    }
}

impl ForTls {
    fn own_scheme(&self) -> SignatureScheme {
        match self.0.curve() {
            Curve::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Curve::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }
}

impl SigningKey for ForTls {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.own_scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for ForTls {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0.sign(message).map_err(|e| rustls::Error::General(format!("the door key did not sign: {e}")))
    }

    fn scheme(&self) -> SignatureScheme {
        self.own_scheme()
    }
}

/// A key, or only its public half, as rcgen wants it.
pub(crate) struct ForCertificates<'a> {
    curve: Curve,
    public: Vec<u8>,
    key: Option<&'a dyn DoorKey>,
}

impl<'a> ForCertificates<'a> {
    pub(crate) fn signer(key: &'a dyn DoorKey) -> Self {
        Self { curve: key.curve(), public: key.public(), key: Some(key) }
    }

    /// A public key as SEC1 in either form, checked to lie on its curve.
    pub(crate) fn public(curve: Curve, sec1: &[u8]) -> Result<Self, DoorError> {
        Ok(Self { curve, public: uncompressed(curve, sec1)?, key: None })
    }
}

/// A point in SEC1's uncompressed form, checked to lie on its curve.
pub(crate) fn uncompressed(curve: Curve, sec1: &[u8]) -> Result<Vec<u8>, DoorError> {
    let bad = |_| DoorError::Certificate(format!("not a public key of {curve:?}"));
    Ok(match curve {
        Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(sec1).map_err(bad)?.to_sec1_point(false).as_bytes().to_vec(),
        Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(sec1).map_err(bad)?.to_sec1_point(false).as_bytes().to_vec(),
    })
}

impl rcgen::PublicKeyData for ForCertificates<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.curve {
            Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl rcgen::SigningKey for ForCertificates<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.and_then(|k| k.sign(message).ok()).ok_or(rcgen::Error::RemoteKeyError)
    }
}

/// The SubjectPublicKeyInfo (DER) of a P-384 key: how a key is recognised at the door.
pub(crate) fn spki_of(sec1: &[u8]) -> Result<Vec<u8>, DoorError> {
    Ok(rcgen::PublicKeyData::subject_public_key_info(&ForCertificates::public(Curve::P384, sec1)?))
}
