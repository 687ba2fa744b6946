//! Quotes by the attestation key, under the release that runs.
//!
//! Promises: the registers returned are those that the quote covers. Doesn't: say what the
//! qualifying data means; it is always a hash under a label ([`hoidla_log::Says`]).

use hoidla_log::Quote;
use hoidla_verify::{Approved, Public, TpmName};
use sha2::{Digest, Sha256};

use crate::{Tpm, TpmError, esys::ENDORSEMENT};

/// The registers that a quote covers: the image (4, 11), Secure Boot (7), what was added
/// from outside (12, 13), and the papers in force (15).
pub const QUOTED: [u8; 6] = [4, 7, 11, 12, 13, 15];
/// How often it is tried again because a register changed between reading and quoting.
const TRIES: usize = 3;

impl Tpm {
    /// Quotes [`QUOTED`] with the attestation key, which must be the one of this name.
    pub fn quote(&self, release: &Approved, key: &TpmName, qualifying: &[u8; 32]) -> Result<Quote, TpmError> {
        for _ in 0..TRIES {
            if let Some(quote) = self.quote_once(release, key, qualifying)? {
                return Ok(quote);
            }
        }
        Err(TpmError::Answer("Quote"))
    }

    /// None if a register changed while it was made.
    fn quote_once(&self, release: &Approved, key: &TpmName, qualifying: &[u8; 32]) -> Result<Option<Quote>, TpmError> {
        let ticket = release.node();
        let template = Public::signing_template(release.key().policy(&ticket.reference).digest(), true);
        self.with_release(release, &ticket, |esys, srk, policy| {
            let pcrs = QUOTED.iter().map(|i| esys.pcr_read(*i)).collect::<Result<Vec<_>, _>>()?;
            let (ak, public, _) = esys.create_primary(ENDORSEMENT, &template, Some(&esys.salted_session(srk)?))?;
            if public.name() != *key || esys.name(&ak)? != *key {
                return Err(TpmError::WrongAttestationKey);
            }
            let (attest, signature) = esys.quote(&ak, policy, qualifying, &QUOTED)?;
            // The digest over the registers is the last field of TPMS_ATTEST.
            let digest = pcrs.iter().fold(Sha256::new(), |h, p| h.chain_update(p.0)).finalize();
            Ok(attest.ends_with(&digest).then_some(Quote { attest, signature, pcrs }))
        })
    }
}
