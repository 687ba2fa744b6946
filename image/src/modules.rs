//! Which kernel modules a machine needs, in which order.
//!
//! Promises: the modules named, with everything they depend on, hard or soft, through aliases as
//! well, each in a wave after what it needs: PID 1 loads wave after wave, has no `modprobe`, and
//! may load what is in one wave at once.
//! A module comes un-xz'ed, with the signature that Debian gave it. Where several modules offer
//! one alias, one that runs on every processor is taken; a profile can name a faster one.
//! Firmware that a module may ask for is not in the image: it is reported.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::NextStep;
use object::{Object, ObjectSection};

use crate::deb::{Entry, Files, unxz};

/// What ends a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A module, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name as the kernel calls it.
    pub name: String,
    /// What it needs is in waves before this one.
    pub wave: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a module says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Says {
    depends: Vec<String>,
    /// What should be loaded before it.
    before: Vec<String>,
    /// What should be loaded after it.
    after: Vec<String>,
    aliases: Vec<String>,
    firmware: Vec<String>,
}

/// All modules of a kernel package.
#[derive(Debug)]
pub struct Kernel<'a> {
    packed: BTreeMap<String, (&'a str, &'a [u8])>,
    builtin: BTreeSet<String>,
    builtin_aliases: BTreeSet<String>,
}

/// The modules of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// By waves.
    pub modules: Vec<Module>,
    /// Those that come after them if a stick is to be read; by waves.
    pub stick_modules: Vec<Module>,
    /// Of those named, the ones that the kernel has built in.
    pub builtin: Vec<String>,
    /// `module: file` that a module may ask for and the image hasn't got.
    pub firmware: Vec<String>,
}

/// The kernel writes `-` and `_` as it likes, and means the same.
fn normal(name: &str) -> String {
    name.trim().replace('-', "_")
}

fn stem(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next()?;
    file.strip_suffix(".ko.xz").or_else(|| file.strip_suffix(".ko"))
}

impl<'a> Kernel<'a> {
    /// From the files of a kernel package.
    ///
    /// # Errors
    /// If it lists no built-in modules, or has none of its own.
    pub fn of(files: &'a Files) -> Result<Self> {
        let mut packed = BTreeMap::new();
        for (path, entry) in files {
            if let (Some(name), Entry::File(bytes)) = (stem(path), entry) {
                packed.insert(normal(name), (path.as_str(), bytes.as_slice()));
            }
        }
        ensure!(!packed.is_empty(), "the kernel package has no modules");
        let list = |name| std::str::from_utf8(crate::deb::by_name(files, name)?).context("a list of modules that is no text");
        let builtin = list("modules.builtin")?.lines().filter_map(stem).map(normal).collect();
        let info = list("modules.builtin.modinfo")?;
        let alias = |line: &str| Some(normal(line.split_once('.')?.1.strip_prefix("alias=")?));
        Ok(Self { packed, builtin, builtin_aliases: info.split('\0').filter_map(alias).collect() })
    }

    /// The modules named, and all they need; apart what only the others, for a stick, need.
    ///
    /// # Errors
    /// If one is not in the package, or depends on one that isn't.
    pub fn closure(&self, modules: &[String], stick: &[String]) -> Result<Closure> {
        let mut walk = Walk { kernel: self, out: Closure::default(), waves: BTreeMap::new(), aliases: BTreeMap::new() };
        walk.take_all(modules)?;
        let modules = std::mem::take(&mut walk.out.modules);
        walk.take_all(stick)?;
        let Closure { modules: stick_modules, builtin, firmware, .. } = walk.out;
        Ok(Closure { modules, stick_modules, builtin, firmware })
    }

    fn unpacked(&self, name: &str) -> Result<(Vec<u8>, Says)> {
        let Some((path, bytes)) = self.packed.get(name) else { bail!("the kernel package has no module {name}") };
        let bytes = if path.ends_with(".xz") { unxz(bytes).with_context(|| (*path).to_owned())? } else { bytes.to_vec() };
        let says = says(&bytes).with_context(|| (*path).to_owned())?;
        Ok((bytes, says))
    }
}

fn ensure_known(known: bool, name: &str) -> Result<()> {
    let r = if known { Ok(()) } else { Err(anyhow::anyhow!("the kernel package has no module {name}")) };
    r.next("correct the profile's list of modules, or see with modinfo on a running machine what it is called")
}

