//! Receipts: what proves, offline, that an appliance committed to bytes (C2SP tlog-proof).
//!
//! Promises: a [`Receipt`] exists only if its leaf is in its checkpoint's tree, so that the
//! checkpoint's signatures are all that remains to be checked; one encoding, bounded. A leaf
//! names its stream's chain after its part: one receipt covers its stream from the first byte
//! to [`Receipt::covers`]. It doesn't say that the bytes are still there.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding};
use hoidla_format::{Hash32, Leaf, Malformed, Note, frame::Chain};
use thiserror::Error;

use crate::{Checkpoint, CheckpointError, ProofError, checkpoint::number, tree::leaf_hash, verify_consistency, verify_inclusion};

/// The first line of a receipt.
pub const FIRST: &str = "c2sp.org/tlog-proof@v1";
/// The most hashes of any proof: two for each level of the tree.
pub const MOST_HASHES: usize = 126;
/// The most bytes of a signed checkpoint.
pub const MOST_CHECKPOINT: usize = 32 * 1024;
/// The most bytes of a receipt, or of an extension.
pub const MOST: usize = MOST_CHECKPOINT + 64 * MOST_HASHES + 512;

/// Why a receipt or a proof in a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not the form of such a file.
    #[error("this is no {0}, or it was damaged: fetch it again")]
    Form(&'static str),
    /// Its leaf is damaged.
    #[error("the receipt's leaf: {0}")]
    Leaf(#[from] Malformed),
    /// Its checkpoint is damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It doesn't prove what it says.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Two checkpoints of two logs.
    #[error("the checkpoints are of two logs: {0} and {1}")]
    TwoLogs(String, String),
}

/// A checkpoint and the signatures below it, which are *not* checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    head: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Reads a signed checkpoint, in its one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MOST_CHECKPOINT {
            return Err(ReceiptError::Form("signed checkpoint"));
        }
        let (head, note) = Checkpoint::open(bytes)?;
        if note.write().as_bytes() != bytes {
            return Err(ReceiptError::Form("signed checkpoint"));
        }
        Ok(Self { head, note })
    }

    /// What it says.
    pub fn head(&self) -> &Checkpoint {
        &self.head
    }

    /// Its text and signatures.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// As a file.
    pub fn write(&self) -> String {
        self.note.write()
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    leaf: Leaf,
    index: u64,
    proof: Vec<Hash32>,
    checkpoint: SignedCheckpoint,
}

impl Receipt {
    /// A receipt, if the proof leads from the leaf to the checkpoint's root.
    pub fn new(leaf: Leaf, index: u64, proof: Vec<Hash32>, checkpoint: SignedCheckpoint) -> Result<Self, ReceiptError> {
        let head = checkpoint.head();
        verify_inclusion(&leaf_hash(&leaf), index, head.size, &head.root, &proof)?;
        Ok(Self { leaf, index, proof, checkpoint })
    }

    /// Reads exactly what [`write`](Self::write) writes, and checks that its leaf is in the checkpoint's tree.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let bad = ReceiptError::Form("receipt");
        let (head, checkpoint) = split(bytes, "receipt")?;
        let mut lines = head.lines();
        let (first, extra, index) = (lines.next(), lines.next(), lines.next());
        let leaf = extra.and_then(|l| l.strip_prefix("extra ")).ok_or(bad.clone())?;
        let index = index.and_then(|l| l.strip_prefix("index ")).and_then(number).ok_or(bad.clone())?;
        let mut buffer = [0; 256];
        let leaf = Leaf::from_bytes(Base64::decode(leaf, &mut buffer).map_err(|_| bad.clone())?)?;
        if first != Some(FIRST) {
            return Err(bad);
        }
        Self::new(leaf, index, hashes(lines, "receipt")?, checkpoint)
    }

    /// As a file.
    pub fn write(&self) -> String {
        let mut out = format!("{FIRST}\nextra {}\nindex {}\n", Base64::encode_string(&self.leaf.to_bytes()), self.index);
        put_hashes(&mut out, &self.proof);
        out + &self.checkpoint.write()
    }

    /// What one group commit added to one stream.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Which leaf of the log it is, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The checkpoint that it leads to.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// The stream's bytes that it covers, all from the first on, and the chain's root over them.
    pub fn covers(&self) -> Chain {
        Chain { root: self.leaf.root, length: self.leaf.part.end() }
    }
}

