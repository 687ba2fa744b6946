//! The home authority's program: site, roster, deal, enrol.
#![forbid(unsafe_code)]
