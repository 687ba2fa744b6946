//! TPM structures computed and checked without a TPM: names, policies, import blobs.
#![forbid(unsafe_code)]
