//! The authority's word that a disk with something on it may be erased and used.
//!
//! Promises: a word names one appliance, one tray and the hash of what was seen there, as
//! somebody read it out from the appliance's status; its serial rises with each.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use hoidla_cli::PassphraseSource;
use hoidla_format::{Hash32, Moment, Name, statements::DiskWord};

use crate::home::{Home, write_new};

/// What is asked for.
pub struct Request {
    /// The appliance.
    pub appliance: Name,
    /// The tray, from 1.
    pub tray: u8,
    /// What was seen.
    pub seen: Hash32,
}

/// Signs a word; where it was written.
pub fn allow(home: &Home, request: &Request, passphrase: &PassphraseSource) -> Result<(PathBuf, DiskWord)> {
    let site = home.signed_site()?.statement;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    ensure!(site.appliances.iter().any(|a| a.name == request.appliance), "the site file names no appliance {}", request.appliance);
    ensure!(request.tray > 0, "trays count from 1");
    let serial = (1..).find(|n| !home.disk_word(&request.appliance, *n).exists()).unwrap_or(u32::MAX);
    let word = DiskWord {
        site: site.site,
        appliance: request.appliance.clone(),
        tray: request.tray,
        seen: request.seen,
        serial,
        issued: Moment::now(),
    };
    let path = home.disk_word(&request.appliance, serial);
    write_new(&path, keys.sign(&word)?.as_bytes())?;
    Ok((path, word))
}