struct Walk<'k, 'a> {
    kernel: &'k Kernel<'a>,
    out: Closure,
    /// The waves of those taken; 0 while it isn't known.
    waves: BTreeMap<String, usize>,
    /// Who offers an alias, by the folder of modules that was searched.
    aliases: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Walk<'_, '_> {
    fn take_all(&mut self, wanted: &[String]) -> Result<()> {
        for name in wanted {
            let name = normal(name);
            if self.kernel.builtin.contains(&name) {
                self.out.builtin.push(name);
            } else {
                ensure_known(self.kernel.packed.contains_key(&name), &name)?;
                self.take(&name, 0)?;
            }
        }
        self.out.modules.sort_by_key(|m| m.wave);
        Ok(())
    }

    /// Takes a module after what it needs, into this wave or a later one; the first wave of what
    /// needs it. A circle of soft wishes ends where it began.
    fn take(&mut self, name: &str, least: usize) -> Result<usize> {
        if self.kernel.builtin.contains(name) {
            return Ok(0);
        }
        if let Some(wave) = self.waves.get(name) {
            return Ok(wave + 1);
        }
        self.waves.insert(name.to_owned(), 0);
        let (bytes, says) = self.kernel.unpacked(name)?;
        ensure!(bytes.ends_with(SIGNED), "{name} carries no signature: a locked-down kernel would refuse it");
        let mut wave = least;
        for soft in &says.before {
            wave = wave.max(self.wish(soft, 0)?);
        }
        for hard in &says.depends {
            wave = wave.max(self.take(hard, 0).with_context(|| format!("{name} depends on {hard}"))?);
        }
        self.out.firmware.extend(says.firmware.iter().map(|f| format!("{name}: {f}")));
        self.out.modules.push(Module { name: name.to_owned(), wave, bytes });
        self.waves.insert(name.to_owned(), wave);
        for soft in &says.after {
            self.wish(soft, wave + 1)?;
        }
        Ok(wave + 1)
    }

    /// A soft dependency: a module, or an alias of one; nothing if nobody offers it.
    fn wish(&mut self, wish: &str, least: usize) -> Result<usize> {
        if self.kernel.packed.contains_key(wish) {
            return self.take(wish, least);
        }
        if self.kernel.builtin.contains(wish) || self.kernel.builtin_aliases.contains(wish) {
            return Ok(0);
        }
        match self.offers(wish)? {
            Some(name) => self.take(&name, least),
            None => Ok(0),
        }
    }

    /// Who offers an alias. Ciphers and checksums offer theirs in few folders, which saves unpacking thousands.
    fn offers(&mut self, alias: &str) -> Result<Option<String>> {
        let folder = if alias.starts_with("crypto_") { "crypto/" } else { "" };
        if !self.aliases.contains_key(folder) {
            let mut all = BTreeMap::new();
            for (name, (path, _)) in &self.kernel.packed {
                if path.contains(folder) {
                    for alias in self.kernel.unpacked(name)?.1.aliases {
                        let held = all.entry(alias).or_insert_with(|| name.clone());
                        if name.ends_with("_generic") && !held.ends_with("_generic") {
                            held.clone_from(name);
                        }
                    }
                }
            }
            self.aliases.insert(folder, all);
        }
        Ok(self.aliases[folder].get(alias).cloned())
    }
}

/// The `.modinfo` section: `key=value`, a zero after each.
fn says(module: &[u8]) -> Result<Says> {
    let file = object::File::parse(module).context("not a kernel module")?;
    let section = file.section_by_name(".modinfo").context("a module that says nothing of itself")?;
    let text = String::from_utf8_lossy(section.data()?).into_owned();
    let mut says = Says::default();
    for (key, value) in text.split('\0').filter_map(|l| l.split_once('=')) {
        match key {
            "depends" => says.depends.extend(value.split(',').filter(|v| !v.is_empty()).map(normal)),
            "softdep" => soft(value, &mut says),
            "alias" => says.aliases.push(normal(value)),
            "firmware" => says.firmware.push(value.to_owned()),
            _ => {}
        }
    }
    Ok(says)
}

/// `pre: a b post: c`.
fn soft(value: &str, says: &mut Says) {
    let mut into: Option<&mut Vec<String>> = None;
    for word in value.split_whitespace() {
        match word {
            "pre:" => into = Some(&mut says.before),
            "post:" => into = Some(&mut says.after),
            name => into.iter_mut().for_each(|v| v.push(normal(name))),
        }
    }
}
