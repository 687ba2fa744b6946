//! A challenge's quote: what passes, and everything that doesn't.
#![forbid(unsafe_code)]

use hoidla_format::{
    Bytes, Hash32, Moment, statement,
    statements::{Challenge, Enrolment, PcrValue, Proof, Site},
};
use hoidla_log::Says;
use hoidla_papers::{Office, SoftAppliance, name, register};
use hoidla_verify::{
    Doubt, Known, Refusal, Unattested, Vouched, measured,
    opening::{check, quoted},
};

/// A production site with a proven TPM in its processor, whose release names what it measures.
struct World {
    office: Office,
    site: Site,
    lux: SoftAppliance,
    proof: Proof,
}

impl World {
    fn new() -> Self {
        Self::of(false, "firmware", Proof::CredentialActivated)
    }

    fn of(development: bool, tpm: &str, proof: Proof) -> Self {
        let office = Office::new(1);
        let site = Site { development, ..office.site("lux", &["lux-1"]) };
        let mut lux = SoftAppliance::new(&site, "lux-1", 3);
        lux.identity.tpm = tpm.into();
        let mut world = Self { office, site, lux, proof };
        world.under(&[world.in_force()]);
        world
    }

    fn enrolment(&self) -> Enrolment {
        Enrolment { proof: self.proof, ..self.lux.enrolment(&self.site) }
    }

    /// What the papers in force are measured as.
    fn in_force(&self) -> Hash32 {
        let hash = |text: String| statement::hash(&text);
        measured::digest(&hash(statement::write(&self.site)), &hash(statement::write(&self.enrolment())))
    }

    fn under(&mut self, digests: &[Hash32]) {
        let value = measured::replay(digests);
        self.lux.registers.iter_mut().filter(|r| r.index == 15).for_each(|r| r.value = value);
    }

    fn known(&self) -> Known {
        let mut pcrs: Vec<PcrValue> = [4, 11, 12, 13].map(register).to_vec();
        pcrs.sort_by_key(|p| p.index);
        let papers = [
            self.office.sign(&self.site),
            self.office.sign(&self.office.release(&self.site, 1, pcrs)),
            self.office.sign(&self.enrolment()),
            statement::write(&self.lux.identity),
        ];
        Known::gather(&self.office.authority.verifying_key(), papers.iter().map(String::as_bytes)).unwrap()
    }

    /// A challenge, not yet quoted.
    fn bare(&self) -> Challenge {
        Challenge {
            grant: Hash32([1; 32]),
            appliance: name("lux-1"),
            site_hash: statement::hash(&statement::write(&self.site)),
            nonce: Bytes(vec![2; 32]),
            one_time_key: Bytes(vec![3; 100]),
            attestation_key: Bytes(self.lux.key_name().0.to_vec()),
            reset_count: 3,
            restart_count: 0,
            release: name("release-1"),
            development: self.site.development,
            valid_for_seconds: 3600,
            measured: vec![self.in_force()],
            quote: Bytes(vec![]),
        }
    }

    fn quote(&self, challenge: Challenge, says: Says) -> Challenge {
        let line = self.lux.line(says, &quoted(&challenge), &self.lux.origin());
        Challenge { quote: Bytes(line.bytes), ..challenge }
    }

    fn asks(&self) -> Challenge {
        self.quote(self.bare(), Says::Asks)
    }

    fn judge(&self, challenge: &Challenge) -> Result<Vouched, Unattested> {
        check(challenge, &self.site.site, &self.known())
    }
}

#[test]
fn a_released_machine_that_asks_for_this_is_believed() {
    let w = World::new();
    let vouched = w.judge(&w.asks()).unwrap();
    assert_eq!((vouched.release, vouched.doubts), (name("release-1"), vec![Doubt::SecureBoot]));
    // Papers that came into force one after another.
    let mut w = World::new();
    let digests = [Hash32([7; 32]), w.in_force()];
    w.under(&digests);
    let grown = w.quote(Challenge { measured: digests.to_vec(), ..w.bare() }, Says::Asks);
    assert!(w.judge(&grown).is_ok());
}