/// A proof that a log only grew, with the newer checkpoint (the form of C2SP tlog-witness).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The older size.
    pub old: u64,
    /// The consistency proof.
    pub proof: Vec<Hash32>,
    /// The newer checkpoint.
    pub checkpoint: SignedCheckpoint,
}

impl Extension {
    /// Reads exactly what [`write`](Self::write) writes; whether it proves anything only [`follows`](Self::follows) tells.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let bad = ReceiptError::Form("consistency proof");
        let (head, checkpoint) = split(bytes, "consistency proof")?;
        let mut lines = head.lines();
        let old = lines.next().and_then(|l| l.strip_prefix("old ")).and_then(number).ok_or(bad)?;
        Ok(Self { old, proof: hashes(lines, "consistency proof")?, checkpoint })
    }

    /// As a file.
    pub fn write(&self) -> String {
        let mut out = format!("old {}\n", self.old);
        put_hashes(&mut out, &self.proof);
        out + &self.checkpoint.write()
    }

    /// Whether the older head is the beginning of the newer one's log.
    pub fn follows(&self, older: &Checkpoint) -> Result<(), ReceiptError> {
        let newer = self.checkpoint.head();
        if older.origin() != newer.origin() {
            return Err(ReceiptError::TwoLogs(older.origin(), newer.origin()));
        }
        if self.old != older.size {
            return Err(ReceiptError::Proof(ProofError::OutOfRange { asked: older.size, size: self.old }));
        }
        Ok(verify_consistency(older.size, &older.root, newer.size, &newer.root, &self.proof)?)
    }
}

/// What stands before the first empty line, and the signed checkpoint after it.
fn split<'a>(bytes: &'a [u8], what: &'static str) -> Result<(&'a str, SignedCheckpoint), ReceiptError> {
    let text = std::str::from_utf8(bytes).ok().filter(|t| t.len() <= MOST).ok_or(ReceiptError::Form(what))?;
    let (head, checkpoint) = text.split_once("\n\n").ok_or(ReceiptError::Form(what))?;
    let plain = head.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\n');
    if !plain {
        return Err(ReceiptError::Form(what));
    }
    Ok((head, SignedCheckpoint::parse(checkpoint.as_bytes())?))
}

fn hashes<'a>(lines: impl Iterator<Item = &'a str>, what: &'static str) -> Result<Vec<Hash32>, ReceiptError> {
    let hash = |line: &str| {
        let mut out = [0; 32];
        matches!(Base64::decode(line, &mut out), Ok(b) if b.len() == 32).then_some(Hash32(out))
    };
    let all: Option<Vec<Hash32>> = lines.take(MOST_HASHES + 1).map(hash).collect();
    all.filter(|h| h.len() <= MOST_HASHES).ok_or(ReceiptError::Form(what))
}

