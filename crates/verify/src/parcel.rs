//! Parcels: an appliance's papers, sealed to the TPM that home means.
//!
//! Promises: what [`Parcel::seal`] puts in comes out only in the TPM whose endorsement key home
//! recorded, and only while the identity's prover is in that same TPM. So an enrolment that
//! came out of a parcel is itself the proof, and nothing needs to travel back before it counts.
//! A parcel is public; it isn't signed: what is inside is. See `docs/formats/parcel.md`.

use hoidla_crypto::{
    Secret,
    labels::PARCEL,
    wrap::{derive, open_once, seal_once},
};
use hoidla_format::{Hash32, Kind, Malformed, Name, Reader, Writer, statement, statements::ApplianceIdentity};
use thiserror::Error;

use crate::{
    Public, PublicError, TpmName,
    credential::{self, BLOB, Credential, SEED},
};

const VERSION: u8 = 1;
/// The most notes in a parcel.
const MOST_NOTES: usize = 8;
const TAG: usize = 16;
/// The most bytes of what is sealed.
const MOST_SEALED: usize = MOST_NOTES * (4 + statement::MOST) + 1 + TAG;
/// The most bytes of a parcel.
pub const MOST: usize = 512 + MOST_SEALED;

/// Why a parcel was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParcelError {
    /// Not one, or damaged.
    #[error("the parcel is damaged: {0}; copy it again from home's folder")]
    Form(#[from] Malformed),
    /// What its credential gave doesn't open it.
    #[error("the parcel was changed on its way: copy it again from home's folder")]
    Changed,
}

/// A parcel, closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// SHA-256 of the identity whose prover must be in the TPM.
    pub identity: Hash32,
    /// What the TPM turns into the parcel's secret.
    pub credential: Credential,
    sealed: Vec<u8>,
}

impl Parcel {
    /// Seals notes to the TPM with this endorsement key, for an identity whose prover has this name.
    ///
    /// # Errors
    /// If `ek` is no endorsement key.
    ///
    /// # Panics
    /// If there are more notes, or longer ones, than a parcel holds: the caller's mistake.
    pub fn seal(ek: &Public, prover: &TpmName, identity: &ApplianceIdentity, notes: &[&str]) -> Result<Self, PublicError> {
        assert!(notes.len() <= MOST_NOTES && notes.iter().all(|n| n.len() <= statement::MOST), "a parcel of statements");
        let secret = Secret::random();
        let mut parcel = Self {
            site: identity.site.clone(),
            appliance: identity.name.clone(),
            identity: statement::hash(&statement::write(identity)),
            credential: credential::make(ek, prover, &secret)?,
            sealed: Vec::new(),
        };
        let mut w = Writer::new();
        w.u8(notes.len() as u8);
        notes.iter().for_each(|n| _ = w.long(n.as_bytes()));
        parcel.sealed = seal_once(key(&secret), &parcel.head(), w.finish());
        Ok(parcel)
    }

    /// The notes, by the secret that the TPM gave for the credential.
    pub fn open(&self, secret: &Secret<32>) -> Result<Vec<Vec<u8>>, ParcelError> {
        let bytes = open_once(&key(secret), &self.head(), &self.sealed).map_err(|_| ParcelError::Changed)?;
        let mut r = Reader::new(&bytes);
        let count = usize::from(r.u8()?);
        if count > MOST_NOTES {
            return Err(Malformed::Field("a parcel of too many notes").into());
        }
        let notes = (0..count).map(|_| Ok(r.long(statement::MOST, "a note too long")?.to_vec())).collect::<Result<_, Malformed>>()?;
        r.finish()?;
        Ok(notes)
    }

    /// All before what is sealed; it is bound to it.
    fn head(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::Parcel, VERSION);
        w.short(self.site.as_str().as_bytes()).short(self.appliance.as_str().as_bytes()).put(&self.identity.0);
        w.put(&self.credential.blob).put(&self.credential.seed);
        w.finish()
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(&self.head()).long(&self.sealed);
        w.finish()
    }

    /// Reads one; refuses any other form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::Parcel, VERSION)?;
        let name = |r: &mut Reader<'_>| {
            let text = std::str::from_utf8(r.short(64, "a name too long")?).map_err(|_| Malformed::Field("a name that is not text"))?;
            text.parse::<Name>().map_err(|_| Malformed::Field("a name out of bounds"))
        };
        let (site, appliance, identity) = (name(&mut r)?, name(&mut r)?, Hash32(r.array()?));
        let credential = Credential { blob: r.array::<BLOB>()?, seed: r.array::<SEED>()? };
        let sealed = r.long(MOST_SEALED, "a parcel too long")?.to_vec();
        r.finish()?;
        if sealed.len() <= TAG {
            Err(Malformed::Field("an empty parcel"))
        } else {
            Ok(Self { site, appliance, identity, credential, sealed })
        }
    }

    /// Whether bytes begin as a parcel does.
    pub fn is_one(bytes: &[u8]) -> bool {
        Reader::new(bytes).header(Kind::Parcel, VERSION).is_ok()
    }
}

fn key(secret: &Secret<32>) -> Secret<32> {
    derive(PARCEL, &[secret.expose()], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_vector() {
        let all = include_str!("../../../tests/vectors/tpm/structures.txt");
        let hex = all.lines().find_map(|l| l.strip_prefix("parcel ")).unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let parcel = Parcel::from_bytes(&bytes).unwrap();
        assert_eq!(parcel.to_bytes(), bytes);
        let with = |byte| parcel.open(&Secret::filled(|b| b.fill(byte)));
        assert_eq!(with(6).unwrap(), [b"halves\n".to_vec(), b"enrolment\n".to_vec()]);
        assert_eq!(with(7), Err(ParcelError::Changed));
        for cut in 0..bytes.len() {
            assert!(Parcel::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Parcel::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Parcel::from_bytes(&other).map_or(true, |p| p.open(&Secret::filled(|b| b.fill(6))).is_err()), "byte {at}");
        }
    }
}
