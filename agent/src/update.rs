//! Carrying newer papers of the site to its appliances.
//!
//! Promises: sends only what the authority of this agent's own site file signed, or sealed into a
//! parcel, and what the appliance doesn't hold yet; believes no older site file than it has seen.
//! The appliance decides by the signatures: the carrier is not trusted.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::{NextStep, Outcome, Output, files};
use hoidla_door::{Connection, Target, connect};
use hoidla_format::{
    Statement, statement,
    statements::{Enrolment, Envelopes, Halves, Release, Roster, Site, Vault},
};
use hoidla_protocol::{Request, Response, request::MOST_UPDATE};
use hoidla_verify::{Parcel, known::kind_of, parcel};
use serde_json::json;

use crate::home::Home;

/// The kinds that an appliance keeps.
const KINDS: [&str; 7] = [Site::KIND, Roster::KIND, Release::KIND, Enrolment::KIND, Halves::KIND, Vault::KIND, Envelopes::KIND];
/// The most papers of one update.
const MOST_PAPERS: usize = 255;

/// `update`: brings the papers in these files and folders to the appliance.
pub fn update(out: Output, (home, target): (Home, Target), paths: &[PathBuf]) -> Result<Outcome> {
    let papers = gather(paths, &target)?;
    ensure!(!papers.is_empty(), "no papers of the site are in there: give the authority's public folder, or the files that changed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sent, serial, in_force) = runtime.block_on(bring(&home, &target, papers))?;
    let when = if in_force { "in force within seconds" } else { "kept; in force as soon as nothing is being opened there" };
    let text = format!("{}: {sent} papers brought; site file {serial} is {when}", target.appliance);
    out.result(&json!({ "appliance": target.appliance, "sent": sent, "serial": serial, "in_force": in_force }), text)?;
    Ok(Outcome::Done)
}

async fn bring(home: &Home, target: &Target, papers: Vec<Vec<u8>>) -> Result<(usize, u32, bool)> {
    let mut connection = connect(target, &home.identity()?).await?;
    let held = held(&mut connection).await?;
    // A parcel is never held as one: what is in it, the appliance compares.
    let new: Vec<Vec<u8>> = papers.into_iter().filter(|p| !held.contains(p)).collect();
    let bytes: usize = 1 + new.iter().map(|p| 4 + p.len()).sum::<usize>();
    if new.len() > MOST_PAPERS || bytes > MOST_UPDATE {
        return Err(anyhow!("{} papers of {bytes} bytes are more than one update holds", new.len()))
            .next("give the files that changed instead of the whole folder, the site file among them");
    }
    let sent = new.len();
    let answer = connection.ask(&Request::Update(new)).await?;
    _ = connection.writer.close().await;
    match answer {
        Response::Updated { serial, in_force } => Ok((sent, serial, in_force)),
        _ => bail!("the appliance answered something else than was asked; tell the authority"),
    }
}

/// What the appliance holds already.
async fn held(connection: &mut Connection) -> Result<BTreeSet<Vec<u8>>> {
    let mut held = BTreeSet::new();
    let take = |part| {
        if let Response::Paper(paper) = part {
            held.insert(paper);
        }
        Ok::<(), hoidla_door::DoorError>(())
    };
    connection.ask_parts(&Request::Papers, take).await?;
    Ok(held)
}

/// The papers in files and folders that are for this appliance.
fn gather(paths: &[PathBuf], target: &Target) -> Result<Vec<Vec<u8>>> {
    let papers: Vec<_> = files::gather(paths)?.iter().map(|file| paper(file, target)).collect::<Result<_>>()?;
    Ok(papers.into_iter().flatten().collect())
}

fn paper(path: &Path, target: &Target) -> Result<Option<Vec<u8>>> {
    let context = || format!("cannot read {}", path.display());
    if fs::metadata(path).with_context(context)?.len() > parcel::MOST as u64 {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(context)?;
    if Parcel::is_one(&bytes) {
        let parcel = Parcel::from_bytes(&bytes).with_context(|| path.display().to_string())?;
        return Ok((parcel.appliance == target.appliance).then_some(bytes));
    }
    let fits = bytes.len() <= statement::MOST && kind_of(&bytes).is_some_and(|k| KINDS.contains(&k));
    Ok(fits.then_some(bytes))
}
