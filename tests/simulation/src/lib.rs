//! The real store in a seeded world of failing disks.
#![forbid(unsafe_code)]
