//! The authority's whole work in one folder, and what it refuses.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use hoidla_cli::{Output, PassphraseSource};
use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    keyfile::{Cost, KeyFile, Role},
    keys::{AgentKeys, AuthorityKeys, release_scalar},
    sign::VerifyingKey,
};
use hoidla_format::{
    Bytes, Moment, Name,
    statement::{hash, write},
    statements::{AgentCertificate, ApplianceEntry, ApplianceIdentity, Enrolment, Envelopes, Halves, RecoveryWrap, Roster, Skip, Vault},
};
use hoidla_provision::{
    agent, clock, deal, enrol,
    home::{Home, Keys, open_signed},
    release, roster, site,
};
use hoidla_verify::{
    Public, ReleaseKey,
    public::{Point, Shape, attribute},
    release as releases,
};

const QUORUM: [&str; 3] = ["alpha", "bravo", "charlie"];
const RECOVERY: [&str; 4] = ["delta", "echo", "foxtrot", "golf"];
const PASSPHRASE: &str = "drei rote Schiffe";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

struct Stage {
    folder: tempfile::TempDir,
    home: Home,
}

impl Stage {
    /// An empty folder.
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home"));
        Self { folder, home }
    }

    /// Keys and a site file to edit: the same in all tests, since making them takes a second.
    fn new() -> Self {
        static FIRST: LazyLock<Stage> = LazyLock::new(Stage::fresh);
        let stage = Self::empty();
        for path in [FIRST.home.site_toml(), FIRST.home.key(Role::Authority), FIRST.home.key(Role::Release)] {
            let there = stage.folder.path().join(path.strip_prefix(FIRST.folder.path()).unwrap());
            fs::create_dir_all(there.parent().unwrap()).unwrap();
            fs::copy(path, there).unwrap();
        }
        stage
    }

    /// Keys and a site file of its own.
    fn fresh() -> Self {
        let stage = Self::empty();
        let appliances = [ApplianceEntry { name: name("lux-1"), address: "127.0.0.1:4460".into(), network: None }];
        site::new(&stage.home, &name("lux"), &appliances, &stage.passphrase(PASSPHRASE)).unwrap();
        stage.cheaper();
        stage
    }

    /// Roster and site signed.
    fn signed() -> Self {
        let stage = Self::new();
        roster::sign(&stage.home, &stage.roster(2, 3), &stage.passphrase(PASSPHRASE)).unwrap();
        site::sign(&stage.home, &stage.passphrase(PASSPHRASE)).unwrap();
        stage
    }

    /// The same keys in files that open in a moment: the tests open them often.
    fn cheaper(&self) {
        for role in [Role::Authority, Role::Release] {
            let path = self.home.key(role);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let file = KeyFile::parse(&fs::read(&path).unwrap()).unwrap();
            let cheap = KeyFile::protect_at(Cost::LEAST, role, file.name(), &file.open(PASSPHRASE).unwrap(), PASSPHRASE).unwrap();
            fs::write(&path, cheap).unwrap();
        }
    }

    fn passphrase(&self, text: &str) -> PassphraseSource {
        let path = self.folder.path().join("passphrase");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        PassphraseSource { passphrase_file: Some(path) }
    }

    fn ours(&self) -> PassphraseSource {
        self.passphrase(PASSPHRASE)
    }

    fn keys(&self) -> Keys {
        self.home.keys(&self.ours()).unwrap()
    }

    fn keys_sign(&self, halves: &Halves) -> anyhow::Result<String> {
        static KEYS: LazyLock<Keys> = LazyLock::new(|| Stage::new().keys());
        KEYS.sign(halves)
    }

    fn authority(&self) -> VerifyingKey {
        self.keys().verifying()
    }

    fn card(&self, who: &str, kept_in: &str) -> PathBuf {
        let seed: [u8; 1] = [who.as_bytes()[0]];
        let keys = CustodianKeys::from_seed(&Secret::filled(|b| b.fill(seed[0])));
        let mut card = keys.public_card(&name(who));
        card.kept_in = kept_in.into();
        let path = self.folder.path().join(format!("{who}.txt"));
        fs::write(&path, keys.signing_key().sign_statement(who, &card)).unwrap();
        path
    }

    fn roster(&self, quorum: u8, recovery_quorum: u8) -> roster::Request {
        let cards = |names: &[&str]| names.iter().map(|n| self.card(n, "file")).collect();
        roster::Request { name: name("main"), quorum, recovery_quorum, custodians: cards(&QUORUM), recovery: cards(&RECOVERY) }
    }

    /// The file that an appliance's TPM with this number would give.
    fn identity(&self, tpm: u8) -> (PathBuf, ApplianceIdentity) {
        let release = ReleaseKey::from_secret(&Secret::filled(|b| b.fill(tpm))).unwrap();
        let point: Point = *release.public().public().point().unwrap();
        let srk = Public { shape: Shape::Storage(point), ..Public::srk_template() };
        let node = Public { attributes: attribute::SIGN, policy: None, shape: Shape::Signing(point) };
        let identity = ApplianceIdentity {
            site: name("lux"),
            name: name("lux-1"),
            tpm: "software".into(),
            ek: Bytes(vec![]),
            srk: Bytes(srk.marshal()),
            ak: Bytes(vec![]),
            node: Bytes(node.marshal()),
            release_counter: 7,
            site_counter: 1,
            hours_counter: 1,
        };
        let path = self.folder.path().join(format!("identity-{tpm}.txt"));
        fs::write(&path, write(&identity)).unwrap();
        (path, identity)
    }

    fn deal(&self, datasets: &[&str], tpm: Option<u8>, replace: bool) -> anyhow::Result<deal::Dealt> {
        let identities = tpm.map(|t| self.identity(t).0).into_iter().collect();
        let request = deal::Request { datasets: datasets.iter().map(|d| name(d)).collect(), identities, replace };
        deal::deal(&self.home, &request, &self.ours(), &Output { quiet: true, json: false })
    }

    fn pcrs(&self) -> PathBuf {
        let path = self.folder.path().join("pcrs.json");
        let zero = "00".repeat(32);
        fs::write(&path, format!(r#"{{"4":"{zero}","11":"{zero}","12":"{zero}","13":"{zero}"}}"#)).unwrap();
        path
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.home.site_toml();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
}

fn told<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("taken"),
        Err(e) => hoidla_cli::end::told(&e),
    }
}