#[test]
fn any_other_challenge_quote_or_key_is_refused() {
    let w = World::new();
    let good = w.asks();
    assert_eq!(w.judge(&w.bare()), Err(Unattested::Missing));
    let text = |refused| assert!(matches!(refused, Err(Unattested::Quote(Refusal::Text(_)))), "{refused:?}");
    text(w.judge(&Challenge { one_time_key: Bytes(vec![4; 100]), ..good.clone() }));
    text(w.judge(&Challenge { grant: Hash32([9; 32]), ..good.clone() }));
    text(w.judge(&Challenge { nonce: Bytes(vec![5; 32]), ..good.clone() }));
    for says in [Says::Mine, Says::Seen, Says::Erased] {
        text(w.judge(&w.quote(w.bare(), says)));
    }
    let mut cut = good.clone();
    cut.quote.0.pop();
    assert!(matches!(w.judge(&cut), Err(Unattested::Quote(Refusal::Line(..)))));
    let mut flipped = good.clone();
    flipped.quote.0[20] ^= 1;
    assert!(matches!(w.judge(&flipped), Err(Unattested::Quote(Refusal::Forged(_)))));

    // Another machine of the same site, in its name: with its own key, and with the other's claimed.
    let other = SoftAppliance::new(&w.site, "lux-1", 4);
    let theirs = Challenge { attestation_key: Bytes(other.key_name().0.to_vec()), ..w.bare() };
    let line = other.line(Says::Asks, &quoted(&theirs), &other.origin());
    assert_eq!(w.judge(&Challenge { quote: Bytes(line.bytes), ..theirs }), Err(Unattested::OtherKey(name("lux-1"))));
    let line = other.line(Says::Asks, &quoted(&w.bare()), &other.origin());
    assert!(matches!(w.judge(&Challenge { quote: Bytes(line.bytes), ..w.bare() }), Err(Unattested::Quote(Refusal::Forged(_)))));
    let unknown = Challenge { appliance: name("lux-2"), ..good };
    assert_eq!(w.judge(&unknown), Err(Unattested::Unknown(name("lux-2"))));
}

#[test]
fn other_registers_papers_or_starts_are_refused() {
    for index in [4, 11, 12, 13] {
        let mut w = World::new();
        w.lux.registers.iter_mut().filter(|r| r.index == index).for_each(|r| r.value = Hash32([0xEE; 32]));
        assert!(matches!(w.judge(&w.asks()), Err(Unattested::Quote(Refusal::State(_)))), "register {index}");
    }
    let mut w = World::new();
    w.under(&[Hash32([7; 32])]);
    assert_eq!(w.judge(&w.asks()), Err(Unattested::Papers), "other papers than it shows");
    w.under(&[]);
    assert_eq!(w.judge(&w.asks()), Err(Unattested::Papers), "nothing measured");
    let w = World::new();
    let with = |change: &dyn Fn(&mut Challenge)| {
        let mut c = w.bare();
        change(&mut c);
        w.judge(&w.quote(c, Says::Asks))
    };
    assert_eq!(with(&|c| c.measured.clear()), Err(Unattested::Papers));
    assert_eq!(with(&|c| c.measured.push(Hash32([7; 32]))), Err(Unattested::Papers));
    assert_eq!(with(&|c| c.site_hash = Hash32([7; 32])), Err(Unattested::Papers), "a site file that it didn't show");
    assert_eq!(with(&|c| c.reset_count = 2), Err(Unattested::Restarted));
    assert_eq!(with(&|c| c.restart_count = 1), Err(Unattested::Restarted));
    assert_eq!(with(&|c| c.development = true), Err(Unattested::Mode("a drill")));
}

#[test]
fn production_takes_no_software_tpm_nor_one_that_nobody_proved() {
    let unfit = |tpm, proof| World::of(false, tpm, proof).judge(&World::of(false, tpm, proof).asks());
    assert_eq!(unfit("software", Proof::CredentialActivated), Err(Unattested::Unfit(Doubt::SoftwareTpm)));
    assert_eq!(unfit("firmware", Proof::TrustedOnFirstUse), Err(Unattested::Unfit(Doubt::FirstUse)));
    let drill = World::of(true, "software", Proof::TrustedOnFirstUse);
    let doubts = drill.judge(&drill.asks()).unwrap().doubts;
    assert_eq!(doubts, [Doubt::Development, Doubt::SoftwareTpm, Doubt::FirstUse, Doubt::SecureBoot], "said, not refused");
    let discrete = World::of(false, "discrete", Proof::CredentialActivated);
    assert!(discrete.judge(&discrete.asks()).unwrap().doubts.contains(&Doubt::Discrete));
}

#[test]
fn a_later_enrolment_of_another_tpm_ends_the_old_one_s_word() {
    let w = World::new();
    let next = SoftAppliance::new(&w.site, "lux-1", 5);
    let later = Enrolment { issued: Moment::from_seconds(1_900_000_000), ..next.enrolment(&w.site) };
    let mut papers = vec![w.office.sign(&w.site), w.office.sign(&w.enrolment()), w.office.sign(&later)];
    papers.push(w.office.sign(&w.office.release(&w.site, 1, [4, 11, 12, 13].map(register).to_vec())));
    papers.extend([statement::write(&w.lux.identity), statement::write(&next.identity)]);
    let known = Known::gather(&w.office.authority.verifying_key(), papers.iter().map(String::as_bytes)).unwrap();
    assert_eq!(check(&w.asks(), &w.site.site, &known), Err(Unattested::OtherKey(name("lux-1"))));
}
