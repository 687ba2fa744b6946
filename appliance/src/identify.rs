//! What the appliance's TPM says it is, and the proof of it that home asks for.
//!
//! Promises: asked again, a TPM is who it was, as long as it and the site's release key are the
//! same: the enrolment signs the identity's hash. Broken off anywhere, it is begun anew.

use std::fs;

use anyhow::{Context, ensure};
use hoidla_format::{
    Bytes, Name, statement,
    statements::{ApplianceIdentity, Endorsement, KeyCreated, Site},
};
use hoidla_quorum::fingerprint;
use hoidla_tpm::{Tcti, Tpm, identity::Keys};
use hoidla_verify::{PolicyRef, Public, ReleasePublic, identity};

use crate::{
    config::{State, replace},
    machine, papers,
};

/// The endorsement key of the TPM there: what home records before the machine is shipped.
pub fn endorse(tcti: &Tcti) -> anyhow::Result<Endorsement> {
    Ok(Endorsement { tpm: kind(tcti.as_str()).to_owned(), ek: bytes(&Tpm::open(tcti)?.endorsement_key()?) })
}

/// An endorsement key's digits, as home shows them too.
pub fn ek_digits(ek: &Bytes) -> anyhow::Result<String> {
    Ok(fingerprint::of_hash(&identity::ek_hash(&Public::parse(&ek.0)?)))
}

/// Makes the node key (once) and writes the identity, under the site file that the authority signed.
pub fn identify(state: &State, site_note: &[u8], name: &Name) -> anyhow::Result<ApplianceIdentity> {
    let config = state.config()?;
    let site: Site = papers::open_site(site_note, &config.authority_key()?)?.statement;
    ensure!(site.appliances.iter().any(|a| a.name == *name), "the site file does not name the appliance {name}; add it and sign again");
    let tcti: Tcti = config.tpm.parse().map_err(anyhow::Error::msg).context("appliance.toml: tpm")?;
    let tpm = Tpm::open(&tcti)?;
    let release = ReleasePublic::from_sec1(&site.release_key.0)?;
    let reference = PolicyRef::node(&site.site, site.development);
    let keys = tpm.keys(&release, &reference)?;
    if let Some(before) = as_before(state, &site, name, &keys)? {
        return Ok(before);
    }
    let (begins, node) = (tpm.begins()?, tpm.create_node_key(&release, &reference)?);
    let mut identity = ApplianceIdentity {
        site: site.site.clone(),
        name: name.clone(),
        tpm: kind(&config.tpm).to_owned(),
        ek: bytes(&keys.ek),
        prover: bytes(&keys.prover),
        srk: bytes(&keys.srk),
        ak: bytes(&keys.ak),
        node: bytes(node.blob.public()),
        release_counter: begins.release,
        site_counter: begins.site,
        hours_counter: begins.hours,
        created: Vec::new(),
    };
    let words = tpm.vouch(&release, &reference, &node, &identity::qualifying(&identity))?;
    identity.created = words.map(|(attest, signature)| KeyCreated { attest: Bytes(attest), signature: Bytes(signature.to_vec()) }).to_vec();
    identity::check(&identity, &site)?; // as home will
    machine::keep_node(state, &node.blob)?;
    replace(&state.identity(), statement::write(&identity).as_bytes())?;
    Ok(identity)
}

/// The identity that was written, if it is still this TPM's and this site's.
fn as_before(state: &State, site: &Site, name: &Name, keys: &Keys) -> anyhow::Result<Option<ApplianceIdentity>> {
    let (Ok(before), Some(node)) = (known(state), machine::node(state)?) else { return Ok(None) };
    let theirs = (&before.name, &before.ek, &before.prover, &before.srk, &before.ak, &before.node);
    let ours = (name, &bytes(&keys.ek), &bytes(&keys.prover), &bytes(&keys.srk), &bytes(&keys.ak), &bytes(node.public()));
    Ok((theirs == ours && identity::check(&before, site).is_ok()).then_some(before))
}

fn bytes(public: &Public) -> Bytes {
    Bytes(public.marshal())
}

/// The identity's hash, as the authority's program prints it: to be compared by telephone.
pub fn digits(identity: &ApplianceIdentity) -> String {
    fingerprint::of_hash(&statement::hash(&statement::write(identity)))
}

fn kind(tcti: &str) -> &'static str {
    if tcti.starts_with("swtpm:") { "software" } else { "discrete" }
}

/// The identity that was written.
pub fn known(state: &State) -> anyhow::Result<ApplianceIdentity> {
    let path = state.identity();
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read: this machine is not enrolled yet (on the stick's menu type start; where hoidlad is a program, run hoidlad identify first)", path.display()))?;
    statement::parse(&text).with_context(|| path.display().to_string())
}
