//! One ceremony, tried with every trick.

use std::time::Duration;

use hoidla_crypto::{hpke, sign::Signed};
use hoidla_format::{
    Hash32, Name,
    statement::{hash, write},
    statements::{Approval, Door, Grant},
};
use hoidla_quorum::{
    dealing::Dealing,
    intake::{Covered, Intake, IntakeError, Phase, Progress},
    opening::{Occasion, open_share, open_with_tpm, seal_share},
    share::VaultId,
};

use crate::world::*;

const NOON: Duration = Duration::from_secs(1000);

struct Ceremony {
    world: World,
    intake: Intake,
    one_time: hpke::KeyPair,
    grant: Signed<Grant>,
    occasion: Occasion,
}

impl Ceremony {
    fn begin() -> Self {
        let world = World::new();
        let one_time = hpke::KeyPair::generate();
        let grant = signed(&world.grant());
        let mut intake = Intake::new(2);
        let challenge = challenge(&grant.statement, &one_time);
        let covered = vec![covered(&world.dealing, &world)];
        let occasion = intake.begin(&name("alpha"), grant.clone(), challenge, covered, NOON).unwrap().occasion();
        Self { world, intake, one_time, grant, occasion }
    }

    fn approval(&self, custodian: &str) -> Approval {
        approval(custodian, &self.occasion, &self.one_time, &[&self.world.dealing])
    }

    fn send(&mut self, from: &str, note: &[u8], now: Duration) -> Result<Progress, IntakeError> {
        let (one_time, from) = (&self.one_time, name(from));
        self.intake.approve(&self.grant.hash, &from, note, now, |vault, occasion, share| {
            Ok(open_share(one_time, occasion, vault, &from, share).map(drop)?)
        })
    }

    fn approve(&mut self, custodian: &str) -> Result<Progress, IntakeError> {
        let note = sign(custodian, &self.approval(custodian));
        self.send(custodian, note.as_bytes(), NOON)
    }

    /// Opens for real, with what intake hands out.
    fn open(&mut self) {
        let quorate = self.intake.take(&self.grant.hash, NOON).unwrap();
        for (covered, sent) in &quorate.vaults {
            let open = |(who, share): &(Name, _)| open_share(&self.one_time, &quorate.occasion, &covered.vault, who, share).unwrap();
            let shares: Vec<_> = sent.iter().map(open).collect();
            let tpm = &self.world.tpm;
            open_with_tpm(&covered.vault, &name("lux-1"), self.world.half(), &shares, |h, a| tpm.unseal(h, a)).expect("opens");
        }
    }
}

fn covered(dealing: &Dealing, world: &World) -> Covered {
    Covered { vault: dealing.vault.clone(), roster: world.roster.clone() }
}

fn sign(custodian: &str, approval: &Approval) -> String {
    keys_of(custodian).signing_key().sign_statement(custodian, approval)
}

fn approval(custodian: &str, occasion: &Occasion, one_time: &hpke::KeyPair, dealings: &[&Dealing]) -> Approval {
    let share = |d: &&Dealing| {
        let share = open_envelope(&d.quorum, custodian);
        let id = VaultId::of(&d.vault).share(Door::Quorum, &name(custodian), share.index());
        seal_share(one_time.public(), occasion, &id, &share)
    };
    Approval {
        grant: occasion.grant,
        challenge: occasion.challenge,
        custodian: name(custodian),
        shares: dealings.iter().map(share).collect(),
    }
}

#[test]
fn three_of_five_in_any_order_open() {
    for order in [["alpha", "bravo", "charlie"], ["echo", "alpha", "delta"], ["delta", "echo", "alpha"]] {
        let mut c = Ceremony::begin();
        for (i, who) in order.iter().enumerate() {
            let progress = c.approve(who).unwrap();
            assert_eq!(progress, Progress { have: i as u8 + 1, need: 3 });
        }
        let ceremony = c.intake.get(&c.grant.hash, NOON).unwrap();
        assert!(matches!(ceremony.phase(), Phase::Complete { .. }));
        assert_eq!(ceremony.approved_by().count(), 3);
        c.open();
    }
}

#[test]
fn nothing_is_handed_out_before_the_quorum_and_then_once() {
    let mut c = Ceremony::begin();
    for who in ["alpha", "bravo"] {
        c.approve(who).unwrap();
        assert_eq!(c.intake.take(&c.grant.hash, NOON).err(), Some(IntakeError::NoCeremony));
        assert!(!c.intake.is_open(&c.grant.hash, NOON));
    }
    c.approve("charlie").unwrap();
    c.intake.take(&c.grant.hash, NOON).expect("complete");
    assert!(c.intake.take(&c.grant.hash, NOON).is_err());
}