/// One line a hash, and an empty line.
fn put_hashes(out: &mut String, hashes: &[Hash32]) {
    hashes.iter().for_each(|h| writeln!(out, "{}", Base64::encode_string(&h.0)).expect("strings take all"));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Leaves, consistency, inclusion, quote::Quote, root};
    use hoidla_format::{ByteRange, StreamId};

    fn leaf(n: u64) -> Leaf {
        let part = ByteRange::new(n * 100, 100).unwrap();
        Leaf { dataset: "land".parse().unwrap(), stream: StreamId([7; 16]), epoch: 1, part, root: Hash32([n as u8; 32]) }
    }

    fn nodes() -> Leaves<impl Fn(u64) -> Result<Hash32, ()>> {
        Leaves(|n| Ok(leaf_hash(&leaf(n))))
    }

    fn checkpoint(size: u64) -> SignedCheckpoint {
        let head = Checkpoint {
            site: "lux".parse().unwrap(),
            appliance: "lux-1".parse().unwrap(),
            size,
            root: root(&nodes(), size).unwrap(),
            counter: 17,
        };
        let quote = Quote { attest: vec![1; 145], signature: [2; 64], pcrs: vec![] };
        let note = Note { text: head.to_string(), signatures: vec![quote.line(&head.origin(), &[3; 34])] };
        SignedCheckpoint::parse(note.write().as_bytes()).unwrap()
    }

    fn receipt(index: u64, size: u64) -> Receipt {
        let proof = inclusion(&nodes(), index, size).unwrap().unwrap();
        Receipt::new(leaf(index), index, proof, checkpoint(size)).unwrap()
    }

    #[test]
    fn a_receipt_reads_back() {
        for (index, size) in [(0, 1), (4, 7), (6, 7)] {
            let r = receipt(index, size);
            assert_eq!(Receipt::parse(r.write().as_bytes()), Ok(r.clone()));
            assert_eq!(r.covers(), Chain { root: Hash32([index as u8; 32]), length: 100 * index + 100 });
        }
        let text = receipt(4, 7).write();
        assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra aG9pZGxhBgEEAGxhbmQ"), "{text}");
    }

    #[test]
    fn every_flipped_bit_is_refused_or_lies_in_a_signature() {
        let text = receipt(4, 7).write();
        let signatures = text.rfind("\n\n").unwrap() + 2;
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bad = text.clone().into_bytes();
                bad[at] ^= 1 << bit;
                // Names the log or its counter: nothing but the signature vouches for those.
                let origin = text.find("hoidla/").unwrap();
                let line = (origin..origin + "hoidla/lux/lux-1".len()).contains(&at);
                let counter = text.find("counter").unwrap() + 8;
                match Receipt::parse(&bad) {
                    Err(_) => {}
                    Ok(r) => {
                        assert_ne!(r, receipt(4, 7));
                        assert!(at >= signatures || line || (counter..counter + 2).contains(&at), "byte {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn cut_or_mixed_receipts_are_refused() {
        let text = receipt(4, 7).write();
        for cut in 0..text.len() {
            assert!(text.is_char_boundary(cut).then(|| Receipt::parse(&text.as_bytes()[..cut])).is_none_or(|r| r.is_err()), "cut at {cut}");
        }
        let other = receipt(5, 7);
        assert!(Receipt::new(other.leaf, 4, receipt(4, 7).proof, checkpoint(7)).is_err(), "another stream's leaf");
        assert!(Receipt::new(leaf(4), 4, receipt(4, 7).proof, checkpoint(6)).is_err(), "a checkpoint of another size");
        assert!(Receipt::parse(text.replace("@v1", "@v2").as_bytes()).is_err(), "another version");
        assert!(Receipt::parse(text.replace("index 4", "index 04").as_bytes()).is_err());
        assert!(Receipt::parse(text.replace('\n', "\r\n").as_bytes()).is_err());
        assert!(Receipt::parse(&vec![b'a'; MOST + 1]).is_err());
    }

    #[test]
    fn an_extension_reads_back_and_follows_only_its_past() {
        for (old, new) in [(0, 5), (3, 7), (7, 7)] {
            let proof = consistency(&nodes(), old, new).unwrap().unwrap();
            let e = Extension { old, proof, checkpoint: checkpoint(new) };
            assert_eq!(Extension::parse(e.write().as_bytes()), Ok(e.clone()));
            e.follows(checkpoint(old).head()).unwrap();
            let mut fork = checkpoint(old).head().clone();
            fork.root = Hash32([1; 32]);
            assert!(e.follows(&fork).is_err());
            let mut other = checkpoint(old).head().clone();
            other.appliance = "lux-2".parse().unwrap();
            assert!(matches!(e.follows(&other), Err(ReceiptError::TwoLogs(..))));
            assert!(e.follows(checkpoint(old + 1).head()).is_err());
        }
        let older = Extension { old: 7, proof: vec![], checkpoint: checkpoint(3) };
        assert!(older.follows(checkpoint(7).head()).is_err(), "a log that went back");
    }
}
