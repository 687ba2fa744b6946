//! The site file: written once as a template, edited by hand, signed.
//!
//! Promises: [`sign`] signs only what its other files support, says file, line and what to
//! write instead, and never a serial that isn't above the last one signed here.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use base64ct::{Base64, Encoding};
use hoidla_cli::{NextStep, PassphraseSource};
use hoidla_crypto::{
    Secret,
    keyfile::Role,
    keys::{AuthorityKeys, release_scalar},
};
use hoidla_format::{
    Hash32, Moment, Name, StatementError, statement,
    statements::{ApplianceEntry, Roster, Site},
};
use hoidla_verify::ReleaseKey;

use crate::home::{AUTHORITY, Home, Keys, open_signed, open_site, write_over};

/// How long the door's root is valid: 30 years, in seconds.
const DOOR_ROOT_LIFE: u64 = 30 * 365 * 86_400;
/// The one roster that a new site begins with.
pub const FIRST_ROSTER: &str = "main";

/// The ten datasets that a data embassy begins with: name, title, days that a generation is kept.
const DATASETS: [(&str, &str, u32); 10] = [
    ("e-file", "e-file (courts)", 90),
    ("treasury", "Treasury information system", 90),
    ("e-land", "e-land registry", 365),
    ("taxable-persons", "Taxable persons' registry", 90),
    ("business", "Business registry", 365),
    ("population", "Population registry", 365),
    ("state-gazette", "State Gazette", 365),
    ("identity-documents", "Identity documents registry", 365),
    ("land-cadastre", "Land cadastral registry", 365),
    ("pension-insurance", "National pension insurance registry", 365),
];

/// Makes the authority's keys and a site file to edit.
pub fn new(home: &Home, site: &Name, appliances: &[ApplianceEntry], passphrase: &PassphraseSource) -> Result<String> {
    let toml = home.site_toml();
    ensure!(!toml.exists(), "{} is there already; nothing was overwritten", toml.display());
    let passphrase = passphrase.new_one("the authority's two key files")?;
    let (master, release_master) = (Secret::random(), Secret::random());
    let authority = AuthorityKeys::from_seed(&master);
    let release = ReleaseKey::from_secret(&release_scalar(&release_master))?;
    let door = hoidla_door::software_key(&authority.door.to_pkcs8())?;
    let now = Moment::now();
    let root = hoidla_door::door_root(site, &*door, now, now.plus(DOOR_ROOT_LIFE))?;
    let text = template(site, appliances, &authority.statements.verifying_key().to_sec1(), &release.public().to_sec1(), &root);
    statement::parse_edited::<Site>(&text).context("the template")?;
    home.write_key(Role::Authority, site, &master, passphrase.as_str())?;
    home.write_key(Role::Release, site, &release_master, passphrase.as_str())?;
    write_over(&toml, text.as_bytes())?;
    Ok(text)
}

