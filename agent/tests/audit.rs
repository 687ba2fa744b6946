//! Auditing an embassy, and every way in which it might lie.
#![forbid(unsafe_code)]

mod common;

use std::{fs, path::Path};

use common::{Embassy, Lie, folder};
use hoidla_agent::{
    audit::{Alarm, Auditor, Other, after_push},
    home::Home,
    state::State,
};
use hoidla_cli::{Outcome, PassphraseSource};
use hoidla_format::statement;
use hoidla_log::{Extension, Receipt, SignedCheckpoint};
use hoidla_papers::SoftAppliance;
use hoidla_protocol::{Request, Response, Witness};

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

#[test]
fn a_head_is_seen_by_another_appliance_and_a_fork_there_is_an_alarm() {
    let w = World::new();
    let e = &w.embassy;
    let two = SoftAppliance::new(&e.site, "lux-2", 8);
    let papers =
        vec![e.sign(&e.site).into_bytes(), e.sign(&two.enrolment(&e.site)).into_bytes(), statement::write(&two.identity).into_bytes()];
    let old = e.store().log.signed(&e.appliance, 17);
    fs::write(e.path("data/more"), "more").unwrap();
    w.push();
    let carry = |answer: &dyn Fn(&Witness, usize) -> SignedCheckpoint| {
        let (mut auditor, mut asked) = (w.enter().unwrap(), 0);
        let head = auditor.checkpoint(0).unwrap();
        let mut ask = |request: &Request| {
            let Request::Witness(witness) = request else { panic!("{request:?}") };
            asked += 1;
            Ok(Response::Witnessed(answer(witness, asked).write().into_bytes()))
        };
        auditor.witnessed(&head, &mut Other { origin: two.origin(), papers: papers.clone(), ask: &mut ask })
    };
    let shown = |w: &Witness| Extension::parse(&w.extension).unwrap();
    // It saw an older head before: the second time, ours begins there.
    let seen = carry(&|witness, asked| {
        let extension = shown(witness);
        if asked == 1 {
            return old.clone();
        }
        extension.follows(old.head()).unwrap();
        two.witness(&extension.checkpoint)
    });
    assert_eq!(seen.unwrap().note().signatures.len(), 2);
    assert_eq!(checkpoint(&w.kept().join("checkpoint.txt")).note().signatures.len(), 2, "kept with its line");
    // Without a line, or with another's, it doesn't count.
    assert!(carry(&|witness, _| shown(witness).checkpoint).is_err());
    let stranger = SoftAppliance::new(&e.site, "lux-2", 9);
    assert!(carry(&|witness, _| stranger.witness(&shown(witness).checkpoint)).is_err());
    // It saw another history, signed by our appliance: both are kept.
    let mut forked = e.store().log.clone();
    forked.leaves[0].epoch += 1;
    let forked = forked.signed(&e.appliance, 17);
    let alarm = carry(&|_, _| forked.clone()).unwrap_err().downcast::<Alarm>().unwrap();
    assert!(alarm.what.contains("does not begin with"), "{}", alarm.what);
}
