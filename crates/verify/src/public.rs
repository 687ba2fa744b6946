//! TPMT_PUBLIC: what a TPM object says of itself.
//!
//! Promises: [`Public::parse`] accepts exactly the objects that Hoidla uses (P-256 keys and
//! sealed data, all under SHA-256) and nothing after them; [`Public::marshal`] gives back
//! the bytes that were parsed, so that [`Public::name`] is the TPM's name of the object.

use hoidla_format::Hash32;
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    policy::TpmName,
    wire::{Input, sized},
};

const ALG_KEYEDHASH: u16 = 0x0008;
const ALG_AES: u16 = 0x0006;
pub(crate) const ALG_SHA256: u16 = 0x000B;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;

/// Attributes of an object (TPMA_OBJECT): the bits that Hoidla uses.
pub mod attribute {
    /// Never leaves this TPM.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// Never leaves this parent.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made its secret.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// Usable with its auth value alone.
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// Administered by policy only.
    pub const ADMIN_WITH_POLICY: u32 = 1 << 7;
    /// Wrong tries don't count towards a lockout.
    pub const NO_DA: u32 = 1 << 10;
    /// Uses only structures of the TPM's own making.
    pub const RESTRICTED: u32 = 1 << 16;
    /// Decrypts.
    pub const DECRYPT: u32 = 1 << 17;
    /// Signs, or verifies.
    pub const SIGN: u32 = 1 << 18;
}

/// Why a public area was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublicError {
    /// The bytes ended too early.
    #[error("a TPM object's public area is cut short")]
    Truncated,
    /// Bytes after the end.
    #[error("a TPM object's public area has {0} bytes too many")]
    Trailing(usize),
    /// A field of another length.
    #[error("a field of {found} bytes where {wanted} belong, in a TPM object's public area")]
    Length {
        /// Bytes that belong there.
        wanted: usize,
        /// Bytes as read.
        found: usize,
    },
    /// Another algorithm than the one Hoidla uses.
    #[error("a TPM object with {0}; Hoidla uses P-256, SHA-256 and AES-128-CFB only")]
    Unsupported(&'static str),
    /// The point isn't on P-256.
    #[error("a TPM key whose point is not on P-256")]
    NotOnCurve,
}

/// What kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A P-256 key that protects other objects (AES-128-CFB inside), or decrypts.
    Storage(Point),
    /// A P-256 key that signs by ECDSA with SHA-256.
    Signing(Point),
    /// Sealed data; the hash binds public to private area.
    Sealed([u8; 32]),
}

/// A point of P-256, as the TPM writes it: two coordinates of 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// The first coordinate.
    pub x: [u8; 32],
    /// The second coordinate.
    pub y: [u8; 32],
}

impl Point {
    /// All zero: what a template has in place of a point.
    pub const EMPTY: Self = Self { x: [0; 32], y: [0; 32] };

    /// The point of a P-256 key.
    pub fn of(key: &p256::PublicKey) -> Self {
        let sec1 = key.to_sec1_point(false);
        let bytes: [u8; 65] = sec1.as_bytes().try_into().expect("an uncompressed point of P-256 has 65 bytes");
        Self { x: bytes[1..33].try_into().expect("32 bytes"), y: bytes[33..].try_into().expect("32 bytes") }
    }

    /// SEC1, uncompressed (65 bytes).
    pub fn to_sec1(&self) -> [u8; 65] {
        let mut out = [4; 65];
        out[1..33].copy_from_slice(&self.x);
        out[33..].copy_from_slice(&self.y);
        out
    }

    /// The key, if the point is on the curve.
    pub fn key(&self) -> Result<p256::PublicKey, PublicError> {
        p256::PublicKey::from_sec1_bytes(&self.to_sec1()).map_err(|_| PublicError::NotOnCurve)
    }

    fn parse(input: &mut Input<'_>) -> Result<Self, PublicError> {
        Ok(Self { x: input.exactly()?, y: input.exactly()? })
    }

    /// TPMS_ECC_POINT.
    pub(crate) fn marshal(&self) -> Vec<u8> {
        [sized(&self.x), sized(&self.y)].concat()
    }
}

/// A TPM object's public area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// TPMA_OBJECT; see [`attribute`].
    pub attributes: u32,
    /// The digest of the policy under which it may be used, if any.
    pub policy: Option<Hash32>,
    /// What it is.
    pub shape: Shape,
}

impl Public {
    /// The most bytes of a marshalled public area that is worth parsing.
    pub const MOST: usize = 256;

