//! Checkpoints as an attacker would have them: each with one thing wrong.
#![forbid(unsafe_code)]

use hoidla_format::{
    Hash32, Moment, statement,
    statements::{Enrolment, ImageManifest, Site},
};
use hoidla_log::{Quote, Says, SignedCheckpoint};
use hoidla_papers::{Log, Office, SoftAppliance, register, signed_image};
use hoidla_verify::{Doubt, Known, KnownError, Refusal, TpmName, Verified, checkpoint::check};

struct World {
    office: Office,
    site: Site,
    one: SoftAppliance,
    two: SoftAppliance,
    log: Log,
}

impl World {
    fn new() -> Self {
        let office = Office::new(1);
        let site = office.site("lux", &["lux-1", "lux-2"]);
        let (one, two) = (SoftAppliance::new(&site, "lux-1", 2), SoftAppliance::new(&site, "lux-2", 3));
        Self { office, site, one, two, log: Log::of(5, 1) }
    }

    fn papers(&self) -> Vec<String> {
        self.office.papers(&self.site, &[&self.one, &self.two])
    }

    fn gather(&self, papers: &[String]) -> Result<Known, KnownError> {
        Known::gather(&self.office.authority.verifying_key(), papers.iter().map(String::as_bytes))
    }

    fn check(&self, checkpoint: &SignedCheckpoint) -> Result<Verified, Refusal> {
        check(checkpoint, &self.gather(&self.papers()).unwrap())
    }
}

fn origin() -> String {
    "hoidla/lux/lux-1".into()
}

#[test]
fn a_checkpoint_is_believed_with_its_doubts_said() {
    let w = World::new();
    let verified = w.check(&w.log.signed(&w.one, 17)).unwrap();
    assert_eq!((verified.own.origin, verified.own.release.to_string()), (origin(), "release-1".into()));
    assert_eq!(verified.own.doubts, [Doubt::Development, Doubt::SoftwareTpm, Doubt::FirstUse, Doubt::SecureBoot]);
    assert!(verified.witnesses.is_empty() && verified.strangers == 0);
}

#[test]
fn another_appliances_key_does_not_count() {
    let w = World::new();
    let head = w.log.head(&w.one, 5, 17);
    // The second appliance signs the first one's head: as itself, and in the first one's name.
    let text = head.to_string();
    let quote = w.two.quote(&w.two.attest(Says::Mine.qualifying(&text)));
    assert_eq!(w.check(&w.two.note(&text, &quote)), Err(Refusal::Unsigned(origin())));
    let mut note = w.two.note(&text, &quote).note().clone();
    note.signatures[0] = quote.line(&origin(), &TpmName::of(b"whatever").0);
    let named = SignedCheckpoint::parse(note.write().as_bytes()).unwrap();
    assert_eq!(w.check(&named), Err(Refusal::Stranger(origin())));
    let mut note = w.one.sign(&head).note().clone();
    note.signatures[0].bytes = w.two.note(&text, &quote).note().signatures[0].bytes.clone();
    let moved = SignedCheckpoint::parse(note.write().as_bytes()).unwrap();
    assert_eq!(w.check(&moved), Err(Refusal::Forged(origin())));
}

#[test]
fn no_flipped_byte_is_believed() {
    let w = World::new();
    let good = w.log.signed(&w.one, 17).write();
    let known = w.gather(&w.papers()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] ^= 1;
        if let Ok(bad) = SignedCheckpoint::parse(&bad) {
            assert!(check(&bad, &known).is_err(), "byte {at} of {good}");
        }
    }
}

#[test]
fn a_quote_of_something_else_is_refused() {
    let w = World::new();
    let text = w.log.head(&w.one, 5, 17).to_string();
    let older = w.log.head(&w.one, 4, 17).to_string();
    let good = w.one.attest(Says::Mine.qualifying(&text));
    let with = |attest| w.check(&w.one.note(&text, &w.one.quote(&attest)));
    assert!(with(good.clone()).is_ok());
    let mut other = good.clone();
    other.qualifying = Says::Mine.qualifying(&older);
    assert_eq!(with(other), Err(Refusal::Text(origin())));
    let mut other = good.clone();
    other.qualifying = Says::Seen.qualifying(&text);
    assert_eq!(with(other), Err(Refusal::Text(origin())), "a witness's word for one's own head");
    let mut other = good.clone();
    other.signer = TpmName::of(b"another key");
    assert_eq!(with(other), Err(Refusal::Signer(origin())));
    let mut other = good;
    other.selection ^= 1 << 7;
    assert_eq!(with(other), Err(Refusal::Registers(origin())));
}

