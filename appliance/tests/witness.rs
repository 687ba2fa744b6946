//! Another site's log through this appliance's eyes: signed while it grows, refused when it forks.
#![forbid(unsafe_code)]

mod common;

use common::*;
use hoidla_door::{Connection, DoorError};
use hoidla_format::{Bytes, statement, statements::Site};
use hoidla_log::SignedCheckpoint;
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
        let office = Office::new(9);
        let mut site: Site = office.site("mun", &["mun-1"]);
        site.authority = Bytes(e.home.verifying().to_sec1());
        let appliance = SoftAppliance::new(&site, "mun-1", 5);
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
        let papers = self.papers.iter().map(|p| p.clone().into_bytes()).collect();
        let extension = log.extension(old, signed).write().into_bytes();
        match c.ask(&Request::Witness(Witness { papers, extension })).await? {
            Response::Witnessed(note) => Ok(SignedCheckpoint::parse(&note).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_signed_while_it_grows_and_a_fork_is_an_alarm() {
    let e = Embassy::new(512 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let (other, log) = (Other::new(&e), Log::of(9, 1));
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
    assert_eq!(other.show(&mut c, &log, 5, &nine).await.unwrap().note().signatures.len(), 2);
    assert_eq!(other.show(&mut c, &log, 9, &nine).await.unwrap().note().signatures.len(), 2, "the same head again");

    // Another head of the same size, and a longer log that does not begin with what was seen.
    let forked = Log::of(12, 2);
    assert_eq!(code(other.show(&mut c, &forked, 0, &other.signed(&forked, 9, 19)).await.unwrap_err()), Code::Fork);
    assert_eq!(code(other.show(&mut c, &forked, 9, &other.signed(&forked, 12, 19)).await.unwrap_err()), Code::Fork);
    let Response::Health(health) = c.ask(&Request::Health).await.unwrap() else { panic!("no health") };
    assert_eq!(health.alarms, 2);
    let kept = std::fs::read_dir(e.state().folder().join("witnessed.forks")).unwrap().count();
    assert_eq!(kept, 2, "both heads of each fork are kept");

    // Not its own log, not another key, not another authority's.
    let stranger = SoftAppliance::new(&Office::new(9).site("mun", &["mun-1"]), "mun-1", 6);
    let forged = stranger.sign(&log.head(&stranger, 9, 20));
    assert_eq!(code(other.show(&mut c, &log, 9, &forged).await.unwrap_err()), Code::NotAllowed);
    let foreign = Other { papers: Office::new(3).papers(&Office::new(3).site("mun", &["mun-1"]), &[&other.appliance]), ..Other::new(&e) };
    assert_eq!(code(foreign.show(&mut c, &log, 9, &nine).await.unwrap_err()), Code::NotAllowed);
    drop(c);
    running.stop().await;
}
