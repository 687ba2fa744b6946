//! What the rack wrote on a stick, taken into a folder.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use hoidla_medium::{papers, stick};

/// The most letters of a file's name.
const NAME: usize = 64;

/// Copies the papers of a stick, or of a file with a stick's bytes, into a folder; their names.
///
/// # Errors
/// If there are none, a name is odd, or something else is there under one of them already.
pub fn take(from: &Path, folder: &Path) -> Result<Vec<String>> {
    let file = File::open(from).with_context(|| format!("{} cannot be read", from.display()))?;
    let mut bytes = vec![0; stick::PAPERS.len()];
    file.read_exact_at(&mut bytes, stick::PAPERS.start as u64).with_context(|| format!("{} is no stick of Hoidla's", from.display()))?;
    let found = papers::read(&bytes).with_context(|| format!("{}: no papers can be read", from.display()))?;
    for name in found.keys() {
        ensure!(is_plain(name), "a file on the stick has a name that nothing of Hoidla's has: {name:?}; nothing was copied");
    }
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    found.iter().try_for_each(|(name, content)| put(&folder.join(name), content))?;
    Ok(found.into_keys().collect())
}

/// Letters, digits, `.`, `-` and `_`, in one folder at most.
fn is_plain(name: &str) -> bool {
    let part =
        |p: &str| p.starts_with(|c: char| c.is_ascii_alphanumeric()) && p.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    name.len() <= NAME && name.split('/').count() <= 2 && name.split('/').all(part)
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    let cannot = || format!("{} cannot be written", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).with_context(cannot)?;
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(content).and_then(|()| file.sync_all()).with_context(cannot),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match fs::read(path).with_context(cannot)? == content {
            true => Ok(()),
            false => bail!("{} is there already, and is another: name another folder", path.display()),
        },
        Err(e) => Err(e).with_context(cannot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick_with(files: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let mut bytes = papers::blank(1).unwrap();
        files.iter().for_each(|(name, content)| papers::put(&mut bytes, name, content).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&bytes, stick::PAPERS.start as u64).unwrap();
        file
    }

    #[test]
    fn what_the_rack_wrote_comes_home_and_overwrites_nothing() {
        let stick = stick_with(&[("identity.txt", b"who"), ("health.txt", b"well")]);
        let folder = tempfile::tempdir().unwrap();
        let names = take(stick.path(), folder.path()).unwrap();
        assert_eq!(names, ["health.txt", "identity.txt"]);
        assert_eq!(fs::read(folder.path().join("identity.txt")).unwrap(), b"who");
        take(stick.path(), folder.path()).expect("the same again");
        fs::write(folder.path().join("identity.txt"), "another").unwrap();
        assert!(take(stick.path(), folder.path()).unwrap_err().to_string().contains("is there already"));
    }

    #[test]
    fn what_is_no_stick_or_has_odd_names_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let odd = stick_with(&[("a b.txt", b"x"), ("identity.txt", b"who")]);
        assert!(take(odd.path(), &out).unwrap_err().to_string().contains("nothing was copied"));
        let short = tempfile::NamedTempFile::new().unwrap();
        assert!(take(short.path(), &out).is_err());
        short.as_file().set_len(stick::SIZE as u64).unwrap();
        assert!(take(short.path(), &out).is_err(), "no file system");
        assert!(!out.exists());
        for name in ["../x", "/x", "a/../b", "a/b/c", ".x", "", "a\u{1b}"] {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(is_plain("lux-1/identity.txt"));
    }
}