fn open<S: hoidla_format::Statement>(path: &Path, key: &VerifyingKey) -> S {
    open_signed::<S>(path, key).unwrap().statement
}

#[test]
fn from_nothing_to_an_agent() {
    let stage = Stage::signed();
    let (home, key) = (&stage.home, stage.authority());
    let dealt = stage.deal(&[], Some(1), false).unwrap();
    assert_eq!((dealt.vaults.len(), dealt.tested), (10, 10 * (3 + 4)));
    let roster: Roster = open(&home.roster(&name("main")), &key);
    for vault in &dealt.vaults {
        let (d, e) = (&vault.dataset, vault.vault_epoch);
        let signed = open_signed::<Vault>(&home.vault(d, e), &key).unwrap();
        assert_eq!((e, signed.statement.roster), (1, hash(&write(&roster))));
        for path in [home.envelopes(d, e), home.recovery_envelopes(d, e)] {
            assert_eq!(open::<Envelopes>(&path, &key).vault, signed.hash);
        }
        assert_eq!(open::<RecoveryWrap>(&home.recovery_wrap(d, e), &key).vault, signed.hash);
    }
    let released = release::sign(home, &name("drill"), &stage.pcrs(), &[], &stage.ours()).unwrap();
    assert_eq!((released.epoch, released.vaults.len()), (7, 10), "not below the TPM's counter");
    releases::check(&released, &stage.keys().release_public()).unwrap();

    enrol::enrol(home, &name("lux-1"), &stage.ours()).unwrap();
    let enrolment: Enrolment = open(&home.enrolment(&name("lux-1")), &key);
    assert_eq!(enrolment.proof, enrol::TRUSTED);
    assert_eq!(enrolment.halves, home.halves_of(&name("lux-1"), &key).unwrap().unwrap().hash);
    assert_eq!(enrolment.identity, hash(&write(&stage.identity(1).1)));

    let agent_passphrase = PassphraseSource { passphrase_file: Some(stage.folder.path().join("passphrase")) };
    let request = agent::Request { dataset: name("population"), agent: name("push-1"), days: 30, agent_passphrase };
    let (folder, certificate) = agent::issue(home, &request, &stage.ours()).unwrap();
    let secret = KeyFile::parse(&fs::read(folder.join("agent.key")).unwrap()).unwrap().open(PASSPHRASE).unwrap();
    assert_eq!(AgentKeys::from_seed(&secret).signing.verifying_key().to_sec1(), certificate.key.0);
    assert_eq!(open::<AgentCertificate>(&folder.join("agent.txt"), &key), certificate);
    assert!(folder.join("agent.der").exists() && folder.join("site.txt").exists() && folder.join("vault-population-1.txt").exists());
    assert!(told(agent::issue(home, &request, &stage.ours())).contains("nothing was overwritten"));
}

