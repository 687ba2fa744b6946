//! Policies, step by step, and what they permit.

use hoidla_crypto::Secret;
use hoidla_format::{Hash32, statements::PcrValue};
use hoidla_verify::{TpmName, import, policy};
use tss_esapi_sys as tss;
use zeroize::Zeroize;

use super::{
    ALG_NULL, CONTINUE, ENCRYPT, Esys, Handle, Index, NONE, PASSWORD, RH_NULL, Returned, ST_HASHCHECK, check,
    quotes::ecdsa,
    structures::{bytes, selection, sized},
};
use crate::TpmError;

/// The TPM's own word that a signature is good.
pub struct Verified(pub(super) Returned<tss::TPMT_TK_VERIFIED>);

impl Esys {
    /// Tells libtss2 an object's auth value; it never leaves this machine, it keys HMACs.
    pub fn set_auth(&self, object: &Handle<'_>, auth: &Secret<32>) -> Result<(), TpmError> {
        let mut value = sized!(tss::TPM2B_AUTH, buffer, import::auth_bytes(auth));
        // SAFETY: live.
        let code = unsafe { tss::Esys_TR_SetAuth(self.ctx, object.tr, &value) };
        value.buffer.zeroize();
        check("TR_SetAuth", code)
    }

    /// The policy goes on only if the registers have these values.
    pub fn policy_pcr(&self, session: &Handle<'_>, pcrs: &[PcrValue]) -> Result<(), TpmError> {
        let indices: Vec<u8> = pcrs.iter().map(|p| p.index).collect();
        let digest = sized!(tss::TPM2B_DIGEST, buffer, &policy::pcr_digest(pcrs));
        // SAFETY: live.
        check("PolicyPCR", unsafe { tss::Esys_PolicyPCR(self.ctx, session.tr, NONE, NONE, NONE, &digest, &selection(&indices)) })
    }

    /// The policy goes on only if the counter stands at `most` or below.
    pub fn policy_counter_at_most(&self, session: &Handle<'_>, counter: &Index<'_>, most: u64) -> Result<(), TpmError> {
        let operand = sized!(tss::TPM2B_OPERAND, buffer, &most.to_be_bytes());
        // SAFETY: live; the index's own auth is empty.
        let code = unsafe {
            tss::Esys_PolicyNV(self.ctx, counter.tr, counter.tr, session.tr, PASSWORD, NONE, NONE, &operand, 0, policy::UNSIGNED_LE)
        };
        check("PolicyNV", code)
    }

    /// The policy becomes the release key's, if what it is so far was approved.
    pub fn policy_authorize(
        &self,
        session: &Handle<'_>,
        approved: &Hash32,
        reference: &[u8; 32],
        key: &TpmName,
        word: &Verified,
    ) -> Result<(), TpmError> {
        let approved = sized!(tss::TPM2B_DIGEST, buffer, &approved.0);
        let reference = sized!(tss::TPM2B_NONCE, buffer, reference);
        let key = sized!(tss::TPM2B_NAME, name, &key.0);
        // SAFETY: live.
        let code = unsafe { tss::Esys_PolicyAuthorize(self.ctx, session.tr, NONE, NONE, NONE, &approved, &reference, &key, &*word.0) };
        check("PolicyAuthorize", code)
    }

    /// The policy asks for the object's auth value, by HMAC. (`PolicyPassword` gives the same
    /// digest, but would send the value in clear: it isn't offered here.)
    pub fn policy_auth_value(&self, session: &Handle<'_>) -> Result<(), TpmError> {
        // SAFETY: live.
        check("PolicyAuthValue", unsafe { tss::Esys_PolicyAuthValue(self.ctx, session.tr, NONE, NONE, NONE) })
    }

    /// Unseals 32 bytes: `policy` authorises, `cover` encrypts the answer.
    pub fn unseal(&self, object: &Handle<'_>, policy: &Handle<'_>, cover: &Handle<'_>) -> Result<Secret<32>, TpmError> {
        self.attributes(cover, CONTINUE | ENCRYPT)?;
        let mut out = Returned::<tss::TPM2B_SENSITIVE_DATA>::new();
        // SAFETY: live.
        check("Unseal", unsafe { tss::Esys_Unseal(self.ctx, object.tr, policy.tr, cover.tr, NONE, &mut out.0) })?;
        let out = out.of("Unseal")?;
        let value: &[u8; 32] = bytes!(*out, buffer).try_into().map_err(|_| TpmError::Answer("Unseal"))?;
        Ok(Secret::filled(|b| b.copy_from_slice(value)))
    }

    /// Signs a SHA-256 digest by ECDSA: r ‖ s.
    pub fn sign(&self, key: &Handle<'_>, policy: &Handle<'_>, digest: &[u8; 32]) -> Result<[u8; 64], TpmError> {
        let digest = sized!(tss::TPM2B_DIGEST, buffer, digest);
        let scheme = tss::TPMT_SIG_SCHEME { scheme: ALG_NULL, ..Default::default() };
        let ticket = tss::TPMT_TK_HASHCHECK { tag: ST_HASHCHECK, hierarchy: RH_NULL, ..Default::default() };
        let mut signature = Returned::<tss::TPMT_SIGNATURE>::new();
        // SAFETY: live.
        check("Sign", unsafe { tss::Esys_Sign(self.ctx, key.tr, policy.tr, NONE, NONE, &digest, &scheme, &ticket, &mut signature.0) })?;
        ecdsa(&*signature.of("Sign")?, "Sign")
    }
}
