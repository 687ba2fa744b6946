//! The repository as the rules see it: its packages and its text files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use cargo_metadata::{Metadata, MetadataCommand};

/// The repository's folder.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/house lies two folders deep").to_owned())
}

/// What cargo knows of the workspace, for the platform it is built on.
pub fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
        let options = ["--locked".to_owned(), platform];
        MetadataCommand::new().current_dir(root()).other_options(options).exec().expect("cargo metadata answers")
    })
}

/// A file of the repository.
pub struct Text {
    /// Its path from the repository's folder, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// All files with one of these endings, without what is built or git's own.
pub fn texts(endings: &[&str]) -> Vec<Text> {
    let mut out = Vec::new();
    walk(root(), endings, &mut out);
    out.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!out.is_empty(), "no file ends with any of {endings:?}");
    out
}

fn walk(folder: &Path, endings: &[&str], out: &mut Vec<Text>) {
    for entry in fs::read_dir(folder).expect("the repository can be read") {
        let path = entry.expect("the repository can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && (!name.starts_with('.') || name == ".ci") {
                walk(&path, endings, out);
            }
        } else if endings.iter().any(|e| name.ends_with(e))
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).expect("walked from there").to_string_lossy().into_owned();
            out.push(Text { path, text });
        }
    }
}

/// Panics with all findings, one a line, if there are any.
pub fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
