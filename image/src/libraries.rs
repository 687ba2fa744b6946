//! Which shared libraries a program needs: read from its own ELF headers, never by running it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::NextStep;
use object::{
    elf,
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};

use crate::{
    deb::{Files, by_name},
    initramfs::LIBRARIES,
};

/// What libtss2 loads by name when it is asked for a device; no header tells of it.
const BY_NAME: &[&str] = &["libtss2-tcti-device.so.0"];
/// The only name under which a program of this kind asks for its loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Loader and libraries of a program, by path in the initramfs; none if it is linked statically.
///
/// # Errors
/// If it is no program for x86-64, or needs what is in no package.
pub fn of(program: &[u8], packages: &Files) -> Result<BTreeMap<String, Vec<u8>>> {
    let (needed, loader) = needs(program)?;
    let Some(loader) = loader else {
        ensure!(needed.is_empty(), "the program needs libraries and names no loader");
        return Ok(BTreeMap::new());
    };
    ensure!(loader == LOADER, "the program wants {loader} as its loader; an image has {LOADER}");
    let mut out = BTreeMap::new();
    let mut todo: BTreeSet<String> = needed.into_iter().collect();
    if todo.iter().any(|l| l.starts_with("libtss2")) {
        todo.extend(BY_NAME.iter().map(|n| (*n).to_owned()));
    }
    while let Some(name) = todo.pop_first() {
        let bytes = by_name(packages, &name).next("add the package that has it to the lock file")?;
        let (more, _) = needs(bytes).with_context(|| name.clone())?;
        out.insert(path(&name), bytes.to_vec());
        todo.extend(more.into_iter().filter(|m| !out.contains_key(&path(m))));
    }
    Ok(out)
}

/// Whether a program is linked with libraries at all.
///
/// # Errors
/// If it is no program for x86-64.
pub fn are_needed(program: &[u8]) -> Result<bool> {
    Ok(needs(program)?.1.is_some())
}

fn path(library: &str) -> String {
    if LOADER.ends_with(&format!("/{library}")) { LOADER[1..].to_owned() } else { format!("{LIBRARIES}/{library}") }
}

/// The names of the libraries that a file needs, and of its loader.
fn needs(bytes: &[u8]) -> Result<(Vec<String>, Option<String>)> {
    let file = ElfFile64::<object::Endianness>::parse(bytes).context("not a program or library for 64 bits")?;
    let (endian, header) = (file.endian(), file.elf_header());
    if header.e_machine(endian) != elf::EM_X86_64 {
        bail!("not a program for x86-64");
    }
    let mut loader = None;
    for segment in file.elf_program_headers() {
        if let Some(text) = segment.interpreter(endian, bytes)? {
            loader = Some(String::from_utf8(text.to_vec()).context("a loader's name that is no text")?);
        }
    }
    let table = file.elf_section_table().dynamic_table(endian, bytes)?;
    let mut needed = Vec::new();
    for entry in table.iter().filter(|d| d.tag == elf::DT_NEEDED) {
        needed.push(String::from_utf8(table.string(entry)?.to_vec()).context("a library's name that is no text")?);
    }
    Ok((needed, loader))
}
