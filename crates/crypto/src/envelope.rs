//! A custodian's envelope: one share, opened only by both halves of a pair.
//!
//! Layout, version 1: `header (8) ‖ ephemeral P-384 key, SEC1 compressed (49) ‖
//! ML-KEM-1024 ciphertext (1,568) ‖ AES-256-GCM ciphertext of the share ‖ tag (16)`.
//! Key: HKDF-SHA384 over `ECDH secret (48) ‖ ML-KEM secret (32)`; info: label,
//! ephemeral key, ML-KEM ciphertext, the custodian's two public keys, the share's
//! id. The key is used once, so the nonce is twelve zeros; associated data: the
//! header and the share's id.
//!
//! Promises: opens only with the ECDH key *and* the ML-KEM key it was sealed to, and
//! only as the share it was sealed as. Authenticates nobody: that an envelope holds
//! the right share is checked against the vault certificate's commitment.

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, Nonce, Payload},
};
use hoidla_format::{
    Bytes, Header, Kind, Malformed, Name, Reader,
    statements::{Custodian, Door},
};
use ml_kem::{EncapsulationKey, FromSeed, KeyExport, MlKem1024, kem::Decapsulate};
use p384::{PublicKey, SecretKey};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Secret,
    keys::part,
    labels::{CUSTODIAN_ECDH, CUSTODIAN_MLKEM, CUSTODIAN_SIGNING, ENVELOPE, ENVELOPE_SHARE},
    secret::then_wipe_stack,
    sign::{self, SigningKey},
    wrap::{bind, cipher, derive},
};

const VERSION: u8 = 1;
const POINT: usize = 49;
const MLKEM_CIPHERTEXT: usize = 1568;
/// The most bytes one envelope holds.
pub const MOST_SHARE: usize = 1024;
/// How much longer an envelope is than the share.
pub const OVERHEAD: usize = Header::LEN + POINT + MLKEM_CIPHERTEXT + 16;

/// Why an envelope was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// A custodian's card with keys that are none.
    #[error("the card of {0} holds no valid keys: ask them for it again")]
    Card(Name),
    /// Not an envelope, or of another version.
    #[error("the envelope cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// Other custodian, other share, or changed.
    #[error(
        "the envelope doesn't open with this key: it is another custodian's or of another vault epoch, or was changed; fetch it again from home"
    )]
    Refused,
}

/// Which share an envelope carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareId {
    /// The site.
    pub site: Name,
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// Which door the share opens.
    pub door: Door,
    /// Whose share.
    pub custodian: Name,
    /// Its x coordinate.
    pub index: u8,
}

impl ShareId {
    /// The id as one unambiguous string of bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let door = match self.door {
            Door::Quorum => b"quorum".as_slice(),
            Door::Recovery => b"recovery",
        };
        let text = |n: &Name| n.as_str().as_bytes().to_vec();
        let (site, dataset, custodian) = (text(&self.site), text(&self.dataset), text(&self.custodian));
        bind(ENVELOPE_SHARE, &[&site, &dataset, &self.vault_epoch.to_le_bytes(), door, &custodian, &[self.index]])
    }
}

/// A custodian's private keys, kept in a file (for drills).
pub struct CustodianKeys {
    signing: SigningKey,
    ecdh: Secret<48>,
    mlkem: Secret<64>,
}

impl CustodianKeys {
    /// The keys of a master secret.
    pub fn from_seed(master: &Secret<32>) -> Self {
        Self {
            signing: SigningKey::from_secret(&part(CUSTODIAN_SIGNING, master)),
            ecdh: sign::scalar(CUSTODIAN_ECDH, master),
            mlkem: derive(CUSTODIAN_MLKEM, &[master.expose()], &[]),
        }
    }

    /// What signs approvals and enters the door.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// The public card; to be signed with [`Self::signing_key`] under the same name.
    pub fn public_card(&self, name: &Name) -> Custodian {
        Custodian {
            name: name.clone(),
            signing: Bytes(self.signing.verifying_key().to_sec1()),
            ecdh: Bytes(self.ecdh_public()),
            mlkem: Bytes(self.mlkem_public()),
            kept_in: "file".to_owned(),
        }
    }

    fn ecdh_key(&self) -> SecretKey {
        SecretKey::from_slice(self.ecdh.expose()).expect("checked when it was made")
    }

    fn ecdh_public(&self) -> Vec<u8> {
        then_wipe_stack(|| compressed(&self.ecdh_key().public_key()))
    }

    fn mlkem_key(&self) -> ml_kem::DecapsulationKey<MlKem1024> {
        let mut seed = ml_kem::Seed::from(*self.mlkem.expose());
        let (key, _) = MlKem1024::from_seed(&seed);
        seed.zeroize();
        key
    }

