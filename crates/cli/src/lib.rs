//! Exit codes, prompts, progress, hardening: what all programs share.
#![forbid(unsafe_code)]
