//! Which TPM home means, and what leaves home for it.

use crate::stage::*;

#[test]
fn an_enrolment_needs_its_own_halves() {
    let stage = Stage::signed();
    let enrol = || enrol::enrol(&stage.home, &name("lux-1"), &stage.ours());
    assert!(told(enrol()).contains("no identity of lux-1"));
    stage.deal(&["population"], Some(1), false).unwrap();
    enrol().unwrap();
    // The identity is swapped behind the program's back.
    fs::copy(stage.identity(2).0, stage.home.identity(&name("lux-1"))).unwrap();
    assert!(told(enrol()).contains("dealt to another TPM"));
}

fn record(stage: &Stage, tpm: u8, replace: bool) -> anyhow::Result<()> {
    endorse::record(&stage.home, &name("lux-1"), &stage.endorsement(tpm), replace).map(drop)
}

fn enrolled(stage: &Stage) -> anyhow::Result<Enrolment> {
    enrol::enrol(&stage.home, &name("lux-1"), &stage.ours())
}

#[test]
fn for_a_recorded_tpm_nothing_leaves_home_but_in_its_parcel() {
    let stage = Stage::signed();
    let (home, lux) = (&stage.home, name("lux-1"));
    record(&stage, 1, false).unwrap();
    stage.deal(&["population"], Some(1), false).unwrap();
    let enrolment = enrolled(&stage).unwrap();
    assert_eq!(enrolment.proof, Proof::CredentialActivated);
    let bytes = fs::read(home.parcel(&lux)).unwrap();
    let parcel = Parcel::from_bytes(&bytes).unwrap();
    assert_eq!(parcel.identity, hash(&write(&stage.identity(1).1)));
    let public: Vec<String> = fs::read_dir(home.public()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!public.iter().any(|f| f.starts_with("halves") || f.starts_with("enrolment")), "{public:?}");
    for path in [home.halves(&lux), home.enrolment(&lux)] {
        let inside = fs::read(path).unwrap();
        assert!(!bytes.windows(64).any(|w| w == &inside[..64]), "the parcel is sealed");
    }
    let first = enrolled(&stage).map(|_| fs::read(home.parcel(&lux)).unwrap()).unwrap();
    assert_ne!(first, bytes, "under a fresh secret each time");
}

#[test]
fn a_tpm_that_is_proven_later_leaves_no_open_papers_behind() {
    let stage = Stage::signed();
    let (home, lux) = (&stage.home, name("lux-1"));
    stage.deal(&["population"], Some(1), false).unwrap();
    assert_eq!(enrolled(&stage).unwrap().proof, Proof::TrustedOnFirstUse);
    assert!(home.public_halves(&lux).exists() && home.public_enrolment(&lux).exists() && !home.parcel(&lux).exists());
    record(&stage, 1, false).unwrap();
    enrolled(&stage).unwrap();
    assert!(!home.public_halves(&lux).exists() && !home.public_enrolment(&lux).exists() && home.parcel(&lux).exists());
}

#[test]
fn an_identity_of_another_tpm_or_altered_on_its_way_is_refused() {
    let stage = Stage::signed();
    record(&stage, 1, false).unwrap();
    let e = told(stage.deal(&["population"], Some(2), false));
    assert!(e.contains("recorded before shipping") && e.contains("another TPM") && e.contains("don't deal for it"), "{e}");
    let ours = stage.identity(1).1;
    let theirs = stage.identity(2).1;
    let altered = [
        ApplianceIdentity { srk: theirs.srk.clone(), ..ours.clone() },
        ApplianceIdentity { ak: theirs.ak.clone(), ..ours.clone() },
        ApplianceIdentity { node: theirs.node.clone(), ..ours.clone() },
        ApplianceIdentity { ek: ours.ek.clone(), ..theirs.clone() },
        ApplianceIdentity { release_counter: 8, ..ours.clone() },
        ApplianceIdentity { tpm: "firmware".into(), ..ours.clone() },
    ];
    for identity in altered {
        let request = deal::Request { datasets: vec![], identities: vec![stage.put_identity(&identity, 9)], replace: true };
        let e = told(deal::deal(&stage.home, &request, &stage.ours(), &Output { quiet: true, json: false }));
        assert!(e.contains("altered on its way"), "{e}");
    }
    let none = ApplianceIdentity { created: vec![], ..ours };
    let request = deal::Request { datasets: vec![], identities: vec![stage.put_identity(&none, 9)], replace: false };
    assert!(told(deal::deal(&stage.home, &request, &stage.ours(), &Output { quiet: true, json: false })).contains("no proof"));
    assert!(!stage.home.identity(&name("lux-1")).exists() && !stage.home.vault(&name("population"), 1).exists());

    // Recorded under the identity that was dealt for, and then another machine comes.
    stage.deal(&["population"], Some(1), false).unwrap();
    record(&stage, 3, true).unwrap();
    assert!(told(enrolled(&stage)).contains("it is of another TPM"));
}

