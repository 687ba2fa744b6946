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
    datakey::{self, Binding, DataKey},
    envelope::CustodianKeys,
    hpke,
    keys::{AgentKeys, AuthorityKeys, ReaderKeys},
    sealing::{Provider, Sealer},
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::{AgentRequest, Connection, DoorError, Identity, Target};
use hoidla_format::{
    Bytes, Hash32, Kind, Moment, Name, Statement, StreamId, frame,
    frame::Chain,
    statement,
    statements::{
        AgentCertificate, ApplianceEntry, ApplianceIdentity, Approval, Challenge, Covers, Custodian, Dataset, Door, Enrolment, Envelopes,
        EpochHeader, Grant, Halves, Roster, RosterEntry, Site, StreamRoot, Vault,
    },
};
use hoidla_protocol::{Open, Opened, Refused, Request, Response};
use hoidla_quorum::{
    dealing::{DealingInput, deal},
    opening::{Occasion, seal_share},
    share::{Share, VaultId},
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
            appliances: vec![ApplianceEntry { name: name("rack-1"), address: "127.0.0.1:0".into(), network: None }],
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
            proof: "trusted-on-first-use".into(),
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
        srk: b(),
        ak: b(),
        node: b(),
        release_counter: 0,
        site_counter: 0,
        hours_counter: 0,
    }
}

/// A daemon that runs within the test.
pub struct Running {
    pub daemon: Arc<Daemon>,
    pub target: Target,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn enter(&self, identity: &Identity) -> Result<Connection, DoorError> {
        hoidla_door::connect(&self.target, identity).await
    }

    pub async fn stop(self) {
        self.daemon.ask_to_stop();
        drop(self.daemon);
        self.served.await.unwrap().unwrap();
    }
}

/// An agent at home.
pub struct Agent {
    pub keys: AgentKeys,
    pub note: String,
    pub door: Identity,
    pub dataset: Name,
    pub name: Name,
    pub site: Name,
}

/// One stream as its agent writes it.
pub struct Writing {
    pub stream: StreamId,
    pub epoch: u32,
    pub chain: Chain,
    pub key: DataKey,
}

impl Writing {
    pub fn new(stream: u8) -> Self {
        Self { stream: StreamId([stream; 16]), epoch: 0, chain: Chain::EMPTY, key: DataKey::random() }
    }

    fn took(&mut self, frame: &[u8]) {
        self.chain = self.chain.then(&Hash32(blake3_of(frame)), frame.len() as u32);
    }
}

pub fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl Agent {
    /// The header frame of the next epoch.
    pub fn header(&self, w: &mut Writing, vault: &Vault) -> Vec<u8> {
        w.epoch += 1;
        w.key = DataKey::random();
        let binding = Binding {
            site: self.site.clone(),
            dataset: self.dataset.clone(),
            stream: w.stream,
            epoch: w.epoch,
            vault_epoch: vault.vault_epoch,
        };
        let public = hpke::PublicKey::from_bytes(&vault.public_key.0).unwrap();
        let header = EpochHeader {
            site: self.site.clone(),
            dataset: self.dataset.clone(),
            stream: w.stream,
            generation: 1,
            epoch: w.epoch,
            start: w.chain.length,
            previous_root: w.chain.root,
            vault_epoch: vault.vault_epoch,
            vault: statement::hash(&statement::write(vault)),
            wrapped_key: Bytes(datakey::wrap(&w.key, &public, &binding)),
            agent: self.name.clone(),
            created: Moment::now(),
        };
        let signed = self.keys.signing.sign_statement(self.name.as_str(), &header);
        let body = frame::join_epoch_header(self.note.as_bytes(), signed.as_bytes());
        let bytes = [&frame::head(Kind::EpochHeader, body.len())[..], &body].concat();
        w.took(&bytes);
        bytes
    }

    /// One sealed message as a frame.
    pub fn message(&self, w: &mut Writing, plaintext: &[u8]) -> Vec<u8> {
        let aad = frame::message_aad(&self.dataset, w.stream, w.epoch, w.chain.length);
        let mut sealed = Vec::new();
        Sealer::new(&w.key, Provider::AwsLc).seal(&aad, plaintext, &mut sealed).unwrap();
        let bytes = [&frame::head(Kind::Message, sealed.len())[..], &sealed].concat();
        w.took(&bytes);
        bytes
    }

    /// The signed root so far.
    pub fn root(&self, w: &mut Writing) -> Vec<u8> {
        let root = StreamRoot {
            dataset: self.dataset.clone(),
            stream: w.stream,
            epoch: w.epoch,
            length: w.chain.length,
            root: w.chain.root,
            complete: true,
            created: Moment::now(),
        };
        let body = self.keys.signing.sign_statement(self.name.as_str(), &root).into_bytes();
        let bytes = [&frame::head(Kind::StreamRoot, body.len())[..], &body].concat();
        w.took(&bytes);
        bytes
    }
}

