//! A grant and a challenge in clear words, for an official who is no engineer.
//!
//! Promises: one terminal of 80 columns and, for a few datasets, 24 lines; nothing in a grant
//! steers the terminal ([`hoidla_cli::screen::plain`]); what weakens the promise is named first.

use std::time::Duration;

use hoidla_cli::{Screen, human};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Hash32, Name,
    statements::{Challenge, Enrolment, Grant, Reader, Site},
};
use sha2::{Digest, Sha256};

/// What the appliance said, once connected.
pub struct Asked<'a> {
    /// Its challenge.
    pub challenge: &'a Challenge,
    /// The challenge's hash.
    pub challenge_hash: Hash32,
    /// What is known of its TPM.
    pub enrolment: Option<&'a Enrolment>,
    /// The serial of the site file it runs under.
    pub site_serial: u32,
    /// Whether that site file is the one at hand.
    pub same_site_file: bool,
}

/// The page.
pub fn page(site: &Site, grant: &Signed<Grant>, asked: Option<&Asked<'_>>) -> Screen {
    let g = &grant.statement;
    let mut screen = Screen::new();
    let drill = if site.development { "DRILL: " } else { "" };
    screen.heading(&format!("{drill}Open sealed registries at {} ({})?", g.site, g.appliance));
    screen.field("registries", &registries(site, g));
    screen.field("purpose", &g.purpose);
    screen.field("reader", &format!("{}, key {}", g.reader.name, fingerprint(&g.reader)));
    screen.field("for how long", &format!("{} after enough custodians have agreed", span(g.open_for_seconds)));
    screen.field("written", &g.created.to_string());
    screen.field("grant", &groups(&grant.hash));
    if let Some(a) = asked {
        screen.field(
            "asked by",
            &format!("{}, release {}; counts for {}", a.challenge.appliance, a.challenge.release, span(a.challenge.valid_for_seconds)),
        );
        screen.field("challenge", &groups(&a.challenge_hash));
    }
    let warnings = warnings(site, asked);
    if !warnings.is_empty() {
        screen.gap().words("Please note:");
        warnings.iter().for_each(|w| {
            screen.item(w);
        });
    }
    screen.gap().words(MEANING);
    screen
}

const MEANING: &str = "A yes hands over your share, for this grant alone. What is read cannot be made unread. In doubt, telephone the others and compare the grant's digits.";

/// What weakens the promise, in words.
pub fn warnings(site: &Site, asked: Option<&Asked<'_>>) -> Vec<String> {
    let mut out = Vec::new();
    let development = site.development || asked.is_some_and(|a| a.challenge.development);
    if development {
        out.push("Drill or development: the keys and the software are for practice. Never with real registries.".to_owned());
    }
    let Some(a) = asked else { return out };
    let trusted = a.enrolment.is_none_or(|e| e.proof != "credential-activated");
    match (a.challenge.quote.0.is_empty(), trusted) {
        (true, true) => out.push("Reduced assurance: nobody has proven that its TPM is genuine, nor measured what it runs now.".to_owned()),
        (true, false) => out.push("Reduced assurance: what the appliance runs now was not measured.".to_owned()),
        (false, true) => out.push("Reduced assurance: nobody has proven that the appliance's TPM is genuine.".to_owned()),
        (false, false) => {}
    }
    if !a.same_site_file {
        let (theirs, yours) = (a.site_serial, site.serial);
        out.push(match theirs.cmp(&yours) {
            std::cmp::Ordering::Less => {
                format!("The appliance runs under an OLDER site file (serial {theirs}) than yours ({yours}). Ask why before you agree.")
            }
            std::cmp::Ordering::Greater => {
                format!("Your site file (serial {yours}) is older than the appliance's ({theirs}). Fetch the newer one.")
            }
            std::cmp::Ordering::Equal => {
                format!("The appliance has another site file of serial {theirs} than you. Do not agree; call the authority.")
            }
        });
    }
    out
}

fn registries(site: &Site, grant: &Grant) -> String {
    let title = |name: &Name| site.datasets.iter().find(|d| d.name == *name).map_or_else(|| name.to_string(), |d| d.title.clone());
    let one = |c: &hoidla_format::statements::Covers| match c.vault_epoch {
        1 => title(&c.dataset),
        n => format!("{} (vault epoch {n})", title(&c.dataset)),
    };
    let whole = site.datasets.len() > 4 && site.datasets.iter().all(|d| grant.covers.iter().any(|c| c.dataset == d.name));
    match whole {
        true => format!("ALL {} registries of this site", site.datasets.len()),
        false => grant.covers.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

fn span(seconds: u32) -> String {
    human::duration(Duration::from_secs(seconds.into())).replace(".0 s", " s")
}

/// The first digits of a hash, in groups that can be read out.
fn groups(hash: &Hash32) -> String {
    let digits = hash.to_string();
    let groups: Vec<&str> = (0..6).map(|i| &digits[i * 4..i * 4 + 4]).collect();
    groups.join(" ")
}

/// A reader's two keys as one fingerprint.
pub fn fingerprint(reader: &Reader) -> String {
    let hash = Sha256::new().chain_update(&reader.signing.0).chain_update(&reader.hpke.0).finalize();
    groups(&Hash32(hash.into()))
}
