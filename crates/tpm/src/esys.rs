//! The only unsafe code of this crate: libtss2's ESYS, a thin layer above its functions.
//!
//! Promises: a [`Handle`] is flushed when dropped, an [`Esys`] is finalised after them all,
//! what libtss2 returns is wiped and freed. Nothing here decides what to do; `tpm` does.
//!
//! All calls share one reason for being sound, named *live* below: `self.ctx` is a context
//! that `Esys_Initialize` made and `Drop` alone ends; it is used by one thread at a time
//! (`Esys` is not `Sync`); every pointer is to a value that outlives the call; and a
//! `Returned` takes over what the call allocated.

use std::{ffi::CString, mem::MaybeUninit, ops::Deref, ptr, slice};

use hoidla_crypto::Secret;
use hoidla_format::{Hash32, statements::PcrValue};
use hoidla_verify::{Public, TpmName, import, policy};
use tss_esapi_sys as tss;
use zeroize::Zeroize;

use crate::{Blob, Tcti, TpmError};

const ALG_AES: u16 = 0x0006;
const ALG_SHA256: u16 = 0x000B;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const ALG_CFB: u16 = 0x0043;
const RH_NULL: u32 = 0x4000_0007;
const ST_HASHCHECK: u16 = 0x8024;
const SE_HMAC: u8 = 0;
const SE_POLICY: u8 = 1;
const CAP_HANDLES: u32 = 1;
/// First handles of loaded sessions, saved sessions and transient objects.
const LEAKABLE: [u32; 3] = [0x0200_0000, 0x0300_0000, 0x8000_0000];

const NONE: u32 = tss::ESYS_TR_NONE;
const PASSWORD: u32 = tss::ESYS_TR_PASSWORD;

/// The owner hierarchy.
pub const OWNER: u32 = tss::ESYS_TR_RH_OWNER;
/// The endorsement hierarchy.
pub const ENDORSEMENT: u32 = tss::ESYS_TR_RH_ENDORSEMENT;

/// TPMA_SESSION bits.
const CONTINUE: u8 = 1 << 0;
const DECRYPT: u8 = 1 << 5;
const ENCRYPT: u8 = 1 << 6;

/// A TPM2B structure of libtss2 from bytes.
macro_rules! sized {
    ($t:ty, $field:ident, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        let mut out = <$t>::default();
        out.$field[..bytes.len()].copy_from_slice(bytes);
        out.size = bytes.len() as u16;
        out
    }};
}

/// The bytes of a TPM2B structure, never more than its buffer holds.
macro_rules! bytes {
    ($b:expr, $field:ident) => {{
        let b = &$b;
        &b.$field[..usize::from(b.size).min(b.$field.len())]
    }};
}

/// What libtss2 allocated: wiped and freed when dropped.
struct Returned<T>(*mut T);

impl<T> Returned<T> {
    fn new() -> Self {
        Self(ptr::null_mut())
    }

    fn of(self, what: &'static str) -> Result<Self, TpmError> {
        if self.0.is_null() { Err(TpmError::Answer(what)) } else { Ok(self) }
    }
}

impl<T> Deref for Returned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        assert!(!self.0.is_null(), "a call succeeded without its answer");
        // SAFETY: not null, so libtss2 allocated and filled a `T` there, which only `Drop` frees.
        unsafe { &*self.0 }
    }
}

impl<T> Drop for Returned<T> {
    fn drop(&mut self) {
        if self.0.is_null() {
            return;
        }
        // SAFETY: libtss2 allocated `size_of::<T>()` bytes there for one plain C structure; they
        // are ours until freed, which happens here and once.
        unsafe {
            slice::from_raw_parts_mut(self.0.cast::<MaybeUninit<u8>>(), size_of::<T>()).zeroize();
            tss::Esys_Free(self.0.cast());
        }
    }
}

/// A connection to the TPM.
pub struct Esys {
    ctx: *mut tss::ESYS_CONTEXT,
    tcti: *mut tss::TSS2_TCTI_CONTEXT,
}

impl Drop for Esys {
    fn drop(&mut self) {
        // SAFETY: both were made in `open` and are ended here and once; handles borrow `self`,
        // so none is left.
        unsafe {
            tss::Esys_Finalize(&mut self.ctx);
            tss::Tss2_TctiLdr_Finalize(&mut self.tcti);
        }
    }
}

/// A loaded object or session; flushed when dropped.
pub struct Handle<'e> {
    esys: &'e Esys,
    tr: u32,
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: live; a handle that the TPM no longer knows is refused with a code, which tells
        // us nothing more: the sweep after a failure sees to the rest.
        unsafe { tss::Esys_FlushContext(self.esys.ctx, self.tr) };
    }
}

