//! A folder of the authority's, with keys that open in a moment.

pub use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

pub use hoidla_cli::{Output, PassphraseSource};
pub use hoidla_crypto::{
    Secret,
    envelope::CustodianKeys,
    keyfile::{Cost, KeyFile, Role},
    keys::{AgentKeys, AuthorityKeys, release_scalar},
    sign::VerifyingKey,
};
pub use hoidla_format::{
    Moment, Name,
    statement::{hash, write},
    statements::{
        AgentCertificate, ApplianceEntry, ApplianceIdentity, Enrolment, Envelopes, Halves, Proof, RecoveryWrap, Roster, Skip, Vault,
    },
};
pub use hoidla_papers::SoftAppliance;
pub use hoidla_provision::{
    agent, clock, deal, endorse, enrol,
    home::{Home, Keys, open_signed},
    release, roster, site,
};
pub use hoidla_verify::{Parcel, release as releases};

pub const QUORUM: [&str; 3] = ["alpha", "bravo", "charlie"];
pub const RECOVERY: [&str; 4] = ["delta", "echo", "foxtrot", "golf"];
pub const PASSPHRASE: &str = "drei rote Schiffe";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub struct Stage {
    pub folder: tempfile::TempDir,
    pub home: Home,
}

impl Stage {
    /// An empty folder.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home"));
        Self { folder, home }
    }

    /// Keys and a site file to edit: the same in all tests, since making them takes a second.
    pub fn new() -> Self {
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
    pub fn fresh() -> Self {
        let stage = Self::empty();
        let appliances = [ApplianceEntry { name: name("lux-1"), address: "127.0.0.1:4460".into(), network: None, health: None }];
        site::new(&stage.home, &name("lux"), &appliances, &stage.passphrase(PASSPHRASE)).unwrap();
        stage.cheaper();
        stage
    }

    /// Roster and site signed.
    pub fn signed() -> Self {
        let stage = Self::new();
        roster::sign(&stage.home, &stage.roster(2, 3), &stage.passphrase(PASSPHRASE)).unwrap();
        site::sign(&stage.home, &stage.passphrase(PASSPHRASE)).unwrap();
        stage
    }

    /// The same keys in files that open in a moment: the tests open them often.
    pub fn cheaper(&self) {
        for role in [Role::Authority, Role::Release] {
            let path = self.home.key(role);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let file = KeyFile::parse(&fs::read(&path).unwrap()).unwrap();
            let cheap = KeyFile::protect_at(Cost::LEAST, role, file.name(), &file.open(PASSPHRASE).unwrap(), PASSPHRASE).unwrap();
            fs::write(&path, cheap).unwrap();
        }
    }

    pub fn passphrase(&self, text: &str) -> PassphraseSource {
        let path = self.folder.path().join("passphrase");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        PassphraseSource { passphrase_file: Some(path) }
    }

    pub fn ours(&self) -> PassphraseSource {
        self.passphrase(PASSPHRASE)
    }

    pub fn keys(&self) -> Keys {
        self.home.keys(&self.ours()).unwrap()
    }

    pub fn keys_sign(&self, halves: &Halves) -> anyhow::Result<String> {
        static KEYS: LazyLock<Keys> = LazyLock::new(|| Stage::new().keys());
        KEYS.sign(halves)
    }

    pub fn authority(&self) -> VerifyingKey {
        self.keys().verifying()
    }

    pub fn card(&self, who: &str, kept_in: &str) -> PathBuf {
        let seed: [u8; 1] = [who.as_bytes()[0]];
        let keys = CustodianKeys::from_seed(&Secret::filled(|b| b.fill(seed[0])));
        let mut card = keys.public_card(&name(who));
        card.kept_in = kept_in.into();
        let path = self.folder.path().join(format!("{who}.txt"));
        fs::write(&path, keys.signing_key().sign_statement(who, &card)).unwrap();
        path
    }

    pub fn roster(&self, quorum: u8, recovery_quorum: u8) -> roster::Request {
        let cards = |names: &[&str]| names.iter().map(|n| self.card(n, "file")).collect();
        roster::Request { name: name("main"), quorum, recovery_quorum, custodians: cards(&QUORUM), recovery: cards(&RECOVERY) }
    }

    /// The file that the appliance with this TPM's number would give.
    pub fn identity(&self, tpm: u8) -> (PathBuf, ApplianceIdentity) {
        let mut soft = self.soft(tpm);
        (soft.identity.release_counter, soft.identity.site_counter, soft.identity.hours_counter) = (7, 1, 1);
        soft.vouch();
        (self.put_identity(&soft.identity, tpm), soft.identity)
    }

    /// The appliance with this TPM's number.
    pub fn soft(&self, tpm: u8) -> SoftAppliance {
        SoftAppliance::new(&self.home.signed_site().unwrap().statement, "lux-1", tpm)
    }

    pub fn put_identity(&self, identity: &ApplianceIdentity, tpm: u8) -> PathBuf {
        let path = self.folder.path().join(format!("identity-{tpm}.txt"));
        fs::write(&path, write(identity)).unwrap();
        path
    }

    /// What home records of the TPM with this number before it is shipped.
    pub fn endorsement(&self, tpm: u8) -> PathBuf {
        let path = self.folder.path().join(format!("ek-{tpm}.txt"));
        fs::write(&path, write(&self.soft(tpm).endorsement())).unwrap();
        path
    }

    pub fn deal(&self, datasets: &[&str], tpm: Option<u8>, replace: bool) -> anyhow::Result<deal::Dealt> {
        let identities = tpm.map(|t| self.identity(t).0).into_iter().collect();
        let request = deal::Request { datasets: datasets.iter().map(|d| name(d)).collect(), identities, replace };
        deal::deal(&self.home, &request, &self.ours(), &Output { quiet: true, json: false })
    }

    pub fn pcrs(&self) -> PathBuf {
        let path = self.folder.path().join("pcrs.json");
        let zero = "00".repeat(32);
        fs::write(&path, format!(r#"{{"4":"{zero}","11":"{zero}","12":"{zero}","13":"{zero}"}}"#)).unwrap();
        path
    }

    pub fn edit(&self, from: &str, to: &str) {
        let path = self.home.site_toml();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
}

pub fn told<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("taken"),
        Err(e) => hoidla_cli::end::told(&e),
    }
}

pub fn open<S: hoidla_format::Statement>(path: &Path, key: &VerifyingKey) -> S {
    open_signed::<S>(path, key).unwrap().statement
}
