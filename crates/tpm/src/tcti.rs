//! Where the TPM is.

use std::{fmt, str::FromStr};

/// The way to a TPM: `swtpm:host=127.0.0.1,port=2321` or `device:/dev/tpmrm0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcti(String);

impl Tcti {
    /// A software TPM that listens on `port` (commands) and `port + 1` (control).
    pub fn swtpm(host: &str, port: u16) -> Self {
        Self(format!("swtpm:host={host},port={port}"))
    }

    /// A TPM device; `/dev/tpmrm0` unless there is a reason.
    pub fn device(path: &str) -> Self {
        Self(format!("device:{path}"))
    }

    /// As libtss2's loader wants it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tcti {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let known = s.starts_with("swtpm:") || s.starts_with("device:");
        if known && s.len() <= 256 && !s.contains('\0') {
            Ok(Self(s.to_owned()))
        } else {
            Err(format!("{s:?} is no TPM: use swtpm:host=127.0.0.1,port=2321 or device:/dev/tpmrm0"))
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