#[test]
fn nothing_secret_lies_in_clear() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let open = |role| KeyFile::parse(&fs::read(stage.home.key(role)).unwrap()).unwrap().open(PASSPHRASE).unwrap();
    let (master, release) = (open(Role::Authority), open(Role::Release));
    let scalar = release_scalar(&release);
    let ring = AuthorityKeys::from_seed(&master);
    let pkcs8 = [ring.statements.to_pkcs8(), ring.door.to_pkcs8()];
    // A P-384 scalar begins 36 bytes into PKCS#8 as RFC 5915 writes it; any 32 bytes of the middle are telling.
    let secrets: Vec<&[u8]> = vec![master.expose(), release.expose(), scalar.expose(), &pkcs8[0][40..72], &pkcs8[1][40..72]];
    let mut looked = 0;
    let mut folders = vec![stage.folder.path().join("home")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            looked += 1;
            for secret in &secrets {
                assert!(!bytes.windows(secret.len()).any(|w| w == *secret), "{} holds a secret", path.display());
            }
        }
    }
    assert!(looked > 8, "{looked} files");
}

#[test]
fn the_wrong_passphrase_or_another_s_keys_sign_nothing() {
    let stage = Stage::signed();
    let before = fs::read(stage.home.site()).unwrap();
    stage.edit("serial = 1", "serial = 2");
    assert!(told(site::sign(&stage.home, &stage.passphrase("drei blaue Schiffe"))).contains("passphrase doesn't open"));
    let other = Stage::fresh();
    fs::copy(other.home.key(Role::Authority), stage.home.key(Role::Authority)).unwrap();
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("not the key in keys/authority.key"));
    assert!(told(stage.deal(&["population"], Some(1), false)).contains("not the one in the site file"));
    fs::copy(stage.home.key(Role::Release), stage.home.key(Role::Authority)).unwrap();
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("the key of the home authority belongs here"));
    assert_eq!(fs::read(stage.home.site()).unwrap(), before);
    assert!(!stage.home.vault(&name("population"), 1).exists());
}

#[test]
fn serials_only_rise() {
    let stage = Stage::signed();
    site::sign(&stage.home, &stage.ours()).expect("the same text again");
    stage.edit("State Gazette", "The State Gazette");
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("line 6") && e.contains("write 2"), "{e}");
    stage.edit("serial = 1", "serial = 9");
    assert_eq!(site::sign(&stage.home, &stage.ours()).unwrap().serial, 9);
    stage.edit("serial = 9", "serial = 8");
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("write 10"));
    stage.edit("serial = 8", "serial = 10");
    stage.edit("site = \"lux\"", "site = \"sgp\"");
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("write \"lux\""));
}

