//! Auditing an embassy, and every way in which it might lie.
#![forbid(unsafe_code)]

mod common;

use std::{fs, path::Path};

use clap::Parser as _;
use common::{Embassy, Lie, folder};
use hoidla_agent::{
    Arguments,
    audit::{Alarm, Auditor, Other, WITNESSES, after_push},
    home::Home,
    run,
    state::State,
};
use hoidla_cli::{Outcome, PassphraseSource};
use hoidla_format::statement;
use hoidla_log::{Extension, Receipt, SignedCheckpoint};
use hoidla_papers::SoftAppliance;
use hoidla_protocol::{Code, Refused, Request, Response};

struct World {
    embassy: Embassy,
    home: Home,
}

impl World {
    /// With one push done.
    fn new() -> Self {
        let embassy = Embassy::new();
        let dir = embassy.home("home", 3600);
        folder(&embassy.path("data"), 1);
        let world = Self { home: Home::open(&dir, &PassphraseSource::default()).unwrap(), embassy };
        world.push();
        world
    }

    fn push(&self) -> State {
        self.embassy.push(&self.home.dir, &self.embassy.path("data")).unwrap().state
    }

    fn lie(&self, lie: impl Into<Option<Lie>>) {
        self.embassy.store().trouble.lie = lie.into();
    }

    fn enter(&self) -> anyhow::Result<Auditor<'_>> {
        Auditor::enter(&self.home, &self.embassy.target)
    }

    /// A checkpoint, all receipts, some samples.
    fn audit(&self) -> anyhow::Result<u64> {
        let mut auditor = self.enter()?;
        let least = auditor.log_size()?;
        let head = auditor.checkpoint(least)?;
        let mut receipts = vec![];
        for state in State::all(&self.home.dir)? {
            receipts.push(auditor.receipt(&head, state.stream, state.acknowledged)?);
        }
        let sampled = auditor.sample(&head, &receipts.iter().collect::<Vec<_>>(), 8, |_| {})?;
        assert_eq!(sampled.frames, 8);
        Ok(head.signed.head().size)
    }

    fn kept(&self) -> std::path::PathBuf {
        self.home.dir.join("audit/lux-lux-1")
    }

    fn alarm(&self, result: anyhow::Result<u64>) -> Alarm {
        result.unwrap_err().downcast::<Alarm>().unwrap_or_else(|e| panic!("no alarm: {e:#}"))
    }
}