/// Opens a stream for writing.
pub async fn open_stream(c: &mut Connection, dataset: &Name, w: &Writing, last: Chain) -> Result<Opened, DoorError> {
    let ask = Open { dataset: dataset.clone(), stream: w.stream, generation: 1, last };
    match c.ask(&Request::Open(ask)).await? {
        Response::Opened(opened) => {
            c.session.opened(w.stream, &last, &opened)?;
            Ok(opened)
        }
        other => panic!("not an answer to open: {other:?}"),
    }
}

/// Sends one frame and waits for its acknowledgement.
pub async fn append(c: &mut Connection, opened: &Opened, epoch: u32, offset: u64, frame: &[u8]) -> Result<u64, Refused> {
    let head = c.session.append(opened.handle, epoch, offset, frame.len());
    c.writer.append(&head, frame).await.unwrap();
    c.writer.flush().await.unwrap();
    let mut kept = None;
    loop {
        let answer = c.reader.next().await.unwrap();
        c.session.received(&answer).unwrap();
        match answer {
            Response::Acknowledged { before, .. } => kept = Some(Ok(before)),
            Response::Refused(refused) if refused.code.ends() => return Err(refused),
            Response::Refused(refused) => kept = Some(Err(refused)),
            Response::Window { .. } => {
                if let Some(kept) = kept {
                    return kept;
                }
            }
            other => panic!("not an answer to append: {other:?}"),
        }
    }
}

/// A grant over both datasets for this reader.
pub fn grant(e: &Embassy, reader: &ReaderKeys, seconds: u32, datasets: &[&str]) -> String {
    let mut nonce = vec![0; 16];
    hoidla_crypto::random(&mut nonce);
    let covers = |v: &Vault| Covers { dataset: v.dataset.clone(), vault_epoch: 1, vault: statement::hash(&statement::write(v)) };
    let grant = Grant {
        site: e.home.site_name.clone(),
        appliance: e.identity.name.clone(),
        purpose: "a drill: restore the registry".into(),
        created: Moment::now(),
        open_for_seconds: seconds,
        nonce: Bytes(nonce),
        reader: reader.public(&name("restorer")),
        covers: e.vaults.iter().filter(|v| datasets.contains(&v.dataset.as_str())).map(covers).collect(),
    };
    reader.signing.sign_statement("restorer", &grant)
}

/// What a custodian signs and seals for a challenge; `spoil` may change a share.
pub fn approval(
    e: &Embassy,
    who: &str,
    note: &str,
    challenge_text: &str,
    envelopes: &[Vec<u8>],
    spoil: impl Fn(Vec<u8>) -> Vec<u8>,
) -> String {
    let (who, keys) = e.home.custodians.iter().find(|(n, _)| n.as_str() == who).unwrap();
    let grant = sign::read_unverified::<Grant>(note.as_bytes()).unwrap();
    let challenge: Challenge = statement::parse(challenge_text).unwrap();
    let occasion = Occasion { grant: grant.hash, challenge: statement::hash(challenge_text) };
    let one_time = hpke::PublicKey::from_bytes(&challenge.one_time_key.0).unwrap();
    let mut shares = Vec::new();
    for bytes in envelopes {
        let signed: Signed<Envelopes> = sign::open(bytes, Some("authority"), &e.home.verifying()).unwrap();
        let envelope = signed.statement.shares.iter().find(|s| s.custodian == *who).unwrap();
        let vault = VaultId { site: e.home.site_name.clone(), dataset: signed.statement.dataset.clone(), vault_epoch: 1 };
        let id = vault.share(Door::Quorum, who, envelope.index);
        let opened = hoidla_crypto::envelope::open(keys, &id, &envelope.sealed.0).unwrap();
        let share = Share::decode(&opened).unwrap();
        let mut sealed = seal_share(&one_time, &occasion, &id, &share);
        sealed.sealed = Bytes(spoil(sealed.sealed.0));
        shares.push(sealed);
    }
    let approval = Approval { grant: grant.hash, challenge: occasion.challenge, custodian: who.clone(), shares };
    keys.signing_key().sign_statement(who.as_str(), &approval)
}

/// Proposes as a custodian: the challenge and the envelopes.
pub async fn propose(c: &mut Connection, note: &str) -> Result<(String, Vec<Vec<u8>>), DoorError> {
    match c.ask(&Request::Propose(note.into())).await? {
        Response::Challenged { challenge, envelopes, .. } => Ok((challenge, envelopes)),
        other => panic!("not an answer to propose: {other:?}"),
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
    assert!(panel.development && panel.tpm_proof == "trusted-on-first-use");
    (child, panel.listen)
}
