//! Whether an image that somebody brought may be installed.
//!
//! Promises: [`judge`] accepts an image only if this site's authority signed for every byte of it,
//! for this kind of machine and this mode; if this machine's firmware knows the key that signed it;
//! and if a release among the papers approves its registers and the TPM's counter has not passed
//! that release. Each refusal says what to do. It decides nothing that firmware and TPM don't
//! decide again: it only keeps a machine from being started into what would come to nothing.

use std::path::Path;

use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::{
    Name,
    profile::Profile,
    statements::{ImageManifest, PcrValue, Release},
};
use hoidla_medium::Slot;
use hoidla_tpm::{Counter, Tpm};
use hoidla_verify::{
    boot,
    manifest::{self, ManifestError},
    pe::Image,
};
use thiserror::Error;

use super::firmware;
use crate::papers::Papers;

/// Who signs manifests.
const AUTHORITY: &str = "authority";
/// The registers that a release approves.
const APPROVED: [u8; 4] = [4, 11, 12, 13];

/// What this machine is, as far as an image must fit it.
#[derive(Clone, Debug)]
pub struct Ground<'a> {
    /// Whose images may run here.
    pub authority: &'a VerifyingKey,
    /// The kind of machine.
    pub profile: &'a Name,
    /// The site's mode.
    pub development: bool,
    /// What the papers approve: already checked.
    pub releases: Vec<&'a Release>,
    /// Releases below are retired in this TPM.
    pub counter: u64,
    /// Whose images this firmware starts: the variable `db`.
    pub may_start: Vec<u8>,
}

/// An image that may be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the authority says of it.
    pub manifest: ImageManifest,
    /// The release that approves it.
    pub release: Name,
    /// That release's epoch.
    pub epoch: u64,
}

/// Why an image is not installed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No boot key signed it.
    #[error("this image is not signed: sign it at home with the site's boot key (hoidla-image sign), and write the stick again")]
    Unsigned,
    /// Signed for by another authority, or by nobody.
    #[error(
        "this image is not this site's: its manifest is not signed by the authority that this machine trusts; bring a stick of this site"
    )]
    Authority,
    /// Not what its manifest says.
    #[error("{0}; write the stick again at home")]
    Damaged(ManifestError),
    /// For drills, or for production, and the site is the other.
    #[error("this image is for {}, and this site is for {}: bring one of its own", mode(*.0), mode(!*.0))]
    Mode(bool),
    /// For another kind of machine.
    #[error("this image is for machines of the profile {theirs}, and this one is a {ours}: have one built for it")]
    Profile {
        /// The image's.
        theirs: Name,
        /// The machine's.
        ours: Name,
    },
    /// Firmware would not start it.
    #[error(
        "this machine's firmware doesn't know the key that signed this image: add HOIDLA/BOOT.CRT of the stick to the keys that may sign (db) in its setup"
    )]
    BootKey,
    /// No paper approves it.
    #[error(
        "no release among the papers approves the image {0}: have the authority sign one for it (hoidla-provision release sign), and bring it on the stick"
    )]
    NotApproved(Name),
    /// Approved once.
    #[error(
        "the image {name} is older than allowed: its release has epoch {epoch}, and this machine's TPM has retired all below {counter}; bring a newer one"
    )]
    Retired {
        /// The image's release.
        name: Name,
        /// Its epoch.
        epoch: u64,
        /// The TPM's counter.
        counter: u64,
    },
}

fn mode(development: bool) -> &'static str {
    if development { "drills and tests" } else { "production" }
}

impl<'a> Ground<'a> {
    /// This machine's.
    ///
    /// # Errors
    /// If the TPM or the firmware doesn't answer.
    pub fn of(sys: &Path, profile: &'a Profile, papers: &'a Papers, authority: &'a VerifyingKey, tpm: &Tpm) -> anyhow::Result<Self> {
        Ok(Self {
            authority,
            profile: &profile.name,
            development: papers.site.statement.development,
            releases: papers.releases.iter().map(|(r, _)| &r.statement).collect(),
            counter: tpm.counter(Counter::Release)?,
            may_start: firmware::may_start(sys)?,
        })
    }
}

/// Whether the image in a slot may be installed here.
///
/// # Errors
/// The first reason against it.
pub fn judge(slot: &Slot, ground: &Ground<'_>) -> Result<Offer, Refusal> {
    let image = Image::parse(&slot.image).map_err(|e| Refusal::Damaged(e.into()))?;
    image.signature().ok_or(Refusal::Unsigned)?;
    let manifest =
        sign::open::<ImageManifest>(&slot.manifest, Some(AUTHORITY), ground.authority).map_err(|_| Refusal::Authority)?.statement;
    manifest::check(&manifest, &slot.image).map_err(Refusal::Damaged)?;
    if manifest.development != ground.development {
        return Err(Refusal::Mode(manifest.development));
    }
    if manifest.profile != *ground.profile {
        return Err(Refusal::Profile { theirs: manifest.profile, ours: ground.profile.clone() });
    }
    if !boot::lists(&ground.may_start, &manifest.certificate.0) {
        return Err(Refusal::BootKey);
    }
    let registers: Vec<&PcrValue> = manifest.pcrs.iter().filter(|p| APPROVED.contains(&p.index)).collect();
    let approves = |r: &&&Release| r.pcrs.iter().eq(registers.iter().copied());
    let Some(release) = ground.releases.iter().filter(approves).max_by_key(|r| r.epoch) else {
        return Err(Refusal::NotApproved(manifest.name));
    };
    if release.epoch < ground.counter {
        return Err(Refusal::Retired { name: manifest.name, epoch: release.epoch, counter: ground.counter });
    }
    Ok(Offer { release: release.name.clone(), epoch: release.epoch, manifest })
}

