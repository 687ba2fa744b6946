//! What the authority has on record of its appliances: from papers to attestation keys.
//!
//! Promises: an [`Attester`] exists only if the authority signed an enrolment that names the
//! hash of its identity, the identity's attestation key is one that only the TPM uses and only
//! under the site's release key, and each release is that key's. It doesn't judge whether the
//! TPM is genuine: [`crate::Doubt`]s say on what grounds it is believed.

use hoidla_crypto::sign::{self, SignError, Signed, VerifyingKey};
use hoidla_format::{
    Hash32, Moment, Name, Statement, StatementError, statement,
    statements::{ApplianceIdentity, Enrolment, ImageManifest, PcrValue, Proof, Release, Site},
};
use thiserror::Error;

use crate::{PolicyRef, Public, PublicError, ReleaseError, ReleasePublic, TpmName, checkpoint::IMAGE, measured, release};

/// The name under which the authority signs.
const AUTHORITY: &str = "authority";

/// Why a paper was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KnownError {
    /// Not signed by the authority that was given.
    #[error("{0} is not of this authority: {1}")]
    Signed(&'static str, SignError),
    /// An identity in another form than its program writes.
    #[error("an appliance's identity: {0}")]
    Identity(StatementError),
    /// The site file names another authority than the one that signed it.
    #[error("the site file of {0} names another authority than the one given")]
    Authority(Name),
    /// A key of an appliance or of the releases is none.
    #[error("{0}: {1}")]
    Key(Name, PublicError),
    /// A release doesn't follow from itself, or isn't the release key's.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// An attestation key that others than the TPM could use.
    #[error("the attestation key of {0} is not bound to its TPM and the site's releases: its identity was not made by Hoidla")]
    Unbound(Name),
}

/// One appliance whose attestation key is known.
#[derive(Clone, Debug)]
pub struct Attester {
    /// Its site.
    pub site: Name,
    /// Its name.
    pub appliance: Name,
    /// What its signature lines are named: `hoidla/SITE/APPLIANCE`.
    pub origin: String,
    /// Its attestation key's TPM name.
    pub key_name: TpmName,
    /// Its identity, as recorded.
    pub identity: ApplianceIdentity,
    /// How its TPM was proven: the enrolment's word.
    pub proof: Proof,
    /// When home enrolled it.
    pub issued: Moment,
    /// SHA-256 of the enrolment.
    pub enrolment: Hash32,
    /// A site for drills.
    pub development: bool,
    /// Whether the newest site file given still names it.
    pub named: bool,
    pub(crate) key: p256::ecdsa::VerifyingKey,
}

impl Attester {
    /// The id of its signature lines.
    pub fn key_id(&self) -> [u8; 4] {
        hoidla_log::key_id(&self.origin, &self.key_name.0)
    }
}

/// The papers of one authority.
#[derive(Clone, Debug, Default)]
pub struct Known {
    sites: Vec<Signed<Site>>,
    site_files: Vec<(Name, u32, Hash32)>,
    releases: Vec<Release>,
    manifests: Vec<ImageManifest>,
    attesters: Vec<Attester>,
    passed_over: Vec<KnownError>,
}

/// Papers by kind, each under the authority's signature, not yet held against each other.
#[derive(Default)]
struct Pile {
    sites: Vec<Signed<Site>>,
    site_files: Vec<(Name, u32, Hash32)>,
    releases: Vec<Signed<Release>>,
    manifests: Vec<ImageManifest>,
    enrolments: Vec<Signed<Enrolment>>,
    identities: Vec<(Hash32, ApplianceIdentity)>,
}

/// What a statement's first line says it is.
pub fn kind_of(bytes: &[u8]) -> Option<&str> {
    let first = bytes.split(|b| *b == b'\n').next()?;
    Some(std::str::from_utf8(first).ok()?.strip_prefix("hoidla = \"")?.split_once('/')?.0)
}

