//! A whole small site for tests: an authority, custodians, a software TPM, one
//! enrolled appliance with two disk files, agents, and the daemon behind its door.
#![allow(dead_code)] // each test file uses a part of it

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    keys::{AgentKeys, AuthorityKeys},
    sign::{self, VerifyingKey},
};
use hoidla_door::{AgentRequest, Connection, DoorError, Identity, Target};
use hoidla_format::{
    Bytes, Moment, Name, Statement, statement,
    statements::{
        AgentCertificate, ApplianceEntry, ApplianceIdentity, Custodian, Dataset, Enrolment, Halves, Proof, Roster, RosterEntry, Site, Vault,
    },
};
use hoidla_quorum::{
    dealing::{DealingInput, deal},
    share::VaultId,
};
use hoidla_tpm::{Swtpm, Tpm};
use hoidla_verify::{ReleaseKey, Terms, release};
use hoidlad::{
    config::State,
    daemon::{self, Daemon, Settings},
    enrol::{Enrol, enrol},
    helper::Helpers,
    identify::identify,
};

mod agents;
mod quorum;

pub use agents::*;
#[allow(unused_imports)] // each test file uses a part of it
pub use quorum::*;

pub const DATASETS: [&str; 2] = ["land", "people"];
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_hoidlad");

pub fn name(s: &str) -> Name {
    s.parse().unwrap()
}

/// The authority, custodians and what they signed.
pub struct Home {
    pub site_name: Name,
    pub authority: AuthorityKeys,
    pub release_key: ReleaseKey,
    pub root: Vec<u8>,
    pub custodians: Vec<(Name, CustodianKeys)>,
    pub roster: Roster,
    pub site: Site,
}

/// A site with an enrolled appliance.
pub struct Embassy {
    pub home: Home,
    pub folder: tempfile::TempDir,
    pub tpm: Swtpm,
    pub identity: ApplianceIdentity,
    pub vaults: Vec<Vault>,
}

pub fn door_key(key: &sign::SigningKey) -> Arc<dyn hoidla_door::DoorKey> {
    hoidla_door::software_key(&key.to_pkcs8()).unwrap()
}

impl Home {
    pub fn new(site: &str) -> Self {
        let site_name = name(site);
        let authority = AuthorityKeys::from_seed(&Secret::random());
        let (release_key, _) = ReleaseKey::generate();
        let now = Moment::now();
        let root = hoidla_door::door_root(&site_name, &*door_key(&authority.door), Moment::from_seconds(0), now.plus(86_400)).unwrap();
        let people = |names: &[&str]| -> Vec<(Name, CustodianKeys)> {
            names.iter().map(|n| (name(n), CustodianKeys::from_seed(&Secret::random()))).collect()
        };
        let custodians = people(&["alpha", "bravo", "charlie"]);
        let cards = |of: &[(Name, CustodianKeys)]| -> Vec<Custodian> { of.iter().map(|(n, k)| k.public_card(n)).collect() };
        let roster = Roster {
            site: site_name.clone(),
            name: name("registry"),
            quorum: 2,
            recovery_quorum: 3,
            custodians: cards(&custodians),
            recovery: cards(&people(&["delta", "echo", "foxtrot", "golf"])),
        };
        let site = Site {
            site: site_name.clone(),
            serial: 5,
            development: true,
            authority: Bytes(authority.statements.verifying_key().to_sec1()),
            release_key: Bytes(release_key.public().to_sec1()),
            door_root: Bytes(root.clone()),
            appliances: vec![ApplianceEntry { name: name("rack-1"), address: "127.0.0.1:0".into(), network: None, health: None }],
            rosters: vec![RosterEntry { name: roster.name.clone(), hash: statement::hash(&statement::write(&roster)) }],
            datasets: DATASETS
                .map(|d| Dataset { name: name(d), title: d.to_uppercase(), roster: roster.name.clone(), retention_days: 30, share: None })
                .to_vec(),
            revoked_agents: vec![name("dismissed")],
        };
        Self { site_name, authority, release_key, root, custodians, roster, site }
    }

    pub fn sign<S: Statement>(&self, s: &S) -> String {
        self.authority.statements.sign_statement("authority", s)
    }

    pub fn verifying(&self) -> VerifyingKey {
        self.authority.statements.verifying_key()
    }

