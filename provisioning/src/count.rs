//! The authority's word that somebody raised an appliance's log counter by other means.
//!
//! Promises: a word names one appliance's recorded identity, the count at which its TPM stands, and
//! the newest head of its log that home knows, which must be signed by that appliance. The store
//! goes on only if its log extends that head; whether there is a newer one, whoever asks must find out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_format::{
    Moment, Name,
    statements::{CountWord, Enrolment},
};
use hoidla_log::SignedCheckpoint;
use hoidla_verify::{Known, checkpoint};

use crate::home::{Home, open_signed, write_new};

/// What is asked for.
pub struct Request {
    /// The appliance.
    pub appliance: Name,
    /// Where its counter stands, as it says.
    pub stands: u64,
    /// The newest signed head that agents, auditors and other appliances hold.
    pub checkpoint: PathBuf,
    /// Why, for its log.
    pub reason: String,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Signs a word; where it was written.
pub fn vouch(home: &Home, request: &Request, passphrase: &PassphraseSource) -> Result<(PathBuf, CountWord)> {
    let site = home.signed_site()?.statement;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    ensure!(!request.reason.trim().is_empty(), "a word about the counter needs a reason");
    let enrolled = open_signed::<Enrolment>(&home.enrolment(&request.appliance), &keys.verifying())
        .with_context(|| format!("{} is not enrolled", request.appliance))?;
    let signed = SignedCheckpoint::parse(&read(&request.checkpoint)?).with_context(|| request.checkpoint.display().to_string())?;
    let (head, origin) = (signed.head(), format!("hoidla/{}/{}", site.site, request.appliance));
    ensure!(head.origin() == origin, "this is a head of {}, not of {origin}", head.origin());
    let mut papers = vec![read(&home.identity(&request.appliance))?];
    for entry in fs::read_dir(home.public())? {
        let path = entry?.path();
        if path.is_file() {
            papers.push(read(&path)?);
        }
    }
    let known = Known::gather(&keys.verifying(), papers.iter().map(Vec::as_slice))?;
    checkpoint::check(&signed, &known).next("give the newest checkpoint.txt that an agent or auditor of this appliance holds")?;
    ensure!(
        request.stands > head.counter,
        "the counter stands at {}, and this head was signed at {}: nobody raised it by other means",
        request.stands,
        head.counter
    );
    let word = CountWord {
        site: site.site,
        appliance: request.appliance.clone(),
        identity: enrolled.statement.identity,
        stands: request.stands,
        log_size: head.size,
        log_root: head.root,
        reason: request.reason.trim().to_owned(),
        issued: Moment::now(),
    };
    let path = home.count_word(&request.appliance, request.stands);
    write_new(&path, keys.sign(&word)?.as_bytes())?;
    Ok((path, word))
}
