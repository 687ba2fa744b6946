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

use hoidla_verify::TpmName;
use tss_esapi_sys as tss;
use zeroize::Zeroize;

pub use self::objects::Birth;
use self::structures::bytes;
use crate::{Tcti, TpmError};

mod objects;
mod policies;
mod proofs;
mod quotes;
mod registers;
mod structures;

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

/// What a response code means, whichever parameter or session it points at.
fn meaning(what: &'static str, code: u32) -> TpmError {
    let layer = code & 0x00FF_0000;
    if layer == 0x0007_0000 && code & 0xFFFF == 27 {
        return TpmError::Tampered;
    }
    let number = if code & 0x80 != 0 { code & 0xBF } else { code & 0x97F };
    match (layer, number) {
        // Hoidla leaves the hierarchies' own passwords empty, as TPMs are delivered.
        (0, 0x8E | 0xA2 | 0x121) if matches!(what, "CreatePrimary" | "PolicySecret" | "NV_DefineSpace") => TpmError::Owned,
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