/// An NV index; it isn't loaded, so nothing is to be flushed.
pub struct Index<'e> {
    esys: &'e Esys,
    tr: u32,
}

impl Drop for Index<'_> {
    fn drop(&mut self) {
        // SAFETY: live; only libtss2's record of the index goes.
        unsafe { tss::Esys_TR_Close(self.esys.ctx, &mut self.tr) };
    }
}

/// The TPM's own word that a signature is good.
pub struct Verified(Returned<tss::TPMT_TK_VERIFIED>);

/// What a response code means, whichever parameter or session it points at.
fn meaning(what: &'static str, code: u32) -> TpmError {
    let layer = code & 0x00FF_0000;
    if layer == 0x0007_0000 && code & 0xFFFF == 27 {
        return TpmError::Tampered;
    }
    let number = if code & 0x80 != 0 { code & 0xBF } else { code & 0x97F };
    match (layer, number) {
        (0, 0x84) if what == "PolicyPCR" => TpmError::Pcrs,
        (0, 0x126) if what == "PolicyNV" => TpmError::Retired,
        (0, 0x8E | 0xA2) => TpmError::Auth,
        (0, 0x9D) => TpmError::Policy,
        (0, 0x9F | 0xA5) => TpmError::Integrity,
        (0, 0x9B) => TpmError::Signature,
        _ => TpmError::Refused { what, code },
    }
}

fn check(what: &'static str, code: u32) -> Result<(), TpmError> {
    if code == 0 { Ok(()) } else { Err(meaning(what, code)) }
}

/// Whether a refusal says that the registers changed between check and use: worth another try.
pub fn pcrs_changed(e: &TpmError) -> bool {
    matches!(e, TpmError::Refused { code: 0x128, .. })
}

impl Esys {
    /// Connects.
    pub fn open(tcti: &Tcti) -> Result<Self, TpmError> {
        let no_tpm = |code| TpmError::NoTpm { tcti: tcti.to_string(), code };
        let name = CString::new(tcti.as_str()).map_err(|_| no_tpm(0))?;
        let mut way = ptr::null_mut();
        // SAFETY: `name` ends with a zero and outlives the call; `way` is written on success only.
        let code = unsafe { tss::Tss2_TctiLdr_Initialize(name.as_ptr(), &mut way) };
        if code != 0 {
            return Err(no_tpm(code));
        }
        let mut ctx = ptr::null_mut();
        // SAFETY: `way` was just made and outlives the context; no ABI version is asked for.
        let code = unsafe { tss::Esys_Initialize(&mut ctx, way, ptr::null_mut()) };
        if code != 0 {
            // SAFETY: `way` was made above and is used nowhere else.
            unsafe { tss::Tss2_TctiLdr_Finalize(&mut way) };
            return Err(no_tpm(code));
        }
        Ok(Self { ctx, tcti: way })
    }

