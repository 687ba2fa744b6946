//! The signed statements that an appliance holds.
//!
//! Promises: [`Papers`] exists only if every statement in it was signed by the
//! authority and all of them fit together and this appliance's own identity.
//! A parcel among them is opened by the TPM, or by none. Production takes no TPM that was
//! trusted on first use. Nothing is held that isn't needed here: recovery envelopes stay at home.
//! Of releases the newest for each image is held, so that an update may be tried and given up;
//! in force is the one that approves what runs ([`Papers::under`]).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail, ensure};
use hoidla_crypto::sign::{self, Signed, VerifyingKey};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, Statement, statement,
    statements::{ApplianceIdentity, Door, Enrolment, Envelopes, Halves, Proof, Release, Roster, Site, Vault},
};
use hoidla_tpm::Tpm;
use hoidla_verify::{Parcel, ReleasePublic, parcel, release};

/// Who signs every paper.
const AUTHORITY: &str = "authority";
/// The most releases that are held, the newest ones.
const MOST_RELEASES: usize = 8;

/// By how much a machine's clock may be behind home's: a day.
const CLOCKS_DIFFER: u64 = 86_400;

/// All that an enrolled appliance knows of its site, checked.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The site.
    pub site: Signed<Site>,
    /// Its rosters.
    pub rosters: Vec<Signed<Roster>>,
    /// Its vaults.
    pub vaults: Vec<Signed<Vault>>,
    /// The vaults' envelopes for the quorum's door.
    pub envelopes: Vec<Signed<Envelopes>>,
    /// This appliance's halves.
    pub halves: Signed<Halves>,
    /// What binds this appliance to the site.
    pub enrolment: Signed<Enrolment>,
    /// The release in force: the newest, or the one that approves what runs.
    pub release: Signed<Release>,
    /// That release, under the site's release key.
    pub approved: release::Approved,
    /// All that are held, the newest first.
    pub releases: Vec<(Signed<Release>, release::Approved)>,
    /// What this appliance said it is.
    pub identity: ApplianceIdentity,
}

/// Notes as found, by kind.
#[derive(Default)]
struct Pile {
    notes: Vec<(String, Vec<u8>, PathBuf)>,
    parcels: Vec<(Parcel, PathBuf)>,
}

/// The kind that a text's first line names.
fn kind_of(bytes: &[u8]) -> Option<String> {
    let first = bytes.split(|b| *b == b'\n').next()?;
    let kind = std::str::from_utf8(first).ok()?.strip_prefix("hoidla = \"")?.split_once('/')?.0;
    Some(kind.to_owned())
}

/// Whether bytes are a statement of this kind, by their first line.
pub fn is_kind<S: Statement>(bytes: &[u8]) -> bool {
    kind_of(bytes).is_some_and(|kind| kind == S::KIND)
}

impl Pile {
    /// From files and folders (one level deep).
    fn gather(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut pile = Self::default();
        hoidla_cli::files::gather(paths)?.iter().try_for_each(|file| pile.add(file))?;
        Ok(pile)
    }

    fn add(&mut self, path: &Path) -> anyhow::Result<()> {
        let context = || format!("{} cannot be read", path.display());
        if fs::metadata(path).with_context(context)?.len() > parcel::MOST as u64 {
            return Ok(()); // longer than any paper, so none
        }
        let bytes = fs::read(path).with_context(context)?;
        if Parcel::is_one(&bytes) {
            self.parcels.push((Parcel::from_bytes(&bytes).with_context(|| path.display().to_string())?, path.to_owned()));
        }
        self.take(bytes, path);
        Ok(())
    }

    /// Takes a note, if it is one.
    fn take(&mut self, bytes: Vec<u8>, path: &Path) {
        if bytes.len() <= statement::MOST
            && let Some(kind) = kind_of(&bytes)
        {
            self.notes.push((kind, bytes, path.to_owned()));
        }
    }

    /// Has the TPM open the parcels that are for this identity.
    fn unpack(&mut self, identity: &ApplianceIdentity, tpm: &Tpm) -> anyhow::Result<()> {
        let hash = statement::hash(&statement::write(identity));
        for (parcel, path) in std::mem::take(&mut self.parcels) {
            let context = || path.display().to_string();
            if (&parcel.site, &parcel.appliance) != (&identity.site, &identity.name) {
                continue; // another machine's
            }
            ensure!(
                parcel.identity == hash,
                "{} was sealed for another identity of {}: take home the identity.txt that stands here, and let the authority deal and enrol for it",
                path.display(),
                identity.name
            );
            let notes = parcel.open(&tpm.activate(&parcel.credential).with_context(context)?).with_context(context)?;
            notes.into_iter().for_each(|note| self.take(note, &path));
        }
        Ok(())
    }

