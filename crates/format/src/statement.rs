//! Statements: texts that are signed.
//!
//! ```text
//! hoidla = "grant/1"                 the first line: kind and version
//! purpose = "..."                    TOML
//!                                    an empty line
//! — name BASE64(key id ‖ signature)  one line a signature (C2SP signed note)
//! ```
//!
//! Promises: what a machine wrote has exactly one encoding ([`parse`] refuses any
//! other bytes for the same meaning), unknown keys and versions are refused with
//! line and remedy, and nothing is parsed that is longer than [`MOST`]. Signatures
//! are split off here and checked by `hoidla-crypto` *before* the text is parsed.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::Hash32;

/// The most bytes a statement has, signatures included.
pub const MOST: usize = 256 * 1024;

/// The most signatures a note carries.
pub const MOST_SIGNATURES: usize = 64;

/// The most bytes of one signature, its key id included: a TPM's quote is the longest.
pub const MOST_SIGNATURE: usize = 1100;

/// The most bytes of a signer's name: `hoidla/SITE/APPLIANCE` is the longest.
pub const MOST_SIGNER: usize = 160;

/// A kind of statement.
pub trait Statement: Serialize + DeserializeOwned {
    /// What the first line says before the slash.
    const KIND: &'static str;
    /// What the first line says after the slash.
    const VERSION: u16 = 1;
    /// What this is, for an error's sentence: "a grant".
    const TITLE: &'static str;
}

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatementError {
    /// Not text, too long, or no signature block.
    #[error("this is not a Hoidla statement: {0}")]
    NotAStatement(&'static str),
    /// The first line names another kind.
    #[error("this is {found:?}, but {wanted} belongs here")]
    WrongKind {
        /// The kind as read.
        found: String,
        /// The title of what was wanted.
        wanted: &'static str,
    },
    /// The first line names a version that this program doesn't know.
    #[error("{title} of version {found:?}; this program knows version {known}: use the release that wrote it, or a newer one")]
    Version {
        /// What was read.
        title: &'static str,
        /// Its version as read.
        found: String,
        /// The only version known.
        known: u16,
    },
    /// A key is missing, unknown, or has a value that doesn't fit.
    #[error("line {line}: {why}")]
    Content {
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what belongs there.
        why: String,
    },
    /// The same meaning, but other bytes than the one encoding.
    #[error("the text was changed after it was written: it must stay exactly as the program wrote it")]
    NotCanonical,
}

/// The first line of a statement of this kind.
pub fn first_line<S: Statement>() -> String {
    format!("hoidla = \"{}/{}\"\n", S::KIND, S::VERSION)
}

/// The one encoding of a statement, without signatures; ends with a newline.
///
/// # Panics
/// If the type cannot be written as TOML: a mistake in its definition.
pub fn write<S: Statement>(statement: &S) -> String {
    first_line::<S>() + &toml::to_string(statement).expect("statements are plain tables")
}

/// Reads a statement that a program wrote; refuses any other encoding of it.
pub fn parse<S: Statement>(text: &str) -> Result<S, StatementError> {
    let statement = parse_edited(text)?;
    if write(&statement) == text { Ok(statement) } else { Err(StatementError::NotCanonical) }
}

/// Reads a statement that a person wrote: comments and order are theirs.
pub fn parse_edited<S: Statement>(text: &str) -> Result<S, StatementError> {
    if text.len() > MOST {
        return Err(StatementError::NotAStatement("it is too long"));
    }
    let (first, body) = text.split_once('\n').ok_or(StatementError::NotAStatement("it has no first line"))?;
    check_first_line::<S>(first)?;
    toml::from_str(body).map_err(|e| content_error(body, &e))
}

fn check_first_line<S: Statement>(line: &str) -> Result<(), StatementError> {
    let (kind, version) = line
        .strip_prefix("hoidla = \"")
        .and_then(|l| l.strip_suffix('"'))
        .and_then(|l| l.split_once('/'))
        .ok_or(StatementError::NotAStatement("its first line must be like: hoidla = \"site/1\""))?;
    if kind != S::KIND {
        return Err(StatementError::WrongKind { found: kind.chars().take(32).collect(), wanted: S::TITLE });
    }
    if version != S::VERSION.to_string() {
        return Err(StatementError::Version { title: S::TITLE, found: version.chars().take(16).collect(), known: S::VERSION });
    }
    Ok(())
}

fn content_error(body: &str, e: &toml::de::Error) -> StatementError {
    let before = e.span().map_or("", |s| body.get(..s.start).unwrap_or(body));
    StatementError::Content { line: 2 + before.matches('\n').count(), why: e.message().to_owned() }
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Who claims to have signed.
    pub name: String,
    /// The first four bytes of the key's hash; see `hoidla-crypto`'s `sign`.
    pub key_id: [u8; 4],
    /// The signature's bytes.
    pub bytes: Vec<u8>,
}

/// A text and the signatures below it, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was signed, with its last newline.
    pub text: String,
    /// Who claims to have signed it.
    pub signatures: Vec<Signature>,
}