#[test]
fn one_person_alone_backs_no_ceremony() {
    let mut c = Ceremony::begin();
    let backed = |c: &Ceremony| c.intake.get(&c.grant.hash, NOON).unwrap().is_backed();
    assert!(!backed(&c), "proposed only");
    c.approve("alpha").unwrap();
    assert!(!backed(&c), "alpha proposed it, and approved it");
    c.approve("bravo").unwrap();
    assert!(backed(&c));
}

#[test]
fn an_approval_counts_once() {
    let mut c = Ceremony::begin();
    c.approve("alpha").unwrap();
    assert_eq!(c.approve("alpha"), Err(IntakeError::Twice(name("alpha"))));
    // The very same bytes, and a fresh sealing of the same share.
    let note = sign("bravo", &c.approval("bravo"));
    c.send("bravo", note.as_bytes(), NOON).unwrap();
    assert_eq!(c.send("bravo", note.as_bytes(), NOON), Err(IntakeError::Twice(name("bravo"))));
}

#[test]
fn two_verified_at_once_still_count_once() {
    let mut c = Ceremony::begin();
    let note = sign("alpha", &c.approval("alpha"));
    let verify = |c: &Ceremony| c.intake.verify(&c.grant.hash, &name("alpha"), note.as_bytes(), NOON).ok().unwrap();
    let (first, second) = (verify(&c), verify(&c));
    c.intake.accept(first, NOON).unwrap();
    assert_eq!(c.intake.accept(second, NOON), Err(IntakeError::Twice(name("alpha"))));
}

#[test]
fn replay_across_grant_or_challenge_is_refused() {
    let mut c = Ceremony::begin();
    for occasion in [Occasion { grant: Hash32([7; 32]), ..c.occasion }, Occasion { challenge: Hash32([7; 32]), ..c.occasion }] {
        let note = sign("alpha", &approval("alpha", &occasion, &c.one_time, &[&c.world.dealing]));
        assert_eq!(c.send("alpha", note.as_bytes(), NOON), Err(IntakeError::OtherChallenge));
    }
    // Signed anew for this ceremony, but with the share sealed for another.
    let mut mixed = approval("alpha", &Occasion { challenge: Hash32([7; 32]), ..c.occasion }, &c.one_time, &[&c.world.dealing]);
    mixed.challenge = c.occasion.challenge;
    assert!(
        matches!(c.send("alpha", sign("alpha", &mixed).as_bytes(), NOON), Err(IntakeError::Bad(bad)) if bad.custodian == name("alpha"))
    );
    assert_eq!(c.approve("alpha"), Ok(Progress { have: 1, need: 3 }), "the custodian's good approval still counts");
}

#[test]
fn approvals_die_with_their_challenge() {
    let mut c = Ceremony::begin();
    for who in ["alpha", "bravo", "charlie"] {
        c.approve(who).unwrap();
    }
    let old = sign("delta", &c.approval("delta"));
    c.intake.seal();
    // The same grant again, as after a reboot: a new challenge.
    let mut again = challenge(&c.grant.statement, &c.one_time);
    again.nonce.0[0] ^= 1;
    c.intake.begin(&name("alpha"), c.grant.clone(), again, vec![covered(&c.world.dealing, &c.world)], NOON).unwrap();
    assert_eq!(c.send("delta", old.as_bytes(), NOON), Err(IntakeError::OtherChallenge));
    assert!(c.intake.take(&c.grant.hash, NOON).is_err());
}

#[test]
fn a_bad_share_is_blamed_and_changes_nothing() {
    let mut c = Ceremony::begin();
    c.approve("alpha").unwrap();
    // Bravo sends the share of another vault epoch; then one with a flipped byte.
    let other = deal_one(&c.world.roster, "land", 2, &[]);
    let mut bad = c.approval("bravo");
    let id = VaultId::of(c.world.vault()).share(Door::Quorum, &name("bravo"), 2);
    bad.shares[0] = seal_share(c.one_time.public(), &c.occasion, &id, &open_envelope(&other.quorum, "bravo"));
    let mut flipped = c.approval("bravo");
    *flipped.shares[0].sealed.0.last_mut().unwrap() ^= 1;
    for approval in [bad, flipped] {
        let Err(IntakeError::Bad(blame)) = c.send("bravo", sign("bravo", &approval).as_bytes(), NOON) else { panic!("taken") };
        assert_eq!(blame.custodian, name("bravo"));
        assert_eq!(c.intake.get(&c.grant.hash, NOON).unwrap().progress().have, 1);
    }
    c.approve("bravo").unwrap();
    c.approve("charlie").unwrap();
    c.open();
}

