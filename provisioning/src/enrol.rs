//! Enrolment: what binds one appliance's TPM to the site.
//!
//! Promises: signs only for the TPM to which the halves were dealt, and says on what grounds it
//! is believed. Where home recorded the TPM's endorsement key, halves and enrolment leave home
//! only in a parcel that no other TPM opens, so that an enrolment which an appliance can show is
//! the proof. Elsewhere, in drills alone, they lie in the public folder: trusted on first use.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Bytes, Moment, Name, statement,
    statements::{ApplianceIdentity, Enrolment, Halves, Proof},
};
use hoidla_verify::{Parcel, identity};

use crate::{
    endorse, halves,
    home::{Home, write_over},
};

/// How long a node certificate is valid: ten years, in seconds.
const NODE_LIFE: u64 = 10 * 365 * 86_400;

/// Signs the enrolment of an appliance over its recorded identity and its halves.
pub fn enrol(home: &Home, appliance: &Name, passphrase: &PassphraseSource) -> Result<Enrolment> {
    let site = home.signed_site()?;
    let identity = home
        .identities(&site.statement)?
        .into_iter()
        .find(|i| i.name == *appliance)
        .with_context(|| format!("no identity of {appliance} is recorded"))
        .next("record it with: hoidla-provision deal --identity FILE")?;
    let proof = endorse::grounds(home, &site.statement, &identity)?;
    let identity_hash = statement::hash(&statement::write(&identity));
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site.statement)?;
    let halves = home
        .halves_of(appliance, &keys.verifying())?
        .with_context(|| format!("no halves were dealt for {appliance}"))
        .next("deal first: hoidla-provision deal")?;
    ensure!(halves.statement.identity == identity_hash, "the halves of {appliance} were dealt to another TPM; deal anew");
    let halves = halves::pruned(home, &keys, halves)?;
    let node = identity::check(&identity, &site.statement)?.node;
    let point = node.point().context("the identity's node key is no signing key")?.to_sec1();
    let now = Moment::now();
    let lifetime = (now, now.plus(NODE_LIFE));
    let certificate =
        hoidla_door::node_certificate(&site.statement.site, appliance, &point, lifetime, &site.statement.door_root.0, &*keys.door()?)?;
    let enrolment = Enrolment {
        site: site.statement.site.clone(),
        site_hash: site.hash,
        appliance: appliance.clone(),
        identity: identity_hash,
        halves: halves.hash,
        proof,
        certificate: Bytes(certificate),
        issued: now,
    };
    let note = keys.sign(&enrolment)?;
    write_over(&home.enrolment(appliance), note.as_bytes())?;
    match proof {
        Proof::CredentialActivated => pack(home, &identity, &halves, &note)?,
        Proof::TrustedOnFirstUse => {
            gone(&home.parcel(appliance))?;
            write_over(&home.public_halves(appliance), halves.note.as_bytes())?;
            write_over(&home.public_enrolment(appliance), note.as_bytes())?;
        }
    }
    Ok(enrolment)
}

/// Writes the parcel, and takes away what lay beside it from before the TPM was proven.
fn pack(home: &Home, identity: &ApplianceIdentity, halves: &Signed<Halves>, enrolment: &str) -> Result<()> {
    let recorded = home.recorded(&identity.name)?.context("the endorsement key was recorded a moment ago")?;
    let (ek, prover) = (hoidla_verify::Public::parse(&recorded.ek.0)?, hoidla_verify::Public::parse(&identity.prover.0)?);
    let parcel = Parcel::seal(&ek, &prover.name(), identity, &[&halves.note, enrolment])?;
    gone(&home.public_halves(&identity.name))?;
    gone(&home.public_enrolment(&identity.name))?;
    write_over(&home.parcel(&identity.name), &parcel.to_bytes())
}

fn gone(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}
