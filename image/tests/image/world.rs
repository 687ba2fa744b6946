//! One image, built once, from Debian's real packages and a program that every machine has.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use hoidla_cli::PassphraseSource;
use hoidla_crypto::{Secret, keys::AuthorityKeys};
use hoidla_format::Bytes;
use hoidla_image::{
    archive::{self, Archive},
    authenticode,
    boot_key::BootKey,
    compose::{self, Built, Recipe},
    lock::Lock,
};

pub const PROFILE: &str = include_str!("../../../hw-profiles/qemu-q35.toml");

/// Packages are kept between runs, so that only the first one asks the archive.
pub fn archive() -> Archive {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    fs::create_dir_all(&folder).unwrap();
    Archive::at(&folder)
}

/// The committed lock. Once the archive has moved on and nothing is kept here, today's packages
/// serve the tests as well; a release still wants the lock.
pub fn lock() -> &'static Lock {
    static LOCK: OnceLock<Lock> = OnceLock::new();
    LOCK.get_or_init(|| {
        let committed = Lock::parse(include_str!("../../packages.toml")).unwrap();
        let gone = committed.packages.iter().find_map(|p| archive().fetch(p).err());
        match gone.map(|e| format!("{e:?}")) {
            None => committed,
            Some(e) if e.contains("no longer has") => {
                eprintln!("the archive has moved on; run hoidla-image refresh. Going on with today's packages: {e}");
                archive::today().unwrap()
            }
            Some(e) => panic!("{e}"),
        }
    })
}

pub fn authority(seed: u8) -> AuthorityKeys {
    AuthorityKeys::from_seed(&Secret::filled(|b| b.fill(seed)))
}

/// Two boot keys in their folders, made once a run.
pub fn boot_key(n: usize) -> &'static BootKey {
    static KEYS: OnceLock<Vec<BootKey>> = OnceLock::new();
    &KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| BootKey::generate(&folder.path().join(name), &name.parse().unwrap(), &passphrase(folder.path())).unwrap();
        vec![make("first"), make("second")]
    })[n]
}

pub fn passphrase(folder: &Path) -> PassphraseSource {
    let path: PathBuf = folder.join("passphrase");
    fs::write(&path, "three red ships at sea\n").unwrap();
    PassphraseSource { passphrase_file: Some(path) }
}

/// An image for this profile.
pub fn build(profile: &str) -> anyhow::Result<Built> {
    let program = fs::read("/bin/true").unwrap();
    let recipe = Recipe {
        release: "test-1".parse().unwrap(),
        development: true,
        authority: &Bytes(authority(1).statements.verifying_key().to_sec1()),
        profile,
        program: &program,
        program_version: "0".into(),
    };
    compose::build(&recipe, lock(), &archive())
}

/// The image of QEMU's machine, unsigned.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| build(PROFILE).unwrap())
}

/// The same, signed with the first boot key.
pub fn signed() -> &'static Vec<u8> {
    static SIGNED: OnceLock<Vec<u8>> = OnceLock::new();
    SIGNED.get_or_init(|| authenticode::attach(&built().image, boot_key(0)).unwrap())
}

/// Its manifest, signed by the first authority.
pub fn manifest() -> String {
    let manifest = hoidla_image::inspect::Inside::of(signed()).unwrap().manifest().unwrap();
    authority(1).statements.sign_statement("authority", &manifest)
}