#[test]
fn strangers_forgers_and_recovery_custodians_are_refused() {
    let mut c = Ceremony::begin();
    let good = c.approval("alpha");
    assert_eq!(c.send("mallory", sign("mallory", &good).as_bytes(), NOON), Err(IntakeError::Stranger(name("mallory"))));
    assert_eq!(c.send("foxtrot", sign("foxtrot", &good).as_bytes(), NOON), Err(IntakeError::Stranger(name("foxtrot"))));
    // Alpha's name, another's key; alpha's approval, signed by bravo and by alpha, sent by bravo.
    let forged = keys_of("mallory").signing_key().sign_statement("alpha", &good);
    assert_eq!(c.send("alpha", forged.as_bytes(), NOON), Err(IntakeError::Signature(name("alpha"))));
    assert_eq!(c.send("bravo", sign("bravo", &good).as_bytes(), NOON), Err(IntakeError::OtherSender(name("alpha"))));
    assert_eq!(c.send("bravo", sign("alpha", &good).as_bytes(), NOON), Err(IntakeError::Signature(name("bravo"))));
    let text = sign("alpha", &good);
    for cut in [0, 1, text.len() / 2, text.len() - 1] {
        assert!(c.send("alpha", &text.as_bytes()[..cut], NOON).is_err(), "cut at {cut}");
    }
}

#[test]
fn shares_too_many_too_few_or_of_others_are_refused() {
    let mut c = Ceremony::begin();
    let wrong = Err(IntakeError::Shares(name("alpha")));
    let good = c.approval("alpha");
    let mut none = good.clone();
    none.shares.clear();
    let mut twice = good.clone();
    twice.shares.push(good.shares[0].clone());
    let mut elsewhere = good.clone();
    elsewhere.shares[0].vault_epoch = 2;
    let mut as_bravo = good.clone();
    as_bravo.shares[0].index = 2;
    for a in [none, twice, elsewhere, as_bravo] {
        assert_eq!(c.send("alpha", sign("alpha", &a).as_bytes(), NOON), wrong);
    }
}

#[test]
fn after_the_quorum_no_approval_is_taken() {
    let mut c = Ceremony::begin();
    for who in ["alpha", "bravo", "charlie"] {
        c.approve(who).unwrap();
    }
    assert_eq!(c.approve("delta"), Err(IntakeError::Complete));
    c.open();
    assert_eq!(c.approve("delta"), Err(IntakeError::Complete));
    c.intake.opened(&c.grant.hash, NOON).unwrap();
    assert_eq!(c.approve("delta"), Err(IntakeError::Complete));
}

#[test]
fn time_ends_challenges_and_openings_and_only_the_monotonic_clock_counts() {
    let hour = Duration::from_secs(3600);
    let mut c = Ceremony::begin();
    let note = sign("alpha", &c.approval("alpha"));
    assert_eq!(c.send("alpha", note.as_bytes(), NOON + hour), Err(IntakeError::NoCeremony));
    assert!(c.send("alpha", note.as_bytes(), NOON + hour - Duration::from_nanos(1)).is_ok());
    assert_eq!(c.intake.sweep(NOON + hour), [c.grant.hash]);

    let mut c = Ceremony::begin();
    for who in ["alpha", "bravo", "charlie"] {
        c.approve(who).unwrap();
    }
    c.open();
    let later = NOON + Duration::from_secs(10);
    assert_eq!(c.intake.opened(&c.grant.hash, later), Ok(Phase::Open { until: later + hour }));
    assert!(c.intake.opened(&c.grant.hash, later + hour).is_err(), "an opening isn't prolonged");
    assert!(c.intake.is_open(&c.grant.hash, later + hour - Duration::from_nanos(1)));
    assert!(!c.intake.is_open(&c.grant.hash, later + hour), "even before anyone sweeps");
    assert!(c.intake.sweep(later).is_empty());
    assert_eq!(c.intake.sweep(later + hour), [c.grant.hash]);
}

#[test]
fn sealing_ends_everything_at_once() {
    let mut c = Ceremony::begin();
    for who in ["alpha", "bravo", "charlie"] {
        c.approve(who).unwrap();
    }
    c.open();
    c.intake.opened(&c.grant.hash, NOON).unwrap();
    assert_eq!(c.intake.seal(), [c.grant.hash]);
    assert!(!c.intake.is_open(&c.grant.hash, NOON));
    assert_eq!(c.approve("delta"), Err(IntakeError::NoCeremony));
}

