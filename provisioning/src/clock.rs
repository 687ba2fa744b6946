//! The authority's word that an appliance's time goes on where it was switched off.
//!
//! Promises: a word skips no more than passed since the last date that the authority signed for
//! that appliance, without the time for which it ran, and goes on from the last word; its serial
//! rises. Nothing else that the authority signs moves an appliance's time.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_format::{
    Moment, Name,
    statements::{Enrolment, Skip},
};

use crate::home::{Home, open_signed, write_new};

const DAY: u64 = 86_400;

/// What is asked for.
pub struct Request {
    /// The appliance.
    pub appliance: Name,
    /// The powered seconds at which it was switched off; in doubt less.
    pub from: u64,
    /// Days that it was off.
    pub days: u32,
    /// Why, for its log.
    pub reason: String,
}

/// Signs a word; where it was written.
pub fn skip(home: &Home, request: &Request, passphrase: &PassphraseSource) -> Result<(PathBuf, Skip)> {
    let site = home.signed_site()?.statement;
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site)?;
    ensure!(site.appliances.iter().any(|a| a.name == request.appliance), "the site file names no appliance {}", request.appliance);
    ensure!(request.days > 0 && !request.reason.trim().is_empty(), "a word about time needs days and a reason");
    let file = home.enrolment(&request.appliance);
    let enrolled = open_signed::<Enrolment>(&file, &keys.verifying())
        .with_context(|| format!("{} is not enrolled", request.appliance))
        .next("enrol it first: hoidla-provision enrol")?;
    let mut last = (0, 0, enrolled.statement.issued);
    while home.skip(&request.appliance, last.0 + 1).exists() {
        let before = open_signed::<Skip>(&home.skip(&request.appliance, last.0 + 1), &keys.verifying())?.statement;
        // What was signed for the appliance as it was enrolled before says nothing of its time now.
        let until = if before.identity == enrolled.statement.identity { before.to } else { 0 };
        last = (before.serial, until, last.2.max(before.issued));
    }
    let (serial, until, known) = (last.0 + 1, last.1, last.2);
    let issued = Moment::now();
    // Counted already; how much before the enrolment, or before the first word, nobody knows here.
    let lived = if serial > 1 && known > enrolled.statement.issued { request.from.saturating_sub(until) } else { 0 };
    let passed = issued.seconds().saturating_sub(known.seconds()).saturating_sub(lived);
    let length = u64::from(request.days) * DAY;
    ensure!(
        length <= passed,
        "{} days are more than passed since {known}, the last date signed for {}, without the time for which it ran: write at most {}",
        request.days,
        request.appliance,
        passed / DAY
    );
    ensure!(request.from >= until, "the last word went on to {until} s, so {} s is not where {} stands", request.from, request.appliance);
    let word = Skip {
        site: site.site,
        appliance: request.appliance.clone(),
        identity: enrolled.statement.identity,
        serial,
        from: request.from,
        to: request.from + length,
        reason: request.reason.trim().to_owned(),
        issued,
    };
    let path = home.skip(&request.appliance, serial);
    write_new(&path, keys.sign(&word)?.as_bytes())?;
    Ok((path, word))
}