    fn all<S: Statement>(&self, key: &VerifyingKey) -> anyhow::Result<Vec<Signed<S>>> {
        let mut out: Vec<Signed<S>> = Vec::new();
        for (_, bytes, path) in self.notes.iter().filter(|(kind, ..)| kind == S::KIND) {
            let signed = sign::open::<S>(bytes, Some(AUTHORITY), key).with_context(|| path.display().to_string())?;
            if out.iter().all(|s| s.hash != signed.hash) {
                out.push(signed);
            }
        }
        Ok(out)
    }

    /// The newest site file, by serial.
    fn site(&self, key: &VerifyingKey) -> anyhow::Result<Signed<Site>> {
        let mut newest: Option<Signed<Site>> = None;
        for (_, bytes, path) in self.notes.iter().filter(|(kind, ..)| kind == Site::KIND) {
            let site = open_site(bytes, key).with_context(|| path.display().to_string())?;
            if newest.as_ref().is_none_or(|n| n.statement.serial < site.statement.serial) {
                newest = Some(site);
            }
        }
        newest.ok_or_else(|| anyhow!("no site file is among the papers; add the one that the authority signed"))
    }
}

/// Opens a signed site file under the authority's key.
pub fn open_site(note: &[u8], authority: &VerifyingKey) -> anyhow::Result<Signed<Site>> {
    let site = sign::open_edited::<Site>(note, Some(AUTHORITY), authority)?;
    ensure!(
        site.statement.authority.0 == authority.to_sec1(),
        "the site file names another authority than this appliance trusts; it belongs to another site"
    );
    Ok(site)
}

/// The one of a list that fits, or why there is none.
fn pick<S>(list: Vec<Signed<S>>, what: &str, fits: impl Fn(&S) -> bool) -> anyhow::Result<Signed<S>> {
    let mut fitting: Vec<Signed<S>> = list.into_iter().filter(|s| fits(&s.statement)).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => bail!("several papers are {what} of this appliance; give only the newest"),
        (None, _) => bail!(
            "no paper is {what} of this appliance: home must deal and enrol for the identity.txt that stands here; bring the folder that it wrote then, parcel and all"
        ),
    }
}

impl Papers {
    /// Gathers and checks the papers in `paths` for the appliance of this identity; its TPM opens
    /// what is in parcels.
    pub fn gather(paths: &[PathBuf], authority: &VerifyingKey, identity: &ApplianceIdentity, tpm: &Tpm) -> anyhow::Result<Self> {
        let mut pile = Pile::gather(paths)?;
        pile.unpack(identity, tpm)?;
        Self::of(&pile, authority, identity)
    }

    fn of(pile: &Pile, authority: &VerifyingKey, identity: &ApplianceIdentity) -> anyhow::Result<Self> {
        let site = pile.site(authority)?;
        let own = site_of(&site.statement, identity)?;
        let rosters: Vec<_> = pile.all::<Roster>(authority)?.into_iter().filter(|r| own.rosters.iter().any(|e| e.hash == r.hash)).collect();
        let vaults: Vec<_> = pile.all::<Vault>(authority)?.into_iter().filter(|v| vault_fits(own, &rosters, &v.statement)).collect();
        let envelopes: Vec<_> = pile
            .all::<Envelopes>(authority)?
            .into_iter()
            .filter(|e| e.statement.door == Door::Quorum && vaults.iter().any(|v| v.hash == e.statement.vault))
            .collect();
        let identity_hash = statement::hash(&statement::write(identity));
        let halves = pick(pile.all::<Halves>(authority)?, "the halves", |h| {
            h.appliance == identity.name && h.site == identity.site && h.identity == identity_hash
        })?;
        let enrolment = pick(pile.all::<Enrolment>(authority)?, "the enrolment", |e| {
            e.appliance == identity.name && e.site == identity.site && e.identity == identity_hash && e.halves == halves.hash
        })?;
        let releases = releases(pile.all::<Release>(authority)?, own)?;
        let (release, approved) = releases[0].clone();
        let papers = Self { site, rosters, vaults, envelopes, halves, enrolment, release, approved, releases, identity: identity.clone() };
        papers.complete()?;
        Ok(papers)
    }