#[test]
fn ceremonies_side_by_side_are_bounded_and_apart() {
    let mut c = Ceremony::begin();
    let mut other = c.grant.statement.clone();
    other.nonce.0[0] ^= 1;
    let other = signed(&other);
    let begin = |c: &mut Ceremony, grant: &Signed<Grant>, now| {
        let covered = vec![covered(&c.world.dealing, &c.world)];
        c.intake.begin(&name("alpha"), grant.clone(), challenge(&grant.statement, &c.one_time), covered, now).map(|x| x.occasion())
    };
    let first = c.grant.clone();
    assert_eq!(begin(&mut c, &first, NOON), Err(IntakeError::UnderWay));
    let second = begin(&mut c, &other, NOON).unwrap();
    let mut third = other.statement.clone();
    third.nonce.0[1] ^= 1;
    let third = signed(&third);
    assert_eq!(begin(&mut c, &third, NOON), Err(IntakeError::TooMany(2)));

    // Approvals for one don't count for the other.
    for who in ["alpha", "bravo", "charlie"] {
        c.approve(who).unwrap();
    }
    assert_eq!(c.intake.get(&other.hash, NOON).unwrap().progress().have, 0);
    let crossed = sign("alpha", &approval("alpha", &second, &c.one_time, &[&c.world.dealing]));
    assert_eq!(c.send("alpha", crossed.as_bytes(), NOON), Err(IntakeError::Complete));
    assert!(c.intake.end(&c.grant.hash));
    begin(&mut c, &third, NOON).unwrap();
}

#[test]
fn one_proposer_cannot_take_every_place() {
    let w = World::new();
    let one_time = hpke::KeyPair::generate();
    let mut intake = Intake::new(8);
    let begin = |intake: &mut Intake, who: &str, nonce: u8, now| {
        let mut grant = w.grant();
        grant.nonce.0[0] = nonce;
        let grant = signed(&grant);
        let begun = intake.begin(&name(who), grant.clone(), challenge(&grant.statement, &one_time), vec![covered(&w.dealing, &w)], now);
        begun.map(|c| c.occasion().grant)
    };
    let first = begin(&mut intake, "alpha", 1, NOON).unwrap();
    begin(&mut intake, "alpha", 2, NOON).unwrap();
    let full = IntakeError::TooManyOf(name("alpha"));
    assert_eq!(begin(&mut intake, "alpha", 3, NOON), Err(full.clone()));
    assert!(full.to_string().contains("alpha has proposed 2 grants"), "{full}");
    begin(&mut intake, "bravo", 4, NOON).expect("another's place is free");
    assert_eq!(begin(&mut intake, "alpha", 3, NOON), Err(full));
    // An ended one, or one whose challenge has died, counts no more.
    assert!(intake.end(&first));
    begin(&mut intake, "alpha", 3, NOON).unwrap();
    begin(&mut intake, "alpha", 5, NOON + Duration::from_secs(3600)).unwrap();
}

#[test]
fn who_sends_three_bad_shares_is_heard_no_more_for_that_challenge() {
    let mut c = Ceremony::begin();
    let mut flipped = c.approval("bravo");
    *flipped.shares[0].sealed.0.last_mut().unwrap() ^= 1;
    let bad = sign("bravo", &flipped);
    for _ in 0..3 {
        assert!(matches!(c.send("bravo", bad.as_bytes(), NOON), Err(IntakeError::Bad(_))));
    }
    let barred = Err(IntakeError::Barred(name("bravo")));
    assert_eq!(c.send("bravo", bad.as_bytes(), NOON), barred);
    assert_eq!(c.approve("bravo"), barred, "not even a good one");
    assert_eq!(c.intake.hears(&c.grant.hash, &name("bravo"), NOON), Err(IntakeError::Barred(name("bravo"))));
    // Malformed or forged approvals are blamed on nobody: they cost no check.
    for _ in 0..4 {
        assert_eq!(c.send("alpha", bad.as_bytes(), NOON), Err(IntakeError::Signature(name("alpha"))));
    }
    for who in ["alpha", "charlie", "delta"] {
        c.approve(who).unwrap();
    }
    c.open();
    // Another challenge, another count.
    c.intake.end(&c.grant.hash);
    let mut again = challenge(&c.grant.statement, &c.one_time);
    again.nonce.0[0] ^= 1;
    let covered = vec![covered(&c.world.dealing, &c.world)];
    c.occasion = c.intake.begin(&name("alpha"), c.grant.clone(), again, covered, NOON).unwrap().occasion();
    assert_eq!(c.approve("bravo"), Ok(Progress { have: 1, need: 3 }));
}

