//! Debian packages: which file of which package.
//!
//! Promises: reads regular files and links out of a package whose hash was checked before
//! ([`crate::archive`]); runs none of its scripts and writes nothing. Links are kept as what
//! they say and never followed outside of the package.

use std::{collections::BTreeMap, io::Read};

use anyhow::{Context, Result, bail};

/// The most bytes of one file that is taken out of a package.
const MOST_FILE: u64 = 256 << 20;

/// What a path in a package is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file's bytes.
    File(Vec<u8>),
    /// Where a symbolic link points to.
    Link(String),
}

/// Files by path, without `./` and the first `/`.
pub type Files = BTreeMap<String, Entry>;

/// The files of a package whose paths `wanted` takes.
///
/// # Errors
/// If it is no Debian package with an xz-compressed content.
pub fn unpack(package: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Files> {
    let mut archive = ar::Archive::new(package);
    while let Some(member) = archive.next_entry() {
        let member = member.context("a damaged package")?;
        match member.header().identifier() {
            b"data.tar.xz" => return files(lzma_rust2::XzReader::new(member, false), wanted),
            other if other.starts_with(b"data.tar") => bail!("its content is {}, not data.tar.xz", String::from_utf8_lossy(other)),
            _ => {}
        }
    }
    bail!("it has no data.tar.xz: this is no Debian package")
}

fn files(tar: impl Read, wanted: impl Fn(&str) -> bool) -> Result<Files> {
    let mut out = Files::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a path that is no text")?.trim_start_matches("./").to_owned();
        if !wanted(&path) {
            continue;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let size = entry.size();
                if size > MOST_FILE {
                    bail!("{path} has {size} bytes");
                }
                let mut bytes = Vec::with_capacity(usize::try_from(size)?);
                entry.read_to_end(&mut bytes)?;
                out.insert(path, Entry::File(bytes));
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.context("a link without a target")?;
                out.insert(path, Entry::Link(target.to_str().context("a link that is no text")?.to_owned()));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The only file whose name, without folders, is `name`; a link beside it is followed.
///
/// # Errors
/// If there is none.
pub fn by_name<'a>(files: &'a Files, name: &str) -> Result<&'a [u8]> {
    let at = |name: &str| files.iter().find(|(path, _)| path.rsplit('/').next() == Some(name)).map(|(_, entry)| entry);
    match at(name) {
        Some(Entry::File(bytes)) => Ok(bytes),
        Some(Entry::Link(target)) => match at(target) {
            Some(Entry::File(bytes)) => Ok(bytes),
            _ => bail!("{name} is a link to {target}, which is not in the packages"),
        },
        None => bail!("{name} is in none of the packages"),
    }
}

/// Undoes xz.
///
/// # Errors
/// If the bytes are damaged.
pub fn unxz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    lzma_rust2::XzReader::new(bytes, false).take(MOST_FILE).read_to_end(&mut out).context("damaged xz")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_through_one_link_and_no_further() {
        let files: Files = [
            ("usr/lib/liba.so.0".to_owned(), Entry::Link("liba.so.0.1".into())),
            ("usr/lib/liba.so.0.1".to_owned(), Entry::File(b"a".to_vec())),
            ("usr/lib/libb.so.0".to_owned(), Entry::Link("/etc/passwd".into())),
        ]
        .into();
        assert_eq!(by_name(&files, "liba.so.0").unwrap(), b"a");
        assert!(by_name(&files, "libb.so.0").unwrap_err().to_string().contains("/etc/passwd"));
        assert!(by_name(&files, "libc.so.0").is_err());
    }

    #[test]
    fn what_is_no_package_is_refused() {
        for bad in [&b""[..], b"!<arch>\n", b"not a package at all"] {
            assert!(unpack(bad, |_| true).is_err());
        }
        assert!(unxz(b"\xfd7zXZ\0broken").is_err());
    }
}