    /// These papers with newer ones in the place of older ones; the TPM opens parcels.
    pub fn newer(&self, brought: Vec<Vec<u8>>, authority: &VerifyingKey, tpm: &Tpm) -> anyhow::Result<Self> {
        let (mut pile, here) = (Pile::default(), Path::new("what was brought"));
        for bytes in brought {
            if Parcel::is_one(&bytes) {
                pile.parcels.push((Parcel::from_bytes(&bytes)?, here.to_owned()));
            }
            pile.take(bytes, here);
        }
        pile.unpack(&self.identity, tpm)?;
        if let Ok(site) = pile.site(authority) {
            let (new, known) = (site.statement.serial, self.site.statement.serial);
            ensure!(new >= known, "the site file has serial {new}, this appliance knows serial {known}; bring the newest one");
            ensure!(
                new > known || site.hash == self.site.hash,
                "two different site files have serial {new}; ask the authority which is right"
            );
        }
        // Of these there is one each: a newer one takes the older one's place.
        let replaced = |kind: &str| [Halves::KIND, Enrolment::KIND].contains(&kind) && pile.notes.iter().any(|(k, ..)| k == kind);
        let mut all = Pile::default();
        self.notes().into_iter().for_each(|(name, note)| all.take(note.as_bytes().to_vec(), Path::new(&name)));
        all.notes.retain(|(kind, ..)| !replaced(kind));
        all.notes.extend(pile.notes);
        Self::of(&all, authority, &self.identity)
    }

    /// With the newest release in force that approves what this TPM says runs; the newest of all
    /// if none does, so that the TPM's refusal names it.
    pub fn under(mut self, tpm: &Tpm) -> anyhow::Result<Self> {
        for (release, approved) in &self.releases {
            let wanted = &release.statement.pcrs;
            if tpm.pcr_read(&wanted.iter().map(|p| p.index).collect::<Vec<_>>())? == *wanted {
                (self.release, self.approved) = (release.clone(), approved.clone());
                break;
            }
        }
        Ok(self)
    }

    /// The highest epoch of a release that is held.
    pub fn newest_epoch(&self) -> u64 {
        self.releases.iter().map(|(r, _)| r.statement.epoch).max().unwrap_or(self.release.statement.epoch)
    }

    /// Whether these are the very same.
    pub fn same(&self, other: &Self) -> bool {
        let all = |p: &Self| p.notes().into_iter().map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>();
        all(self) == all(other)
    }

    /// Every roster that the site names, every half's vault and its envelopes are there, and the certificate fits.
    fn complete(&self) -> anyhow::Result<()> {
        for entry in &self.site.statement.rosters {
            ensure!(self.rosters.iter().any(|r| r.hash == entry.hash), "the roster {} is not among the papers; add it", entry.name);
        }
        for half in &self.halves.statement.halves {
            let (dataset, epoch) = (&half.dataset, half.vault_epoch);
            ensure!(
                self.vaults.iter().any(|v| v.hash == half.vault),
                "the vault certificate of {dataset}, vault epoch {epoch}, is not among the papers; add it"
            );
            ensure!(
                self.envelopes.iter().any(|e| e.statement.vault == half.vault),
                "the envelopes of {dataset}, vault epoch {epoch}, are not among the papers; add them"
            );
        }
        ensure!(
            self.site.statement.development || self.enrolment.statement.proof != Proof::TrustedOnFirstUse,
            "this enrolment trusts the TPM on first use, and this is no drill: home must record its endorsement key (hoidla-provision record-ek) and enrol again"
        );
        let (site, name) = (&self.identity.site, &self.identity.name);
        hoidla_door::certificate::is_node_certificate(&self.enrolment.statement.certificate.0, site, name, &self.node_key()?)?;
        Ok(())
    }

    /// Why this can't be what the clock should say, if its own certificate doesn't hold then: nobody
    /// else's can be judged by such a clock either.
    pub fn wrong_clock(&self, now: Moment) -> Option<String> {
        wrong_clock(now, hoidla_door::certificate::validity(&self.enrolment.statement.certificate.0).ok()?)
    }

    /// The node key's public point: SEC1.
    fn node_key(&self) -> anyhow::Result<Vec<u8>> {
        let public = hoidla_verify::Public::parse(&self.identity.node.0)?;
        Ok(public.point().context("the identity's node key is no signing key")?.to_sec1().to_vec())
    }

    /// Every note, for peers who ask and for the state folder, with a file name.
    pub fn notes(&self) -> Vec<(String, &str)> {
        fn named<S: Statement>(s: &Signed<S>) -> (String, &str) {
            (format!("{}-{}.txt", S::KIND, &s.hash.to_string()[..16]), s.note.as_str())
        }
        let mut out = vec![named(&self.site), named(&self.enrolment), named(&self.halves)];
        out.extend(self.releases.iter().map(|(release, _)| named(release)));
        out.extend(self.rosters.iter().map(named));
        out.extend(self.vaults.iter().map(named));
        out.extend(self.envelopes.iter().map(named));
        out
    }

    /// What register 15 is extended by when these come into force.
    pub fn digest(&self) -> Hash32 {
        hoidla_verify::measured::digest(&self.site.hash, &self.enrolment.hash)
    }

    /// Every custodian of every quorum, by name and key, for the door.
    pub fn custodians(&self) -> Vec<(Name, Bytes)> {
        self.rosters.iter().flat_map(|r| &r.statement.custodians).map(|c| (c.name.clone(), c.signing.clone())).collect()
    }