fn template(site: &Name, appliances: &[ApplianceEntry], authority: &[u8], release_key: &[u8], root: &[u8]) -> String {
    let b64 = Base64::encode_string;
    let mut out = format!(
        r#"{first}# The site file: what this embassy is. Edit it, raise `serial`, and sign it with
#   hoidla-provision site sign
# Nobody accepts a lower serial than the one they hold.
site = "{site}"
serial = 1
# true: for drills and tests. Every screen says so, and custodians may keep keys in files.
development = true
# The keys in HOME/keys. Leave them as they are.
authority = "{authority}"
release_key = "{release_key}"
door_root = "{root}"
# Agents whose certificates no longer enter, by name.
revoked_agents = []

# The machines. `address` is where each listens, host:port.
"#,
        first = statement::first_line::<Site>(),
        authority = b64(authority),
        release_key = b64(release_key),
        root = b64(root),
    );
    for a in appliances {
        let _ = write!(out, "[[appliance]]\nname = \"{}\"\naddress = \"{}\"\n\n", a.name, a.address);
    }
    let _ = write!(
        out,
        "# Who opens. `hoidla-provision roster sign` fills in the hash.\n[[roster]]\nname = \"{FIRST_ROSTER}\"\nhash = \"{}\"\n\n# The registries. `retention_days`: how long a generation is kept at least, in days of running.\n# `share`, if given: the percent of the store that is kept free for it.\n",
        Hash32([0; 32])
    );
    for (name, title, days) in DATASETS {
        let _ =
            write!(out, "[[dataset]]\nname = \"{name}\"\ntitle = \"{title}\"\nroster = \"{FIRST_ROSTER}\"\nretention_days = {days}\n\n");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// What [`sign`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedSite {
    /// The authority's digits.
    pub authority: String,
    /// The serial.
    pub serial: u32,
    /// SHA-256 of the statement.
    pub hash: Hash32,
}

/// Checks the edited site file and signs it.
pub fn sign(home: &Home, passphrase: &PassphraseSource) -> Result<SignedSite> {
    let path = home.site_toml();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("make one with: hoidla-provision site new")?;
    let site = read_edited(&path, &text)?;
    check(&path, &text, &site)?;
    let hash = statement::hash(&text);
    check_serial(home, &path, &text, &site, &hash)?;
    let keys = home.keys(passphrase)?;
    check_keys(&path, &text, &site, &keys)?;
    check_rosters(home, &path, &text, &site, &keys)?;
    check_left_out(home, &path, &text, &site, &keys)?;
    let note = keys.authority.statements.sign_edited::<Site>(AUTHORITY, &text)?;
    write_over(&home.site(), note.as_bytes())?;
    Ok(SignedSite { authority: keys.fingerprint(), serial: site.serial, hash })
}

/// Reads a site file that a person wrote; an error names file, line and remedy.
pub fn read_edited(path: &Path, text: &str) -> Result<Site> {
    statement::parse_edited(text).map_err(|e| match e {
        StatementError::Content { line, why } => anyhow::anyhow!("{}, line {line}: {}", path.display(), why.trim_end()),
        other => anyhow::Error::new(other).context(path.display().to_string()),
    })
}

/// An error at the line that holds `what`.
fn at_line(path: &Path, text: &str, what: &str, why: &str) -> anyhow::Error {
    let line = text.lines().position(|l| !l.trim_start().starts_with('#') && l.contains(what)).map_or(1, |l| l + 1);
    anyhow::anyhow!("{}, line {line}: {why}", path.display())
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("\"{value}\"")
}

/// The rules that need nothing but the file.
pub fn check(path: &Path, text: &str, site: &Site) -> Result<()> {
    let refuse = |what: &str, why: String| -> Result<()> { Err(at_line(path, text, what, &why)) };
    if site.serial == 0 {
        refuse("serial", "serial is counted from 1: write 1".into())?;
    }
    if site.appliances.is_empty() {
        refuse("appliance", "a site needs a machine: write an [[appliance]] with name and address".into())?;
    }
    let mut names = BTreeSet::new();
    for a in &site.appliances {
        if !names.insert(&a.name) {
            refuse(&quoted(&a.name), format!("the appliance {} stands twice: give each machine its own name", a.name))?;
        }
        if !is_address(&a.address) {
            refuse(&quoted(&a.address), format!("{:?} is no address: write host:port, such as \"vault.example:4460\"", a.address))?;
        }
    }
    let mut rosters = BTreeSet::new();
    for r in &site.rosters {
        if !rosters.insert(&r.name) {
            refuse(&quoted(&r.name), format!("the roster {} stands twice: keep one", r.name))?;
        }
    }
    let mut datasets = BTreeSet::new();
    for d in &site.datasets {
        if !datasets.insert(&d.name) {
            refuse(&quoted(&d.name), format!("the dataset {} stands twice: give each registry its own name", d.name))?;
        }
        if !rosters.contains(&d.roster) {
            let known = rosters.iter().map(quoted).collect::<Vec<_>>().join(" or ");
            refuse(&format!("roster = {}", quoted(&d.roster)), format!("there is no roster {}: write {known}", d.roster))?;
        }
        if d.retention_days == 0 {
            refuse("retention_days = 0", format!("{} would be kept for no time: write 1 or more days", d.name))?;
        }
        if d.share.is_some_and(|s| s == 0 || s > 100) {
            refuse("share", format!("the share of {} is a percentage of the store: write 1 to 100, or leave it out", d.name))?;
        }
        if d.title.trim().is_empty() || d.title.chars().any(char::is_control) {
            refuse(&quoted(&d.title), format!("{} needs a title for people, on one line", d.name))?;
        }
    }
    let shares: u32 = site.datasets.iter().filter_map(|d| d.share).map(u32::from).sum();
    if shares > 100 {
        refuse("share", format!("all shares together are {shares} percent of the store: write 100 or less"))?;
    }
    Ok(())
}

fn is_address(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn check_serial(home: &Home, path: &Path, text: &str, site: &Site, hash: &Hash32) -> Result<()> {
    if !home.site().exists() {
        return Ok(());
    }
    let last = open_site(&fs::read(home.site())?).with_context(|| home.site().display().to_string())?;
    if last.hash != *hash && site.serial <= last.statement.serial {
        let (found, next) = (site.serial, last.statement.serial + 1);
        let why = format!("serial {found} is not above {}, which was signed last: write {next}", last.statement.serial);
        return Err(at_line(path, text, "serial", &why));
    }
    for d in &site.datasets {
        let before = last.statement.datasets.iter().find(|o| o.name == d.name).map_or(0, |o| o.retention_days);
        if d.retention_days < before {
            let why = format!("{} was signed with {before} days, and retention only grows: write {before} or more", d.name);
            return Err(at_line(path, text, &quoted(&d.name), &why));
        }
    }
    if last.statement.site != site.site {
        return Err(at_line(path, text, "site =", &format!("this folder is of site {}: write \"{0}\"", last.statement.site)));
    }
    Ok(())
}

fn check_keys(path: &Path, text: &str, site: &Site, keys: &Keys) -> Result<()> {
    let b64 = Base64::encode_string;
    let authority = keys.verifying().to_sec1();
    if site.authority.0 != authority {
        return Err(at_line(
            path,
            text,
            "authority =",
            &format!("this is not the key in keys/authority.key: write \"{}\"", b64(&authority)),
        ));
    }
    let release = keys.release_public().to_sec1();
    if site.release_key.0 != release {
        return Err(at_line(path, text, "release_key =", &format!("this is not the key in keys/release.key: write \"{}\"", b64(&release))));
    }
    // Issuing checks that the root carries the door key; a certificate that is thrown away, for any point, will do.
    let (now, name) = (Moment::now(), &site.appliances[0].name);
    hoidla_door::node_certificate(&site.site, name, &release, (now, now.plus(1)), &site.door_root.0, &*keys.door()?)
        .map_err(|e| at_line(path, text, "door_root =", &format!("{e}; restore the line that site new wrote")))?;
    Ok(())
}

fn check_rosters(home: &Home, path: &Path, text: &str, site: &Site, keys: &Keys) -> Result<()> {
    for entry in &site.rosters {
        let file = home.roster(&entry.name);
        let sign_it = format!("sign it first: hoidla-provision roster sign --name {}", entry.name);
        if !file.exists() {
            return Err(at_line(path, text, &quoted(entry.hash), &format!("the roster {} isn't signed yet; {sign_it}", entry.name)));
        }
        let roster = open_signed::<Roster>(&file, &keys.verifying())?;
        if roster.hash != entry.hash {
            return Err(at_line(
                path,
                text,
                &quoted(entry.hash),
                &format!("the roster {} was signed anew: write \"{}\"", entry.name, roster.hash),
            ));
        }
        if roster.statement.site != site.site {
            bail!("{} is of site {}, not {}", file.display(), roster.statement.site, site.site);
        }
    }
    Ok(())
}

/// A roster may be left out once every vault epoch that was dealt to it is retired.
fn check_left_out(home: &Home, path: &Path, text: &str, site: &Site, keys: &Keys) -> Result<()> {
    let releases = home.releases(&keys.verifying())?;
    for vault in home.vaults(&keys.verifying())? {
        let v = &vault.statement;
        if !site.rosters.iter().any(|r| r.hash == v.roster) && !crate::release::retired(&releases, &v.dataset, v.vault_epoch) {
            let why = format!(
                "the roster of {}, vault epoch {}, is missing: keep its [[roster]], or retire the vault epoch first",
                v.dataset, v.vault_epoch
            );
            return Err(at_line(path, text, "[[roster]]", &why));
        }
    }
    Ok(())
}

/// Puts a roster's hash into the text of a site file, keeping all else; none if there is no such entry.
pub fn with_roster_hash(text: &str, name: &Name, hash: &Hash32) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let (mut in_roster, mut named, mut done) = (false, false, false);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            (in_roster, named) = (trimmed.starts_with("[[roster]]"), false);
        }
        named |= in_roster && trimmed.starts_with("name") && trimmed.contains(&quoted(name));
        if named && !done && trimmed.starts_with("hash") {
            let comment = trimmed.find('#').map_or(String::new(), |at| format!(" {}", &trimmed[at..]));
            let _ = writeln!(out, "hash = \"{hash}\"{comment}");
            done = true;
        } else {
            out.push_str(line);
        }
    }
    done.then_some(out)
}

