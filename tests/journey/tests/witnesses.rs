//! Two appliances that watch each other's logs through the agent, and the authority's word after
//! somebody raised a counter: with the real programs.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hoidla_journey::{
    Narrator, SoftTpm, Stage, Supervisor,
    programs::wait_until,
    sample,
    soft_tpm::free_port,
    stage::{APPLIANCE, CUSTODIANS, DATASET, DISKS, RECOVERY, SITE},
};
use serde_json::Value;

/// The index of the log's counter (docs/formats/tpm-objects.md).
const LOG_COUNTER: &str = "0x01804803";
/// The agents' folders.
const FIRST: &str = "home/agent";
const SECOND: &str = "home/agent-2";
const MINUTE: Duration = Duration::from_secs(60);

/// The second appliance of the site, in a folder of its own.
struct Second {
    address: String,
    tpm: SoftTpm,
    daemon: Option<Supervisor>,
}

impl Second {
    fn new(stage: &Stage) -> Self {
        fs::create_dir_all(stage.at("embassy-2/state")).unwrap();
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        Self { address, tpm: SoftTpm::start(&stage.at("embassy-2/tpm")).unwrap(), daemon: None }
    }

    fn identify(&self, stage: &Stage) {
        let site = fs::read_to_string(stage.at("home/authority/public/site.txt")).unwrap();
        let authority = site.lines().find(|l| l.starts_with("authority = ")).unwrap();
        let disks = ["embassy-2/disk-a", "embassy-2/disk-b"].map(|d| stage.at(d).display().to_string());
        let config = format!("listen = {:?}\ntpm = {:?}\ndisks = {disks:?}\n{authority}\n", self.address, self.tpm.tcti());
        fs::write(stage.at("embassy-2/state/appliance.toml"), config).unwrap();
        let args = ["identify", "home/authority/public/site.txt", "--name", "lux-2", "--state", "embassy-2/state", "--out", "home/two.txt"];
        stage.programs.must("hoidlad", &args).unwrap();
    }

    fn start(&mut self, stage: &Stage) {
        let args = ["run", "--state", "embassy-2/state"];
        self.daemon = Some(Supervisor::start(&stage.programs, "hoidlad", args.map(str::to_owned).to_vec()).unwrap());
        let address: std::net::SocketAddr = self.address.parse().unwrap();
        wait_until("lux-2 listens", MINUTE, || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()).unwrap();
    }
}

