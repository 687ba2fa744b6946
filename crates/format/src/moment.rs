//! A moment: seconds of Unix time, written as RFC 3339 in UTC.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Seconds since 1970-01-01T00:00:00Z. What a clock *claims*; no promise rests on it alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    const LAST: u64 = 253_402_300_799; // the end of the year 9999

    /// The moment so many seconds after the epoch; anything past year 9999 is its end.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.min(Self::LAST))
    }

    /// What the system's clock claims.
    pub fn now() -> Self {
        Self::from_seconds(std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()))
    }

    /// Seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// The moment so many seconds later.
    pub fn plus(self, seconds: u64) -> Self {
        Self::from_seconds(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = jiff::Timestamp::from_second(self.0 as i64).expect("a moment lies within jiff's range");
        write!(f, "{t}")
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let t: jiff::Timestamp = text.parse().map_err(|_| D::Error::custom("not a moment such as 2027-01-31T12:00:00Z"))?;
        u64::try_from(t.as_second()).map(Self::from_seconds).map_err(|_| D::Error::custom("a moment before 1970"))
    }
}
