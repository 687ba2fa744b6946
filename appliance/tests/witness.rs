//! Another site's log through this appliance's eyes: signed while it grows, refused when it forks.
#![forbid(unsafe_code)]

mod common;

use common::*;
use hoidla_door::{Connection, DoorError};
use hoidla_format::{Bytes, Hash32, statement, statement::Signature, statements::Site};
use hoidla_log::{Extension, SignedCheckpoint};
use hoidla_papers::{Log, Office, SoftAppliance, register};
use hoidla_protocol::{Code, Request, Response, Witness};
use hoidla_verify::{Known, checkpoint};

/// Another site of the same authority, with an appliance whose TPM does what the test wants.
struct Other {
    papers: Vec<String>,
    appliance: SoftAppliance,
}

impl Other {
    fn new(e: &Embassy) -> Self {
        Self::with(e, |_| {})
    }

    fn with(e: &Embassy, change: impl FnOnce(&mut SoftAppliance)) -> Self {
        let office = Office::new(9);
        let mut site: Site = office.site("mun", &["mun-1"]);
        site.authority = Bytes(e.home.verifying().to_sec1());
        let mut appliance = SoftAppliance::new(&site, "mun-1", 5);
        change(&mut appliance);
        let release = office.release(&site, 1, [4, 11, 12, 13].map(register).to_vec());
        let papers = vec![
            e.home.sign(&site),
            e.home.sign(&release),
            e.home.sign(&appliance.enrolment(&site)),
            statement::write(&appliance.identity),
        ];
        Self { papers, appliance }
    }

    fn signed(&self, log: &Log, size: u64, counter: u64) -> SignedCheckpoint {
        self.appliance.sign(&log.head(&self.appliance, size, counter))
    }

    async fn show(&self, c: &mut Connection, log: &Log, old: u64, signed: &SignedCheckpoint) -> Result<SignedCheckpoint, DoorError> {
        self.ask(c, log.extension(old, signed)).await
    }

