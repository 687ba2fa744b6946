//! The names of things: datasets, streams, people and machines.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Malformed;

/// A name that may stand in a path, a certificate and a statement: 1 to 64 of
/// `a-z`, `0-9` and `-`, not beginning or ending with `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The most bytes a name has.
    pub const MOST: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name from the bytes of a binary layout.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        std::str::from_utf8(bytes).ok().and_then(|s| s.parse().ok()).ok_or(Malformed::Field("not a name: use 1 to 64 of a-z, 0-9 and -"))
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let fits = (1..=Self::MOST).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !s.starts_with('-')
            && !s.ends_with('-');
        if fits { Ok(Self(s.to_owned())) } else { Err(format!("{s:?} is no name: use 1 to {} of a-z, 0-9 and -", Self::MOST)) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The dataset that a store keeps its own log in. No site may name it.
pub const LOG_DATASET: &str = "hoidla-log";

/// A stream's identity: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub [u8; 16]);

impl FromStr for StreamId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        crate::text::from_hex(s).map(Self).ok_or_else(|| format!("{s:?} is no stream: use 32 digits of 0-9a-f"))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes `at .. at + len` of a stream's ciphertext. Cannot overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    at: u64,
    len: u64,
}

impl ByteRange {
    /// The range, unless its end passes 2^63.
    pub fn new(at: u64, len: u64) -> Result<Self, Malformed> {
        match at.checked_add(len) {
            Some(end) if end <= 1 << 63 => Ok(Self { at, len }),
            _ => Err(Malformed::Field("a range past the end of any stream")),
        }
    }

    /// The first byte's offset.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The offset after the last byte.
    pub fn end(&self) -> u64 {
        self.at + self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_narrow() {
        for good in ["a", "lux-1", "state-gazette"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "ä", "a b", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_cannot_overflow() {
        assert!(ByteRange::new(u64::MAX, 1).is_err());
        assert!(ByteRange::new(1 << 63, 1).is_err());
        assert_eq!(ByteRange::new(5, 7).unwrap().end(), 12);
    }
}