#[test]
fn retention_only_grows() {
    let stage = Stage::signed();
    stage.edit("serial = 1", "serial = 2");
    stage.edit("retention_days = 365", "retention_days = 364");
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("line ") && e.contains("write 365 or more"), "{e}");
    stage.edit("retention_days = 364", "retention_days = 366");
    site::sign(&stage.home, &stage.ours()).unwrap();
}

#[test]
fn a_word_about_time_skips_no_more_than_passed() {
    let stage = Stage::signed();
    let (home, key) = (&stage.home, stage.authority());
    let ask = |from: u64, days: u32| {
        let request = clock::Request { appliance: name("lux-1"), from, days, reason: "moved to another hall".into() };
        clock::skip(home, &request, &stage.ours())
    };
    assert!(told(ask(0, 1)).contains("not enrolled"));
    stage.deal(&[], Some(1), false).unwrap();
    enrol::enrol(home, &name("lux-1"), &stage.ours()).unwrap();
    assert!(told(ask(0, 1)).contains("at most 0"), "it was enrolled today");
    let enrolled: Enrolment = open(&home.enrolment(&name("lux-1")), &key);
    let then = Moment::from_seconds(Moment::now().seconds() - 100 * 86_400);
    fs::write(home.enrolment(&name("lux-1")), stage.keys().sign(&Enrolment { issued: then, ..enrolled }).unwrap()).unwrap();
    assert!(told(ask(500, 101)).contains("at most 100"));
    let (path, word) = ask(500, 100).unwrap();
    assert_eq!((word.serial, word.from, word.to), (1, 500, 500 + 100 * 86_400));
    assert_eq!(open::<Skip>(&path, &key), word);
    assert!(told(ask(word.to, 1)).contains("at most 0"), "the last word's date counts");
    let request = clock::Request { appliance: name("lux-9"), from: 0, days: 1, reason: "x".into() };
    assert!(told(clock::skip(home, &request, &stage.ours())).contains("lux-9"));
}

#[test]
fn a_site_isn_t_signed_without_its_roster_as_signed() {
    let stage = Stage::new();
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("isn't signed yet") && e.contains("roster sign --name main"), "{e}");
    roster::sign(&stage.home, &stage.roster(2, 3), &stage.ours()).unwrap();
    let text = fs::read_to_string(stage.home.site_toml()).unwrap();
    let line = text.lines().find(|l| l.starts_with("hash")).unwrap().to_owned();
    stage.edit(&line, &format!("hash = \"{}\"", "ab".repeat(32)));
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("signed anew") && e.contains(line.split('"').nth(1).unwrap()), "{e}");
}

#[test]
fn rosters_are_sane_and_cards_are_whole() {
    let stage = Stage::new();
    let refused = |request: roster::Request| told(roster::sign(&stage.home, &request, &stage.ours()));
    assert!(refused(stage.roster(3, 4)).contains("at least one custodian to spare"));
    assert!(refused(stage.roster(2, 2)).contains("recovery needs no TPM"));
    let mut twice = stage.roster(2, 3);
    twice.custodians[1] = twice.custodians[0].clone();
    assert!(refused(twice).contains("stands twice"));
    let request = stage.roster(2, 3);
    let changed = fs::read_to_string(&request.custodians[0]).unwrap().replace("\"alpha\"", "\"alphb\"");
    fs::write(&request.custodians[0], changed).unwrap();
    assert!(refused(request).contains("next: ask the custodian"));
    let mut unknown = stage.roster(2, 3);
    unknown.name = name("second");
    assert!(refused(unknown).contains("[[roster]]"));
    stage.edit("development = true", "development = false");
    assert!(refused(stage.roster(2, 3)).contains("production rosters take cards only"));
    assert!(!stage.home.roster(&name("main")).exists());
}

#[test]
fn a_roster_with_vaults_is_never_replaced() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let mut other = stage.roster(2, 3);
    other.custodians.push(stage.card("hotel", "file"));
    assert!(told(roster::sign(&stage.home, &other, &stage.ours())).contains("under another name"));
    roster::sign(&stage.home, &stage.roster(2, 3), &stage.ours()).expect("the same roster again");
}