#[test]
fn one_endorsement_key_one_appliance() {
    let stage = Stage::signed();
    record(&stage, 1, false).unwrap();
    record(&stage, 1, false).expect("the same again");
    assert!(told(record(&stage, 2, false)).contains("find out why"));
    record(&stage, 2, true).unwrap();
    let unknown = endorse::record(&stage.home, &name("lux-9"), &stage.endorsement(1), false);
    assert!(told(unknown).contains("names no appliance lux-9"));
    let text = fs::read_to_string(stage.endorsement(1)).unwrap();
    let path = stage.folder.path().join("bad.txt");
    for bad in [text.replace("ek = \"", "ek = \"AAAA"), text.replace("endorsement/1", "endorsement/2"), String::new()] {
        fs::write(&path, bad).unwrap();
        assert!(endorse::record(&stage.home, &name("lux-1"), &path, true).is_err());
    }
    stage.edit("serial = 1", "serial = 2");
    stage.edit("# Who opens.", "[[appliance]]\nname = \"lux-2\"\naddress = \"127.0.0.1:4461\"\n\n# Who opens.");
    site::sign(&stage.home, &stage.ours()).unwrap();
    let twice = endorse::record(&stage.home, &name("lux-2"), &stage.endorsement(2), false);
    assert!(told(twice).contains("recorded of lux-1"));
}

#[test]
fn production_trusts_no_tpm_on_first_use() {
    let stage = Stage::signed();
    let site = |development| {
        let mut site = stage.home.signed_site().unwrap().statement;
        site.development = development;
        site
    };
    let production = SoftAppliance::new(&site(false), "lux-1", 1).identity;
    let e = told(endorse::grounds(&stage.home, &site(false), &production));
    assert!(e.contains("no endorsement key of lux-1 is recorded") && e.contains("hoidlad endorse"), "{e}");
    record(&stage, 1, false).unwrap();
    assert_eq!(endorse::grounds(&stage.home, &site(false), &production).unwrap(), Proof::CredentialActivated);
    assert!(told(endorse::grounds(&stage.home, &site(true), &production)).contains("not one that hoidlad makes for this site"));
}

#[test]
fn what_came_out_of_the_parcel_is_the_proof() {
    let stage = Stage::signed();
    let (home, lux) = (&stage.home, name("lux-1"));
    record(&stage, 1, false).unwrap();
    stage.deal(&["population"], Some(1), false).unwrap();
    enrolled(&stage).unwrap();
    let came = stage.folder.path().join("came.txt");
    fs::copy(home.enrolment(&lux), &came).unwrap();
    endorse::proven(home, &stage.keys(), &came).unwrap();
    assert!(home.public_enrolment(&lux).exists());
    // Enrolled anew: the former one proves nothing of the new parcel.
    stage.deal(&["population"], None, false).unwrap();
    enrolled(&stage).unwrap();
    assert!(!home.public_enrolment(&lux).exists());
    assert!(told(endorse::proven(home, &stage.keys(), &came)).contains("older parcel"));
    let text = fs::read_to_string(home.enrolment(&lux)).unwrap().replace("credential-activated", "trusted-on-first-use");
    fs::write(&came, text).unwrap();
    assert!(endorse::proven(home, &stage.keys(), &came).is_err());
}