impl Note {
    /// Splits a signed text; checks form only.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        use StatementError::NotAStatement as No;
        if bytes.len() > MOST {
            return Err(No("it is too long"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| No("it is not text"))?;
        if all.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(No("it has control characters"));
        }
        let (text, block) = all.rsplit_once("\n\n").ok_or(No("it carries no signature"))?;
        if !block.ends_with('\n') || block.lines().count() > MOST_SIGNATURES {
            return Err(No("its signatures are cut short or too many"));
        }
        let signatures = block.lines().map(signature_line).collect::<Option<_>>().ok_or(No("a signature line is damaged"))?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// The signed text as one file.
    pub fn write(&self) -> String {
        let mut out = format!("{}\n", self.text);
        for s in &self.signatures {
            let raw = [&s.key_id[..], &s.bytes].concat();
            writeln!(out, "— {} {}", s.name, Base64::encode_string(&raw)).expect("strings take all");
        }
        out
    }

    /// SHA-256 of the text without signatures: how other statements name this one.
    pub fn hash(&self) -> Hash32 {
        hash(&self.text)
    }
}

/// SHA-256 of a statement's text: how other statements name it.
pub fn hash(text: &str) -> Hash32 {
    Hash32(Sha256::digest(text.as_bytes()).into())
}

fn signature_line(line: &str) -> Option<Signature> {
    let (name, b64) = line.strip_prefix("— ")?.split_once(' ')?;
    let raw = Base64::decode_vec(b64).ok().filter(|r| (5..=MOST_SIGNATURE).contains(&r.len()))?;
    let (id, bytes) = raw.split_first_chunk::<4>()?;
    (!name.is_empty() && name.len() <= MOST_SIGNER).then(|| Signature { name: name.to_owned(), key_id: *id, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        purpose: String,
        count: u32,
    }

    impl Statement for Toy {
        const KIND: &'static str = "toy";
        const TITLE: &'static str = "a toy";
    }

    fn toy() -> Toy {
        Toy { purpose: "try".into(), count: 3 }
    }

    #[test]
    fn one_encoding() {
        let text = write(&toy());
        assert_eq!(text, "hoidla = \"toy/1\"\npurpose = \"try\"\ncount = 3\n");
        assert_eq!(parse::<Toy>(&text).unwrap(), toy());
        let spaced = text.replace("count = 3", "count  =  3");
        assert_eq!(parse::<Toy>(&spaced), Err(StatementError::NotCanonical));
        assert_eq!(parse_edited::<Toy>(&spaced).unwrap(), toy());
    }

    #[test]
    fn an_error_names_line_and_remedy() {
        let unknown = "hoidla = \"toy/1\"\npurpose = \"x\"\ncuont = 3\n";
        let Err(StatementError::Content { line, why }) = parse_edited::<Toy>(unknown) else { panic!("accepted") };
        assert_eq!(line, 3);
        assert!(why.contains("cuont") && why.contains("count"), "{why}");
        assert!(matches!(parse::<Toy>("hoidla = \"toy/2\"\n"), Err(StatementError::Version { .. })));
        assert!(matches!(parse::<Toy>("hoidla = \"site/1\"\n"), Err(StatementError::WrongKind { .. })));
        assert!(matches!(parse::<Toy>("purpose = \"x\"\n"), Err(StatementError::NotAStatement(_))));
    }

    #[test]
    fn a_note_reads_back_and_damage_is_refused() {
        let note =
            Note { text: write(&toy()), signatures: vec![Signature { name: "alpha".into(), key_id: [1, 2, 3, 4], bytes: vec![5; 96] }] };
        let file = note.write();
        assert_eq!(Note::parse(file.as_bytes()).unwrap(), note);
        for cut in 1..file.len() {
            if let Some(head) = file.as_bytes().get(..cut) {
                assert_ne!(Note::parse(head).ok().as_ref(), Some(&note), "cut at {cut}");
            }
        }
        assert!(Note::parse(file.replace('—', "-").as_bytes()).is_err());
        assert!(Note::parse(&vec![b'a'; MOST + 1]).is_err());
    }
}
