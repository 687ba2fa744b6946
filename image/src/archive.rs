//! Fetching packages from the Debian archive that this machine is set up for.
//!
//! Promises: bytes come back only if their SHA-256 is the lock's; what was fetched once is kept
//! and needs no network; a version that the archive no longer has is said to be gone, with the
//! command that names today's. Whom apt asks is apt's own matter.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::NextStep;
use hoidla_format::{Hash32, text::from_hex};
use sha2::{Digest, Sha256};

use crate::lock::{Lock, Package, Part};

/// The kernel's series: its first two numbers.
const SERIES: &str = "6.12";
/// The stub's package.
const STUB: &str = "systemd-boot-efi";
/// What `hoidlad` links, and the TPM driver that libtss2 loads by name.
const LIBRARIES: &[&str] =
    &["libc6", "libgcc-s1", "libssl3", "libtss2-esys-3.0.2-0", "libtss2-mu0", "libtss2-sys1", "libtss2-tctildr0", "libtss2-tcti-device0"];

/// Where fetched packages are kept.
#[derive(Clone, Debug)]
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Keeps packages in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A package's bytes, from the folder or else from apt.
    ///
    /// # Errors
    /// If the archive has it no longer, or sends other bytes.
    pub fn fetch(&self, package: &Package) -> Result<Vec<u8>> {
        let kept = self.folder.join(format!("{}.deb", package.sha256));
        match fs::read(&kept) {
            Ok(bytes) if hash(&bytes) == package.sha256 => return Ok(bytes),
            Ok(_) => fs::remove_file(&kept)?,
            Err(_) => {}
        }
        let bytes = self.download(package).with_context(|| format!("cannot fetch {} {}", package.name, package.version))?;
        let found = hash(&bytes);
        ensure!(
            found == package.sha256,
            "{} {} has the hash {found}, and the lock file says {}: one of both was changed; it was not used",
            package.name,
            package.version,
            package.sha256
        );
        let beside = kept.with_extension(format!("{}", std::process::id()));
        fs::write(&beside, &bytes).and_then(|()| fs::rename(&beside, &kept)).context("cannot keep a package")?;
        Ok(bytes)
    }

    fn download(&self, package: &Package) -> Result<Vec<u8>> {
        let scratch = self.folder.join(format!("fetching-{}-{}", std::process::id(), package.sha256));
        fs::create_dir_all(&scratch).with_context(|| format!("cannot write {}", self.folder.display()))?;
        let result = download_into(&scratch, package);
        let _ = fs::remove_dir_all(&scratch);
        result
    }
}

fn download_into(scratch: &Path, package: &Package) -> Result<Vec<u8>> {
    let wanted = format!("{}={}", package.name, package.version);
    if described(&wanted)?.is_none() {
        // A fresh machine's lists may be old or missing.
        let _ = Command::new("apt-get").args(["update", "-qq"]).output();
        ensure_there(described(&wanted)?.is_some())?;
    }
    // apt's own user may not write here, and the hash is checked in any case.
    let out = Command::new("apt-get").current_dir(scratch).args(["-qq", "-o", "APT::Sandbox::User=root", "download", &wanted]).output();
    let out = out.context("cannot run apt-get")?;
    ensure!(out.status.success(), "apt-get: {}", String::from_utf8_lossy(&out.stderr).trim());
    let file = fs::read_dir(scratch)?.next().context("apt-get left no file")??;
    fs::read(file.path()).context("cannot read what apt-get fetched")
}

fn ensure_there(there: bool) -> Result<()> {
    let gone = || anyhow!("the archive no longer has this version");
    if there {
        Ok(())
    } else {
        Err(gone()).next("name today's versions with: hoidla-image refresh; then build, try and sign a new release")
    }
}

/// What apt knows of `name` or `name=version`: the newest entry's fields.
fn described(what: &str) -> Result<Option<String>> {
    let out = Command::new("apt-cache").args(["show", "--no-all-versions", what]).output();
    let out = out.context("cannot run apt-cache").next("packages come from a Debian archive: run this on Debian 12")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok((out.status.success() && !text.trim().is_empty()).then_some(text))
}

fn field<'a>(description: &'a str, name: &str) -> Result<&'a str> {
    let line = description.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    line.with_context(|| format!("apt names no {name}"))
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(bytes).into())
}

/// What the archive has today, as a lock.
///
/// # Errors
/// If apt doesn't know one of the packages.
pub fn today() -> Result<Lock> {
    let out = Command::new("apt-cache").args(["pkgnames", &format!("linux-image-{SERIES}.")]).output().context("cannot run apt-cache")?;
    let names = String::from_utf8_lossy(&out.stdout).into_owned();
    let kernel = newest_kernel(names.lines(), |name| matches!(described(name), Ok(Some(_))));
    let kernel =
        kernel.with_context(|| format!("the archive has no signed kernel of {SERIES}")).next("run apt-get update and try again")?;
    let named = [(Part::Kernel, kernel), (Part::Stub, STUB)].into_iter().chain(LIBRARIES.iter().map(|n| (Part::Library, *n)));
    Ok(Lock::new(named.map(|(part, name)| package(part, name)).collect::<Result<_>>()?))
}

fn package(part: Part, name: &str) -> Result<Package> {
    let Some(text) = described(name)? else { bail!("the archive has no {name}") };
    let sha256 = from_hex(field(&text, "SHA256")?).map(Hash32).with_context(|| format!("apt names no hash of {name}"))?;
    Ok(Package { part, name: name.to_owned(), version: field(&text, "Version")?.to_owned(), sha256 })
}

/// The newest of the plain signed kernels: not the cloud, real-time, unsigned or debugging ones.
fn newest_kernel<'a>(names: impl Iterator<Item = &'a str>, there: impl Fn(&str) -> bool) -> Option<&'a str> {
    let number = |name: &str| -> Option<u32> {
        name.strip_prefix("linux-image-")?.strip_prefix(SERIES)?.strip_prefix('.')?.strip_suffix("+deb12-amd64")?.parse().ok()
    };
    let mut all: Vec<(u32, &str)> = names.filter_map(|name| Some((number(name)?, name))).collect();
    all.sort_unstable();
    all.into_iter().rev().map(|(_, name)| name).find(|name| there(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_kernel_that_is_still_there_is_taken() {
        let names = [
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.118+deb12-amd64",
            "linux-image-6.12.119+deb12-amd64-unsigned",
            "linux-image-6.12.119+deb12-rt-amd64",
            "linux-image-6.13.1+deb12-amd64",
        ];
        assert_eq!(newest_kernel(names.into_iter(), |n| !n.contains("118")), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(newest_kernel([].into_iter(), |_| true), None);
    }

    #[test]
    fn a_version_that_is_gone_names_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Package { part: Part::Stub, name: STUB.into(), version: "1-never".into(), sha256: Hash32([1; 32]) };
        let e = format!("{:?}", Archive::at(folder.path()).fetch(&gone).unwrap_err());
        assert!(e.contains("hoidla-image refresh") && e.contains("no longer has"), "{e}");
    }

    #[test]
    fn kept_bytes_are_used_only_if_they_are_the_locks() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package { part: Part::Stub, name: STUB.into(), version: "1-never".into(), sha256: hash(b"kept") };
        let kept = folder.path().join(format!("{}.deb", package.sha256));
        fs::write(&kept, b"kept").unwrap();
        assert_eq!(Archive::at(folder.path()).fetch(&package).unwrap(), b"kept");
        fs::write(&kept, b"kepT").unwrap();
        assert!(Archive::at(folder.path()).fetch(&package).is_err() && !kept.exists());
    }
}
