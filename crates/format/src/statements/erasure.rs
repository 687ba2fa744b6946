//! What an appliance says of a disk that it erased.

use serde::{Deserialize, Serialize};

use crate::{Hash32, Moment, Name};

/// Every byte of this disk was overwritten with zeros, and read back as zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erased {
    /// The site.
    pub site: Name,
    /// The appliance that erased it.
    pub appliance: Name,
    /// The tray it was in, from 1.
    pub tray: u8,
    /// The disk's serial number as the system tells it; empty where it has none.
    pub serial: String,
    /// What it was, in the appliance's words.
    pub was: String,
    /// The hash of what was seen on it before: its size, its first and last MiB.
    pub seen: Hash32,
    /// Bytes overwritten, from its beginning: all whole blocks of 4096.
    pub bytes: u64,
    /// The appliance's powered seconds.
    pub powered: u64,
    /// The size of the appliance's log when it began.
    pub log_size: u64,
    /// The log's root there.
    pub log_root: Hash32,
    /// When it was done, by the machine's clock, which anybody at the machine can set.
    pub created: Moment,
}
