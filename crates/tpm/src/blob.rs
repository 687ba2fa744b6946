//! A TPM object as the appliance keeps it on disk; see `docs/formats/tpm-objects.md`.

use hoidla_format::{Kind, Malformed, Reader, Writer};
use hoidla_verify::Public;

/// A public area and the private area that only its TPM can load. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub(crate) public: Public,
    pub(crate) private: Vec<u8>,
}

impl Blob {
    const VERSION: u8 = 1;
    /// The most bytes of a private area: far more than any of Hoidla's, less than libtss2's buffer.
    pub(crate) const MOST_PRIVATE: usize = 1024;

    /// The object's public area.
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The layout of [`Kind::TpmObject`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::TpmObject, Self::VERSION);
        w.short(&self.public.marshal()).short(&self.private);
        w.finish()
    }

    /// Reads it back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::TpmObject, Self::VERSION)?;
        let public = r.short(Public::MOST, "a TPM object's public area is too long")?;
        let public = Public::parse(public).map_err(|_| Malformed::Field("a TPM object's public area is none of Hoidla's"))?;
        let private = r.short(Self::MOST_PRIVATE, "a TPM object's private area is too long")?.to_vec();
        r.finish()?;
        if private.is_empty() { Err(Malformed::Field("a TPM object without a private area")) } else { Ok(Self { public, private }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_vector() {
        let all = include_str!("../../../tests/vectors/tpm/structures.txt");
        let hex = all.lines().find_map(|l| l.strip_prefix("object ")).unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let blob = Blob::from_bytes(&bytes).unwrap();
        assert_eq!((blob.private.len(), blob.to_bytes()), (40, bytes.clone()));
        for cut in 0..bytes.len() {
            assert!(Blob::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Blob::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed::Trailing(1)));
        let long = Blob { public: blob.public, private: vec![0; Blob::MOST_PRIVATE + 1] }.to_bytes();
        assert!(Blob::from_bytes(&long).is_err());
    }
}
