//! At the appliance's door, as a custodian: propose a grant, approve it, seal, ask how it is.
//!
//! Promises: [`Door::propose`] believes a challenge only if it is for the very grant that was
//! sent and its vaults and envelopes are the authority's; [`approval`] seals each share to that
//! challenge's one-time key and signs grant and challenge together.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use hoidla_crypto::{envelope::CustodianKeys, hpke, sign::Signed};
use hoidla_door::{Connection, DoorError, Identity, Target, connect, software_key};
use hoidla_format::{
    Hash32, Name, statement,
    statements::{Approval, Challenge, Door as VaultDoor, Grant, Vault},
};
use hoidla_protocol::{
    Request, Response,
    response::{Health, Progress, Welcome},
};
use hoidla_quorum::{
    grant,
    intake::LONGEST_CHALLENGE,
    opening::{Occasion, seal_share},
};

use crate::{
    papers::{Known, Papers},
    share,
};

/// A connection to one appliance.
pub struct Door {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
}

/// A challenge that was checked against its grant.
pub struct Challenged {
    /// The challenge.
    pub challenge: Challenge,
    /// What shares are bound to.
    pub occasion: Occasion,
    /// The one-time key in it.
    pub one_time: hpke::PublicKey,
    /// The grant's vaults and envelopes.
    pub papers: Papers,
}

impl Door {
    /// Enters as a custodian.
    pub fn enter(known: &Known, appliance: &Name, name: &Name, keys: &CustodianKeys) -> Result<Self> {
        let site = &known.site.statement;
        let entry = site
            .appliances
            .iter()
            .find(|a| a.name == *appliance)
            .with_context(|| format!("the site file names no appliance {appliance}"))?;
        let target = Target {
            address: entry.address.clone(),
            site: site.site.clone(),
            appliance: appliance.clone(),
            root: site.door_root.0.clone(),
        };
        let identity = Identity::own(name, software_key(&keys.signing_key().to_pkcs8())?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the network's runtime")?;
        let connection =
            runtime.block_on(connect(&target, &identity)).with_context(|| format!("cannot enter {appliance} at {}", target.address))?;
        Ok(Self { runtime, connection })
    }

    /// What the appliance said first.
    pub fn welcome(&self) -> &Welcome {
        self.connection.session.welcome()
    }

    fn ask(&mut self, request: &Request) -> Result<Response> {
        Ok(self.runtime.block_on(self.connection.ask(request))?)
    }

    /// All statements that the appliance holds, checked.
    pub fn papers(&mut self, known: &Known) -> Result<Papers> {
        let (mut papers, mut bad) = (Papers::default(), None);
        let take = |response: Response| {
            if let Response::Paper(note) = response {
                bad = bad.take().or_else(|| papers.add(known, &note).err());
            }
            Ok::<(), DoorError>(())
        };
        self.runtime.block_on(self.connection.ask_parts(&Request::Papers, take))?;
        bad.map_or(Ok(papers), |e| Err(e.context("the appliance holds a statement that the authority of your site file didn't sign")))
    }

    /// Submits a grant and checks what the appliance answers.
    pub fn propose(&mut self, known: &Known, grant: &Signed<Grant>) -> Result<Challenged> {
        match self.ask(&Request::Propose(grant.note.clone().into_bytes()))? {
            Response::Challenged { challenge, vaults, envelopes } => check(known, grant, &challenge, &vaults, &envelopes),
            _ => bail!("the appliance answered a grant with something else than a challenge"),
        }
    }

    /// Sends a signed approval.
    pub fn approve(&mut self, grant: &Hash32, note: &str) -> Result<Progress> {
        match self.ask(&Request::Approve(note.as_bytes().to_vec()))? {
            Response::Progress(p) if p.grant == *grant => Ok(p),
            _ => bail!("the appliance answered an approval with something else than this grant's progress"),
        }
    }

    /// Ends one opening or ceremony, or all; gives how many.
    pub fn seal(&mut self, grant: Option<Hash32>) -> Result<u32> {
        match self.ask(&Request::Seal { grant })? {
            Response::Sealed { count } => Ok(count),
            _ => bail!("the appliance answered a sealing with something else"),
        }
    }

    /// How the appliance is.
    pub fn health(&mut self) -> Result<Health> {
        match self.ask(&Request::Health)? {
            Response::Health(h) => Ok(h),
            _ => bail!("the appliance answered with something else than its health"),
        }
    }
}

/// Says goodbye, so that the appliance needn't wait for a line that has gone.
impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.connection.writer.close());
    }
}

/// Checks a challenge and what came with it against the grant that was sent.
pub fn check(known: &Known, grant: &Signed<Grant>, challenge: &str, vaults: &[Vec<u8>], envelopes: &[Vec<u8>]) -> Result<Challenged> {
    let parsed: Challenge = statement::parse(challenge).context("the appliance's challenge")?;
    ensure!(parsed.grant == grant.hash, "the appliance's challenge is for another grant; do not go on");
    ensure!(
        parsed.appliance == grant.statement.appliance,
        "the challenge is of {}, not of {}",
        parsed.appliance,
        grant.statement.appliance
    );
    ensure!(parsed.nonce.0.len() == 32, "the challenge's nonce is not 32 bytes");
    ensure!(parsed.valid_for_seconds <= LONGEST_CHALLENGE, "the challenge would live for more than a day");
    let one_time = hpke::PublicKey::from_bytes(&parsed.one_time_key.0).context("the challenge's one-time key")?;
    let mut papers = Papers::default();
    for note in vaults.iter().chain(envelopes) {
        papers.add(known, note).context("what came with the challenge")?;
    }
    grant::check(&grant.statement, &known.site.statement, &papers.vaults)?;
    let occasion = Occasion { grant: grant.hash, challenge: statement::hash(challenge) };
    Ok(Challenged { challenge: parsed, occasion, one_time, papers })
}

/// An approval with this custodian's share of every vault that the grant covers.
pub fn approval(name: &Name, keys: &CustodianKeys, grant: &Grant, challenged: &Challenged) -> Result<Approval> {
    let mut shares = Vec::new();
    let mut seen = BTreeSet::new();
    for covers in &grant.covers {
        let vault = vault_of(challenged, &covers.vault)?;
        let of_vault =
            |e: &&Signed<hoidla_format::statements::Envelopes>| e.statement.vault == covers.vault && e.statement.door == VaultDoor::Quorum;
        let envelopes = challenged.papers.envelopes.iter().find(of_vault);
        let envelopes = envelopes.with_context(|| format!("the appliance sent no envelopes of {}", covers.dataset))?;
        if !seen.insert(covers.vault) {
            continue;
        }
        if let Some((id, share)) = share::own(name, keys, vault, &envelopes.statement)? {
            shares.push(seal_share(&challenged.one_time, &challenged.occasion, &id, &share));
        }
    }
    ensure!(!shares.is_empty(), "{name} guards no share of what this grant covers");
    Ok(Approval { grant: challenged.occasion.grant, challenge: challenged.occasion.challenge, custodian: name.clone(), shares })
}

fn vault_of<'a>(challenged: &'a Challenged, hash: &Hash32) -> Result<&'a Signed<Vault>> {
    challenged.papers.vaults.iter().find(|v| v.hash == *hash).context("the appliance sent no vault certificate for a dataset of the grant")
}
