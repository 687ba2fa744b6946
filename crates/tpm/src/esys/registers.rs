//! Counters, PCRs and the clock.

use hoidla_format::Hash32;
use hoidla_verify::{TpmName, policy};
use tss_esapi_sys as tss;

use super::{
    ALG_SHA256, CONTINUE, DECRYPT, Esys, Handle, Index, NONE, OWNER, PASSWORD, Returned, check,
    structures::{bytes, selection},
};
use crate::TpmError;

impl Esys {
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

    /// Reads a counter, which is no secret; the session authenticates the answer.
    pub fn nv_read(&self, index: &Index<'_>, session: &Handle<'_>) -> Result<u64, TpmError> {
        self.attributes(session, CONTINUE)?;
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

    /// Extends one register of the SHA-256 bank.
    pub fn pcr_extend(&self, index: u8, digest: &Hash32) -> Result<(), TpmError> {
        let mut digests = tss::TPML_DIGEST_VALUES { count: 1, ..Default::default() };
        digests.digests[0] = tss::TPMT_HA { hashAlg: ALG_SHA256, digest: tss::TPMU_HA { sha256: digest.0 } };
        // SAFETY: live; the handles of registers are their numbers.
        check("PCR_Extend", unsafe { tss::Esys_PCR_Extend(self.ctx, u32::from(index), PASSWORD, NONE, NONE, &digests) })
    }

    /// The TPM's clock.
    pub fn read_clock(&self) -> Result<tss::TPMS_TIME_INFO, TpmError> {
        let mut time = Returned::<tss::TPMS_TIME_INFO>::new();
        // SAFETY: live.
        check("ReadClock", unsafe { tss::Esys_ReadClock(self.ctx, NONE, NONE, NONE, &mut time.0) })?;
        let time = time.of("ReadClock")?;
        Ok(tss::TPMS_TIME_INFO { time: time.time, clockInfo: time.clockInfo })
    }
}
