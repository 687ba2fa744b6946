//! What proves to somebody far away that keys are in this TPM.

use hoidla_crypto::Secret;
use hoidla_verify::Credential;
use tss_esapi_sys as tss;

use super::{
    ALG_NULL, CONTINUE, ENCRYPT, ENDORSEMENT, Esys, Handle, NONE, PASSWORD, Returned, check,
    objects::Birth,
    quotes::ecdsa,
    structures::{bytes, sized},
};
use crate::TpmError;

impl Esys {
    /// The TPM's word, by `signer`, that it made `object`: TPMS_ATTEST as signed, and r ‖ s.
    pub fn certify_creation(
        &self,
        signer: &Handle<'_>,
        session: &Handle<'_>,
        object: &Handle<'_>,
        birth: &Birth,
        qualifying: &[u8; 32],
    ) -> Result<(Vec<u8>, [u8; 64]), TpmError> {
        self.attributes(session, CONTINUE)?;
        let data = sized!(tss::TPM2B_DATA, buffer, qualifying);
        let scheme = tss::TPMT_SIG_SCHEME { scheme: ALG_NULL, ..Default::default() };
        let (mut attest, mut signature) = (Returned::<tss::TPM2B_ATTEST>::new(), Returned::<tss::TPMT_SIGNATURE>::new());
        let (hash, ticket) = (&birth.hash, &birth.ticket);
        // SAFETY: live.
        let code = unsafe {
            tss::Esys_CertifyCreation(
                self.ctx,
                signer.tr,
                object.tr,
                session.tr,
                NONE,
                NONE,
                &data,
                hash,
                &scheme,
                ticket,
                &mut attest.0,
                &mut signature.0,
            )
        };
        check("CertifyCreation", code)?;
        let attest = attest.of("CertifyCreation")?;
        Ok((bytes!(*attest, attestationData).to_vec(), ecdsa(&*signature.of("CertifyCreation")?, "CertifyCreation")?))
    }

    /// The policy goes on with the endorsement hierarchy's authorisation, which is empty unless
    /// somebody set it: what an endorsement key asks for.
    pub fn policy_endorsement(&self, session: &Handle<'_>) -> Result<(), TpmError> {
        // SAFETY: live; no ticket is asked for.
        let code = unsafe {
            tss::Esys_PolicySecret(
                self.ctx,
                ENDORSEMENT,
                session.tr,
                PASSWORD,
                NONE,
                NONE,
                &tss::TPM2B_NONCE::default(),
                &tss::TPM2B_DIGEST::default(),
                &tss::TPM2B_NONCE::default(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        check("PolicySecret", code)
    }

    /// The secret of a credential that was made for `object` in the TPM of `ek`. `cover`
    /// authorises `object` and encrypts the answer; `policy` authorises `ek`.
    pub fn activate(
        &self,
        object: &Handle<'_>,
        cover: &Handle<'_>,
        ek: &Handle<'_>,
        policy: &Handle<'_>,
        credential: &Credential,
    ) -> Result<Secret<32>, TpmError> {
        self.attributes(cover, CONTINUE | ENCRYPT)?;
        let blob = sized!(tss::TPM2B_ID_OBJECT, credential, &credential.blob);
        let seed = sized!(tss::TPM2B_ENCRYPTED_SECRET, secret, &credential.seed);
        let mut out = Returned::<tss::TPM2B_DIGEST>::new();
        // SAFETY: live.
        let code = unsafe { tss::Esys_ActivateCredential(self.ctx, object.tr, ek.tr, cover.tr, policy.tr, NONE, &blob, &seed, &mut out.0) };
        check("ActivateCredential", code)?;
        let out = out.of("ActivateCredential")?;
        let value: &[u8; 32] = bytes!(*out, buffer).try_into().map_err(|_| TpmError::Answer("ActivateCredential"))?;
        Ok(Secret::filled(|b| b.copy_from_slice(value)))
    }
}