    /// Parses TPMT_PUBLIC; refuses trailing bytes and every algorithm but Hoidla's.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicError> {
        if bytes.len() > Self::MOST {
            return Err(PublicError::Trailing(bytes.len() - Self::MOST));
        }
        let mut input = Input(bytes);
        let kind = input.u16()?;
        input.expect(ALG_SHA256, "another name algorithm")?;
        let attributes = input.u32()?;
        let policy = parse_policy(&mut input)?;
        let shape = match kind {
            ALG_ECC => parse_ecc(&mut input)?,
            ALG_KEYEDHASH => {
                input.expect(ALG_NULL, "a keyed-hash scheme")?;
                Shape::Sealed(input.exactly()?)
            }
            _ => return Err(PublicError::Unsupported("another type of key")),
        };
        if input.0.is_empty() { Ok(Self { attributes, policy, shape }) } else { Err(PublicError::Trailing(input.0.len())) }
    }

    /// TPMT_PUBLIC.
    pub fn marshal(&self) -> Vec<u8> {
        let kind = if matches!(self.shape, Shape::Sealed(_)) { ALG_KEYEDHASH } else { ALG_ECC };
        let mut out = [kind.to_be_bytes(), ALG_SHA256.to_be_bytes()].concat();
        out.extend(self.attributes.to_be_bytes());
        out.extend(sized(self.policy.as_ref().map_or(&[][..], |p| &p.0)));
        match &self.shape {
            Shape::Storage(point) => {
                put(&mut out, &[ALG_AES, 128, ALG_CFB, ALG_NULL, CURVE_P256, ALG_NULL]);
                out.extend(point.marshal());
            }
            Shape::Signing(point) => {
                put(&mut out, &[ALG_NULL, ALG_ECDSA, ALG_SHA256, CURVE_P256, ALG_NULL]);
                out.extend(point.marshal());
            }
            Shape::Sealed(unique) => {
                put(&mut out, &[ALG_NULL]);
                out.extend(sized(unique));
            }
        }
        out
    }

    /// The TPM's name of the object: the hash algorithm, then SHA-256 of the public area.
    pub fn name(&self) -> TpmName {
        TpmName::of(&self.marshal())
    }

    /// The key's point; none for sealed data.
    pub fn point(&self) -> Option<&Point> {
        match &self.shape {
            Shape::Storage(p) | Shape::Signing(p) => Some(p),
            Shape::Sealed(_) => None,
        }
    }

    /// The storage root key's template: TCG's for P-256, with an empty point, so that every
    /// creation in the same TPM gives the same key.
    pub fn srk_template() -> Self {
        use attribute::{DECRYPT, FIXED_PARENT, FIXED_TPM, NO_DA, RESTRICTED, SENSITIVE_DATA_ORIGIN, USER_WITH_AUTH};
        Self {
            attributes: FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT,
            policy: None,
            shape: Shape::Storage(Point::EMPTY),
        }
    }

    /// The endorsement key's template: TCG's for P-256 ("EK Credential Profile", template L-2).
    pub fn ek_template() -> Self {
        use attribute::{ADMIN_WITH_POLICY, DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN};
        Self {
            attributes: FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT,
            policy: Some(EK_POLICY),
            shape: Shape::Storage(Point::EMPTY),
        }
    }

    /// A key that signs, usable under `policy` only; `restricted` signs the TPM's own structures only.
    pub fn signing_template(policy: Hash32, restricted: bool) -> Self {
        use attribute::{ADMIN_WITH_POLICY, FIXED_PARENT, FIXED_TPM, NO_DA, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN};
        let base = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | ADMIN_WITH_POLICY | NO_DA | SIGN;
        Self { attributes: if restricted { base | RESTRICTED } else { base }, policy: Some(policy), shape: Shape::Signing(Point::EMPTY) }
    }

    /// The prover's template: a primary key in the endorsement hierarchy that signs only what the
    /// TPM itself says, for whoever asks. Used once, to prove which keys are in one TPM.
    pub fn prover_template() -> Self {
        use attribute::{FIXED_PARENT, FIXED_TPM, NO_DA, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN, USER_WITH_AUTH};
        Self {
            attributes: FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN,
            policy: None,
            shape: Shape::Signing(Point::EMPTY),
        }
    }

    /// Whether two objects are the same but for what a TPM fills in: their points or hashes.
    pub fn same_template(&self, other: &Self) -> bool {
        self.attributes == other.attributes
            && self.policy == other.policy
            && std::mem::discriminant(&self.shape) == std::mem::discriminant(&other.shape)
    }
}

/// PolicySecret(TPM_RH_ENDORSEMENT), as TCG's template of the endorsement key has it.
pub const EK_POLICY: Hash32 = Hash32([
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD, 0x52, 0xD7, 0x6E, 0x06, 0x52,
    0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
]);

fn put(out: &mut Vec<u8>, numbers: &[u16]) {
    numbers.iter().for_each(|n| out.extend(n.to_be_bytes()));
}

fn parse_policy(input: &mut Input<'_>) -> Result<Option<Hash32>, PublicError> {
    match usize::from(input.u16()?) {
        0 => Ok(None),
        32 => Ok(Some(Hash32(input.take(32)?.try_into().expect("32 bytes")))),
        found => Err(PublicError::Length { wanted: 32, found }),
    }
}

fn parse_ecc(input: &mut Input<'_>) -> Result<Shape, PublicError> {
    let storage = match input.u16()? {
        ALG_AES => {
            input.expect(128, "a key of other than 128 bits")?;
            input.expect(ALG_CFB, "another mode than CFB")?;
            input.expect(ALG_NULL, "a storage key that signs")?;
            true
        }
        ALG_NULL => {
            input.expect(ALG_ECDSA, "another signature than ECDSA")?;
            input.expect(ALG_SHA256, "another hash than SHA-256")?;
            false
        }
        _ => return Err(PublicError::Unsupported("another cipher than AES")),
    };
    input.expect(CURVE_P256, "another curve than P-256")?;
    input.expect(ALG_NULL, "a key derivation scheme")?;
    let point = Point::parse(input)?;
    Ok(if storage { Shape::Storage(point) } else { Shape::Signing(point) })
}

/// SHA-256 of all parts, one after another.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut h = Sha256::new();
    parts.iter().for_each(|p| h.update(p));
    h.finalize().into()
}