#[cfg(test)]
mod tests {
    use hoidla_papers::{Office, name, signed_image};
    use hoidla_verify::boot::signature_list;

    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../../tests/vectors/boot/image.efi");
    const CERTIFICATE: &[u8] = b"a boot key's certificate";

    /// A home, an image that it signed and approved, and the machine that the image is for.
    struct Scene {
        office: Office,
        image: Vec<u8>,
        manifest: ImageManifest,
        releases: Vec<Release>,
        profile: Name,
        development: bool,
        counter: u64,
        may_start: Vec<u8>,
    }

    impl Scene {
        fn new() -> Self {
            let office = Office::new(1);
            let (signed, manifest) = signed_image(IMAGE, CERTIFICATE);
            let approved: Vec<PcrValue> = manifest.pcrs.iter().filter(|p| APPROVED.contains(&p.index)).cloned().collect();
            let site = office.site("testland", &["embassy"]);
            let releases = vec![office.release(&site, 4, approved.clone()), office.release(&site, 3, approved)];
            let may_start = [signature_list(&[1; 16], b"another"), signature_list(&[2; 16], CERTIFICATE)].concat();
            Self { image: signed, manifest, releases, profile: name("rack"), development: true, counter: 4, may_start, office }
        }

        fn judge(&self) -> Result<Offer, Refusal> {
            let authority = self.office.authority.verifying_key();
            let ground = Ground {
                authority: &authority,
                profile: &self.profile,
                development: self.development,
                releases: self.releases.iter().collect(),
                counter: self.counter,
                may_start: self.may_start.clone(),
            };
            let manifest = self.office.sign(&self.manifest).into_bytes();
            judge(&Slot { image: self.image.clone(), manifest, certificate: CERTIFICATE.to_vec() }, &ground)
        }
    }

    fn refused(change: impl FnOnce(&mut Scene)) -> Refusal {
        let mut scene = Scene::new();
        change(&mut scene);
        scene.judge().unwrap_err()
    }

    #[test]
    fn what_the_authority_signed_and_a_release_approves_may_be_installed() {
        let offer = Scene::new().judge().unwrap();
        assert_eq!((offer.release, offer.epoch), (name("release-4"), 4), "the newest that approves it");
    }

    #[test]
    fn anything_else_is_refused_with_what_to_do() {
        assert_eq!(refused(|s| s.image = IMAGE.to_vec()), Refusal::Unsigned);
        assert!(matches!(refused(|s| s.image[3000] ^= 1), Refusal::Damaged(_)));
        assert!(matches!(refused(|s| s.image.truncate(100)), Refusal::Damaged(ManifestError::Pe(_))));
        assert!(matches!(refused(|s| s.manifest.pcrs[0].value.0[0] ^= 1), Refusal::Damaged(ManifestError::Wrong(_))));
        assert_eq!(refused(|s| s.development = false), Refusal::Mode(true));
        let said = refused(|s| s.profile = name("blade"));
        assert_eq!(said, Refusal::Profile { theirs: name("rack"), ours: name("blade") });
        assert_eq!(refused(|s| s.may_start = signature_list(&[1; 16], b"another")), Refusal::BootKey);
        assert_eq!(refused(|s| s.releases.clear()), Refusal::NotApproved(name("2026-12")));
        assert_eq!(refused(|s| s.releases.iter_mut().for_each(|r| r.pcrs[1].value.0[0] ^= 1)), Refusal::NotApproved(name("2026-12")));
        assert_eq!(refused(|s| s.counter = 5), Refusal::Retired { name: name("2026-12"), epoch: 4, counter: 5 });
    }

    #[test]
    fn another_authority_s_manifest_counts_for_nothing() {
        let scene = Scene::new();
        let other = Office::new(2).authority.verifying_key();
        let ground = Ground {
            authority: &other,
            profile: &scene.profile,
            development: true,
            releases: scene.releases.iter().collect(),
            counter: 0,
            may_start: scene.may_start.clone(),
        };
        let manifest = scene.office.sign(&scene.manifest).into_bytes();
        for manifest in [manifest, Vec::new(), b"x".to_vec()] {
            let slot = Slot { image: scene.image.clone(), manifest, certificate: CERTIFICATE.to_vec() };
            assert_eq!(judge(&slot, &ground), Err(Refusal::Authority));
        }
    }

    #[test]
    fn each_refusal_is_a_sentence_for_the_rack() {
        assert!(Refusal::Mode(false).to_string().starts_with("this image is for production, and this site is for drills"));
        assert!(Refusal::Retired { name: name("x"), epoch: 1, counter: 2 }.to_string().contains("bring a newer one"));
    }
}
