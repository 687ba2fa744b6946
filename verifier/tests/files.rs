//! The verifier on folders with one thing wrong each.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use hoidla_crypto::{Secret, sign::SigningKey};
use hoidla_format::{
    Bytes, Moment, statement,
    statements::{AgentCertificate, Completeness, KeptStream, Site},
};
use hoidla_log::SignedCheckpoint;
use hoidla_papers::{Log, Office, SoftAppliance, name};
use hoidla_quorum::fingerprint;
use hoidla_verify_cli::{Arguments, Report, Verdict, report};

struct World {
    dir: tempfile::TempDir,
    office: Office,
    site: Site,
    one: SoftAppliance,
    agent: SigningKey,
    log: Log,
    signed: SignedCheckpoint,
}

impl World {
    /// A folder of evidence as an agent writes it, all right.
    fn new() -> Self {
        let office = Office::new(1);
        let site = office.site("lux", &["lux-1", "lux-2"]);
        let (one, two) = (SoftAppliance::new(&site, "lux-1", 2), SoftAppliance::new(&site, "lux-2", 3));
        let log = Log::of(7, 1);
        let signed = two.witness(&log.signed(&one, 18));
        let agent = SigningKey::from_secret(&Secret::filled(|b| b.fill(4)));
        let w = Self { dir: tempfile::tempdir().unwrap(), office, site, one, agent, log, signed };
        fs::create_dir_all(w.path("papers")).unwrap();
        fs::create_dir_all(w.path("receipts")).unwrap();
        for (n, paper) in w.office.papers(&w.site, &[&w.one, &two]).into_iter().enumerate() {
            w.put(&format!("papers/{n}.txt"), &paper);
        }
        let before = w.log.head(&w.one, 4, 17);
        w.put("before.txt", &w.one.sign(&before).write());
        w.put("extension.txt", &w.log.extension(4, &w.signed).write());
        w.put("checkpoint.txt", &w.signed.write());
        let receipt = w.log.receipt(6, &w.signed);
        w.put(&format!("receipts/{}.txt", receipt.leaf().stream), &receipt.write());
        w.put("agent.txt", &w.office.sign(&w.certificate()));
        w.say(&w.statement());
        w
    }

    fn certificate(&self) -> AgentCertificate {
        AgentCertificate {
            site: name("lux"),
            dataset: name("land"),
            agent: name("agent-1"),
            key: Bytes(self.agent.verifying_key().to_sec1()),
            issued: Moment::from_seconds(1_800_000_000),
            not_after: Moment::from_seconds(1_900_000_000),
        }
    }

    fn statement(&self) -> Completeness {
        let covers = self.log.receipt(6, &self.signed).covers();
        let (head, stream) = (self.signed.head(), self.log.leaves[6].stream);
        Completeness {
            site: name("lux"),
            appliance: name("lux-1"),
            dataset: name("land"),
            agent: name("agent-1"),
            checkpoint: self.signed.note().hash(),
            log_size: head.size,
            counter: head.counter,
            sampled_frames: 3,
            sampled_bytes: 300,
            created: Moment::from_seconds(1_850_000_000),
            streams: vec![KeptStream { generation: 1, stream, length: covers.length, root: covers.root, copied_here: true }],
        }
    }

