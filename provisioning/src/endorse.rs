//! Which TPM home means: its endorsement key, recorded before the machine is shipped.
//!
//! Promises: one endorsement key an appliance, never replaced unless asked; an identity with
//! another one is refused; production deals and enrols for no TPM whose key isn't recorded.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use hoidla_cli::NextStep;
use hoidla_format::{
    Bytes, Hash32, Name, statement,
    statements::{ApplianceIdentity, Endorsement, Enrolment, Proof, Site},
};
use hoidla_quorum::fingerprint;
use hoidla_verify::{Public, credential, identity};

use crate::home::{Home, Keys, open_signed, write_over};

/// The digits of an endorsement key, as hoidlad shows them too.
pub fn digits(ek: &Bytes) -> Result<String> {
    Ok(fingerprint::of_hash(&identity::ek_hash(credential::is_ek(&Public::parse(&ek.0)?)?)))
}

fn read(path: &Path) -> Result<Endorsement> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("give the file that hoidlad endorse wrote on the machine")?;
    let endorsement: Endorsement = statement::parse(&text).with_context(|| path.display().to_string())?;
    digits(&endorsement.ek).with_context(|| path.display().to_string())?;
    Ok(endorsement)
}

/// Records the endorsement key of an appliance's TPM.
pub fn record(home: &Home, appliance: &Name, file: &Path, replace: bool) -> Result<Endorsement> {
    let endorsement = read(file)?;
    let site = home.signed_site()?.statement;
    ensure!(
        site.appliances.iter().any(|a| a.name == *appliance),
        "the site file names no appliance {appliance}; add it to site.toml, raise the serial and sign it"
    );
    if let Some(other) = home.endorsed(&endorsement.ek, &site)?.filter(|other| other != appliance) {
        return Err(anyhow!("this is the TPM that is recorded of {other}"))
            .next("one machine is one appliance: give the file of the other machine");
    }
    let path = home.endorsement(appliance);
    if path.exists() && read(&path)? != endorsement && !replace {
        return Err(anyhow!("another endorsement key of {appliance} is recorded: this is another TPM"))
            .next("find out why; if the hardware was replaced on purpose, give --replace, deal anew and enrol");
    }
    write_over(&path, statement::write(&endorsement).as_bytes())?;
    Ok(endorsement)
}

impl Home {
    /// The endorsement key that is recorded of an appliance, if one is.
    pub fn recorded(&self, appliance: &Name) -> Result<Option<Endorsement>> {
        let path = self.endorsement(appliance);
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// Whose endorsement key this is, as far as recorded.
    fn endorsed(&self, ek: &Bytes, site: &Site) -> Result<Option<Name>> {
        for a in &site.appliances {
            if self.recorded(&a.name)?.is_some_and(|e| e.ek == *ek) {
                return Ok(Some(a.name.clone()));
            }
        }
        Ok(None)
    }
}

/// On what grounds an identity is believed; refuses one of another TPM than the recorded one,
/// and in production one of a TPM of which nothing is recorded.
pub fn grounds(home: &Home, site: &Site, identity: &ApplianceIdentity) -> Result<Proof> {
    identity::check(identity, site)?;
    let name = &identity.name;
    match home.recorded(name)? {
        Some(recorded) if recorded.ek == identity.ek => Ok(Proof::CredentialActivated),
        Some(recorded) => Err(anyhow!(
            "this identity of {name} has the endorsement key {}, and {} was recorded before shipping: it is of another TPM",
            digits(&identity.ek)?,
            digits(&recorded.ek)?
        ))
        .next("don't deal for it: have the machine and the file's way looked at. Only if the hardware was replaced on purpose: record-ek --replace"),
        None if site.development => Ok(Proof::TrustedOnFirstUse),
        None => Err(anyhow!("no endorsement key of {name} is recorded, and this is no drill: nothing would prove its TPM"))
            .next(format!("run hoidlad endorse on the machine before it is shipped, then: hoidla-provision record-ek {name} FILE")),
    }
}

/// Takes the enrolment that an appliance's TPM opened out of its parcel: from now on it lies in
/// the public folder, for auditors.
pub fn proven(home: &Home, keys: &Keys, file: &Path) -> Result<Enrolment> {
    let came = open_signed::<Enrolment>(file, &keys.verifying())?;
    let name = &came.statement.appliance;
    let kept: Hash32 = open_signed::<Enrolment>(&home.enrolment(name), &keys.verifying())?.hash;
    if came.hash != kept {
        return Err(anyhow!("{} is not the newest enrolment of {name}: it came out of an older parcel", file.display()))
            .next("carry the newest parcel to the appliance, run hoidlad enrol --out there, and bring that file");
    }
    write_over(&home.public_enrolment(name), came.note.as_bytes())?;
    Ok(came.statement)
}
