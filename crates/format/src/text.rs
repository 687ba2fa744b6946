//! Bytes within statements: base64 for keys and ciphertext, hexadecimal for hashes.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Public bytes, written as base64 (RFC 4648, padded). Never a secret: it has Debug.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The most bytes one field of a statement holds.
    pub const MOST: usize = 16 * 1024;
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Base64::encode_string(&self.0))
    }
}

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() > Self::MOST / 3 * 4 + 4 {
            return Err("too many bytes for one field");
        }
        Base64::decode_vec(s).map(Self).map_err(|_| "not base64 (RFC 4648 with padding)")
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Parses exactly `2 * N` lower-case hexadecimal digits.
pub fn from_hex<const N: usize>(s: &str) -> Option<[u8; N]> {
    let s = s.as_bytes();
    if s.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (o, pair) in out.iter_mut().zip(s.chunks_exact(2)) {
        *o = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

macro_rules! hash {
    ($name:ident, $len:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                from_hex(&String::deserialize(d)?)
                    .map(Self)
                    .ok_or_else(|| D::Error::custom(concat!("not ", $len, " bytes in hexadecimal, lower case")))
            }
        }
    };
}

hash!(Hash32, 32, "32 bytes of hash (SHA-256 or BLAKE3, as the field says), in hexadecimal.");
hash!(Hash48, 48, "48 bytes of SHA-384, in hexadecimal.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_exact() {
        assert_eq!(from_hex::<2>("0aff"), Some([10, 255]));
        for bad in ["0aF0", "0a", "0a0b0c", "0g00"] {
            assert_eq!(from_hex::<2>(bad), None);
        }
    }
}