    fn handle(&self, tr: u32) -> Handle<'_> {
        Handle { esys: self, tr }
    }

    /// What is loaded in the TPM that could be left over: sessions and transient objects.
    pub fn loaded(&self) -> Result<Vec<u32>, TpmError> {
        let mut all = Vec::new();
        for first in LEAKABLE {
            let (mut more, mut data) = (0, Returned::<tss::TPMS_CAPABILITY_DATA>::new());
            // SAFETY: live.
            let code = unsafe { tss::Esys_GetCapability(self.ctx, NONE, NONE, NONE, CAP_HANDLES, first, 64, &mut more, &mut data.0) };
            check("GetCapability", code)?;
            // SAFETY: the capability asked for was handles, so that is the member that was filled.
            let handles = unsafe { data.of("GetCapability")?.data.handles };
            let count = (handles.count as usize).min(handles.handle.len());
            all.extend_from_slice(&handles.handle[..count]);
        }
        Ok(all)
    }

    /// Flushes what a killed predecessor left loaded; how much.
    pub fn sweep(&self) -> Result<usize, TpmError> {
        let left = self.loaded()?;
        for handle in &left {
            match handle >> 24 {
                // Listed as loaded or saved, whatever it is; flushed by what it is: HMAC or policy.
                0x02 | 0x03 => [0x0200_0000, 0x0300_0000].iter().for_each(|kind| self.flush_raw(kind | handle & 0x00FF_FFFF)),
                _ => self.flush_raw(*handle),
            }
        }
        Ok(left.len())
    }

    /// Flushes what isn't ours. An adopted session's flush answers with an error and frees it all the same.
    fn flush_raw(&self, handle: u32) {
        let mut tr = NONE;
        // SAFETY: live.
        unsafe {
            if tss::Esys_TR_FromTPMPublic(self.ctx, handle, NONE, NONE, NONE, &mut tr) == 0 {
                tss::Esys_FlushContext(self.ctx, tr);
            }
        }
    }

    /// A handle's name, as libtss2 computed it from the public area that it salts to.
    pub fn name(&self, object: &Handle<'_>) -> Result<TpmName, TpmError> {
        self.name_of(object.tr)
    }

    fn name_of(&self, tr: u32) -> Result<TpmName, TpmError> {
        let mut name = Returned::<tss::TPM2B_NAME>::new();
        // SAFETY: live.
        check("TR_GetName", unsafe { tss::Esys_TR_GetName(self.ctx, tr, &mut name.0) })?;
        let name = name.of("TR_GetName")?;
        TpmName::from_bytes(bytes!(*name, name)).ok_or(TpmError::Answer("TR_GetName"))
    }

    /// Makes a hierarchy's primary key. `session` (if any) authenticates the answer.
    pub fn create_primary(
        &self,
        hierarchy: u32,
        template: &Public,
        session: Option<&Handle<'_>>,
    ) -> Result<(Handle<'_>, Public), TpmError> {
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
        Ok((self.handle(tr), from_tss(&*public.of("CreatePrimary")?)?))
    }

    /// Makes an object under `parent`.
    pub fn create(&self, parent: &Handle<'_>, template: &Public, session: &Handle<'_>) -> Result<Blob, TpmError> {
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
        Ok(Blob { public: from_tss(&*public.of("Create")?)?, private: bytes!(*private, buffer).to_vec() })
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

    fn attributes(&self, session: &Handle<'_>, flags: u8) -> Result<(), TpmError> {
        // SAFETY: live.
        check("TRSess_SetAttributes", unsafe { tss::Esys_TRSess_SetAttributes(self.ctx, session.tr, flags, 0xFF) })
    }

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
        let signature = signature.of("Sign")?;
        if signature.sigAlg != ALG_ECDSA {
            return Err(TpmError::Answer("Sign"));
        }
        // SAFETY: the algorithm says which member was filled.
        let ecdsa = unsafe { signature.signature.ecdsa };
        let mut out = [0; 64];
        for (half, number) in out.chunks_exact_mut(32).zip([&ecdsa.signatureR, &ecdsa.signatureS]) {
            let number = bytes!(*number, buffer);
            let at = 32usize.checked_sub(number.len()).ok_or(TpmError::Answer("Sign"))?;
            half[at..].copy_from_slice(number);
        }
        Ok(out)
    }

    /// An NV index by its number; none if it isn't defined.
    pub fn index(&self, number: u32) -> Result<Option<Index<'_>>, TpmError> {
        let mut tr = NONE;
        // SAFETY: live.
        let code = unsafe { tss::Esys_TR_FromTPMPublic(self.ctx, number, NONE, NONE, NONE, &mut tr) };
        // TPM2_RC_HANDLE, first parameter or handle: no such index.
        if code & 0x00FF_00BF == 0x8B {
            return Ok(None);
        }
        check("NV_ReadPublic", code)?;
        Ok(Some(Index { esys: self, tr }))
    }

    /// An index's name.
    pub fn index_name(&self, index: &Index<'_>) -> Result<TpmName, TpmError> {
        self.name_of(index.tr)
    }

    /// Defines a counter at `number`.
    pub fn define_counter(&self, number: u32, session: &Handle<'_>) -> Result<Index<'_>, TpmError> {
        let public = tss::TPMS_NV_PUBLIC {
            nvIndex: number,
            nameAlg: ALG_SHA256,
            attributes: policy::COUNTER_ATTRIBUTES,
            dataSize: 8,
            ..Default::default()
        };
        let public = tss::TPM2B_NV_PUBLIC { size: 0, nvPublic: public };
        let mut tr = NONE;
        self.attributes(session, CONTINUE | DECRYPT)?;
        // SAFETY: live; no auth value is given.
        let code =
            unsafe { tss::Esys_NV_DefineSpace(self.ctx, OWNER, session.tr, NONE, NONE, &tss::TPM2B_AUTH::default(), &public, &mut tr) };
        check("NV_DefineSpace", code)?;
        Ok(Index { esys: self, tr })
    }

    /// Raises a counter by one.
    pub fn nv_increment(&self, index: &Index<'_>, session: &Handle<'_>) -> Result<(), TpmError> {
        self.attributes(session, CONTINUE)?;
        // SAFETY: live.
        check("NV_Increment", unsafe { tss::Esys_NV_Increment(self.ctx, index.tr, index.tr, session.tr, NONE, NONE) })
    }

    /// Reads a counter; the session authenticates the answer.
    pub fn nv_read(&self, index: &Index<'_>, session: &Handle<'_>) -> Result<u64, TpmError> {
        self.attributes(session, CONTINUE | ENCRYPT)?;
        let mut out = Returned::<tss::TPM2B_MAX_NV_BUFFER>::new();
        // SAFETY: live.
        check("NV_Read", unsafe { tss::Esys_NV_Read(self.ctx, index.tr, index.tr, session.tr, NONE, NONE, 8, 0, &mut out.0) })?;
        let out = out.of("NV_Read")?;
        bytes!(*out, buffer).try_into().map(u64::from_be_bytes).map_err(|_| TpmError::Answer("NV_Read"))
    }

    /// Reads one register of the SHA-256 bank.
    pub fn pcr_read(&self, index: u8) -> Result<Hash32, TpmError> {
        let mut counter = 0;
        let (mut which, mut values) = (Returned::<tss::TPML_PCR_SELECTION>::new(), Returned::<tss::TPML_DIGEST>::new());
        // SAFETY: live.
        let code =
            unsafe { tss::Esys_PCR_Read(self.ctx, NONE, NONE, NONE, &selection(&[index]), &mut counter, &mut which.0, &mut values.0) };
        check("PCR_Read", code)?;
        let values = values.of("PCR_Read")?;
        let one = if values.count == 1 { bytes!(values.digests[0], buffer) } else { &[] };
        one.try_into().map(Hash32).map_err(|_| TpmError::Answer("PCR_Read"))
    }

    /// Extends one register of the SHA-256 bank; the session authenticates the answer.
    pub fn pcr_extend(&self, index: u8, digest: &Hash32, session: &Handle<'_>) -> Result<(), TpmError> {
        self.attributes(session, CONTINUE)?;
        let mut digests = tss::TPML_DIGEST_VALUES { count: 1, ..Default::default() };
        digests.digests[0] = tss::TPMT_HA { hashAlg: ALG_SHA256, digest: tss::TPMU_HA { sha256: digest.0 } };
        // SAFETY: live; the handles of registers are their numbers.
        check("PCR_Extend", unsafe { tss::Esys_PCR_Extend(self.ctx, u32::from(index), session.tr, NONE, NONE, &digests) })
    }

    /// The TPM's clock.
    pub fn read_clock(&self) -> Result<tss::TPMS_CLOCK_INFO, TpmError> {
        let mut time = Returned::<tss::TPMS_TIME_INFO>::new();
        // SAFETY: live.
        check("ReadClock", unsafe { tss::Esys_ReadClock(self.ctx, NONE, NONE, NONE, &mut time.0) })?;
        Ok(time.of("ReadClock")?.clockInfo)
    }
}