#[test]
fn registers_that_no_release_approves_are_refused() {
    let mut w = World::new();
    w.one.registers[0].value = Hash32([99; 32]);
    assert_eq!(w.check(&w.log.signed(&w.one, 17)), Err(Refusal::State(origin())), "another image");
    w.one.registers[0] = register(4);
    w.one.registers.retain(|r| r.index != 12);
    assert_eq!(w.check(&w.log.signed(&w.one, 17)), Err(Refusal::State(origin())), "a register left out");
    w.one.registers = vec![register(4)];
    let text = w.log.head(&w.one, 5, 17).to_string();
    let quote = w.one.quote(&w.one.attest(Says::Mine.qualifying(&text)));
    let more = Quote { pcrs: [quote.pcrs.clone(), quote.pcrs.clone()].concat(), ..quote };
    assert_eq!(w.check(&w.one.note(&text, &more)), Err(Refusal::Registers(origin())), "more values than were quoted");
}

#[test]
fn an_unmeasured_image_and_an_older_release_are_said() {
    let mut w = World::new();
    w.one.registers.iter_mut().for_each(|r| r.value = Hash32([0; 32]));
    let zeros = w.one.registers.iter().filter(|r| [4, 11, 12, 13].contains(&r.index)).cloned().collect();
    let mut papers = w.papers();
    papers.push(w.office.sign(&w.office.release(&w.site, 0, zeros)));
    let verified = check(&w.log.signed(&w.one, 17), &w.gather(&papers).unwrap()).unwrap();
    for doubt in [Doubt::Unmeasured, Doubt::SecureBoot, Doubt::Papers, Doubt::OldRelease] {
        assert!(verified.own.doubts.contains(&doubt), "{doubt}");
    }
}

#[test]
fn an_image_is_named_by_its_manifest_which_says_what_secure_boot_must_hold() {
    let w = World::new();
    let manifest = |seven: Hash32| {
        let (_, mut manifest) = signed_image(include_bytes!("../../../tests/vectors/boot/image.efi"), &[3]);
        manifest.pcrs = w.one.registers.iter().filter(|r| [4, 7, 11].contains(&r.index)).cloned().collect();
        manifest.pcrs.iter_mut().filter(|p| p.index == 7).for_each(|p| p.value = seven);
        manifest
    };
    let with = |m: &ImageManifest| {
        let papers = [w.papers(), vec![w.office.sign(m)]].concat();
        check(&w.log.signed(&w.one, 17), &w.gather(&papers).unwrap()).unwrap().own
    };
    let seven = w.one.registers.iter().find(|r| r.index == 7).unwrap().value;
    let own = with(&manifest(seven));
    assert_eq!((own.image, own.doubts.len()), (Some("2026-12".parse().unwrap()), 3), "Secure Boot's register is no doubt");
    assert!(with(&manifest(Hash32([9; 32]))).doubts.contains(&Doubt::OtherKeys));
    let mut other = manifest(seven);
    other.pcrs[0].value = Hash32([9; 32]);
    let own = with(&other);
    assert!(own.image.is_none() && own.doubts.contains(&Doubt::SecureBoot), "another image's manifest says nothing");
    let forged = Office::new(2).sign(&manifest(seven));
    assert!(w.gather(&[w.papers(), vec![forged]].concat()).is_err(), "another authority's");
}

#[test]
fn half_a_measured_image_and_a_discrete_tpm_are_doubts() {
    let mut w = World::new();
    w.one.identity.tpm = "discrete".into();
    assert!(w.check(&w.log.signed(&w.one, 17)).unwrap().own.doubts.contains(&Doubt::Discrete));
    // An ordinary Linux: its firmware measured something, and no image did.
    w.one.registers.iter_mut().filter(|r| r.index == 11).for_each(|r| r.value = Hash32([0; 32]));
    let pinned = w.one.registers.iter().filter(|r| [4, 11, 12, 13].contains(&r.index)).cloned().collect();
    let mut papers = w.papers();
    papers.push(w.office.sign(&w.office.release(&w.site, 2, pinned)));
    let verified = check(&w.log.signed(&w.one, 17), &w.gather(&papers).unwrap()).unwrap();
    assert!(verified.own.doubts.contains(&Doubt::Unmeasured), "a zero that a release approves measures nothing");
    // Nor does a register that the release leaves open.
    w.one.registers.iter_mut().filter(|r| r.index == 11).for_each(|r| r.value = register(11).value);
    let open = w.one.registers.iter().filter(|r| [4, 12, 13].contains(&r.index)).cloned().collect();
    papers.push(w.office.sign(&w.office.release(&w.site, 3, open)));
    let verified = check(&w.log.signed(&w.one, 17), &w.gather(&papers).unwrap()).unwrap();
    assert!(verified.own.doubts.contains(&Doubt::Unmeasured));
}

