//! Checkpoints: the log's head as a text to be signed (C2SP tlog-checkpoint).
//!
//! ```text
//! hoidla/SITE/APPLIANCE      the origin: which log
//! 1234                       its size in leaves
//! BASE64                     its root
//! counter 17                 where the TPM's checkpoint counter stood
//! ```
//!
//! Promises: one text for one head, and nothing else is read. It doesn't sign:
//! the signature lines of the [`Note`] around it do ([`crate::Quote`]).

use std::fmt;

use base64ct::{Base64, Encoding};
use hoidla_format::{Hash32, Malformed, Name, Note, StatementError};
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
    /// Where the TPM's checkpoint counter stood: it never goes back, whatever the disks do.
    pub counter: u64,
}

/// Why a text is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The note around it is damaged.
    #[error(transparent)]
    Note(#[from] StatementError),
    /// Not four lines.
    #[error("a checkpoint has four lines (origin, size, root, counter), each ended")]
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
    /// The counter is not a plain number.
    #[error("the checkpoint's fourth line must be like: counter 17")]
    Counter,
    /// A signature line that should carry a quote doesn't.
    #[error("a signature line of the checkpoint carries no quote: {0}")]
    Quote(#[from] Malformed),
}

impl Checkpoint {
    /// What two heads of one log contradict each other in by themselves, whatever proof is shown between
    /// them: one size with two roots, or a longer log at an earlier count. `one_tpm`: one TPM signed both,
    /// whose counter never goes back; another one counts anew. Heads of two logs contradict nothing.
    pub fn contradicts(&self, other: &Self, one_tpm: bool) -> Option<String> {
        let (shorter, longer) = if self.size <= other.size { (self, other) } else { (other, self) };
        let origin = self.origin();
        if origin != other.origin() {
            return None;
        }
        if shorter.size == longer.size {
            let forked = format!("{origin} signed two different logs of {} leaves: it forked, and these two heads prove it", self.size);
            return (shorter.root != longer.root).then_some(forked);
        }
        (one_tpm && longer.counter < shorter.counter).then(|| {
            format!(
                "the TPM's counter went back from {} to {} while the log of {origin} grew from {} to {} leaves",
                shorter.counter, longer.counter, shorter.size, longer.size
            )
        })
    }

    /// Which log this is the head of.
    pub fn origin(&self) -> String {
        format!("hoidla/{}/{}", self.site, self.appliance)
    }

    /// Reads exactly what its `Display` writes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        use CheckpointError as E;
        let lines = text.strip_suffix('\n').ok_or(E::Lines)?;
        let &[origin, size, root, counter] = &lines.splitn(5, '\n').collect::<Vec<_>>()[..] else { return Err(E::Lines) };
        let (site, appliance) = origin.strip_prefix("hoidla/").and_then(|o| o.split_once('/')).ok_or(E::Origin)?;
        let name = |n: &str| n.parse::<Name>().map_err(|_| E::Origin);
        Ok(Self {
            site: name(site)?,
            appliance: name(appliance)?,
            size: number(size).ok_or(E::Size)?,
            root: parse_root(root)?,
            counter: counter.strip_prefix("counter ").and_then(number).ok_or(E::Counter)?,
        })
    }

    /// Splits a signed checkpoint into its head and its note, whose signatures are *not* checked here.
    pub fn open(signed: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(signed)?;
        Ok((Self::parse(&note.text)?, note))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}\ncounter {}", self.origin(), self.size, Base64::encode_string(&self.root.0), self.counter)
    }
}

/// Decimal digits without sign or leading zero.
pub(crate) fn number(line: &str) -> Option<u64> {
    let plain = line.bytes().all(|b| b.is_ascii_digit()) && (line == "0" || !line.starts_with('0'));
    line.parse().ok().filter(|_| plain)
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
        Checkpoint {
            site: "luxembourg".parse().unwrap(),
            appliance: "lux-1".parse().unwrap(),
            size: 0,
            root: Frontier::new().root(),
            counter: 17,
        }
    }

    #[test]
    fn the_known_text() {
        let text = "hoidla/luxembourg/lux-1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ncounter 17\n";
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
    fn heads_contradict_each_other_only_if_both_cannot_be_true() {
        let one = Checkpoint { size: 5, ..head() };
        let other = |change: &dyn Fn(&mut Checkpoint)| {
            let mut c = one.clone();
            change(&mut c);
            (one.contradicts(&c, true), c.contradicts(&one, true), one.contradicts(&c, false).is_some())
        };
        let (a, b, without) = other(&|c| c.root.0[0] ^= 1);
        assert!(a.is_some() && b.is_some() && without, "one size, two roots");
        let (a, b, without) = other(&|c| (c.size, c.counter) = (6, 16));
        assert!(a.is_some() && a == b && !without, "a longer log at an earlier count, of one TPM");
        let fine: [&dyn Fn(&mut Checkpoint); 4] =
            [&|_| {}, &|c| c.counter = 16, &|c| (c.size, c.root.0[0], c.counter) = (6, 1, 17), &|c| {
                (c.appliance, c.root.0[0]) = ("lux-2".parse().unwrap(), 1)
            }];
        for change in fine {
            assert_eq!(other(change), (None, None, false));
        }
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
        for counter in ["", "17", "counter", "counter ", "counter 017", "counter -1", "Counter 17", "counter 17 "] {
            assert_eq!(with("counter 17", counter), E::Counter, "{counter:?}");
        }
        assert_eq!(with("counter 17\n", ""), E::Lines);
    }
}
