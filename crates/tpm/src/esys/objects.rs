//! Keys and sealed data: made, imported, loaded, used.

use std::ptr;

use hoidla_verify::{Public, import};
use tss_esapi_sys as tss;

use super::{
    ALG_AES, ALG_CFB, ALG_ECDSA, ALG_NULL, ALG_SHA256, CONTINUE, DECRYPT, ENCRYPT, Esys, Handle, NONE, OWNER, PASSWORD, Returned, SE_HMAC,
    SE_POLICY, check,
    policies::Verified,
    structures::{bytes, from_tss, sized, to_tss},
};
use crate::{Blob, TpmError};

/// How the TPM made an object, under a ticket of its own: what [`Esys::certify_creation`] needs.
#[derive(Clone, Copy)]
pub struct Birth {
    pub(super) hash: tss::TPM2B_DIGEST,
    pub(super) ticket: tss::TPMT_TK_CREATION,
}

impl Birth {
    fn of(hash: Returned<tss::TPM2B_DIGEST>, ticket: Returned<tss::TPMT_TK_CREATION>, what: &'static str) -> Result<Self, TpmError> {
        Ok(Self { hash: *hash.of(what)?, ticket: *ticket.of(what)? })
    }
}

impl Esys {
    /// Makes a hierarchy's primary key. `session` (if any) authenticates the answer.
    pub fn create_primary(
        &self,
        hierarchy: u32,
        template: &Public,
        session: Option<&Handle<'_>>,
    ) -> Result<(Handle<'_>, Public, Birth), TpmError> {
        let mut tr = NONE;
        let mut public = Returned::new();
        let (mut data, mut hash, mut ticket) = (Returned::new(), Returned::new(), Returned::new());
        let auth = session.map_or(PASSWORD, |s| s.tr);
        // SAFETY: live.
        let code = unsafe {
            tss::Esys_CreatePrimary(
                self.ctx,
                hierarchy,
                auth,
                NONE,
                NONE,
                &tss::TPM2B_SENSITIVE_CREATE::default(),
                &to_tss(template)?,
                &tss::TPM2B_DATA::default(),
                &tss::TPML_PCR_SELECTION::default(),
                &mut tr,
                &mut public.0,
                &mut data.0,
                &mut hash.0,
                &mut ticket.0,
            )
        };
        check("CreatePrimary", code)?;
        let object = self.handle(tr);
        Ok((object, from_tss(&*public.of("CreatePrimary")?)?, Birth::of(hash, ticket, "CreatePrimary")?))
    }

    /// Makes an object under `parent`.
    pub fn create(&self, parent: &Handle<'_>, template: &Public, session: &Handle<'_>) -> Result<(Blob, Birth), TpmError> {
        let (mut private, mut public) = (Returned::new(), Returned::new());
        let (mut data, mut hash, mut ticket) = (Returned::new(), Returned::new(), Returned::new());
        // SAFETY: live.
        let code = unsafe {
            tss::Esys_Create(
                self.ctx,
                parent.tr,
                session.tr,
                NONE,
                NONE,
                &tss::TPM2B_SENSITIVE_CREATE::default(),
                &to_tss(template)?,
                &tss::TPM2B_DATA::default(),
                &tss::TPML_PCR_SELECTION::default(),
                &mut private.0,
                &mut public.0,
                &mut data.0,
                &mut hash.0,
                &mut ticket.0,
            )
        };
        check("Create", code)?;
        let private: Returned<tss::TPM2B_PRIVATE> = private.of("Create")?;
        let blob = Blob { public: from_tss(&*public.of("Create")?)?, private: bytes!(*private, buffer).to_vec() };
        Ok((blob, Birth::of(hash, ticket, "Create")?))
    }

    /// Takes an object made elsewhere under `parent`; its private area as the parent keeps it.
    pub fn import(
        &self,
        parent: &Handle<'_>,
        session: &Handle<'_>,
        public: &Public,
        duplicate: &[u8],
        seed: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let none = tss::TPMT_SYM_DEF_OBJECT { algorithm: ALG_NULL, ..Default::default() };
        let mut private = Returned::<tss::TPM2B_PRIVATE>::new();
        if duplicate.len() > import::MOST_DUPLICATE || seed.len() != import::SEED {
            return Err(TpmError::Integrity);
        }
        // SAFETY: live.
        let code = unsafe {
            tss::Esys_Import(
                self.ctx,
                parent.tr,
                session.tr,
                NONE,
                NONE,
                &tss::TPM2B_DATA::default(),
                &to_tss(public)?,
                &sized!(tss::TPM2B_PRIVATE, buffer, duplicate),
                &sized!(tss::TPM2B_ENCRYPTED_SECRET, secret, seed),
                &none,
                &mut private.0,
            )
        };
        check("Import", code)?;
        let private = private.of("Import")?;
        Ok(bytes!(*private, buffer).to_vec())
    }