#[test]
fn dealing_goes_on_where_it_stood() {
    let stage = Stage::signed();
    assert!(told(stage.deal(&[], None, false)).contains("next: run hoidlad identify"));
    assert!(told(stage.deal(&["nosuch"], Some(1), false)).contains("no dataset nosuch"));
    stage.deal(&["population"], None, false).unwrap();
    stage.deal(&["population"], None, false).unwrap();
    let rest = stage.deal(&[], None, false).unwrap();
    assert_eq!(rest.vaults.len(), 9);
    assert!(told(stage.deal(&[], None, false)).contains("every dataset has a vault"));
    let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    assert_eq!(halves.halves.len(), 11, "ten datasets, one of them twice");

    // Another TPM under the same name.
    assert!(told(stage.deal(&["population"], Some(2), false)).contains("this is another TPM"));
    stage.deal(&["population"], Some(2), true).unwrap();
    let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    assert_eq!(halves.halves.iter().map(|h| h.vault_epoch).collect::<Vec<_>>(), [3], "the old TPM's halves are of no use");
    assert_eq!(halves.identity, hash(&write(&stage.identity(2).1)));
}

#[test]
fn an_interrupted_dealing_counts_for_nothing_and_is_dealt_anew() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let (dataset, appliance) = (name("population"), name("lux-1"));
    let envelopes = fs::read(stage.home.envelopes(&dataset, 1)).unwrap();
    // As after a crash just before the last file.
    fs::remove_file(stage.home.vault(&dataset, 1)).unwrap();
    let dealt = stage.deal(&["population"], None, false).unwrap();
    assert_eq!(dealt.vaults[0].vault_epoch, 1);
    assert_ne!(fs::read(stage.home.envelopes(&dataset, 1)).unwrap(), envelopes);
    let vault = open_signed::<Vault>(&stage.home.vault(&dataset, 1), &stage.authority()).unwrap();
    let halves = stage.home.halves_of(&appliance, &stage.authority()).unwrap().unwrap().statement.halves;
    assert_eq!(halves.iter().map(|h| h.vault).collect::<Vec<_>>(), [vault.hash]);
}

#[test]
fn what_a_release_has_retired_stays_retired() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours());
    let vaults = |r: &hoidla_format::statements::Release| r.vaults.iter().map(|v| v.vault_epoch).collect::<Vec<_>>();
    let first = sign(&[]).unwrap();
    stage.deal(&["population"], None, false).unwrap();
    let second = sign(&[(name("population"), 1)]).unwrap();
    let third = sign(&[]).unwrap();
    assert_eq!((vaults(&first), vaults(&second), vaults(&third)), (vec![1], vec![2], vec![2]));
    assert_eq!((first.epoch, second.epoch, third.epoch), (7, 8, 9));
    assert!(told(sign(&[(name("population"), 5)])).contains("no vault epoch 5"));
    // Even one that no release has named.
    stage.deal(&["population"], None, false).unwrap();
    assert_eq!(vaults(&sign(&[(name("population"), 3)]).unwrap()), [2]);
    assert_eq!(vaults(&sign(&[]).unwrap()), [2]);
    fs::write(stage.home.retired(), "population\n").unwrap();
    assert!(told(sign(&[])).contains("DATASET:EPOCH"));
}

#[test]
fn halves_of_retired_vault_epochs_are_dropped_for_good() {
    let stage = Stage::signed();
    let population = name("population");
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours()).unwrap();
    let epochs = || {
        let halves = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement.halves;
        halves.iter().map(|h| h.vault_epoch).collect::<Vec<_>>()
    };
    sign(&[]);
    stage.deal(&["population"], None, false).unwrap();
    sign(&[]);
    enrol::enrol(&stage.home, &name("lux-1"), &stage.ours()).unwrap();
    assert_eq!(epochs(), [1, 2], "nothing was retired");
    // Retired: the next enrolment names halves without it, and so does the next dealing.
    sign(&[(population.clone(), 1)]);
    let enrolment = enrol::enrol(&stage.home, &name("lux-1"), &stage.ours()).unwrap();
    assert_eq!(epochs(), [2]);
    assert_eq!(enrolment.halves, stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().hash);
    sign(&[(population, 2)]);
    stage.deal(&["population"], None, false).unwrap();
    assert_eq!(epochs(), [3]);
}

