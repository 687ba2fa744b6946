//! Any small tree, pushed twice with changes between, comes back as it was.

mod common;

use std::{fs, os::unix::ffi::OsStrExt, path::PathBuf};

use common::{Home, noise, things};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Made {
    Dir,
    File { seed: u64, len: usize, repeat: bool },
    Link(Vec<u8>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>().prop_filter("one component", |b| !matches!(b, 0 | b'/' | b'.')), 1..6)
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        1 => Just(Made::Dir),
        4 => (0..4_u64, prop_oneof![Just(0_usize), 1..300_usize, 1000..300_000_usize], any::<bool>())
            .prop_map(|(seed, len, repeat)| Made::File { seed, len, repeat }),
        1 => name().prop_map(Made::Link),
    ]
}

fn make(root: &std::path::Path, tree: &[(Vec<Vec<u8>>, Made)]) {
    fs::create_dir_all(root).unwrap();
    for (path, made) in tree {
        let path: PathBuf = path.iter().fold(root.to_owned(), |p, c| p.join(std::ffi::OsStr::from_bytes(c)));
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
            continue; // a file stands in the way
        }
        match made {
            Made::Dir => fs::create_dir(path).unwrap(),
            Made::File { seed, len, repeat: false } => fs::write(path, noise(*seed, *len)).unwrap(),
            Made::File { seed, len, .. } => fs::write(path, noise(*seed, 50).repeat(len / 50)).unwrap(),
            Made::Link(to) => std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(to), path).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back(
        first in proptest::collection::vec((proptest::collection::vec(name(), 1..4), made()), 0..12),
        more in proptest::collection::vec((proptest::collection::vec(name(), 1..4), made()), 0..6),
        size in 4096..100_000_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let mut home = Home::new(size);
        make(&root, &first);
        let (a, before) = (home.push(&root).0, things(&root));
        make(&root, &more);
        let b = home.push(&root).0;
        home.restore(b, &dir.path().join("b")).unwrap();
        prop_assert_eq!(things(&root), things(&dir.path().join("b/root")));
        home.restore(a, &dir.path().join("a")).unwrap();
        prop_assert_eq!(before, things(&dir.path().join("a/root")));
    }
}
