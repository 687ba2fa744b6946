//! An embassy in memory behind a real door, and a home that copies into it.
#![allow(dead_code)]

mod folders;
mod server;
mod store;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use hoidla_agent::{
    home::Home,
    push::{self, Done, Settings},
    reader::Reader,
    restore,
};
use hoidla_cli::PassphraseSource;
use hoidla_crypto::{
    Secret,
    hpke::{KeyPair, PublicKey, SUITE},
    keyfile::{Cost, KeyFile, Role as KeyRole},
    keys::{AgentKeys, AuthorityKeys, ReaderKeys},
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::{Admission, AgentNames, AgentRequest, Curve, DoorKey, Target};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, Statement, statement,
    statements::{AgentCertificate, ApplianceEntry, Covers, Dataset, Grant, Site, Vault},
};
use hoidla_papers::{Office, SoftAppliance};
use hoidla_snapshot::{Only, Progress};
use p256::{ecdsa::signature::Signer as _, elliptic_curve::Generate as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use folders::*;
use server::{Server, papers};
pub use store::*;

pub const DATASET: &str = "population";
pub fn name(s: &str) -> Name {
    s.parse().unwrap()
}

struct NodeKey(p256::ecdsa::SigningKey);

impl DoorKey for NodeKey {
    fn curve(&self) -> Curve {
        Curve::P256
    }

    fn public(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature: p256::ecdsa::Signature = self.0.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

pub struct Embassy {
    pub dir: tempfile::TempDir,
    pub site: Site,
    pub authority: AuthorityKeys,
    pub vault: KeyPair,
    pub vault_statement: Vault,
    pub store: Arc<Mutex<Store>>,
    pub target: Target,
    pub admission: Arc<Admission>,
    /// What signs its checkpoints.
    pub appliance: Arc<SoftAppliance>,
    opened: Arc<Mutex<Option<(Hash32, PublicKey)>>>,
    runtime: tokio::runtime::Runtime,
}

impl Embassy {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = AuthorityKeys::from_seed(&Secret::random());
        let (site_name, now) = (name("lux"), Moment::now());
        let door = hoidla_door::software_key(&authority.door.to_pkcs8()).unwrap();
        let root = hoidla_door::door_root(&site_name, &*door, Moment::from_seconds(0), now.plus(86_400)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = Site {
            site: site_name.clone(),
            serial: 1,
            development: true,
            authority: Bytes(authority.statements.verifying_key().to_sec1()),
            release_key: Bytes(Office::new(7).release.public().to_sec1()),
            door_root: Bytes(root.clone()),
            appliances: vec![ApplianceEntry { name: name("lux-1"), address: address.clone(), network: None, health: None }],
            rosters: vec![],
            datasets: vec![Dataset { name: name(DATASET), title: "Population".into(), roster: name("r"), retention_days: 1, share: None }],
            revoked_agents: vec![],
        };
        let vault = KeyPair::generate();
        let vault_statement = Vault {
            site: site_name.clone(),
            dataset: name(DATASET),
            vault_epoch: 1,
            suite: SUITE.into(),
            public_key: Bytes(vault.public().to_bytes()),
            roster: Hash32([0; 32]),
            quorum: 2,
            recovery_quorum: 3,
            dealt: now,
            commitments: vec![],
        };
        let names = AgentNames { site: site_name.clone(), datasets: HashSet::from([name(DATASET)]), revoked: HashSet::new() };
        let admission = Admission::new(&root, names, &[]).unwrap();
        let node = NodeKey(p256::ecdsa::SigningKey::generate());
        let life = (Moment::from_seconds(0), now.plus(86_400));
        let certificate = hoidla_door::node_certificate(&site_name, &name("lux-1"), &node.public(), life, &root, &*door).unwrap();
        let config = hoidla_door::server_config(&certificate, Arc::new(node), admission.clone()).unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let appliance = Arc::new(SoftAppliance::new(&site, "lux-1", 5));
        let opened = Arc::default();
        let server = Server {
            store: store.clone(),
            admission: admission.clone(),
            acceptor: TlsAcceptor::from(config),
            vault: Arc::new(KeyPair::from_seed(vault.seed().duplicate())),
            opened: Arc::clone(&opened),
            appliance: appliance.clone(),
            papers: papers(&authority, &site, &appliance).into(),
        };
        runtime.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let server = server.clone();
                tokio::spawn(async move { _ = server.serve(tcp).await });
            }
        });
        let target = Target { address, site: site_name, appliance: name("lux-1"), root };
        Self { dir, site, authority, vault, vault_statement, store, target, admission, appliance, opened, runtime }
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub fn sign<S: Statement>(&self, s: &S) -> String {
        self.authority.statements.sign_statement("authority", s)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes an agent's folder, valid until so many seconds from now.
    pub fn home(&self, folder: &str, valid: i64) -> PathBuf {
        self.home_of("agent-1", folder, valid)
    }

    pub fn home_of(&self, agent: &str, folder: &str, valid: i64) -> PathBuf {
        let dir = self.path(folder);
        fs::create_dir(&dir).unwrap();
        let (secret, agent) = (Secret::random(), name(agent));
        let keys = AgentKeys::from_seed(&secret);
        let key = keys.signing.verifying_key().to_sec1();
        let (not_before, now) = (Moment::from_seconds(1), Moment::now().seconds());
        let not_after = Moment::from_seconds(now.saturating_add_signed(valid));
        let dataset = name(DATASET);
        let request = AgentRequest { site: &self.site.site, dataset: &dataset, agent: &agent, key: &key, not_before, not_after };
        let door = hoidla_door::software_key(&self.authority.door.to_pkcs8()).unwrap();
        let x509 = hoidla_door::agent_certificate(&request, &self.site.door_root.0, &*door).unwrap();
        let statement = AgentCertificate {
            site: self.site.site.clone(),
            dataset: name(DATASET),
            agent: agent.clone(),
            key: Bytes(key),
            issued: not_before,
            not_after,
        };
        let file = KeyFile::protect_at(Cost::LEAST, KeyRole::Agent, &agent, &secret, "a passphrase of words").unwrap();
        fs::write(dir.join("agent.key"), file).unwrap();
        fs::write(dir.join("passphrase"), "a passphrase of words\n").unwrap();
        fs::write(dir.join("agent.txt"), self.sign(&statement)).unwrap();
        fs::write(dir.join("agent.der"), x509).unwrap();
        fs::write(dir.join("site.txt"), self.sign(&self.site)).unwrap();
        fs::write(dir.join("vault-population-1.txt"), self.sign(&self.vault_statement)).unwrap();
        dir
    }

    pub fn settings(&self) -> Settings {
        Settings { target: self.target.clone(), new_generation: false, spool: 32 << 20, give_up_after: Duration::from_secs(20), workers: 2 }
    }

    pub fn push(&self, home: &Path, path: &Path) -> anyhow::Result<Done> {
        self.push_with(home, path, &self.settings())
    }

    pub fn push_with(&self, home: &Path, path: &Path, settings: &Settings) -> anyhow::Result<Done> {
        let home = Home::open(home, &PassphraseSource::default())?;
        push::push(&home, path, settings, &Progress::default(), &|line| eprintln!("{line}"))
    }

    /// A reader with a grant that is open.
    pub fn granted(&self) -> (Reader, String) {
        let reader = Reader { name: name("reader-1"), keys: ReaderKeys::from_seed(&Secret::random()) };
        let vault = self.sign(&self.vault_statement);
        let covers = Covers {
            dataset: name(DATASET),
            vault_epoch: 1,
            vault: sign::open::<Vault>(vault.as_bytes(), Some("authority"), &self.authority.statements.verifying_key()).unwrap().hash,
        };
        let grant = Grant {
            site: self.site.site.clone(),
            appliance: name("lux-1"),
            purpose: "a test".into(),
            created: Moment::now(),
            open_for_seconds: 60,
            nonce: Bytes(vec![1; 16]),
            reader: reader.keys.public(&reader.name),
            covers: vec![covers],
        };
        let note = reader.keys.signing.sign_statement("reader-1", &grant);
        *self.opened.lock().unwrap() = Some((statement::hash(&statement::write(&grant)), reader_key(&reader)));
        self.admission.set_readers(&[(reader.name.clone(), grant.reader.signing)]).unwrap();
        (reader, note)
    }

    pub fn restore(&self, granted: &(Reader, String), to: &Path, only: Only) -> anyhow::Result<restore::Done> {
        self.restore_as(granted, restore::Wish { to, only, dataset: None, generation: None, stream: None, at_least: None, before: None })
    }

    pub fn restore_as(&self, (reader, grant): &(Reader, String), wish: restore::Wish) -> anyhow::Result<restore::Done> {
        let site: Signed<Site> = sign::open_edited(self.sign(&self.site).as_bytes(), Some("authority"), &self.verifying()).unwrap();
        restore::restore(reader, (&site, &self.verifying()), grant.as_bytes(), &self.target, &wish, &mut |_, _| {}, &mut |_| {})
    }

    pub fn verifying(&self) -> VerifyingKey {
        self.authority.statements.verifying_key()
    }
}

fn reader_key(reader: &Reader) -> PublicKey {
    PublicKey::from_bytes(&reader.keys.hpke.public().to_bytes()).unwrap()
}