    fn say(&self, statement: &Completeness) {
        self.put("statement.txt", &self.agent.sign_statement("agent-1", statement));
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    fn two(&self) -> SoftAppliance {
        SoftAppliance::new(&self.site, "lux-2", 3)
    }

    /// Another appliance's word about an earlier head, and the way from there to the statement's.
    fn seen(&self, head: &SignedCheckpoint) {
        fs::create_dir_all(self.path("witnessed/lux.lux-2")).unwrap();
        self.put("witnessed/lux.lux-2/head.txt", &head.write());
        self.put("witnessed/lux.lux-2/extension.txt", &self.log.extension(head.head().size, &self.signed).write());
    }

    fn receipt(&self) -> PathBuf {
        self.path(&format!("receipts/{}.txt", self.log.leaves[6].stream))
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<Report> {
        let digits = fingerprint::of_key(&self.office.authority.verifying_key());
        self.under(&digits, words)
    }

    fn under(&self, digits: &str, words: &[&str]) -> anyhow::Result<Report> {
        let all = ["hoidla-verify", "--authority", digits].into_iter().chain(words.iter().copied());
        report(&Arguments::try_parse_from(all).unwrap())
    }

    fn folder(&self) -> anyhow::Result<Report> {
        self.run(&["statement", self.dir.path().to_str().unwrap()])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn whole(report: anyhow::Result<Report>) -> Report {
    let report = report.unwrap();
    assert_eq!(report.verdict, Verdict::Whole, "{report:?}");
    assert!(!report.proven.is_empty() && !report.not.is_empty(), "both are always said");
    report
}

#[track_caller]
fn no(report: anyhow::Result<Report>, why: &str) {
    let report = report.unwrap();
    assert_eq!(report.verdict, Verdict::No, "{report:?}");
    assert!(report.not[0].contains(why), "{report:?}");
}

#[test]
fn what_is_whole_is_said_with_what_it_does_not_prove() {
    let w = World::new();
    let papers = w.path("papers");
    let said = whole(w.folder());
    for sentence in [
        "1 stream",
        "only grew, from 4 to 7",
        "hoidla/lux/lux-2 saw this head too",
        "counter stood at 18",
        "clock that its owner can set forward",
    ] {
        assert!(said.proven.iter().any(|p| p.contains(sentence)), "{sentence}: {said:?}");
    }
    assert!(said.said.iter().any(|s| s.contains("3 frames")) && said.proven.iter().all(|p| !p.contains("frames")), "{said:?}");
    assert!(said.not.iter().any(|n| n.contains("every byte is still there")) && said.not.iter().any(|n| n.contains("its TPM is software")));
    whole(w.run(&["receipt", text(&w.receipt()), "--papers", text(&papers)]));
    whole(w.run(&["checkpoint", text(&w.path("checkpoint.txt"))]));
    whole(w.run(&["consistency", text(&w.path("before.txt")), text(&w.path("extension.txt"))]));
    assert!(whole(w.run(&["site", text(&papers)])).proven.iter().any(|p| p.contains("enrolled hoidla/lux/lux-1")));
}

#[test]
fn no_flipped_byte_of_a_receipt_is_whole() {
    let w = World::new();
    let (path, papers) = (w.receipt(), w.path("papers"));
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let report = w.run(&["receipt", text(&path), "--papers", text(&papers)]);
        // A witness whose line was damaged into a stranger's no longer counts; the rest stands without it.
        let dropped =
            |r: &Report| r.proven.iter().all(|p| !p.contains("saw this head too")) && r.not.iter().any(|n| n.contains("don't tell of"));
        assert!(report.map_or(true, |r| r.verdict == Verdict::No || dropped(&r)), "byte {at}");
    }
    for cut in (0..good.len()).step_by(7) {
        fs::write(&path, &good[..cut]).unwrap();
        no(w.run(&["receipt", text(&path), "--papers", text(&papers)]), "");
    }
}

#[track_caller]
fn cannot_tell(report: anyhow::Result<Report>, why: &str) {
    let e = report.unwrap_err();
    assert!(format!("{e:#}").contains(why), "{e:#}");
}

#[test]
fn growth_that_is_not_shown_is_said() {
    let w = World::new();
    fs::remove_file(w.path("before.txt")).unwrap();
    assert!(whole(w.folder()).not.iter().any(|n| n.contains("only grew since an earlier audit")));
}

#[test]
fn what_a_witness_saw_before_is_said_with_how_far_it_goes() {
    let w = World::new();
    let head = w.one.sign(&w.log.head(&w.one, 5, 17));
    w.seen(&w.two().witness(&head));
    let said = whole(w.folder());
    assert!(said.proven.iter().any(|p| p.contains("hoidla/lux/lux-2 saw this log when it had 5 leaves")), "{said:?}");
    // A line of nobody on record proves nothing, and is said.
    for stranger in [head.clone(), SoftAppliance::new(&w.site, "lux-2", 9).witness(&head)] {
        w.seen(&stranger);
        let said = whole(w.folder());
        assert!(said.proven.iter().all(|p| !p.contains("5 leaves")), "{said:?}");
        assert!(said.not.iter().any(|n| n.contains("that lux.lux-2 saw the log at 5 leaves")), "{said:?}");
    }
    // For want of a proof nothing is told.
    w.seen(&w.two().witness(&head));
    w.put("witnessed/lux.lux-2/extension.txt", &w.log.extension(4, &w.signed).write());
    cannot_tell(w.folder(), "both heads are signed");
    fs::remove_file(w.path("witnessed/lux.lux-2/extension.txt")).unwrap();
    assert!(w.folder().is_err());
}

#[test]
fn forks_and_replays_are_a_no() {
    let w = World::new();
    let consistency = || w.run(&["consistency", text(&w.path("before.txt")), text(&w.path("extension.txt"))]);
    let fork = Log::of(9, 2);
    let head = fork.signed(&w.one, 19);
    w.put("extension.txt", &fork.extension(4, &head).write());
    cannot_tell(consistency(), "both heads are signed");
    w.put("extension.txt", &w.log.extension(5, &w.signed).write());
    cannot_tell(consistency(), "both heads");
    // One size, two roots: that is proof by itself, whatever the extension says.
    w.put("before.txt", &w.one.sign(&fork.head(&w.one, 7, 17)).write());
    w.put("extension.txt", &w.log.extension(4, &w.signed).write());
    no(consistency(), "these two heads prove it");
    w.put("before.txt", &w.one.sign(&w.log.head(&w.one, 4, 17)).write());
    w.put("extension.txt", &w.log.extension(4, &w.log.signed(&w.one, 16)).write());
    no(consistency(), "counter went back");
    let other = SoftAppliance::new(&w.site, "lux-2", 3);
    w.put("extension.txt", &w.log.extension(4, &w.log.signed(&other, 19)).write());
    cannot_tell(consistency(), "both heads are signed");
    let stranger = SoftAppliance::new(&w.site, "lux-1", 9);
    w.put("extension.txt", &w.log.extension(4, &w.log.signed(&stranger, 19)).write());
    no(consistency(), "another key than the one on record");
}

#[test]
fn a_statement_with_one_thing_wrong_is_a_no() {
    let wrong = |change: &dyn Fn(&World), why: &str| {
        let w = World::new();
        change(&w);
        no(w.folder(), why);
    };
    let said = |change: &'static dyn Fn(&mut Completeness)| {
        move |w: &World| {
            let mut s = w.statement();
            change(&mut s);
            w.say(&s);
        }
    };
    wrong(&said(&|s| s.log_size -= 1), "another checkpoint");
    wrong(&said(&|s| s.counter += 1), "another checkpoint");
    wrong(&said(&|s| s.appliance = name("lux-2")), "another checkpoint");
    wrong(&said(&|s| s.streams[0].length += 1), "other bytes");
    wrong(&said(&|s| s.streams[0].root.0[0] ^= 1), "other bytes");
    wrong(&said(&|s| s.streams.clear()), "doesn't name");
    wrong(&said(&|s| s.streams.push(s.streams[0].clone())), "named twice");
    wrong(&said(&|s| s.dataset = name("people")), "may not speak");
    wrong(&said(&|s| s.created = Moment::from_seconds(1_799_999_999)), "the certificate of agent-1 holds from");
    wrong(&said(&|s| s.created = Moment::from_seconds(1_900_000_001)), "the certificate of agent-1 holds from");
    let revoked = |w: &World| {
        let site = Site { serial: w.site.serial + 1, revoked_agents: vec![name("agent-1")], ..w.site.clone() };
        w.put("papers/newer.txt", &w.office.sign(&site));
    };
    wrong(&revoked, "revokes the agent agent-1");
    wrong(&|w| fs::remove_file(w.receipt()).unwrap(), "no receipt");
    wrong(&|w| fs::write(w.receipt(), w.log.receipt(5, &w.signed).write()).unwrap(), "other bytes");
    wrong(
        &|w| {
            let older = w.log.signed(&w.one, 17);
            fs::write(w.receipt(), w.log.receipt(6, &older).write()).unwrap();
        },
        "under another checkpoint",
    );
    let seen = |change: &'static dyn Fn(&World)| {
        move |w: &World| {
            w.seen(&w.two().witness(&w.one.sign(&w.log.head(&w.one, 5, 17))));
            change(w);
        }
    };
    // A witness's head that the statement's doesn't extend, one that isn't signed, an extension to another head.
    wrong(&seen(&|w| w.seen(&w.two().witness(&w.one.sign(&Log::of(9, 2).head(&w.one, 7, 17))))), "two different logs");
    wrong(&seen(&|w| w.seen(&w.two().witness(&SoftAppliance::new(&w.site, "lux-1", 9).sign(&w.log.head(&w.one, 5, 17))))), "another key");
    wrong(
        &seen(&|w| w.put("witnessed/lux.lux-2/extension.txt", &w.log.extension(5, &w.log.signed(&w.one, 19)).write())),
        "another checkpoint than the statement's",
    );
    wrong(&|w| w.put("statement.txt", &w.office.authority.sign_statement("agent-1", &w.statement())), "the statement");
    wrong(&|w| w.put("agent.txt", &w.agent.sign_statement("authority", &w.certificate())), "the agent's certificate");
    wrong(&|w| w.put("extension.txt", &w.log.extension(4, &w.log.signed(&w.one, 19)).write()), "another checkpoint than the statement's");
}

#[test]
fn another_authority_is_a_no_and_for_want_of_papers_nothing_is_told() {
    let w = World::new();
    let other = w.under("0000 0000 0000 0000 0000 0000", &["statement", text(w.dir.path())]).unwrap();
    assert!(other.verdict == Verdict::No && other.text().contains("not of 0000"), "{}", other.text());
    assert!(report(&Arguments::try_parse_from(["hoidla-verify", "statement", text(w.dir.path())]).unwrap()).is_err());
    let identity = statement::write(&w.one.identity);
    for entry in fs::read_dir(w.path("papers")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(&path).unwrap() == identity {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(format!("{:#}", w.folder().unwrap_err()).contains("nothing is on record of hoidla/lux/lux-1"));
    fs::remove_file(w.path("agent.txt")).unwrap();
    assert!(w.folder().is_err());
}
