//! How long a file may be, and what must not stand in one.

use crate::tree::{none, texts};

/// The most lines of a source file, its unit tests not counted.
const MOST_LINES: usize = 500;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[("crates/protocol/src/message.rs", "every message in the order of its page, each beside its bounds")];

#[test]
fn a_file_has_one_subject() {
    let mut wrong = Vec::new();
    for t in texts(&[".rs"]).iter().filter(|t| !t.path.contains("/tests/") && !t.path.starts_with("tests/")) {
        let lines = t.text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
        if lines > MOST_LINES && !LONGER.iter().any(|(path, _)| *path == t.path) {
            wrong.push(format!("{}: {lines} lines", t.path));
        }
    }
    none("split these", &wrong);
    let stale: Vec<String> =
        LONGER.iter().filter(|(path, _)| !crate::tree::root().join(path).exists()).map(|(path, _)| (*path).to_owned()).collect();
    none("the list of longer files names files that are gone", &stale);
}

#[test]
fn nothing_names_a_machine_of_ours() {
    // In halves, so that this file is no finding of its own.
    let forbidden = [concat!("/wo", "rk/"), concat!("/ro", "ot/."), concat!("/ho", "me/"), concat!("crates", ".io")];
    let mut wrong = Vec::new();
    for t in texts(&[".rs", ".md", ".toml", ".sh", "just", "Justfile", "run", ".json"]) {
        for (n, line) in t.text.lines().enumerate() {
            for word in forbidden {
                let at_start = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '}'));
                if line.match_indices(word).any(|(at, _)| at_start(at)) {
                    wrong.push(format!("{}:{}: {word}", t.path, n + 1));
                }
            }
        }
    }
    none("a path or a host that only one machine knows", &wrong);
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_to_do() {
    let forbidden = [concat!("#[ign", "ore"), concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME")];
    let mut wrong = Vec::new();
    for t in texts(&[".rs"]) {
        for (n, line) in t.text.lines().enumerate() {
            wrong.extend(forbidden.iter().filter(|w| line.contains(**w)).map(|w| format!("{}:{}: {w}", t.path, n + 1)));
        }
    }
    none("nothing is left half done", &wrong);
}
