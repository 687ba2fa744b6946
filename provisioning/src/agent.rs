//! An agent's bundle: all that a home institution's agent needs, in one folder.
//!
//! Promises: the agent's key lies in a key file under its own passphrase; its certificates name
//! one dataset and one agent. A name that was revoked is not issued again.

use std::{fs, path::PathBuf};

use anyhow::{Result, bail, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    Secret,
    keyfile::{KeyFile, Role},
    keys::AgentKeys,
};
use hoidla_door::{AgentRequest, agent_certificate};
use hoidla_format::{Bytes, Moment, Name, statements::AgentCertificate};

use crate::home::{Home, write_over, write_secret};

/// Whom to issue to.
pub struct Request {
    /// The only dataset.
    pub dataset: Name,
    /// The agent's name.
    pub agent: Name,
    /// For how many days.
    pub days: u32,
    /// Where the passphrase of the agent's own key file comes from.
    pub agent_passphrase: PassphraseSource,
}

/// Makes a bundle; gives its folder and the certificate.
pub fn issue(home: &Home, request: &Request, passphrase: &PassphraseSource) -> Result<(PathBuf, AgentCertificate)> {
    let site = home.signed_site()?;
    let (dataset, agent) = (&request.dataset, &request.agent);
    ensure!(site.statement.datasets.iter().any(|d| d.name == *dataset), "the site file names no dataset {dataset}");
    if site.statement.revoked_agents.contains(agent) {
        bail!("the name {agent} was revoked; choose another");
    }
    ensure!((1..=3650).contains(&request.days), "a certificate is valid for 1 to 3650 days");
    let folder = home.agent(dataset, agent);
    ensure!(!folder.exists(), "{} is there already; nothing was overwritten", folder.display());
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site.statement)?;
    let vaults: Vec<_> = home.vaults(&keys.verifying())?.into_iter().filter(|v| v.statement.dataset == *dataset).collect();
    if vaults.is_empty() {
        return Err(anyhow::anyhow!("{dataset} has no vault to seal to")).next("deal it first: hoidla-provision deal");
    }

    let own = request.agent_passphrase.new_one(&format!("the agent {agent}'s key file"))?;
    let secret = Secret::random();
    let public = AgentKeys::from_seed(&secret).signing.verifying_key();
    let issued = Moment::now();
    let certificate = AgentCertificate {
        site: site.statement.site.clone(),
        dataset: dataset.clone(),
        agent: agent.clone(),
        key: Bytes(public.to_sec1()),
        issued,
        not_after: issued.plus(u64::from(request.days) * 86_400),
    };
    let door = AgentRequest {
        site: &certificate.site,
        dataset,
        agent,
        key: &certificate.key.0,
        not_before: issued,
        not_after: certificate.not_after,
    };
    let x509 = agent_certificate(&door, &site.statement.door_root.0, &*keys.door()?)?;
    write_secret(&folder.join("agent.key"), &KeyFile::protect(Role::Agent, agent, &secret, own.as_str())?)?;
    write_over(&folder.join("agent.txt"), keys.sign(&certificate)?.as_bytes())?;
    write_over(&folder.join("agent.der"), &x509)?;
    write_over(&folder.join("site.txt"), &fs::read(home.site())?)?;
    for vault in &vaults {
        write_over(&folder.join(format!("vault-{dataset}-{}.txt", vault.statement.vault_epoch)), vault.note.as_bytes())?;
    }
    Ok((folder, certificate))
}
