//! The appliance: endpoint, store, ceremony.
#![forbid(unsafe_code)]
