//! Checkpoints: the log's head as a text to be signed (C2SP tlog-checkpoint).
//!
//! ```text
//! hoidla/SITE/APPLIANCE      the origin: which log
//! 1234                       its size in leaves
//! BASE64                     its root
//! ```
//!
//! Promises: one text for one head, and nothing else is read. It doesn't sign:
//! the signature lines of the [`Note`] around it do, a TPM's quote among them.

use std::fmt;

use base64ct::{Base64, Encoding};
use hoidla_format::{Hash32, Name, Note, StatementError};
use thiserror::Error;

/// The log's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The site whose log this is.
    pub site: Name,
    /// The appliance that keeps it.
    pub appliance: Name,
    /// How many leaves it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash32,
}

/// Why a text is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The note around it is damaged.
    #[error(transparent)]
    Note(#[from] StatementError),
    /// Not three lines.
    #[error("a checkpoint has three lines (origin, size, root), each ended")]
    Lines,
    /// The origin is not one of ours.
    #[error("the checkpoint's first line must be like: hoidla/SITE/APPLIANCE")]
    Origin,
    /// The size is not a plain number.
    #[error("the checkpoint's second line must be its size in decimal digits, without sign or leading zero")]
    Size,
    /// The root is not 32 bytes of base64.
    #[error("the checkpoint's third line must be its root, 32 bytes in base64")]
    Root,
}

impl Checkpoint {
    /// Which log this is the head of.
    pub fn origin(&self) -> String {
        format!("hoidla/{}/{}", self.site, self.appliance)
    }

    /// Reads exactly what its `Display` writes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        use CheckpointError as E;
        let lines = text.strip_suffix('\n').ok_or(E::Lines)?;
        let &[origin, size, root] = &lines.splitn(4, '\n').collect::<Vec<_>>()[..] else { return Err(E::Lines) };
        let (site, appliance) = origin.strip_prefix("hoidla/").and_then(|o| o.split_once('/')).ok_or(E::Origin)?;
        let name = |n: &str| n.parse::<Name>().map_err(|_| E::Origin);
        Ok(Self { site: name(site)?, appliance: name(appliance)?, size: parse_size(size)?, root: parse_root(root)? })
    }

    /// Splits a signed checkpoint into its head and its note, whose signatures are *not* checked here.
    pub fn open(signed: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(signed)?;
        Ok((Self::parse(&note.text)?, note))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin(), self.size, Base64::encode_string(&self.root.0))
    }
}

fn parse_size(line: &str) -> Result<u64, CheckpointError> {
    let plain = line.bytes().all(|b| b.is_ascii_digit()) && (line == "0" || !line.starts_with('0'));
    line.parse().ok().filter(|_| plain).ok_or(CheckpointError::Size)
}

fn parse_root(line: &str) -> Result<Hash32, CheckpointError> {
    let mut root = [0; 32];
    match Base64::decode(line, &mut root) {
        Ok(bytes) if bytes.len() == 32 => Ok(Hash32(root)),
        _ => Err(CheckpointError::Root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frontier;
    use hoidla_format::statement::Signature;

    fn head() -> Checkpoint {
        Checkpoint { site: "luxembourg".parse().unwrap(), appliance: "lux-1".parse().unwrap(), size: 0, root: Frontier::new().root() }
    }

    #[test]
    fn the_known_text() {
        let text = "hoidla/luxembourg/lux-1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        assert_eq!(head().to_string(), text);
        assert_eq!(Checkpoint::parse(text), Ok(head()));
    }

    #[test]
    fn a_signed_one_opens() {
        let signature = Signature { name: "lux-1".into(), key_id: [1; 4], bytes: vec![2; 96] };
        let note = Note { text: head().to_string(), signatures: vec![signature] };
        assert_eq!(Checkpoint::open(note.write().as_bytes()), Ok((head(), note)));
        assert!(matches!(Checkpoint::open(head().to_string().as_bytes()), Err(CheckpointError::Note(_))));
    }

    #[test]
    fn any_other_text_is_refused() {
        use CheckpointError as E;
        let good = head().to_string();
        let with = |from: &str, to: &str| Checkpoint::parse(&good.replace(from, to)).unwrap_err();
        assert_eq!(Checkpoint::parse(good.trim_end()), Err(E::Lines));
        assert_eq!(Checkpoint::parse(&format!("{good}more\n")), Err(E::Lines));
        assert_eq!(Checkpoint::parse(""), Err(E::Lines));
        assert_eq!(with("hoidla/", "other/"), E::Origin);
        assert_eq!(with("lux-1", "lux-1/x"), E::Origin);
        for size in ["00", "+0", "-1", "", "1 ", "18446744073709551616"] {
            assert_eq!(with("\n0\n", &format!("\n{size}\n")), E::Size, "{size:?}");
        }
        for root in ["", "47DEQpj8HBSa", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="] {
            assert_eq!(with("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", root), E::Root, "{root:?}");
        }
    }
}