/// Has libtss2 keep its own log lines to itself: what they say stands in our errors. To be
/// called first in `main`; does nothing once there are threads, or if `TSS2_LOG` is set.
pub fn silence_libtss2() {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone && std::env::var_os("TSS2_LOG").is_none() {
        // SAFETY: this is the only thread, so nothing reads the environment meanwhile.
        unsafe { std::env::set_var("TSS2_LOG", "all+none") };
    }
}

fn selection(indices: &[u8]) -> tss::TPML_PCR_SELECTION {
    let bits = indices.iter().filter(|i| **i < 24).fold(0u32, |bits, i| bits | 1 << i).to_le_bytes();
    let mut out = tss::TPML_PCR_SELECTION { count: 1, ..Default::default() };
    out.pcrSelections[0] = tss::TPMS_PCR_SELECTION { hash: ALG_SHA256, sizeofSelect: 3, pcrSelect: bits };
    out
}

/// Our public area as libtss2's structure, through the bytes that both agree on.
fn to_tss(public: &Public) -> Result<tss::TPM2B_PUBLIC, TpmError> {
    let bytes = public.marshal();
    let mut out = tss::TPM2B_PUBLIC::default();
    let mut offset = 0;
    // SAFETY: reads at most `bytes.len()` bytes and writes one structure that is ours.
    let code = unsafe { tss::Tss2_MU_TPMT_PUBLIC_Unmarshal(bytes.as_ptr(), bytes.len() as _, &mut offset, &mut out.publicArea) };
    check("unmarshalling of a public area", code)?;
    Ok(out)
}

/// libtss2's structure as our public area.
fn from_tss(public: &tss::TPM2B_PUBLIC) -> Result<Public, TpmError> {
    let mut bytes = [0; size_of::<tss::TPMT_PUBLIC>()];
    let mut offset = 0;
    // SAFETY: writes at most `bytes.len()` bytes; the structure was filled by libtss2.
    let code = unsafe { tss::Tss2_MU_TPMT_PUBLIC_Marshal(&public.publicArea, bytes.as_mut_ptr(), bytes.len() as _, &mut offset) };
    check("marshalling of a public area", code)?;
    Ok(Public::parse(bytes.get(..offset as usize).ok_or(TpmError::Answer("a public area"))?)?)
}