impl Known {
    /// Takes in site files, releases, manifests of images, enrolments and identities; passes over papers of other kinds.
    /// Of one site's files the newest counts; what the authority signed and doesn't fit that one,
    /// such as a release under an earlier release key, is passed over.
    pub fn gather<'a>(authority: &VerifyingKey, papers: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, KnownError> {
        let mut pile = Pile::default();
        for paper in papers {
            pile.add(paper, authority)?;
        }
        pile.site_files.sort();
        let mut known = Self { sites: pile.sites, site_files: pile.site_files, manifests: pile.manifests, ..Self::default() };
        for release in &pile.releases {
            if let Some(site) = known.site(&release.statement.site) {
                match release_key(site).and_then(|key| Ok(release::check(&release.statement, &key)?)) {
                    Ok(_) => known.releases.push(release.statement.clone()),
                    Err(e) => known.passed_over.push(e),
                }
            }
        }
        for enrolment in &pile.enrolments {
            let identity = pile.identities.iter().find(|(hash, _)| *hash == enrolment.statement.identity);
            let site = known.site(&enrolment.statement.site);
            if let (Some((_, identity)), Some(site)) = (identity, site)
                && (&identity.site, &identity.name) == (&enrolment.statement.site, &enrolment.statement.appliance)
            {
                match attester(site, identity, enrolment) {
                    Ok(attester) => known.attesters.push(attester),
                    Err(e) => known.passed_over.push(e),
                }
            }
        }
        Ok(known)
    }

    /// A site's newest file among the papers.
    pub fn site(&self, name: &Name) -> Option<&Site> {
        self.sites.iter().map(|s| &s.statement).find(|s| s.site == *name)
    }

    /// All site files of a site that were given, by serial: serial and hash.
    pub fn site_files<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (u32, Hash32)> + 'a {
        self.site_files.iter().filter(move |(site, ..)| site == name).map(|(_, serial, hash)| (*serial, *hash))
    }

    /// What register 15 of an appliance may have been extended by, as far as its papers are here,
    /// in the order in which they can have come into force.
    pub fn measurements(&self, who: &Attester) -> Vec<Hash32> {
        let mut enrolments: Vec<(Moment, Hash32)> =
            self.attesters.iter().filter(|a| a.origin == who.origin).map(|a| (a.issued, a.enrolment)).collect();
        enrolments.sort();
        let with = |(_, site): (u32, Hash32)| enrolments.iter().map(move |(_, enrolment)| measured::digest(&site, enrolment));
        self.site_files(&who.site).flat_map(with).collect()
    }

    /// The releases of a site, in no order.
    pub fn releases<'a>(&'a self, site: &'a Name) -> impl Iterator<Item = &'a Release> {
        self.releases.iter().filter(move |r| r.site == *site)
    }

    /// The manifest of the image that leads to these registers, if it is here.
    pub fn image(&self, registers: &[PcrValue]) -> Option<&ImageManifest> {
        let leads = |m: &&ImageManifest| IMAGE.iter().all(|i| m.pcrs.iter().any(|p| p.index == *i && registers.contains(p)));
        self.manifests.iter().find(leads)
    }

    /// Why papers of the authority were passed over.
    pub fn passed_over(&self) -> &[KnownError] {
        &self.passed_over
    }

    /// Whether its TPM is another by a later enrolment among the papers.
    pub fn replaced(&self, who: &Attester) -> bool {
        self.attesters.iter().any(|a| a.origin == who.origin && a.key_name != who.key_name && a.issued > who.issued)
    }

    /// All appliances whose attestation key is known; one that was enrolled anew is there twice.
    pub fn attesters(&self) -> &[Attester] {
        &self.attesters
    }
}

impl Pile {
    fn add(&mut self, paper: &[u8], authority: &VerifyingKey) -> Result<(), KnownError> {
        match kind_of(paper) {
            Some(Site::KIND) => {
                let site = sign::open_edited::<Site>(paper, Some(AUTHORITY), authority).map_err(|e| KnownError::Signed(Site::TITLE, e))?;
                self.add_site(site, authority)?;
            }
            Some(Release::KIND) => self.releases.push(open(paper, authority)?),
            Some(ImageManifest::KIND) => self.manifests.push(open(paper, authority)?.statement),
            Some(Enrolment::KIND) => self.enrolments.push(open(paper, authority)?),
            Some(ApplianceIdentity::KIND) => {
                let not_text = KnownError::Identity(StatementError::NotAStatement("it is not text"));
                let text = std::str::from_utf8(paper).map_err(|_| not_text)?;
                self.identities.push((statement::hash(text), statement::parse(text).map_err(KnownError::Identity)?));
            }
            _ => {}
        }
        Ok(())
    }

    fn add_site(&mut self, site: Signed<Site>, authority: &VerifyingKey) -> Result<(), KnownError> {
        if site.statement.authority.0 != authority.to_sec1() {
            return Err(KnownError::Authority(site.statement.site));
        }
        self.site_files.push((site.statement.site.clone(), site.statement.serial, site.hash));
        match self.sites.iter_mut().find(|s| s.statement.site == site.statement.site) {
            Some(held) if held.statement.serial < site.statement.serial => *held = site,
            Some(_) => {}
            None => self.sites.push(site),
        }
        Ok(())
    }
}

fn open<S: Statement>(paper: &[u8], authority: &VerifyingKey) -> Result<Signed<S>, KnownError> {
    sign::open(paper, Some(AUTHORITY), authority).map_err(|e| KnownError::Signed(S::TITLE, e))
}

fn release_key(site: &Site) -> Result<ReleasePublic, KnownError> {
    Ok(ReleasePublic::from_sec1(&site.release_key.0)?)
}

fn attester(site: &Site, identity: &ApplianceIdentity, enrolment: &Signed<Enrolment>) -> Result<Attester, KnownError> {
    let name = || identity.name.clone();
    let public = Public::parse(&identity.ak.0).map_err(|e| KnownError::Key(name(), e))?;
    let reference = PolicyRef::node(&site.site, site.development);
    let wanted = Public::signing_template(release_key(site)?.policy(&reference).digest(), true);
    let point = public.point().filter(|_| public.same_template(&wanted)).ok_or_else(|| KnownError::Unbound(name()))?;
    Ok(Attester {
        site: site.site.clone(),
        appliance: name(),
        origin: format!("hoidla/{}/{}", site.site, identity.name),
        key_name: public.name(),
        identity: identity.clone(),
        proof: enrolment.statement.proof,
        issued: enrolment.statement.issued,
        enrolment: enrolment.hash,
        development: site.development,
        named: site.appliances.iter().any(|a| a.name == identity.name),
        key: point.key().map_err(|e| KnownError::Key(name(), e))?.into(),
    })
}
