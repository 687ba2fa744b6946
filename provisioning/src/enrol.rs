//! Enrolment: what binds one appliance's TPM to the site.
//!
//! Promises: signs only for the TPM to which the halves were dealt, and says on what grounds it
//! is believed: today `trusted-on-first-use`, which means that whoever made the identity file
//! could have made it up. Proof of the endorsement key comes with provisioning at the rack.

use anyhow::{Context, Result, ensure};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_format::{Bytes, Moment, Name, statement, statements::Enrolment};
use hoidla_verify::Public;

use crate::{
    halves,
    home::{Home, write_over},
};

/// How this enrolment's TPM was proven.
pub const TRUSTED: &str = "trusted-on-first-use";
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
    let identity_hash = statement::hash(&statement::write(&identity));
    let keys = home.keys(passphrase)?;
    keys.expect_site(&site.statement)?;
    let halves = home
        .halves_of(appliance, &keys.verifying())?
        .with_context(|| format!("no halves were dealt for {appliance}"))
        .next("deal first: hoidla-provision deal")?;
    ensure!(halves.statement.identity == identity_hash, "the halves of {appliance} were dealt to another TPM; deal anew");
    let halves = halves::pruned(home, &keys, halves)?;
    let node = Public::parse(&identity.node.0).context("the identity's node key")?;
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
        proof: TRUSTED.to_owned(),
        certificate: Bytes(certificate),
        issued: now,
    };
    write_over(&home.enrolment(appliance), keys.sign(&enrolment)?.as_bytes())?;
    Ok(enrolment)
}