    /// Loads an object; refuses if the TPM names it otherwise than its public area does.
    pub fn load(&self, parent: &Handle<'_>, blob: &Blob) -> Result<Handle<'_>, TpmError> {
        if blob.private.len() > Blob::MOST_PRIVATE {
            return Err(TpmError::Integrity);
        }
        let mut tr = NONE;
        // SAFETY: live.
        let code = unsafe {
            let private = sized!(tss::TPM2B_PRIVATE, buffer, &blob.private);
            tss::Esys_Load(self.ctx, parent.tr, PASSWORD, NONE, NONE, &private, &to_tss(&blob.public)?, &mut tr)
        };
        check("Load", code)?;
        let object = self.handle(tr);
        if self.name(&object)? == blob.public.name() { Ok(object) } else { Err(TpmError::Integrity) }
    }

    /// Loads a public key under the owner hierarchy: under the null hierarchy its tickets are useless.
    pub fn load_external(&self, public: &Public) -> Result<Handle<'_>, TpmError> {
        let mut tr = NONE;
        // SAFETY: live; no private area is given.
        let code = unsafe { tss::Esys_LoadExternal(self.ctx, NONE, NONE, NONE, ptr::null(), &to_tss(public)?, OWNER, &mut tr) };
        check("LoadExternal", code)?;
        Ok(self.handle(tr))
    }

    /// Has the TPM check an ECDSA signature over a SHA-256 digest.
    pub fn verify_signature(&self, key: &Handle<'_>, digest: &[u8; 32], signature: &[u8; 64]) -> Result<Verified, TpmError> {
        let (r, s) = signature.split_at(32);
        let ecdsa = tss::TPMS_SIGNATURE_ECC {
            hash: ALG_SHA256,
            signatureR: sized!(tss::TPM2B_ECC_PARAMETER, buffer, r),
            signatureS: sized!(tss::TPM2B_ECC_PARAMETER, buffer, s),
        };
        let signature = tss::TPMT_SIGNATURE { sigAlg: ALG_ECDSA, signature: tss::TPMU_SIGNATURE { ecdsa } };
        let mut ticket = Returned::new();
        // SAFETY: live.
        let code = unsafe {
            let digest = sized!(tss::TPM2B_DIGEST, buffer, digest);
            tss::Esys_VerifySignature(self.ctx, key.tr, NONE, NONE, NONE, &digest, &signature, &mut ticket.0)
        };
        check("VerifySignature", code)?;
        ticket.of("VerifySignature").map(Verified)
    }

    /// An HMAC session salted to `key`, whose parameters are encrypted both ways.
    pub fn salted_session(&self, key: &Handle<'_>) -> Result<Handle<'_>, TpmError> {
        let session = self.session(key.tr, SE_HMAC)?;
        self.attributes(&session, CONTINUE | DECRYPT | ENCRYPT)?;
        Ok(session)
    }

    /// A policy session salted to `key`.
    pub fn policy_session(&self, key: &Handle<'_>) -> Result<Handle<'_>, TpmError> {
        let session = self.session(key.tr, SE_POLICY)?;
        self.attributes(&session, CONTINUE)?;
        Ok(session)
    }

    fn session(&self, salt: u32, kind: u8) -> Result<Handle<'_>, TpmError> {
        let aes = tss::TPMT_SYM_DEF {
            algorithm: ALG_AES,
            keyBits: tss::TPMU_SYM_KEY_BITS { aes: 128 },
            mode: tss::TPMU_SYM_MODE { aes: ALG_CFB },
        };
        let mut tr = NONE;
        // SAFETY: live; without a nonce libtss2 draws one.
        let code =
            unsafe { tss::Esys_StartAuthSession(self.ctx, salt, NONE, NONE, NONE, NONE, ptr::null(), kind, &aes, ALG_SHA256, &mut tr) };
        check("StartAuthSession", code)?;
        Ok(self.handle(tr))
    }

    pub(super) fn attributes(&self, session: &Handle<'_>, flags: u8) -> Result<(), TpmError> {
        // SAFETY: live.
        check("TRSess_SetAttributes", unsafe { tss::Esys_TRSess_SetAttributes(self.ctx, session.tr, flags, 0xFF) })
    }
}
