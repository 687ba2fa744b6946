//! A grant and a challenge in clear words, for an official who is no engineer.
//!
//! Promises: one terminal of 80 columns and, for a few datasets, 24 lines; nothing in a grant
//! steers the terminal ([`hoidla_cli::screen::plain`]); what weakens the promise is named first.

use std::time::Duration;

use hoidla_cli::{Screen, human};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Hash32, Name,
    statements::{Challenge, Grant, Site},
};
use hoidla_quorum::fingerprint;
use hoidla_verify::{Doubt, Unattested, Vouched};

/// What the appliance said, once connected.
pub struct Asked<'a> {
    /// Its challenge.
    pub challenge: &'a Challenge,
    /// The challenge's hash.
    pub challenge_hash: Hash32,
    /// What its TPM says of the challenge, or why that is not believed.
    pub attested: &'a Result<Vouched, Unattested>,
    /// The serial of the site file it runs under.
    pub site_serial: u32,
    /// Whether that site file is the one at hand.
    pub same_site_file: bool,
}

/// What a page shows.
pub struct Page<'a> {
    /// The site.
    pub site: &'a Site,
    /// The authority's digits.
    pub authority: String,
    /// Whether they are those that this custodian remembers, or compared just now.
    pub compared: bool,
    /// The grant.
    pub grant: &'a Signed<Grant>,
    /// What the appliance said, once connected.
    pub asked: Option<&'a Asked<'a>>,
    /// Whether a yes to this page hands over the share.
    pub decides: bool,
}

const CONSEQUENCE: &str = "A yes hands over your share, for this grant alone.";
const MEANING: &str = "What is read cannot be made unread. In doubt, telephone the others and compare the digits.";

impl Page<'_> {
    /// The page itself.
    pub fn screen(&self) -> Screen {
        let (site, g) = (self.site, &self.grant.statement);
        let mut screen = Screen::new();
        let drill = if site.development { "DRILL: " } else { "" };
        screen.heading(&format!("{drill}Open sealed registries at {} ({})?", g.site, g.appliance));
        screen.field("registries", &registries(site, g));
        screen.field("purpose", &g.purpose);
        screen.field("reader", &format!("{}, key {}", g.reader.name, fingerprint::of_reader(&g.reader)));
        screen.field("for how long", &format!("{} after enough custodians have agreed", span(g.open_for_seconds)));
        screen.field("grant", &format!("{}, written {}", fingerprint::of_hash(&self.grant.hash), g.created));
        if let Some(a) = self.asked {
            let (digits, valid) = (fingerprint::of_hash(&a.challenge_hash), span(a.challenge.valid_for_seconds));
            let image = a
                .attested
                .as_ref()
                .ok()
                .and_then(|v| v.image.as_ref())
                .map_or(String::new(), |name| format!(", image {name} (its manifest fits)"));
            screen.field("challenge", &format!("{digits}, for {valid}, release {}{image}", a.challenge.release));
        }
        screen.field("authority", &self.authority);
        let warnings = self.warnings();
        if !warnings.is_empty() {
            screen.gap().words("Please note:");
            warnings.iter().for_each(|w| {
                screen.item(w);
            });
        }
        let consequence = if self.decides { format!("{CONSEQUENCE} {MEANING}") } else { MEANING.to_owned() };
        screen.gap().words(&consequence);
        screen
    }

    /// What weakens the promise, in words.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.compared {
            out.push(
                "Nothing here says that this authority is yours. Compare its digits with those you noted, or with another custodian's."
                    .to_owned(),
            );
        }
        if self.site.development || self.asked.is_some_and(|a| a.challenge.development) {
            out.push("Drill or development: keys and software are for practice only.".to_owned());
        }
        if let Some(a) = self.asked {
            out.extend(assurance(a));
            out.extend(other_site_file(self.site, a));
        }
        out
    }
}

/// What the quote leaves open, in few words; a challenge that is not believed, in its own.
fn assurance(a: &Asked<'_>) -> Option<String> {
    let vouched = match a.attested {
        Ok(vouched) => vouched,
        Err(why) => return Some(format!("NOT BELIEVED: {why}.")),
    };
    let words: Vec<&str> = vouched.doubts.iter().filter_map(|d| few_words(*d)).collect();
    (!words.is_empty()).then(|| format!("Reduced assurance: {}.", words.join("; ")))
}

fn few_words(doubt: Doubt) -> Option<&'static str> {
    match doubt {
        // Said in a line of its own, so of every report, or refused already.
        Doubt::Development | Doubt::SecureBoot | Doubt::OtherPapers | Doubt::Papers => None,
        Doubt::OtherKeys => Some("its firmware also starts what others signed"),
        Doubt::SoftwareTpm => Some("its TPM is software"),
        Doubt::Discrete => Some("its TPM can be reached by wire"),
        Doubt::Replaced => Some("a later enrolment names another TPM"),
        Doubt::FirstUse => Some("its TPM was trusted on first use"),
        Doubt::Unmeasured => Some("nobody measured what it runs"),
        Doubt::Clock => Some("its TPM was not shut down in order"),
        Doubt::OldRelease => Some("it runs an older release than the newest"),
        Doubt::NotNamed => Some("the site file no longer names it"),
    }
}

fn other_site_file(site: &Site, a: &Asked<'_>) -> Option<String> {
    let (theirs, yours) = (a.site_serial, site.serial);
    (!a.same_site_file).then(|| match theirs.cmp(&yours) {
        std::cmp::Ordering::Less => {
            format!("The appliance runs under an OLDER site file (serial {theirs}) than yours ({yours}). Ask why before you agree.")
        }
        std::cmp::Ordering::Greater => {
            format!("Your site file (serial {yours}) is older than the appliance's ({theirs}). Fetch the newer one.")
        }
        std::cmp::Ordering::Equal => {
            format!("The appliance has another site file of serial {theirs} than you. Do not agree; call the authority.")
        }
    })
}

/// The registries by their titles, with vault epochs where there are others than the first; always
/// how many vault epochs, where titles don't show it.
fn registries(site: &Site, grant: &Grant) -> String {
    let epochs = |name: &Name| {
        let mut of: Vec<u32> = grant.covers.iter().filter(|c| c.dataset == *name).map(|c| c.vault_epoch).collect();
        of.sort_unstable();
        of
    };
    let mut names: Vec<&Name> = Vec::new();
    for c in &grant.covers {
        if !names.contains(&&c.dataset) {
            names.push(&c.dataset);
        }
    }
    let title = |name: &Name| site.datasets.iter().find(|d| d.name == *name).map_or_else(|| name.to_string(), |d| d.title.clone());
    let one = |name: &&Name| match epochs(name).as_slice() {
        [1] => title(name),
        [n] => format!("{} (vault epoch {n})", title(name)),
        all => format!("{} (vault epochs {})", title(name), all.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    };
    if names.len() > 4 && site.datasets.iter().all(|d| names.contains(&&d.name)) {
        return format!("ALL {} registries of this site, {}", names.len(), human::count(grant.covers.len() as u64, "vault epoch"));
    }
    names.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn span(seconds: u32) -> String {
    human::duration(Duration::from_secs(seconds.into())).replace(".0 s", " s")
}