    async fn ask(&self, c: &mut Connection, extension: Extension) -> Result<SignedCheckpoint, DoorError> {
        let papers = self.papers.iter().map(|p| p.clone().into_bytes()).collect();
        let extension = extension.write().into_bytes();
        match c.ask(&Request::Witness(Witness { papers, extension })).await? {
            Response::Witnessed(note) => Ok(SignedCheckpoint::parse(&note).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

async fn alarms(c: &mut Connection) -> u64 {
    match c.ask(&Request::Health).await.unwrap() {
        Response::Health(health) => health.alarms,
        other => panic!("{other:?}"),
    }
}

fn forks(e: &Embassy) -> usize {
    std::fs::read_dir(e.state().folder().join("witnessed.forks")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_signed_while_it_grows_and_a_fork_is_an_alarm() {
    let e = Embassy::new(512 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let (other, log) = (Other::new(&e), Log::of(12, 1));
    let five = other.signed(&log, 5, 17);
    let seen = other.show(&mut c, &log, 0, &five).await.unwrap();
    assert_eq!((seen.note().text.clone(), seen.note().signatures.len()), (five.note().text.clone(), 2));

    // Under both papers it counts as a witness.
    let mut papers: Vec<Vec<u8>> = other.papers.iter().map(|p| p.clone().into_bytes()).collect();
    c.ask_parts(&Request::Papers, |part| {
        let Response::Paper(paper) = part else { panic!("{part:?}") };
        papers.push(paper);
        Ok(())
    })
    .await
    .unwrap();
    let known = Known::gather(&e.home.verifying(), papers.iter().map(Vec::as_slice)).unwrap();
    let verified = checkpoint::check(&seen, &known).unwrap();
    assert_eq!(verified.witnesses.len(), 1);

    // What doesn't begin at the last head seen is answered with that head; what does is signed, after a restart too.
    let nine = other.signed(&log, 9, 18);
    let last = other.show(&mut c, &log, 3, &nine).await.unwrap();
    assert_eq!(last, five);
    assert_eq!(other.show(&mut c, &log, 0, &other.signed(&log, 4, 16)).await.unwrap(), five, "an older head");
    drop(c);
    running.stop().await;
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    let seen = other.show(&mut c, &log, 5, &nine).await.unwrap();
    assert_eq!(seen.note().signatures.len(), 2);
    assert_eq!(other.show(&mut c, &log, 9, &nine).await.unwrap(), seen, "the same head is not signed again");

    // A proof that doesn't lead there is anybody's to make: no fork.
    let twelve = other.signed(&log, 12, 19);
    let mut cut = log.extension(9, &twelve);
    cut.proof.clear();
    assert_eq!(code(other.ask(&mut c, cut).await.unwrap_err()), Code::NotAllowed);
    let mut spare = log.extension(9, &nine);
    spare.proof.push(Hash32([7; 32]));
    let again = other.signed(&log, 9, 19);
    spare.checkpoint = again;
    assert_eq!(code(other.ask(&mut c, spare).await.unwrap_err()), Code::NotAllowed);
    let forked = Log::of(12, 2);
    assert_eq!(code(other.show(&mut c, &forked, 9, &other.signed(&forked, 12, 19)).await.unwrap_err()), Code::NotAllowed);
    assert_eq!((alarms(&mut c).await, forks(&e)), (0, 0));

    // Two roots of one size, and a longer log at an earlier count; each pair is one alarm, and stays one.
    let nine_too = other.signed(&forked, 9, 19);
    for _ in 0..2 {
        assert_eq!(
            other.show(&mut c, &forked, 0, &nine_too).await.unwrap(),
            nine,
            "the head that it contradicts, for the carrier to judge"
        );
        assert_eq!((alarms(&mut c).await, forks(&e)), (1, 1));
    }
    assert_eq!(other.show(&mut c, &log, 9, &other.signed(&log, 12, 17)).await.unwrap(), nine);
    // A shorter log at a later count: put back, and signed again.
    assert_eq!(other.show(&mut c, &log, 0, &other.signed(&log, 8, 19)).await.unwrap(), nine);
    drop(c);
    running.stop().await;
    let running = e.start().await;
    let mut c = running.enter(&agent.door).await.unwrap();
    assert_eq!((alarms(&mut c).await, forks(&e)), (3, 3), "both heads of each are kept, and a restart forgets no alarm");

    // Nobody else's line is kept or handed on.
    let mut note = twelve.note().clone();
    note.signatures.push(Signature { name: "hoidla/els/els-1".into(), key_id: [1; 4], bytes: vec![2; 96] });
    let with_junk = SignedCheckpoint::parse(note.write().as_bytes()).unwrap();
    let seen = other.show(&mut c, &log, 9, &with_junk).await.unwrap();
    assert_eq!((&seen.note().signatures[0], seen.note().signatures.len()), (&twelve.note().signatures[0], 2));

    // Not its own log, not another key, not another authority's.
    let stranger = SoftAppliance::new(&Office::new(9).site("mun", &["mun-1"]), "mun-1", 6);
    let forged = stranger.sign(&log.head(&stranger, 12, 20));
    assert_eq!(code(other.show(&mut c, &log, 12, &forged).await.unwrap_err()), Code::NotAllowed);
    let foreign = Other { papers: Office::new(3).papers(&Office::new(3).site("mun", &["mun-1"]), &[&other.appliance]), ..Other::new(&e) };
    assert_eq!(code(foreign.show(&mut c, &log, 12, &other.signed(&log, 12, 20)).await.unwrap_err()), Code::NotAllowed);
    let itself = Other::with(&e, |a| a.identity.ek = e.identity.ek.clone());
    let why = itself.show(&mut c, &log, 12, &itself.signed(&log, 12, 21)).await.unwrap_err();
    assert!(why.to_string().contains("one TPM"), "{why}");
    drop(c);
    running.stop().await;
}
