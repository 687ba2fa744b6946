//! Files that a person names: each by itself, or by its folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The most files of one folder: more is no folder of papers.
const MOST: usize = 4096;

/// The files named, and those of the folders named, one level deep and by name.
///
/// # Errors
/// If a folder cannot be read, or holds too many.
pub fn gather(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(within(path).with_context(|| format!("cannot read {}", path.display()))?);
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}

fn within(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.take(MOST + 1).map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    ensure!(files.len() <= MOST, "it has more than {MOST} files; give the papers alone");
    files.retain(|f| f.is_file());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_as_named_and_folders_are_read_one_level_deep() {
        let folder = std::env::temp_dir().join(format!("hoidla-files-{}", std::process::id()));
        fs::create_dir_all(folder.join("deeper")).unwrap();
        for name in ["b", "a", "deeper/c"] {
            fs::write(folder.join(name), name).unwrap();
        }
        let [a, b, c] = ["a", "b", "deeper/c"].map(|n| folder.join(n));
        assert_eq!(gather(&[c.clone(), folder.clone()]).unwrap(), [c, a, b]);
        let gone = folder.join("gone");
        assert_eq!(gather(std::slice::from_ref(&gone)).unwrap(), [gone], "whoever reads it says that it isn't there");
        (0..MOST).for_each(|n| fs::write(folder.join(format!("{n}.txt")), "").unwrap());
        assert!(format!("{:#}", gather(std::slice::from_ref(&folder)).unwrap_err()).contains("4096"));
        fs::remove_dir_all(folder).unwrap();
    }
}