    /// An agent's keys and certificates, valid for so many seconds around now.
    pub fn agent(&self, dataset: &str, agent: &str, (from, until): (i64, i64)) -> Agent {
        let keys = AgentKeys::from_seed(&Secret::random());
        let now = Moment::now().seconds() as i64;
        let at = |d: i64| Moment::from_seconds((now + d) as u64);
        let key = keys.signing.verifying_key().to_sec1();
        let (dataset, agent) = (name(dataset), name(agent));
        let request =
            AgentRequest { site: &self.site_name, dataset: &dataset, agent: &agent, key: &key, not_before: at(from), not_after: at(until) };
        let certificate = hoidla_door::agent_certificate(&request, &self.root, &*door_key(&self.authority.door)).unwrap();
        let statement = AgentCertificate {
            site: self.site_name.clone(),
            dataset: dataset.clone(),
            agent: agent.clone(),
            key: Bytes(key.clone()),
            issued: at(from),
            not_after: at(until),
        };
        Agent {
            note: self.sign(&statement),
            door: Identity::agent(certificate, door_key(&keys.signing)),
            keys,
            dataset,
            name: agent,
            site: self.site_name.clone(),
            clock: None,
        }
    }

    pub fn good_agent(&self, dataset: &str) -> Agent {
        self.agent(dataset, &format!("{dataset}-agent"), (-3600, 3600))
    }

    pub fn custodian(&self, who: &str) -> (Name, Identity) {
        let (n, keys) = self.custodians.iter().find(|(n, _)| n.as_str() == who).unwrap();
        (n.clone(), Identity::own(n, door_key(keys.signing_key())).unwrap())
    }
}

impl Embassy {
    /// Sets all of it up, with disks of so many bytes.
    pub fn new(disk: u64) -> Self {
        let home = Home::new("testland");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tpm")).unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::create_dir(folder.path().join("papers")).unwrap();
        let tpm = Swtpm::start(&folder.path().join("tpm")).unwrap();
        let mut embassy = Self { home, folder, tpm, identity: dummy_identity(), vaults: Vec::new() };
        embassy.write_config("127.0.0.1:0");
        let state = embassy.state();
        let site_note = embassy.home.sign(&embassy.home.site);
        embassy.identity = identify(&state, site_note.as_bytes(), &name("rack-1")).unwrap();
        embassy.write_papers();
        let enrolled = enrol(&state, &Enrol { papers: vec![embassy.papers()], disk_size: Some(disk), format: false }).unwrap();
        assert!(enrolled.formatted);
        assert_eq!(enrolled.halves, DATASETS.len());
        embassy
    }

    pub fn state(&self) -> State {
        State::at(&self.folder.path().join("state")).unwrap()
    }

    pub fn papers(&self) -> PathBuf {
        self.folder.path().join("papers")
    }

    pub fn disk(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("disk-{n}"))
    }

    pub fn write_config(&self, listen: &str) {
        let key = statement::write(&self.home.site);
        let authority = key.lines().find(|l| l.starts_with("authority = ")).unwrap().to_owned();
        let text = format!(
            "listen = {listen:?}\ntpm = {:?}\ndisks = [{:?}, {:?}]\n{authority}\n",
            self.tpm.tcti().as_str(),
            self.disk(0),
            self.disk(1)
        );
        fs::write(self.folder.path().join("state/appliance.toml"), text).unwrap();
    }

    fn put(&self, file: &str, note: String) {
        fs::write(self.papers().join(file), note).unwrap();
    }

    /// Deals, releases, enrols: all that the authority does for this appliance.
    fn write_papers(&mut self) {
        let home = &self.home;
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        self.put("site.txt", home.sign(&home.site));
        self.put("roster.txt", home.sign(&home.roster));
        let mut halves = Vec::new();
        let mut vaults = Vec::new();
        for dataset in DATASETS {
            let input = DealingInput {
                vault: VaultId { site: home.site_name.clone(), dataset: name(dataset), vault_epoch: 1 },
                development: true,
                roster: &home.roster,
                release_key: &home.release_key.public(),
                appliances: std::slice::from_ref(&self.identity),
                dealt: Moment::now(),
            };
            let dealt = deal(&input, &mut rng).unwrap();
            self.put(&format!("vault-{dataset}.txt"), home.sign(&dealt.vault));
            self.put(&format!("envelopes-{dataset}.txt"), home.sign(&dealt.quorum));
            self.put(&format!("recovery-{dataset}.txt"), home.sign(&dealt.recovery));
            halves.extend(dealt.halves.into_iter().map(|(_, half)| half));
            vaults.push(dealt.vault);
        }
        let identity = statement::hash(&statement::write(&self.identity));
        let halves = Halves { site: home.site_name.clone(), appliance: self.identity.name.clone(), identity, halves };
        let halves_note = home.sign(&halves);
        let node = hoidla_verify::Public::parse(&self.identity.node.0).unwrap().point().unwrap().to_sec1();
        let life = (Moment::from_seconds(0), Moment::now().plus(86_400));
        let enrolment = Enrolment {
            site: home.site_name.clone(),
            site_hash: statement::hash(&statement::write(&home.site)),
            appliance: self.identity.name.clone(),
            identity,
            halves: statement::hash(&statement::write(&halves)),
            proof: Proof::TrustedOnFirstUse,
            certificate: Bytes(
                hoidla_door::node_certificate(
                    &home.site_name,
                    &self.identity.name,
                    &node,
                    life,
                    &home.root,
                    &*door_key(&home.authority.door),
                )
                .unwrap(),
            ),
            issued: Moment::now(),
        };
        self.put("halves.txt", halves_note);
        self.put("enrolment.txt", home.sign(&enrolment));
        let pcrs = Tpm::open(self.tpm.tcti()).unwrap().pcr_read(&[4, 11, 12, 13]).unwrap();
        let terms = Terms {
            site: home.site_name.clone(),
            name: name("drill-1"),
            development: true,
            epoch: self.identity.release_counter,
            pcrs,
            vaults: DATASETS.map(|d| (name(d), 1)).to_vec(),
        };
        self.put("release.txt", home.sign(&release::approve(&home.release_key, terms).unwrap()));
        self.vaults = vaults;
    }

    pub fn target(&self, address: &str) -> Target {
        Target {
            address: address.into(),
            site: self.home.site_name.clone(),
            appliance: self.identity.name.clone(),
            root: self.home.root.clone(),
        }
    }

    pub async fn start(&self) -> Running {
        self.start_with(Settings::default()).await
    }

    pub async fn start_with(&self, settings: Settings) -> Running {
        let running = daemon::start(&self.state(), settings, Helpers::of(Path::new(PROGRAM))).await.unwrap();
        let daemon = running.daemon.clone();
        let target = self.target(&running.address.to_string());
        Running { daemon, target, served: tokio::spawn(running.serve()) }
    }
}

