//! Quotes: the TPM's signed word on its registers.

use tss_esapi_sys as tss;

use super::{
    ALG_ECDSA, ALG_NULL, Esys, Handle, NONE, Returned, check,
    structures::{bytes, selection, sized},
};
use crate::TpmError;

impl Esys {
    /// Quotes registers of the SHA-256 bank: TPMS_ATTEST as signed, and r ‖ s.
    pub fn quote(
        &self,
        key: &Handle<'_>,
        policy: &Handle<'_>,
        qualifying: &[u8; 32],
        indices: &[u8],
    ) -> Result<(Vec<u8>, [u8; 64]), TpmError> {
        let data = sized!(tss::TPM2B_DATA, buffer, qualifying);
        let scheme = tss::TPMT_SIG_SCHEME { scheme: ALG_NULL, ..Default::default() };
        let (mut attest, mut signature) = (Returned::<tss::TPM2B_ATTEST>::new(), Returned::<tss::TPMT_SIGNATURE>::new());
        let which = selection(indices);
        // SAFETY: live.
        let code =
            unsafe { tss::Esys_Quote(self.ctx, key.tr, policy.tr, NONE, NONE, &data, &scheme, &which, &mut attest.0, &mut signature.0) };
        check("Quote", code)?;
        let attest = attest.of("Quote")?;
        Ok((bytes!(*attest, attestationData).to_vec(), ecdsa(&*signature.of("Quote")?, "Quote")?))
    }
}

/// An ECDSA signature over P-256 as r ‖ s.
pub(super) fn ecdsa(signature: &tss::TPMT_SIGNATURE, what: &'static str) -> Result<[u8; 64], TpmError> {
    if signature.sigAlg != ALG_ECDSA {
        return Err(TpmError::Answer(what));
    }
    // SAFETY: the algorithm says which member was filled.
    let ecdsa = unsafe { signature.signature.ecdsa };
    let mut out = [0; 64];
    for (half, number) in out.chunks_exact_mut(32).zip([&ecdsa.signatureR, &ecdsa.signatureS]) {
        let number = bytes!(*number, buffer);
        let at = 32usize.checked_sub(number.len()).ok_or(TpmError::Answer(what))?;
        half[at..].copy_from_slice(number);
    }
    Ok(out)
}
