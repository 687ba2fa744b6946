//! From packages, profile and program to the unsigned image.

use anyhow::{Context, Result};
use hoidla_format::{
    Bytes, Hash32, Name,
    profile::{self, Profile},
    statements::{ReleaseNote, Software},
};
use hoidla_verify::pe::Image;
use sha2::{Digest, Sha256};

use crate::{
    archive::Archive,
    cmdline,
    deb::{self, Files},
    initramfs::{self, AUTHORITY, Contents, MODULES, ORDER, PROFILE, RELEASE, STICK},
    libraries,
    lock::{Lock, Part},
    modules::{Kernel, Module},
    uki::{self, Parts},
};

/// What an image is built from.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// The release's name.
    pub release: Name,
    /// True for drills and tests.
    pub development: bool,
    /// The authority's key, as base64.
    pub authority: &'a Bytes,
    /// The hardware profile, as it stands in its file.
    pub profile: &'a str,
    /// `hoidlad`.
    pub program: &'a [u8],
    /// Its version.
    pub program_version: String,
}

/// An unsigned image, and what is worth saying about it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file.
    pub image: Vec<u8>,
    /// What it is made of.
    pub software: Vec<Software>,
    /// Modules in the order in which they are loaded; last those for a stick.
    pub modules: Vec<String>,
    /// Named modules that the kernel has built in.
    pub builtin: Vec<String>,
    /// Firmware files that modules may ask for and the image hasn't got.
    pub firmware: Vec<String>,
}

/// Builds the image.
///
/// # Errors
/// If a package is gone or damaged, or lacks what profile or program need.
pub fn build(recipe: &Recipe<'_>, lock: &Lock, archive: &Archive) -> Result<Built> {
    let mut software = Vec::new();
    let mut fetch = |part: Part, wanted: &dyn Fn(&str) -> bool| -> Result<Files> {
        let mut all = Files::new();
        for package in lock.of(part) {
            let files = deb::unpack(&archive.fetch(package)?, wanted).with_context(|| format!("the package {}", package.name))?;
            if !files.is_empty() {
                software.push(Software { name: package.name.clone(), version: package.version.clone(), hash: package.sha256 });
            }
            all.extend(files);
        }
        Ok(all)
    };
    let kernel = fetch(Part::Kernel, &|path| path.starts_with("lib/modules/") || path.starts_with("boot/vmlinuz-"))?;
    let stub = fetch(Part::Stub, &|path| path.ends_with("/linuxx64.efi.stub"))?;
    // A program that is linked statically takes nothing from the libraries' packages.
    let linked = libraries::are_needed(recipe.program).context("hoidlad")?;
    let shared = fetch(Part::Library, &|path| linked && path.contains(".so"))?;
    software.insert(0, program(recipe));

    let profile = Profile::parse(recipe.profile).context("the hardware profile")?;
    let names = |modules: &[profile::Module]| modules.iter().map(ToString::to_string).collect::<Vec<_>>();
    let closure = Kernel::of(&kernel)?.closure(&names(&profile.modules), &names(&profile.stick_modules))?;
    let mut contents: Contents = libraries::of(recipe.program, &shared).context("hoidlad")?;
    contents.insert("init".into(), recipe.program.to_vec());
    contents.insert(ORDER.into(), by_waves(&closure.modules).into());
    contents.insert(STICK.into(), by_waves(&closure.stick_modules).into());
    let mut modules = Vec::new();
    for module in closure.modules.into_iter().chain(closure.stick_modules) {
        contents.insert(format!("{MODULES}/{}.ko", module.name), module.bytes);
        modules.push(module.name);
    }
    contents.insert(AUTHORITY.into(), format!("{}\n", text(recipe.authority)?).into());
    contents.insert(PROFILE.into(), recipe.profile.into());
    contents.insert(RELEASE.into(), note(recipe, software.clone())?.into());

    let image = uki::assemble(&Parts {
        stub: only(&stub)?,
        kernel: only_at(&kernel, "boot/vmlinuz-")?,
        initramfs: &initramfs::pack(&contents)?,
        cmdline: &cmdline::of(&profile.consoles),
        os_release: &os_release(recipe),
    })?;
    Image::parse(&image)?;
    Ok(Built { image, software, modules, builtin: closure.builtin, firmware: closure.firmware })
}

/// Files of modules, a wave a line.
fn by_waves(modules: &[Module]) -> String {
    let waves = modules.chunk_by(|a, b| a.wave == b.wave);
    waves.map(|wave| wave.iter().map(|m| format!("{}.ko", m.name)).collect::<Vec<_>>().join(" ") + "\n").collect()
}

fn program(recipe: &Recipe<'_>) -> Software {
    let hash = Hash32(Sha256::digest(recipe.program).into());
    Software { name: "hoidlad".into(), version: recipe.program_version.clone(), hash }
}

/// As statements and configurations write bytes.
fn text(bytes: &Bytes) -> Result<String> {
    Ok(toml::Value::try_from(bytes)?.as_str().context("bytes are written as text")?.to_owned())
}

fn note(recipe: &Recipe<'_>, software: Vec<Software>) -> Result<String> {
    let note = ReleaseNote { version: ReleaseNote::VERSION, name: recipe.release.clone(), development: recipe.development, software };
    Ok(toml::to_string(&note)?)
}

/// What firmware menus show; people should see at once that an image is for drills.
fn os_release(recipe: &Recipe<'_>) -> String {
    let (name, kind) = (&recipe.release, if recipe.development { " (development)" } else { "" });
    format!("ID=hoidla\nNAME=Hoidla\nVERSION_ID={name}\nPRETTY_NAME=\"Hoidla {name}{kind}\"\n")
}

fn only(files: &Files) -> Result<&[u8]> {
    only_at(files, "")
}

/// The only file whose path begins like this.
fn only_at<'a>(files: &'a Files, prefix: &str) -> Result<&'a [u8]> {
    let mut found = files.iter().filter(|(path, _)| path.starts_with(prefix));
    match (found.next(), found.next()) {
        (Some((_, deb::Entry::File(bytes))), None) => Ok(bytes),
        _ => anyhow::bail!("the package has none, or more than one, of {prefix}*"),
    }
}