    /// Keeps the notes in `folder`: after a power cut, all old ones or all new ones.
    pub fn keep(&self, folder: &Path) -> anyhow::Result<()> {
        let (new, old) = (folder.with_extension("new"), folder.with_extension("old"));
        for stale in [&new, &old] {
            if stale.exists() {
                fs::remove_dir_all(stale)?;
            }
        }
        fs::create_dir(&new)?;
        for (name, note) in self.notes() {
            crate::config::replace(&new.join(name), note.as_bytes())?;
        }
        fs::File::open(&new)?.sync_all()?;
        if folder.exists() {
            fs::rename(folder, &old)?;
        }
        fs::rename(&new, folder)?;
        fs::File::open(folder.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        crate::keep::changed()
    }

    /// Reads back what was kept.
    pub fn kept(folder: &Path, authority: &VerifyingKey, identity: &ApplianceIdentity) -> anyhow::Result<Self> {
        if !folder.exists() {
            for beside in [folder.with_extension("new"), folder.with_extension("old")] {
                // A power cut between two renames: the complete one is taken.
                if let Ok(papers) = Pile::gather(std::slice::from_ref(&beside)).and_then(|p| Self::of(&p, authority, identity)) {
                    papers.keep(folder)?;
                    return Ok(papers);
                }
            }
            bail!(
                "this appliance is not enrolled: start it with the stick that has home's papers (where hoidlad is a program, run hoidlad enrol with them)"
            );
        }
        Self::of(&Pile::gather(&[folder.to_owned()])?, authority, identity)
    }
}

fn site_of<'a>(site: &'a Site, identity: &ApplianceIdentity) -> anyhow::Result<&'a Site> {
    ensure!(site.site == identity.site, "the site file is for {}, this appliance for {}", site.site, identity.site);
    ensure!(
        site.appliances.iter().any(|a| a.name == identity.name),
        "the site file does not name the appliance {}; ask the authority for a newer one",
        identity.name
    );
    Ok(site)
}

fn vault_fits(site: &Site, rosters: &[Signed<Roster>], vault: &Vault) -> bool {
    vault.site == site.site && site.datasets.iter().any(|d| d.name == vault.dataset) && rosters.iter().any(|r| r.hash == vault.roster)
}

/// The newest release for each image, the newest of all first; that one must be the site's.
fn releases(all: Vec<Signed<Release>>, site: &Site) -> anyhow::Result<Vec<(Signed<Release>, release::Approved)>> {
    let key = ReleasePublic::from_sec1(&site.release_key.0)?;
    let mut all: Vec<_> = all.into_iter().filter(|r| r.statement.site == site.site).collect();
    // Of one epoch the one that approves more is the later one, and what was brought later comes later.
    all.sort_by_key(|r| (r.statement.epoch, r.statement.vaults.len()));
    let newest = all.last().context("no paper is the release of this site; add the newest one that the authority signed")?;
    ensure!(newest.statement.development == site.development, "the release and the site file differ in being for development");
    release::check(&newest.statement, &key)?;
    let mut out: Vec<(Signed<Release>, release::Approved)> = Vec::new();
    for release in all.into_iter().rev().filter(|r| r.statement.development == site.development) {
        // Those of a release key that was replaced are worth nothing any more.
        if let Ok(approved) = release::check(&release.statement, &key)
            && out.iter().all(|(newer, _)| newer.statement.pcrs != release.statement.pcrs)
        {
            out.push((release, approved));
        }
    }
    out.truncate(MOST_RELEASES);
    Ok(out)
}

fn wrong_clock(now: Moment, (from, to): (Moment, Moment)) -> Option<String> {
    let holds = now.plus(CLOCKS_DIFFER) >= from && now <= to;
    let day = |m: Moment| m.to_string().chars().take_while(|c| *c != 'T').collect::<String>();
    (!holds).then(|| {
        format!(
            "the clock says {}, home's papers hold from {} to {}: set it in the firmware's setup, in UTC; if it is right, call home",
            day(now),
            day(from),
            day(to)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_outside_the_papers_time_is_wrong_and_says_so() {
        let (from, to) = (Moment::from_seconds(1_800_000_000), Moment::from_seconds(1_900_000_000));
        let says = |seconds| wrong_clock(Moment::from_seconds(seconds), (from, to));
        for fits in [1_800_000_000, 1_799_920_000, 1_900_000_000] {
            assert_eq!(says(fits), None, "{fits}");
        }
        for wrong in [0, 1_100_000_000, 1_799_900_000, 1_900_000_001, 4_000_000_000] {
            let why = says(wrong).expect("wrong");
            assert!(why.contains("set it in the firmware's setup") && why.contains("from 2027-01-15 to"), "{why}");
        }
    }
}
