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

    /// Whether the kernel's resource manager stands before the TPM: each connection then has
    /// its own handles, others may be connected too, and what a connection leaves is flushed.
    pub(crate) fn has_resource_manager(&self) -> bool {
        self.0.starts_with("device:/dev/tpmrm")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_ways_are_taken() {
        for good in ["swtpm:host=127.0.0.1,port=2321", "device:/dev/tpmrm0", "device:/dev/tpm0"] {
            assert_eq!(good.parse::<Tcti>().unwrap().as_str(), good);
        }
        for bad in ["", "cmd:sh -c true", "mssim:port=1", "libtss2-tcti-cmd.so:x", "device:/dev/tpm0\0"] {
            assert!(bad.parse::<Tcti>().is_err(), "{bad}");
        }
        assert!(Tcti::device("/dev/tpmrm0").has_resource_manager());
        assert!(!Tcti::device("/dev/tpm0").has_resource_manager());
        assert!(!Tcti::swtpm("127.0.0.1", 1).has_resource_manager());
    }
}
