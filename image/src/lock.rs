//! Which packages an image is made of: `image/packages.toml`, one version and hash each.

use anyhow::{Context, Result, ensure};
use hoidla_format::Hash32;
use serde::{Deserialize, Serialize};

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Debian's signed kernel and its modules.
    Kernel,
    /// systemd's boot stub.
    Stub,
    /// A library that `hoidlad` links.
    Library,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What it is for.
    pub part: Part,
    /// Its name in Debian.
    pub name: String,
    /// Its version in Debian.
    pub version: String,
    /// SHA-256 of the package file.
    pub sha256: Hash32,
}

/// The lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u16,
    /// The packages.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

const VERSION: u16 = 1;
const HEAD: &str = "# What the image is made of besides hoidlad. `hoidla-image refresh` writes it anew.\n";

/// A name or version goes to apt as an argument: nothing in it may be an option or a path.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '~' | ':');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 100 && text.chars().all(plain)
}

impl Lock {
    /// A lock over these packages.
    pub fn new(packages: Vec<Package>) -> Self {
        Self { version: VERSION, packages }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// If it is none of this version, or doesn't name one kernel and one stub.
    pub fn parse(text: &str) -> Result<Self> {
        let lock: Self = toml::from_str(text).context("this is no lock file of packages")?;
        ensure!(lock.version == VERSION, "a lock file of version {}; this program knows version {VERSION}", lock.version);
        for part in [Part::Kernel, Part::Stub] {
            ensure!(lock.of(part).count() == 1, "a lock file names one package as its {part:?}");
        }
        for (n, p) in lock.packages.iter().enumerate() {
            ensure!(is_plain(&p.name) && is_plain(&p.version), "{:?} {:?} is no package of Debian", p.name, p.version);
            ensure!(lock.packages[..n].iter().all(|q| q.name != p.name), "{} is named twice", p.name);
        }
        Ok(lock)
    }

    /// The file's text.
    ///
    /// # Panics
    /// Never: it is a plain table.
    pub fn write(&self) -> String {
        HEAD.to_owned() + &toml::to_string(self).expect("a plain table")
    }

    /// The packages for one purpose.
    pub fn of(&self, part: Part) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(move |p| p.part == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(part: Part, name: &str) -> Package {
        Package { part, name: name.into(), version: "1.2-3~deb12u1".into(), sha256: Hash32([1; 32]) }
    }

    #[test]
    fn a_lock_reads_back_and_names_one_kernel_and_one_stub() {
        let good = Lock::new(vec![
            package(Part::Kernel, "linux-image-6.12.1+deb12-amd64"),
            package(Part::Stub, "stub"),
            package(Part::Library, "libc6"),
        ]);
        assert_eq!(Lock::parse(&good.write()).unwrap(), good);
        let bad = [
            Lock::new(vec![package(Part::Kernel, "a")]),
            Lock::new(vec![package(Part::Kernel, "a"), package(Part::Kernel, "b"), package(Part::Stub, "c")]),
            Lock::new(vec![package(Part::Kernel, "a"), package(Part::Stub, "a")]),
            Lock::new(vec![package(Part::Kernel, "-o"), package(Part::Stub, "c")]),
            Lock::new(vec![package(Part::Kernel, "../a"), package(Part::Stub, "c")]),
        ];
        for lock in bad {
            assert!(Lock::parse(&lock.write()).is_err(), "{lock:?}");
        }
        assert!(Lock::parse(&good.write().replace("version = 1\n", "version = 2\n")).is_err());
        assert!(Lock::parse("").is_err());
    }
}
