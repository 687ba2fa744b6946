//! Sealing, HPKE, envelopes, signatures and secret memory.
#![forbid(unsafe_code)]