#[test]
fn only_the_vaults_of_the_grant_with_their_own_roster_begin_a_ceremony() {
    let w = World::new();
    let one_time = hpke::KeyPair::generate();
    let court = deal_one(&w.roster, "court", 1, &[]);
    let grant = signed(&grant_of(&[&w.dealing, &court]));
    let begin = |covered, change: fn(&mut hoidla_format::statements::Challenge)| {
        let mut challenge = challenge(&grant.statement, &one_time);
        change(&mut challenge);
        Intake::new(2).begin(&name("alpha"), grant.clone(), challenge, covered, NOON).map(drop)
    };
    let (land, other) = (covered(&w.dealing, &w), covered(&court, &w));
    begin(vec![other.clone(), land.clone()], |_| ()).unwrap();
    assert_eq!(begin(vec![land.clone()], |_| ()), Err(IntakeError::Vaults));
    assert_eq!(begin(vec![land.clone(), land.clone()], |_| ()), Err(IntakeError::Vaults));
    assert_eq!(begin(vec![], |_| ()), Err(IntakeError::Vaults));
    let mut easier = other.clone();
    easier.roster.quorum = 2;
    assert_eq!(begin(vec![land.clone(), easier], |_| ()), Err(IntakeError::Vaults));
    let mut lowered = other.clone();
    lowered.vault.quorum = 2;
    assert_eq!(begin(vec![land.clone(), lowered], |_| ()), Err(IntakeError::Vaults));
    let both = || vec![land.clone(), other.clone()];
    assert_eq!(begin(both(), |c| c.grant.0[0] ^= 1), Err(IntakeError::Challenge));
    assert_eq!(begin(both(), |c| c.appliance = name("lux-2")), Err(IntakeError::Challenge));
    assert_eq!(begin(both(), |c| c.valid_for_seconds = 86_401), Err(IntakeError::Challenge));
}

#[test]
fn a_grant_over_two_vaults_needs_both_quorums() {
    let w = World::new();
    // The court's roster: only alpha, bravo, charlie and mike; two of them open.
    let mut court_roster = w.roster.clone();
    court_roster.quorum = 2;
    court_roster.custodians.truncate(3);
    court_roster.custodians.push(keys_of("mike").public_card(&name("mike")));
    let court = deal_one(&court_roster, "court", 1, &[]);
    let one_time = hpke::KeyPair::generate();
    let grant = signed(&grant_of(&[&w.dealing, &court]));
    let mut intake = Intake::new(1);
    let both = vec![covered(&w.dealing, &w), Covered { vault: court.vault.clone(), roster: court_roster }];
    let occasion = intake.begin(&name("alpha"), grant.clone(), challenge(&grant.statement, &one_time), both, NOON).unwrap().occasion();
    assert_eq!(occasion.challenge, hash(&write(&challenge(&grant.statement, &one_time))));
    let mut send = |who: &str, dealings: &[&Dealing]| {
        let note = sign(who, &approval(who, &occasion, &one_time, dealings));
        let who = name(who);
        intake.approve(&grant.hash, &who, note.as_bytes(), NOON, |v, o, s| Ok(open_share(&one_time, o, v, &who, s).map(drop)?))
    };
    assert_eq!(send("delta", &[&w.dealing]), Ok(Progress { have: 0, need: 2 }), "delta guards no court share");
    assert_eq!(send("alpha", &[&w.dealing]), Err(IntakeError::Shares(name("alpha"))), "alpha must bring both");
    send("alpha", &[&w.dealing, &court]).unwrap();
    assert_eq!(send("mike", &[&court]), Ok(Progress { have: 2, need: 3 }));
    send("echo", &[&w.dealing]).unwrap();
    let counts =
        |i: &Intake| i.get(&grant.hash, NOON).unwrap().by_vault().map(|(v, p)| (v.dataset.to_string(), p.have, p.need)).collect::<Vec<_>>();
    assert_eq!(counts(&intake), [("land".into(), 3, 3), ("court".into(), 2, 2)]);
    let quorate = intake.take(&grant.hash, NOON).expect("both quorums are complete");
    assert_eq!(quorate.vaults.iter().map(|(_, s)| s.len()).collect::<Vec<_>>(), [3, 2]);
}