/// A site of two appliances, both running, and an agent.
fn site(stage: &mut Stage) -> Second {
    let mut second = Second::new(stage);
    let (one, two) = (format!("{APPLIANCE}={}", stage.address()), format!("lux-2={}", second.address));
    stage.authority(&["site", "new", "--site", SITE, "--appliance", &one, "--appliance", &two]).unwrap();
    CUSTODIANS.iter().chain(&RECOVERY).for_each(|name| stage.new_custodian(name).unwrap());
    stage.sign_site().unwrap();
    stage.start_tpm().unwrap();
    stage.identify().unwrap();
    second.identify(stage);
    stage.authority(&["deal", "--dataset", DATASET, "--identity", "home/two.txt", "--identity", "home/identity.txt"]).unwrap();
    let zero = "0".repeat(64);
    fs::write(stage.at("home/pcrs.json"), format!(r#"{{"4": "{zero}", "11": "{zero}", "12": "{zero}", "13": "{zero}"}}"#)).unwrap();
    stage.authority(&["release", "sign", "--name", "drill", "--pcrs", "home/pcrs.json"]).unwrap();
    for appliance in [APPLIANCE, "lux-2"] {
        stage.authority(&["enrol", appliance]).unwrap();
    }
    stage.enrol(1024).unwrap();
    stage.programs.must("hoidlad", &["enrol", "home/authority/public", "--state", "embassy-2/state", "--disk-size", "1024M"]).unwrap();
    stage.new_agent().unwrap();
    stage.start_daemon().unwrap();
    second.start(stage);
    second
}

/// An agent of its own for the second appliance: what a folder remembers is of one.
fn second_agent(stage: &mut Stage) {
    stage.authority(&["agent", "--dataset", DATASET, "--name", "push-2", "--agent-passphrase-file", "home/agent/passphrase"]).unwrap();
    fs::rename(stage.at(&format!("home/authority/agents/{DATASET}-push-2")), stage.at(SECOND)).unwrap();
    fs::copy(stage.at("home/agent/passphrase"), stage.at(SECOND).join("passphrase")).unwrap();
}

fn push(stage: &Stage, home: &str, path: &Path, more: &[&str]) -> Value {
    let args = [&["push", "--home", home, "--json", path.to_str().unwrap()], more].concat();
    serde_json::from_str(&stage.programs.must("hoidla-agent", &args).unwrap().out).unwrap()
}

#[track_caller]
fn ends(stage: &Stage, program: &str, args: &[&str], code: i32, words: &[&str]) {
    let answer = stage.programs.run(program, args, "").unwrap();
    let said = format!("{}{}", answer.out, answer.err);
    assert_eq!(answer.code, code, "{}:\n{said}\n{}", answer.command, stage.programs.tail("hoidlad"));
    for word in words {
        assert!(said.contains(word), "{} does not say {word:?}:\n{said}", answer.command);
    }
}

fn status(stage: &Stage, state: &str) -> (i32, String) {
    let answer = stage.programs.run("hoidlad", &["status", "--state", state, "--json"], "").unwrap();
    (answer.code, answer.out)
}

/// Heads may be carried again.
fn an_hour_later(stage: &Stage) {
    fs::remove_file(stage.at(&format!("{FIRST}/audit/{SITE}-{APPLIANCE}/witnessed/{SITE}.lux-2.tried"))).unwrap();
}

#[test]
fn two_appliances_see_each_other_s_heads_and_one_that_was_put_back_is_caught() {
    let exe = std::env::current_exe().unwrap();
    let beside: PathBuf = exe.ancestors().nth(2).unwrap().to_owned();
    let scratch = tempfile::Builder::new().prefix("journey-").tempdir_in(beside).unwrap();
    let registry = scratch.path().join("registry");
    sample::make(&registry, 4 << 20).unwrap();
    let mut stage = Stage::new(&scratch.path().join("stage"), Narrator::silent()).unwrap();
    let _second = site(&mut stage);
    let digits = stage.digits().unwrap();
    second_agent(&mut stage);
    for home in [FIRST, SECOND] {
        fs::write(stage.at(home).join("witnesses"), format!("# each sees the other's\n{APPLIANCE}\nlux-2\n")).unwrap();
    }

    each_sees_the_other(&stage, &registry, &digits);
    somebody_raises_the_counter(&mut stage, &registry);
    the_disks_and_the_record_are_put_back(&mut stage, &registry);
}

fn each_sees_the_other(stage: &Stage, registry: &Path, digits: &str) {
    let done = push(stage, FIRST, registry, &[]);
    let carried = &done["receipt"]["witnesses"][0];
    assert_eq!((&carried["appliance"], &carried["size"]), (&"hoidla/lux/lux-2".into(), &done["receipt"]["log_size"]), "{done}");
    let other = push(stage, SECOND, registry, &["--appliance", "lux-2"]);
    assert_eq!(other["receipt"]["witnesses"][0]["appliance"], "hoidla/lux/lux-1", "{other}");
    assert_eq!(
        push(stage, SECOND, registry, &["--appliance", "lux-2"])["receipt"]["witnesses"],
        Value::Array(vec![]),
        "an hour has not passed"
    );

    // What was signed there comes to the auditor, with the way from there to the newest head.
    fs::write(registry.join("later"), "an entry of the day after").unwrap();
    push(stage, FIRST, registry, &[]);
    let audit = ["audit", "--home", "home/agent", "--samples", "4", "--evidence", "evidence"];
    ends(stage, "hoidla-agent", &audit, 0, &["witnessed by lux.lux-2"]);
    let verify = ["--authority", digits, "statement", "evidence"];
    ends(stage, "hoidla-verify", &verify, 0, &["WHOLE", "hoidla/lux/lux-2 saw this log when it had", "it only grew since"]);
    // Without the witness's enrolment its line counts nothing; without its proof nothing is told.
    let head = stage.at("evidence/witnessed/lux.lux-2/extension.txt");
    let good = fs::read(&head).unwrap();
    fs::write(&head, &good[..good.len() - 200]).unwrap();
    ends(stage, "hoidla-verify", &verify, 1, &["NO"]);
    fs::write(&head, good).unwrap();
    // The next audit leads from the auditor's own head.
    fs::copy(stage.at("evidence/checkpoint.txt"), stage.at("mine.txt")).unwrap();
    fs::write(registry.join("later still"), "and of the next").unwrap();
    push(stage, FIRST, registry, &[]);
    ends(
        stage,
        "hoidla-agent",
        &["audit", "--home", "home/agent", "--since", "mine.txt", "--evidence", "evidence-2"],
        0,
        &["leaves of mine.txt"],
    );
    assert_eq!(fs::read(stage.at("evidence-2/before.txt")).unwrap(), fs::read(stage.at("mine.txt")).unwrap());
    let papers = ["--papers", "evidence-2/papers"];
    let consistency = ["--authority", digits, "consistency", "mine.txt", "evidence-2/extension.txt"];
    ends(stage, "hoidla-verify", &[&consistency[..], &papers].concat(), 0, &["only grew"]);
}

fn somebody_raises_the_counter(stage: &mut Stage, registry: &Path) {
    stage.stop_daemon();
    let tcti = stage.tcti().unwrap();
    for _ in 0..3 {
        let raised = Command::new("tpm2_nvincrement").args(["-T", &tcti, "-C", LOG_COUNTER, LOG_COUNTER]).output().unwrap();
        assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
    }
    stage.start_daemon().unwrap();
    wait_until("it says that it only reads", MINUTE, || status(stage, "embassy/state").1.contains("raised the counter by other means"))
        .unwrap();
    let said = status(stage, "embassy/state").1;
    let stands = said.split("counter stands at ").nth(1).unwrap();
    let stands: String = stands.chars().take_while(char::is_ascii_digit).collect();
    ends(stage, "hoidla-agent", &["audit", "--home", "home/agent"], 1, &["ALARM", "signs no head"]);
    stage.stop_daemon();

    let head = format!("home/agent/audit/{SITE}-{APPLIANCE}/checkpoint.txt");
    let vouch = ["count", "vouch", APPLIANCE, "--stands", &stands, "--reason", "a tool on the TPM"];
    // Only with a head of that appliance, that its TPM signed.
    let passphrase = ["--home", "home/authority", "--passphrase-file", "home/authority/passphrase"];
    let other = format!("{SECOND}/audit/{SITE}-lux-2/checkpoint.txt");
    ends(stage, "hoidla-provision", &[&vouch[..], &["--checkpoint", &other], &passphrase].concat(), 2, &["is a head of hoidla/lux/lux-2"]);
    stage.authority(&[&vouch[..], &["--checkpoint", &head]].concat()).unwrap();
    let word = format!("home/authority/public/count-{APPLIANCE}-{stands}.txt");
    ends(stage, "hoidlad", &["recount", &word, "--state", "embassy-2/state"], 2, &["this word is for lux-1"]);
    ends(stage, "hoidlad", &["recount", &word, "--state", "embassy/state"], 0, &["Taken", &stands]);
    ends(stage, "hoidlad", &["recount", &word, "--state", "embassy/state"], 2, &["a word counts once"]);
    stage.start_daemon().unwrap();
    fs::write(registry.join("after the word"), "an entry").unwrap();
    push(stage, FIRST, registry, &[]);
    ends(stage, "hoidla-agent", &["audit", "--home", "home/agent"], 0, &["it extends the"]);
}

/// Everything at the rack as it was, but for the TPM: disks and the appliance's own record, from since the counter's last raise.
fn the_disks_and_the_record_are_put_back(stage: &mut Stage, registry: &Path) {
    let all = DISKS.iter().copied().chain(["embassy/state/checkpoint.txt"]);
    for file in all.clone() {
        fs::copy(stage.at(file), stage.at(&format!("{file}.older"))).unwrap();
    }
    fs::write(registry.join("taken back"), "an entry of the days that were taken back").unwrap();
    an_hour_later(stage);
    assert_eq!(push(stage, FIRST, registry, &[])["receipt"]["witnesses"][0]["appliance"], "hoidla/lux/lux-2");
    stage.stop_daemon();
    let put_back = fs::read(stage.at("embassy/state/checkpoint.txt.older")).unwrap();
    for file in all {
        fs::rename(stage.at(&format!("{file}.older")), stage.at(file)).unwrap();
    }
    stage.start_daemon().unwrap();
    wait_until("it says how it is", MINUTE, || status(stage, "embassy/state").0 == 0).unwrap();
    // Until then it shows the head that was put back with the rest, a true one of that time.
    let record = || fs::read(stage.at("embassy/state/checkpoint.txt")).unwrap();
    wait_until("it signs a head of what it has", MINUTE, || record() != put_back).unwrap();

    // An agent that never saw the longer log finds nothing; carried to lux-2, the head is caught, and lux-2 says so too.
    let (known, seen) = (format!("home/agent/audit/{SITE}-{APPLIANCE}"), stage.at("seen-before"));
    fs::rename(stage.at(&known), &seen).unwrap();
    let witness = ["witness", "--home", "home/agent", "--to", "lux-2"];
    ends(stage, "hoidla-agent", &witness, 1, &["ALARM", "by what hoidla/lux/lux-2 saw", "counter"]);
    let shown = fs::read_to_string(stage.at(&known).join("alarm-1/shown")).unwrap();
    assert_eq!(shown.matches("hoidla/lux/lux-1\n").count(), 2, "both signed heads are kept:\n{shown}");
    wait_until("lux-2 raises an alarm", MINUTE, || status(stage, "embassy-2/state").0 == 1).unwrap();
    assert_eq!(fs::read_dir(stage.at("embassy-2/state/witnessed.forks")).unwrap().count(), 1);
    // The agent that did see it is told by its own record, and its push is refused, each with exit code 1.
    fs::remove_dir_all(stage.at(&known)).unwrap();
    fs::rename(seen, stage.at(&known)).unwrap();
    ends(stage, "hoidla-agent", &["audit", "--home", "home/agent"], 1, &["ALARM"]);
    ends(stage, "hoidla-agent", &["push", "--home", "home/agent", registry.to_str().unwrap()], 1, &["ALARM", "the store has less"]);
}
