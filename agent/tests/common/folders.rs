//! What is copied in, and what came back.

use std::{fs, path::Path};

/// Bytes that don't compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A folder with some of everything.
pub fn folder(root: &Path, seed: u64) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("noise"), noise(seed, 12_000_000)).unwrap();
    fs::write(root.join("text"), format!("{seed} words\n").repeat(50_000)).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("deep/er/small"), "small").unwrap();
    std::os::unix::fs::symlink("deep", root.join("link")).unwrap();
}

/// Whether two folders hold the same names and bytes.
pub fn same(a: &Path, b: &Path) {
    let list = |root: &Path| {
        let (mut out, mut todo) = (vec![], vec![root.to_owned()]);
        while let Some(path) = todo.pop() {
            let m = path.symlink_metadata().unwrap();
            if m.is_dir() {
                todo.extend(path.read_dir().unwrap().map(|e| e.unwrap().path()));
            }
            let content = m.is_file().then(|| fs::read(&path).unwrap());
            out.push((path.strip_prefix(root).unwrap().to_owned(), m.modified().unwrap(), content));
        }
        out.sort();
        out
    };
    assert!(list(a) == list(b), "{} and {} differ", a.display(), b.display());
}
