//! What the appliance's TPM says it is, for home to record before shipping.

use std::fs;

use anyhow::{Context, ensure};
use hoidla_format::{
    Bytes, Name, statement,
    statements::{ApplianceIdentity, Site},
};
use hoidla_tpm::{Tcti, Tpm};
use hoidla_verify::{PolicyRef, ReleasePublic};

use crate::{
    config::{State, replace},
    machine, papers,
};

/// Makes the node key (once) and writes the identity, under the site file that the authority signed.
pub fn identify(state: &State, site_note: &[u8], name: &Name) -> anyhow::Result<ApplianceIdentity> {
    let config = state.config()?;
    let site: Site = papers::open_site(site_note, &config.authority_key()?)?.statement;
    ensure!(site.appliances.iter().any(|a| a.name == *name), "the site file does not name the appliance {name}; add it and sign again");
    let tcti: Tcti = config.tpm.parse().map_err(anyhow::Error::msg).context("appliance.toml: tpm")?;
    let tpm = Tpm::open(&tcti)?;
    let release = ReleasePublic::from_sec1(&site.release_key.0)?;
    let reference = PolicyRef::node(&site.site, site.development);
    let node = match machine::node(state)? {
        Some(blob) => blob,
        None => {
            let blob = tpm.create_node_key(&release, &reference)?;
            machine::keep_node(state, &blob)?;
            blob
        }
    };
    let keys = tpm.identity(&release, &reference, &node)?;
    let identity = ApplianceIdentity {
        site: site.site,
        name: name.clone(),
        tpm: kind(&config.tpm).to_owned(),
        ek: Bytes(keys.ek.marshal()),
        srk: Bytes(keys.srk.marshal()),
        ak: Bytes(keys.ak.marshal()),
        node: Bytes(keys.node.marshal()),
        release_counter: keys.release_counter,
        site_counter: keys.site_counter,
        hours_counter: keys.hours_counter,
    };
    let identity = as_before(state, identity);
    replace(&state.identity(), statement::write(&identity).as_bytes())?;
    Ok(identity)
}

/// Asked again, a TPM is who it was, though its counters have grown: the enrolment signs the
/// identity's hash.
fn as_before(state: &State, now: ApplianceIdentity) -> ApplianceIdentity {
    let Ok(before) = known(state) else { return now };
    let same = ApplianceIdentity {
        release_counter: before.release_counter,
        site_counter: before.site_counter,
        hours_counter: before.hours_counter,
        ..now.clone()
    };
    if same == before { before } else { now }
}

/// The identity's hash, as the authority's program prints it: to be compared by telephone.
pub fn digits(identity: &ApplianceIdentity) -> String {
    hoidla_quorum::fingerprint::of_hash(&statement::hash(&statement::write(identity)))
}

fn kind(tcti: &str) -> &'static str {
    if tcti.starts_with("swtpm:") { "software" } else { "discrete" }
}

/// The identity that was written.
pub fn known(state: &State) -> anyhow::Result<ApplianceIdentity> {
    let path = state.identity();
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read; run hoidlad identify first", path.display()))?;
    statement::parse(&text).with_context(|| path.display().to_string())
}