/// The site file under edit, checked for form: for `roster sign`, before the site can be signed.
pub fn edited(home: &Home) -> Result<(String, Site)> {
    let path = home.site_toml();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .next("make one with: hoidla-provision site new")?;
    let site = read_edited(&path, &text)?;
    Ok((text, site))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let appliances = [ApplianceEntry { name: "lux-1".parse().unwrap(), address: "127.0.0.1:4460".into(), network: None, health: None }];
        template(&"lux".parse().unwrap(), &appliances, &[2; 49], &[4; 65], &[1; 10])
    }

    fn refused(from: &str, to: &str) -> String {
        let text = text();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let path = Path::new("site.toml");
        match read_edited(path, &text).and_then(|s| check(path, &text, &s)) {
            Ok(()) => panic!("{to} was taken"),
            Err(e) => format!("{e:#}"),
        }
    }

    #[test]
    fn the_template_holds_ten_datasets_and_passes() {
        let text = text();
        let site = read_edited(Path::new("site.toml"), &text).unwrap();
        assert_eq!(site.datasets.len(), 10);
        check(Path::new("site.toml"), &text, &site).unwrap();
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        let e = refused("serial = 1", "serail = 1");
        assert!(e.starts_with("site.toml, line 6:") && e.contains("serail") && e.contains("serial"), "{e}");
        let e = refused("title = \"State Gazette\"\n", "");
        assert!(e.starts_with("site.toml, line ") && e.contains("title"), "{e}");
        let e = refused("127.0.0.1:4460", "127.0.0.1");
        assert!(e.starts_with("site.toml, line 19:") && e.contains("host:port"), "{e}");
        for (from, to, what) in [
            ("serial = 1", "serial = 0", "write 1"),
            ("serial = 1", "serial = -1", "line 6"),
            ("roster = \"main\"", "roster = \"second\"", "write \"main\""),
            ("retention_days = 90", "retention_days = 0", "1 or more days"),
            ("retention_days = 90", "retention_days = 90\nshare = 0", "write 1 to 100"),
            ("retention_days = 90", "retention_days = 90\nshare = 101", "write 1 to 100"),
            ("name = \"treasury\"", "name = \"e-file\"", "stands twice"),
            ("title = \"State Gazette\"", "title = \" \"", "needs a title"),
            ("name = \"lux-1\"", "name = \"Lux 1\"", "use 1 to 64 of a-z"),
            ("hoidla = \"site/1\"", "hoidla = \"site/2\"", "version"),
        ] {
            let e = refused(from, to);
            assert!(e.contains(what) && e.starts_with("site.toml"), "{to}: {e}");
        }
    }

    #[test]
    fn a_roster_s_hash_is_filled_in_and_nothing_else_changes() {
        let (text, main) = (text(), "main".parse().unwrap());
        let hash = Hash32([7; 32]);
        let filled = with_roster_hash(&text, &main, &hash).unwrap();
        assert_eq!(filled, text.replace(&Hash32([0; 32]).to_string(), &hash.to_string()));
        assert_eq!(with_roster_hash(&text, &"other".parse().unwrap(), &hash), None);
    }
}
