//! What an agent says when the embassy contradicts itself.

use std::{fmt, path::PathBuf};

/// The embassy contradicted what it had committed to, or what this agent saw acknowledged.
#[derive(Debug)]
pub struct Alarm {
    /// Which appliance: `hoidla/SITE/APPLIANCE`.
    pub origin: String,
    /// What happened.
    pub what: String,
    /// Where both sides are kept, or why they could not be written down.
    pub evidence: Result<PathBuf, String>,
}

impl std::error::Error for Alarm {}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, what, evidence } = self;
        writeln!(f, "ALARM: {origin} contradicts itself or this agent's record")?;
        writeln!(f, "  what happened: {what}")?;
        match evidence {
            Ok(dir) => writeln!(f, "  evidence: what was kept here and what was shown now lie in {}; don't delete them", dir.display())?,
            Err(why) => writeln!(f, "  evidence: NOT written down ({why}); make room, keep this text, and run `hoidla-agent audit` again")?,
        }
        write!(
            f,
            "  whom to tell: the authority, by telephone, and the operators of the other agents of this appliance, who can compare their \
             checkpoints. Keep the registry's own copies at home. Nobody at the appliance can settle this"
        )
    }
}