#[test]
fn a_statement_too_long_to_be_read_is_not_written() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let path = stage.home.halves(&name("lux-1"));
    let full = stage.home.halves_of(&name("lux-1"), &stage.authority()).unwrap().unwrap().statement;
    let half = full.halves[0].clone();
    let with = |n: usize| Halves { halves: vec![half.clone(); n], ..full.clone() };
    // As many halves of this vault as a statement holds, and one more.
    let fits = (1..).take_while(|n| stage.keys_sign(&with(*n)).is_ok()).last().unwrap();
    fs::write(&path, stage.keys_sign(&with(fits)).unwrap()).unwrap();
    let before = fs::read(&path).unwrap();
    let e = told(stage.deal(&["population"], None, false));
    assert!(e.contains("an appliance's sealed halves would have") && e.contains("retire old vault epochs first"), "{e}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!stage.home.vault(&name("population"), 2).exists() && !stage.home.envelopes(&name("population"), 2).exists());
}

#[test]
fn a_roster_leaves_the_site_only_after_its_vaults() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let sign = |retire: &[(Name, u32)]| release::sign(&stage.home, &name("drill"), &stage.pcrs(), retire, &stage.ours()).unwrap();
    sign(&[]);
    // A second roster takes the first one's place.
    let text = fs::read_to_string(stage.home.site_toml()).unwrap();
    let hash = text.lines().find(|l| l.starts_with("hash")).unwrap();
    fs::write(stage.home.site_toml(), text.replace("\"main\"", "\"next\"").replace("serial = 1", "serial = 2")).unwrap();
    let mut next = stage.roster(2, 3);
    next.name = name("next");
    next.custodians.push(stage.card("hotel", "file"));
    roster::sign(&stage.home, &next, &stage.ours()).unwrap();
    assert!(!fs::read_to_string(stage.home.site_toml()).unwrap().contains(hash));
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("the roster of population, vault epoch 1, is missing"), "{e}");
    sign(&[(name("population"), 1)]);
    site::sign(&stage.home, &stage.ours()).unwrap();
}

#[test]
fn an_enrolment_needs_its_own_halves() {
    let stage = Stage::signed();
    let enrol = || enrol::enrol(&stage.home, &name("lux-1"), &stage.ours());
    assert!(told(enrol()).contains("no identity of lux-1"));
    stage.deal(&["population"], Some(1), false).unwrap();
    enrol().unwrap();
    // The identity is swapped behind the program's back.
    fs::copy(stage.identity(2).0, stage.home.identity(&name("lux-1"))).unwrap();
    assert!(told(enrol()).contains("dealt to another TPM"));
}

#[test]
fn a_revoked_agent_gets_no_bundle() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    stage.edit("revoked_agents = []", "revoked_agents = [\"push-1\"]");
    stage.edit("serial = 1", "serial = 2");
    site::sign(&stage.home, &stage.ours()).unwrap();
    let issue = |dataset: &str, agent: &str| {
        let agent_passphrase = PassphraseSource { passphrase_file: Some(stage.folder.path().join("passphrase")) };
        let request = agent::Request { dataset: name(dataset), agent: name(agent), days: 30, agent_passphrase };
        agent::issue(&stage.home, &request, &stage.ours())
    };
    assert!(told(issue("population", "push-1")).contains("was revoked"));
    assert!(told(issue("business", "push-2")).contains("no vault to seal to"));
    assert!(told(issue("nosuch", "push-2")).contains("no dataset nosuch"));
}