    fn mlkem_public(&self) -> Vec<u8> {
        then_wipe_stack(|| self.mlkem_key().encapsulation_key().to_bytes().to_vec())
    }
}

/// The keys of a card, checked.
struct Card {
    ecdh: PublicKey,
    mlkem: EncapsulationKey<MlKem1024>,
}

fn read_card(card: &Custodian) -> Result<Card, EnvelopeError> {
    let bad = || EnvelopeError::Card(card.name.clone());
    let ecdh = (card.ecdh.0.len() == POINT).then(|| PublicKey::from_sec1_bytes(&card.ecdh.0).ok()).flatten().ok_or_else(bad)?;
    let mlkem = card.mlkem.0.as_slice().try_into().ok().and_then(|k| EncapsulationKey::new(k).ok()).ok_or_else(bad)?;
    Ok(Card { ecdh, mlkem })
}

/// Refuses a card whose keys are none.
pub fn check_card(card: &Custodian) -> Result<(), EnvelopeError> {
    sign::VerifyingKey::from_sec1(&card.signing.0).map_err(|_| EnvelopeError::Card(card.name.clone()))?;
    read_card(card).map(drop)
}

/// Seals a share to a custodian's card.
pub fn seal(card: &Custodian, id: &ShareId, share: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    then_wipe_stack(|| seal_with(&mut crate::system_rng(), card, id, share))
}

pub(crate) fn seal_with(rng: &mut impl CryptoRng, card: &Custodian, id: &ShareId, share: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    assert!(share.len() <= MOST_SHARE, "a share is short");
    let to = read_card(card)?;
    let ephemeral = ephemeral(rng);
    let point = compressed(&ephemeral.public_key());
    let mut m = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *m);
    let (ciphertext, mut mlkem_secret) = to.mlkem.encapsulate_deterministic(&(*m).into());
    let ecdh_secret = ephemeral.diffie_hellman(&to.ecdh);
    let key = envelope_key(ecdh_secret.raw_secret_bytes(), &mlkem_secret, &point, &ciphertext, (&card.ecdh.0, &card.mlkem.0), id);
    mlkem_secret.zeroize();
    let payload = Payload { msg: share, aad: &associated(id) };
    let sealed = cipher(&key).encrypt(&Nonce::<Aes256Gcm>::default(), payload).expect("a share is short");
    Ok([&Header::bytes(Kind::Envelope, VERSION)[..], &point, &ciphertext, &sealed].concat())
}

/// Opens an envelope as the share `id`.
pub fn open(keys: &CustodianKeys, id: &ShareId, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    then_wipe_stack(|| open_with(keys, id, envelope))
}

fn open_with(keys: &CustodianKeys, id: &ShareId, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let mut r = Reader::new(envelope);
    r.header(Kind::Envelope, VERSION)?;
    let point = r.take(POINT)?;
    let ciphertext = r.take(MLKEM_CIPHERTEXT)?;
    let sealed = r.rest();
    if sealed.len() > MOST_SHARE + 16 {
        return Err(Malformed::Field("an envelope with too long a share").into());
    }
    let peer = PublicKey::from_sec1_bytes(point).map_err(|_| EnvelopeError::Refused)?;
    let ecdh_secret = keys.ecdh_key().diffie_hellman(&peer);
    let mut mlkem_secret = keys.mlkem_key().decapsulate_slice(ciphertext).map_err(|_| EnvelopeError::Refused)?;
    let public = (&keys.ecdh_public()[..], &keys.mlkem_public()[..]);
    let key = envelope_key(ecdh_secret.raw_secret_bytes(), &mlkem_secret, point, ciphertext, public, id);
    mlkem_secret.zeroize();
    let payload = Payload { msg: sealed, aad: &associated(id) };
    cipher(&key).decrypt(&Nonce::<Aes256Gcm>::default(), payload).map(Zeroizing::new).map_err(|_| EnvelopeError::Refused)
}

fn envelope_key(ecdh: &[u8], mlkem: &[u8], point: &[u8], ciphertext: &[u8], public: (&[u8], &[u8]), id: &ShareId) -> Secret<32> {
    derive(ENVELOPE, &[ecdh, mlkem], &[point, ciphertext, public.0, public.1, &id.bytes()])
}

fn associated(id: &ShareId) -> Vec<u8> {
    [&Header::bytes(Kind::Envelope, VERSION)[..], &id.bytes()].concat()
}

fn ephemeral(rng: &mut impl CryptoRng) -> SecretKey {
    loop {
        let mut bytes = Zeroizing::new([0; 48]);
        rng.fill_bytes(&mut *bytes);
        if let Ok(key) = SecretKey::from_slice(&*bytes) {
            return key;
        }
    }
}

fn compressed(key: &PublicKey) -> Vec<u8> {
    use p384::elliptic_curve::sec1::ToSec1Point;
    key.to_sec1_point(true).as_bytes().to_vec()
}
