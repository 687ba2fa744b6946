//! A TPM's quote as a signature line below a text: a checkpoint, or a certificate of erasure.
//!
//! A restricted key of a TPM signs nothing but the TPM's own structures. So what it says
//! of such a text is a quote whose qualifying data is a hash of it under a label
//! ([`Says::qualifying`]), and the signature line carries the quote as a whole.
//!
//! Promises: one encoding, bounded. It doesn't look into the quote (`hoidla-verify` does):
//! registers and signature are what somebody claims.

use hoidla_format::{Hash32, Malformed, Reader, Writer, statement::Signature};
use sha2::{Digest, Sha256};

/// The version of the signature line's bytes.
pub const VERSION: u8 = 1;
/// The most bytes of TPMS_ATTEST; a quote of one SHA-256 bank has 145.
pub const MOST_ATTEST: usize = 256;
/// The most registers that one quote covers.
pub const MOST_PCRS: usize = 24;
const SUITE: &[u8] = b"hoidla tpm-quote ecdsa-p256-sha256";

/// What an appliance's TPM says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// This checkpoint is the head of the appliance's own log.
    Mine,
    /// It is the head of another's log, and consistent with all heads of it seen here before.
    Seen,
    /// This disk was erased: the text is an `erased/1`.
    Erased,
    /// This appliance asks for shares: the text is a `challenge/1` before it carries its quote.
    Asks,
}

impl Says {
    /// The qualifying data of the quote that says this of a text:
    /// SHA-256 of a label, a newline and the text.
    pub fn qualifying(self, text: &str) -> [u8; 32] {
        let label = match self {
            Self::Mine => "hoidla checkpoint 1\n",
            Self::Seen => "hoidla witness 1\n",
            Self::Erased => "hoidla erased 1\n",
            Self::Asks => "hoidla challenge 1\n",
        };
        Sha256::new().chain_update(label).chain_update(text).finalize().into()
    }
}

/// A quote as the TPM gave it, and the registers it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST, as signed.
    pub attest: Vec<u8>,
    /// ECDSA P-256 with SHA-256 over `attest`: r ‖ s.
    pub signature: [u8; 64],
    /// The values of the registers that the quote selects, in ascending order of their
    /// indexes; the quote holds a hash over them only.
    pub pcrs: Vec<Hash32>,
}

impl Quote {
    /// The signature line by an appliance (`hoidla/SITE/APPLIANCE`) whose attestation key has this TPM name.
    ///
    /// # Panics
    /// If the quote is out of bounds: the caller made another than ours.
    pub fn line(&self, signer: &str, attestation_key: &[u8; 34]) -> Signature {
        assert!(self.attest.len() <= MOST_ATTEST && self.pcrs.len() <= MOST_PCRS, "a quote out of bounds");
        let mut w = Writer::new();
        w.u8(VERSION).short(&self.attest).put(&self.signature).u8(self.pcrs.len() as u8);
        self.pcrs.iter().for_each(|p| _ = w.put(&p.0));
        Signature { name: signer.to_owned(), key_id: key_id(signer, attestation_key), bytes: w.finish() }
    }

    /// Reads the quote out of a signature line.
    pub fn from_line(line: &Signature) -> Result<Self, Malformed> {
        let mut r = Reader::new(&line.bytes);
        if r.u8()? != VERSION {
            return Err(Malformed::Field("a quote of an unknown version: use a newer program"));
        }
        let attest = r.short(MOST_ATTEST, "a quote too long")?.to_vec();
        let signature = r.array()?;
        let count = usize::from(r.u8()?);
        if count > MOST_PCRS {
            return Err(Malformed::Field("a quote over more registers than a TPM has"));
        }
        let pcrs = (0..count).map(|_| r.array().map(Hash32)).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self { attest, signature, pcrs })
    }
}

/// The id that stands in signature lines of this attestation key under this name.
pub fn key_id(signer: &str, attestation_key: &[u8; 34]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(signer).chain_update(b"\n\xff").chain_update(SUITE).chain_update(attestation_key).finalize();
    *hash.first_chunk().expect("a hash has four bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_format::Note;

    // Computed with another SHA-256.
    const MINE: &str = "26b4d84229458b61945564dfc45f8ddf19faff4e1b67230856d8ac276b0abacc";
    const SEEN: &str = "510d949ef395170b3e3aff21fabe1ed0264dd027aa714602b9b03af14ba49da7";
    const ERASED: &str = "a32af0b9e03302e97f5e585beb64d25fe7e31652e2f416f1066f8a7ca9ae2fd8";
    const ASKS: &str = "173d8676b77d9faa8d730224dbe926efe65896adeef7633bb9cd81432e89a97f";
    const ID: [u8; 4] = [17, 49, 62, 91];

    fn quote() -> Quote {
        Quote { attest: vec![7; 145], signature: [8; 64], pcrs: vec![Hash32([1; 32]), Hash32([2; 32])] }
    }

    #[test]
    fn the_known_hashes() {
        let text = "hoidla/luxembourg/lux-1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ncounter 17\n";
        assert_eq!(Hash32(Says::Mine.qualifying(text)).to_string(), MINE);
        assert_eq!(Hash32(Says::Seen.qualifying(text)).to_string(), SEEN);
        assert_eq!(Hash32(Says::Erased.qualifying(text)).to_string(), ERASED);
        assert_eq!(Hash32(Says::Asks.qualifying(text)).to_string(), ASKS);
        assert_eq!(key_id("hoidla/luxembourg/lux-1", &[9; 34]), ID);
        assert_ne!(key_id("hoidla/luxembourg/lux-2", &[9; 34]), ID);
    }

    #[test]
    fn a_quote_reads_back_from_a_note() {
        let line = quote().line("hoidla/luxembourg/lux-1", &[9; 34]);
        let note = Note { text: "text\n".into(), signatures: vec![line] };
        let back = Note::parse(note.write().as_bytes()).unwrap();
        assert_eq!(Quote::from_line(&back.signatures[0]), Ok(quote()));
        let longest = Quote { attest: vec![7; MOST_ATTEST], pcrs: vec![Hash32([1; 32]); MOST_PCRS], ..quote() };
        let name = format!("hoidla/{}/{}", "s".repeat(64), "a".repeat(64));
        let note = Note { text: "text\n".into(), signatures: vec![longest.line(&name, &[9; 34])] };
        assert_eq!(Note::parse(note.write().as_bytes()).unwrap(), note, "the longest line must fit the bounds of notes");
    }

    #[test]
    fn every_cut_excess_and_other_version_is_refused() {
        let line = quote().line("hoidla/luxembourg/lux-1", &[9; 34]);
        let with = |bytes: &[u8]| Quote::from_line(&Signature { bytes: bytes.to_vec(), ..line.clone() });
        for cut in 0..line.bytes.len() {
            assert!(with(&line.bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(with(&[&line.bytes[..], &[0]].concat()), Err(Malformed::Trailing(1)));
        assert!(with(&[&[2], &line.bytes[1..]].concat()).is_err());
        let mut long = line.bytes.clone();
        long[1..3].copy_from_slice(&257_u16.to_le_bytes());
        assert_eq!(with(&long), Err(Malformed::Field("a quote too long")));
    }
}