fn checkpoint(path: &Path) -> SignedCheckpoint {
    SignedCheckpoint::parse(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_honest_embassy_passes_and_leaves_a_receipt() {
    let w = World::new();
    let first = w.audit().unwrap();
    assert_eq!(checkpoint(&w.kept().join("checkpoint.txt")).head().size, first);
    fs::write(w.embassy.path("data/more"), "more").unwrap();
    let state = w.push();
    let second = w.audit().unwrap();
    assert!(second > first);
    let receipt = Receipt::parse(&fs::read(w.kept().join(format!("receipts/{}.txt", state.stream))).unwrap()).unwrap();
    assert_eq!(receipt.covers(), state.acknowledged);
    assert_eq!(receipt.checkpoint().head().size, second);
    assert!(fs::read_dir(w.kept()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with("alarm")));
}

#[test]
fn every_lie_about_the_log_is_an_alarm_that_keeps_both_sides() {
    let w = World::new();
    let size = w.audit().unwrap();
    let lies = [Lie::Fork, Lie::Shorter, Lie::Behind, Lie::Counter, Lie::Key, Lie::State, Lie::Name, Lie::Garbage];
    for (n, lie) in lies.into_iter().enumerate() {
        w.lie(lie);
        let alarm = w.alarm(w.audit());
        let evidence = alarm.evidence.clone().unwrap();
        assert_eq!(evidence, w.kept().join(format!("alarm-{}", n + 1)), "{lie:?}");
        assert_eq!(checkpoint(&evidence.join("kept.txt")).head().size, size);
        assert!(!fs::read(evidence.join("shown")).unwrap().is_empty());
        assert!(fs::read_to_string(evidence.join("what.txt")).unwrap().contains(&alarm.what));
        let told = alarm.to_string();
        assert!(told.contains("ALARM") && told.contains("whom to tell"), "{told}");
        assert_eq!(checkpoint(&w.kept().join("checkpoint.txt")).head().size, size, "{lie:?}: what was believed stays");
    }
    w.lie(None);
    assert_eq!(w.audit().unwrap(), size, "the truth is believed again");
}

#[test]
fn a_fork_is_found_when_it_has_grown_too() {
    let w = World::new();
    w.audit().unwrap();
    fs::write(w.embassy.path("data/more"), "more").unwrap();
    w.push();
    w.lie(Lie::Fork);
    assert!(w.alarm(w.audit()).what.contains("does not begin with"));
}

#[test]
fn proofs_of_other_places_and_damaged_frames_are_alarms() {
    let w = World::new();
    w.audit().unwrap();
    for (lie, says) in
        [(Lie::Place, "another place"), (Lie::Proof, "not in its log"), (Lie::Frame, "not the one"), (Lie::Gone, "no longer shows")]
    {
        w.lie(lie);
        let alarm = w.alarm(w.audit());
        assert!(alarm.what.contains(says), "{lie:?}: {}", alarm.what);
    }
}

#[test]
fn other_bytes_than_were_acknowledged_are_an_alarm() {
    let w = World::new();
    let mut auditor = w.enter().unwrap();
    let head = auditor.checkpoint(0).unwrap();
    let state = State::all(&w.home.dir).unwrap()[0];
    let mut other = state.acknowledged;
    other.root.0[0] ^= 1;
    let e = auditor.receipt(&head, state.stream, other).err().unwrap();
    assert!(e.downcast_ref::<Alarm>().unwrap().what.contains("other bytes"));
}

#[test]
fn a_push_never_fails_for_want_of_a_receipt_but_for_a_contradiction() {
    let w = World::new();
    let state = State::all(&w.home.dir).unwrap()[0];
    let push = |lie: Option<Lie>| {
        w.lie(lie);
        let said = std::cell::RefCell::new(String::new());
        let (outcome, value) = after_push(&w.home, &w.embassy.target, &state, &|line| *said.borrow_mut() += line);
        (outcome, value, said.into_inner())
    };
    let (outcome, value, _) = push(None);
    assert_eq!((outcome, &value["covers"]), (Outcome::Done, &serde_json::json!(state.acknowledged.length)));
    for lie in [Lie::Hangs, Lie::Papers] {
        // A new agent's folder: nothing kept from before helps.
        fs::remove_dir_all(w.home.dir.join("audit")).unwrap();
        let (outcome, value, said) = push(Some(lie));
        assert_eq!(outcome, Outcome::Done, "{lie:?}");
        assert!(value["missing"].is_string() && said.contains("without a receipt"), "{said}");
    }
    push(None);
    let (outcome, value, said) = push(Some(Lie::Fork));
    assert_eq!(outcome, Outcome::No);
    assert!(value["alarm"].is_string() && said.contains("ALARM"), "{said}");
    // It stays a no however often it was told before.
    (1..=1000).for_each(|n| _ = fs::create_dir(w.kept().join(format!("alarm-{n}"))));
    assert_eq!(push(Some(Lie::Fork)).0, Outcome::No);
}

#[test]
fn a_damaged_record_at_home_is_an_error_and_no_alarm() {
    let w = World::new();
    w.audit().unwrap();
    let path = w.kept().join("checkpoint.txt");
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] = b' ';
    fs::write(&path, bytes).unwrap();
    let e = w.audit().unwrap_err();
    assert!(e.downcast_ref::<Alarm>().is_none() && format!("{e:#}").contains("damaged"), "{e:#}");
}

/// A second appliance, played by the test, to which heads are carried.
struct Watch {
    two: SoftAppliance,
    papers: Vec<Vec<u8>>,
}

impl Watch {
    fn new(e: &Embassy) -> Self {
        let two = SoftAppliance::new(&e.site, "lux-2", 8);
        let papers = [e.sign(&e.site), e.sign(&two.enrolment(&e.site)), statement::write(&two.identity)];
        Self { two, papers: papers.map(String::into_bytes).to_vec() }
    }

    /// Carries the newest head; the closure answers, and is told how often it was asked.
    fn carry(
        &self,
        w: &World,
        answer: impl Fn(&Extension, usize) -> Result<SignedCheckpoint, Refused>,
    ) -> anyhow::Result<SignedCheckpoint> {
        let (mut auditor, mut asked) = (w.enter().unwrap(), 0);
        let head = auditor.checkpoint(0).unwrap();
        let mut ask = |request: &Request| {
            let Request::Witness(witness) = request else { panic!("{request:?}") };
            asked += 1;
            Ok(Response::Witnessed(answer(&Extension::parse(&witness.extension).unwrap(), asked)?.write().into_bytes()))
        };
        auditor.witnessed(&head, &mut Other { origin: self.two.origin(), papers: self.papers.clone(), ask: &mut ask })
    }
}

#[test]
fn a_head_is_seen_by_another_appliance_and_its_line_stays() {
    let w = World::new();
    let (e, watch) = (&w.embassy, Watch::new(&w.embassy));
    let old = e.store().log.signed(&e.appliance, 17);
    fs::write(e.path("data/more"), "more").unwrap();
    w.push();
    // It saw an older head before: the second time, ours begins there.
    let seen = watch.carry(&w, |extension, asked| {
        if asked == 1 {
            return Ok(old.clone());
        }
        extension.follows(old.head()).unwrap();
        Ok(watch.two.witness(&extension.checkpoint))
    });
    let seen = seen.unwrap();
    assert_eq!(seen.note().signatures.len(), 2);
    // Audits and pushes go on from bare heads, and it stays; what they show extends it.
    fs::write(e.path("data/yet more"), "yet more").unwrap();
    w.push();
    let size = w.audit().unwrap();
    let kept = w.kept().join("witnessed/lux.lux-2.txt");
    assert_eq!(checkpoint(&kept), seen);
    assert!(size > seen.head().size && checkpoint(&w.kept().join("checkpoint.txt")).note().signatures.len() == 1);
    let mut auditor = w.enter().unwrap();
    let heads: Vec<_> = auditor.kept().seen().unwrap().into_iter().map(|s| s.head).collect();
    assert_eq!(heads, std::slice::from_ref(&seen));
    let (head, led) = auditor.leading_from(&heads, size).unwrap();
    led[0].extension.follows(seen.head()).unwrap();
    assert_eq!(led[0].extension.checkpoint, head.signed);
    assert_eq!(auditor.kept().seen_papers().unwrap().len(), watch.papers.len());
    drop(auditor);
    // An older one doesn't take its place.
    w.enter().unwrap().kept().keep_seen(&watch.two.origin(), &watch.two.witness(&old), &watch.papers).unwrap();
    assert_eq!(checkpoint(&kept), seen);

    // Without a line, or with another's, a head doesn't count.
    assert!(watch.carry(&w, |extension, _| Ok(extension.checkpoint.clone())).is_err());
    let stranger = SoftAppliance::new(&e.site, "lux-2", 9);
    assert!(watch.carry(&w, |extension, _| Ok(stranger.witness(&extension.checkpoint))).is_err());
    assert_eq!(checkpoint(&kept), seen);
}

#[test]
fn what_a_witness_saw_is_an_alarm_only_if_it_is_signed() {
    let w = World::new();
    let (e, watch) = (&w.embassy, Watch::new(&w.embassy));
    let ours = e.store().log.signed(&e.appliance, 17);
    let alarms =
        || fs::read_dir(w.kept()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("alarm")).count();
    // Its word alone, or a head that another key signed, accuses nobody.
    let no = watch.carry(&w, |_, _| Err(Refused::new(Code::Fork, "another head of that log was seen here"))).unwrap_err();
    assert!(no.downcast_ref::<Alarm>().is_none() && format!("{no:#}").contains("without proof"), "{no:#}");
    let mut forked = e.store().log.clone();
    forked.leaves[0].epoch += 1;
    let stranger = SoftAppliance::new(&e.site, "lux-1", 9);
    let no = watch.carry(&w, |_, _| Ok(forked.signed(&stranger, 17))).unwrap_err();
    assert!(no.downcast_ref::<Alarm>().is_none() && format!("{no:#}").contains("it is none"), "{no:#}");
    assert_eq!(alarms(), 0);
    // Another history of the same size that our appliance signed: both heads are the evidence.
    let other = forked.signed(&e.appliance, 17);
    let alarm = watch.carry(&w, |_, _| Ok(other.clone())).unwrap_err().downcast::<Alarm>().unwrap();
    assert!(alarm.what.contains("two different logs"), "{}", alarm.what);
    assert_eq!(fs::read_to_string(alarm.evidence.unwrap().join("shown")).unwrap(), format!("{}\n{}", other.write(), ours.write()));
    // A shorter log, signed when the counter stood higher: it went back since, whatever proof there is.
    let shorter = e.appliance.sign(&e.store().log.head(&e.appliance, ours.head().size - 1, 18));
    let alarm = watch.carry(&w, |_, _| Ok(shorter.clone())).unwrap_err().downcast::<Alarm>().unwrap();
    assert!(alarm.what.contains("counter"), "{}", alarm.what);
    // Another history of other leaves: the log can't show that it begins with them.
    forked.leaves.truncate(ours.head().size as usize - 1);
    let other = forked.signed(&e.appliance, 17);
    let alarm = watch.carry(&w, |_, _| Ok(other.clone())).unwrap_err().downcast::<Alarm>().unwrap();
    assert!(alarm.what.contains("does not begin with"), "{}", alarm.what);
    assert!(fs::read_to_string(alarm.evidence.unwrap().join("shown")).unwrap().starts_with(&other.write()));
    assert_eq!(alarms(), 3);
}

#[test]
fn evidence_leads_from_the_head_that_the_auditor_kept() {
    let w = World::new();
    let e = &w.embassy;
    w.audit().unwrap();
    let theirs = e.path("theirs.txt");
    fs::copy(w.kept().join("checkpoint.txt"), &theirs).unwrap();
    for n in 0..2 {
        fs::write(e.path("data").join(format!("more {n}")), "more").unwrap();
        w.push();
        w.audit().unwrap();
    }
    let audit = |to: &str, since: Option<&Path>| {
        let (home, to) = (w.home.dir.to_str().unwrap(), e.path(to));
        let mut args = vec!["hoidla-agent", "audit", "--quiet", "--home", home, "--samples", "2", "--evidence", to.to_str().unwrap()];
        args.extend(since.into_iter().flat_map(|f| ["--since", f.to_str().unwrap()]));
        let done = run(Arguments::try_parse_from(args).unwrap());
        done.map(|outcome| (outcome, fs::read(to.join("before.txt")).ok(), fs::read(to.join("extension.txt")).ok()))
    };
    let (outcome, before, extension) = audit("evidence-1", Some(&theirs)).unwrap();
    assert_eq!((outcome, before.unwrap()), (Outcome::Done, fs::read(&theirs).unwrap()));
    Extension::parse(&extension.unwrap()).unwrap().follows(checkpoint(&theirs).head()).unwrap();
    let (_, before, _) = audit("evidence-2", None).unwrap();
    assert_ne!(before.unwrap(), fs::read(&theirs).unwrap(), "without it, from the last one kept here");
    // What is no head of this log accuses nobody; a head of another history does.
    let stranger = SoftAppliance::new(&e.site, "lux-1", 9);
    let log = e.store().log.clone();
    fs::write(&theirs, log.signed(&stranger, 17).write()).unwrap();
    assert!(format!("{:#}", audit("evidence-3", Some(&theirs)).unwrap_err()).contains("from which the evidence shall lead"));
    let mut forked = log;
    forked.leaves[0].epoch += 1;
    fs::write(&theirs, forked.signed(&e.appliance, 17).write()).unwrap();
    assert_eq!(audit("evidence-4", Some(&theirs)).unwrap().0, Outcome::No);
    assert!(w.kept().join("alarm-1/shown").exists() && !e.path("evidence-4").exists());
}

#[test]
fn a_push_to_an_embassy_that_went_back_is_the_same_no_as_an_audit() {
    let w = World::new();
    let e = &w.embassy;
    let push = || {
        let args = ["hoidla-agent", "push", "--quiet", "--home", w.home.dir.to_str().unwrap(), "--address", &e.target.address];
        let path = e.path("data");
        run(Arguments::try_parse_from(args.into_iter().chain([path.to_str().unwrap()])).unwrap())
    };
    e.store().only().frames.pop();
    assert_eq!(push().unwrap(), Outcome::No);
    assert!(fs::read_to_string(w.kept().join("alarm-1/what.txt")).unwrap().contains("behind"));
    w.lie(Lie::Behind);
    assert!(!w.alarm(w.audit()).what.is_empty());
    // A full disk is no alarm.
    w.lie(None);
    e.store().streams.clear();
    fs::remove_dir_all(w.home.dir.join("streams")).unwrap();
    e.store().trouble.full_after = Some(0);
    assert!(format!("{:#}", push().unwrap_err()).contains("full"));
}

#[test]
fn heads_are_carried_after_a_push_to_those_that_the_file_names() {
    let w = World::new();
    let state = State::all(&w.home.dir).unwrap()[0];
    let push = |named: &str| {
        fs::write(w.home.dir.join(WITNESSES), named).unwrap();
        let (outcome, value) = after_push(&w.home, &w.embassy.target, &state, &|_| {});
        assert_eq!((outcome, &value["covers"]), (Outcome::Done, &serde_json::json!(state.acknowledged.length)), "the push stands");
        value["witnesses"].as_array().unwrap().clone()
    };
    assert!(push("lux-1\n").is_empty(), "no appliance sees its own heads");
    assert!(push("lux-7")[0]["not"].as_str().unwrap().contains("no such appliance"));
    assert!(push("What is this?\n")[0]["not"].as_str().unwrap().contains("write a line each"));
    // Another site's appliance, which isn't there: tried once an hour, and never with a question for a passphrase.
    let there = w.embassy.home_of("agent-2", "there", 3600);
    fs::remove_file(there.join("passphrase")).unwrap();
    assert!(push(&format!("lux-1 {}", there.display()))[0]["not"].as_str().unwrap().contains("unattended"));
    let origin = "hoidla/mun/mun-1";
    let auditor = w.enter().unwrap();
    let hour = std::time::Duration::from_secs(3600);
    assert!(auditor.kept().is_due(origin, hour).unwrap() && !auditor.kept().is_due(origin, hour).unwrap());
    assert!(auditor.kept().is_due(origin, std::time::Duration::ZERO).unwrap());
}