#[test]
fn a_replaced_tpm_is_a_doubt_and_the_new_one_is_not() {
    let w = World::new();
    let new = SoftAppliance::new(&w.site, "lux-1", 8);
    let later = Enrolment { issued: Moment::from_seconds(1_850_000_000), ..new.enrolment(&w.site) };
    let mut papers = w.papers();
    papers.extend([w.office.sign(&later), statement::write(&new.identity)]);
    let known = w.gather(&papers).unwrap();
    let doubts = |who: &SoftAppliance| check(&w.log.signed(who, 17), &known).unwrap().own.doubts;
    assert!(doubts(&w.one).contains(&Doubt::Replaced) && !doubts(&new).contains(&Doubt::Replaced));
}

#[test]
fn papers_under_an_earlier_release_key_are_passed_over() {
    let w = World::new();
    let mut papers = w.papers();
    papers.push(w.office.sign(&Office::new(9).release(&w.site, 7, vec![register(4)])));
    let known = w.gather(&papers).unwrap();
    assert!(check(&w.log.signed(&w.one, 17), &known).is_ok() && known.passed_over().len() == 1);
}

#[test]
fn want_of_papers_is_not_a_no() {
    let w = World::new();
    let (signed, papers) = (w.log.signed(&w.one, 17), w.papers());
    let without = |kind: &str| {
        let left: Vec<String> = papers.iter().filter(|p| !p.starts_with(&format!("hoidla = \"{kind}/"))).cloned().collect();
        check(&signed, &w.gather(&left).unwrap()).unwrap_err()
    };
    for kind in ["site", "enrolment", "appliance"] {
        assert_eq!(without(kind), Refusal::Unknown(origin()), "{kind}");
        assert!(without(kind).cannot_tell());
    }
    assert_eq!(without("release"), Refusal::NoRelease("lux".parse().unwrap()));
}

#[test]
fn papers_of_another_authority_or_a_made_up_key_are_refused() {
    let w = World::new();
    let other = Office::new(9);
    assert!(matches!(
        Known::gather(&other.authority.verifying_key(), w.papers().iter().map(String::as_bytes)),
        Err(KnownError::Signed(..))
    ));
    // An identity swapped under the same enrolment: its hash is another.
    let swapped = SoftAppliance::new(&w.site, "lux-1", 8);
    let mut papers = w.papers();
    papers.retain(|p| *p != statement::write(&w.one.identity));
    papers.push(statement::write(&swapped.identity));
    assert_eq!(check(&w.log.signed(&swapped, 17), &w.gather(&papers).unwrap()), Err(Refusal::Unknown(origin())));
    // A key that anybody could use, even if the authority was made to enrol it.
    let loose = SoftAppliance::new(&other.site("lux", &["lux-1"]), "lux-1", 8);
    let known = w.gather(&w.office.papers(&w.site, &[&loose])).unwrap();
    assert_eq!(known.passed_over(), [KnownError::Unbound("lux-1".parse().unwrap())]);
    assert_eq!(check(&w.log.signed(&loose, 17), &known), Err(Refusal::Unknown(origin())));
}

#[test]
fn witnesses_are_counted_once_and_only_if_known() {
    let w = World::new();
    let seen = w.two.witness(&w.log.signed(&w.one, 17));
    assert_eq!(w.check(&seen).unwrap().witnesses.iter().map(|v| &v.origin[..]).collect::<Vec<_>>(), ["hoidla/lux/lux-2"]);
    assert_eq!(w.check(&w.two.witness(&seen)).unwrap().witnesses.len(), 1);
    let stranger = SoftAppliance::new(&w.site, "lux-3", 4);
    let verified = w.check(&stranger.witness(&seen)).unwrap();
    assert_eq!((verified.witnesses.len(), verified.strangers), (1, 1));
    // One TPM under two names is no second opinion.
    let again = SoftAppliance::new(&w.site, "lux-2", 2);
    let papers = w.office.papers(&w.site, &[&w.one, &again]);
    let verified = check(&again.witness(&w.log.signed(&w.one, 17)), &w.gather(&papers).unwrap()).unwrap();
    assert_eq!((verified.witnesses.len(), verified.strangers), (0, 1));
    // A witness's quote of another head.
    let mut note = seen.note().clone();
    note.signatures[1] = w.two.witness(&w.log.signed(&w.one, 16)).note().signatures[1].clone();
    let moved = SignedCheckpoint::parse(note.write().as_bytes()).unwrap();
    assert_eq!(w.check(&moved), Err(Refusal::Text("hoidla/lux/lux-2".into())));
}