fn dummy_identity() -> ApplianceIdentity {
    let b = Bytes::default;
    ApplianceIdentity {
        site: name("x"),
        name: name("x"),
        tpm: String::new(),
        ek: b(),
        prover: b(),
        srk: b(),
        ak: b(),
        node: b(),
        release_counter: 0,
        site_counter: 0,
        hours_counter: 0,
        created: Vec::new(),
    }
}

/// A daemon that runs within the test.
pub struct Running {
    pub daemon: Arc<Daemon>,
    pub target: Target,
    served: tokio::task::JoinHandle<anyhow::Result<hoidlad::update::Next>>,
}

impl Running {
    pub async fn enter(&self, identity: &Identity) -> Result<Connection, DoorError> {
        hoidla_door::connect(&self.target, identity).await
    }

    pub async fn stop(self) {
        self.daemon.ask_to_stop();
        let tpm = self.daemon.tpm.clone();
        drop(self.daemon);
        self.served.await.unwrap().unwrap();
        // libtss2 connects to a software TPM for each command: two at once would sweep each other's sessions.
        until("its last question to the TPM is answered", async || tpm.strong_count() == 0).await;
    }
}

/// The code of a refusal.
pub fn code(e: DoorError) -> hoidla_protocol::Code {
    match e {
        DoorError::Refused(refused) => refused.code,
        other => panic!("no refusal: {other}"),
    }
}

/// Settings with short patience.
pub fn impatient() -> Settings {
    let patience = hoidlad::session::Patience {
        handshake: Duration::from_millis(1500),
        idle: Duration::from_millis(1500),
        grace: Duration::from_millis(700),
        least_rate: 1 << 20,
    };
    Settings { patience, ..Settings::default() }
}

/// `hoidlad run` as a process of its own; the port it listens on.
pub fn start_child(e: &Embassy) -> (Child, String) {
    let health = e.state().health();
    let _ = fs::remove_file(&health);
    let mut child = Command::new(PROGRAM).arg("--state").arg(e.state().folder()).arg("run").stderr(Stdio::null()).spawn().unwrap();
    let since = Instant::now();
    let panel = loop {
        let panel = fs::read(&health).ok().and_then(|b| serde_json::from_slice::<hoidlad::daemon::Panel>(&b).ok());
        if panel.is_some() || since.elapsed() > Duration::from_secs(20) {
            break panel;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let Some(panel) = panel else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("hoidlad didn't start");
    };
    assert!(panel.development && panel.tpm_proof == Proof::TrustedOnFirstUse);
    (child, panel.listen)
}

/// Waits until something is so, half a minute at most.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
