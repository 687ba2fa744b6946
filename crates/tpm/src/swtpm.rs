//! A software TPM in a process of its own, for demonstrations, tests and benches.

use std::{io, path::Path, process::Child};

use crate::Tcti;

/// A running `swtpm`, killed when dropped (which is a power cut to it: its state stays).
pub struct Swtpm {
    child: Child,
    tcti: Tcti,
}

impl Swtpm {
    /// Starts one on free ports of this machine, with its state in `state`, which must exist.
    pub fn start(state: &Path) -> io::Result<Self> {
        todo!()
    }

    /// Where it listens.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }
}
