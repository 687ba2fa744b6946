//! What comes in from outside: its licences, its sources, its reasons.

use std::fs;

use crate::tree::{metadata, none, root, texts};

fn allowed_licences() -> Vec<String> {
    let deny: toml::Table = fs::read_to_string(root().join("deny.toml")).expect("deny.toml").parse().expect("deny.toml is TOML");
    let list = deny["licenses"]["allow"].as_array().expect("licenses.allow is a list");
    list.iter().map(|l| l.as_str().expect("a licence is a string").to_owned()).collect()
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let allowed = allowed_licences();
    let wrong: Vec<String> = metadata()
        .packages
        .iter()
        .filter(|p| !p.license.as_deref().is_some_and(|l| permits(l, &allowed)))
        .map(|p| format!("{} {}: {}", p.name, p.version, p.license.as_deref().unwrap_or("none")))
        .collect();
    none("licences that deny.toml does not allow", &wrong);
}

#[test]
fn everything_comes_from_the_registry_or_this_repository() {
    let wrong: Vec<String> = metadata()
        .packages
        .iter()
        .filter(|p| match &p.source {
            Some(source) => !source.is_crates_io(),
            None => !p.manifest_path.starts_with(root().to_str().expect("a path of text")),
        })
        .map(|p| format!("{} {}", p.name, p.version))
        .collect();
    none("neither from cargo's registry nor from this repository", &wrong);
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let unpinned: Vec<String> = lock["package"]
        .as_array()
        .expect("packages")
        .iter()
        .filter(|p| p.get("source").is_some() && p.get("checksum").is_none())
        .map(|p| p["name"].to_string())
        .collect();
    none("without a hash in Cargo.lock", &unpinned);
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("a section of dependencies");
    let section = section.split("\n[").next().unwrap_or_default();
    let lines: Vec<&str> = section.lines().filter(|l| l.contains('=') && !l.starts_with('#')).collect();
    assert!(lines.len() > 20, "the section was read");
    let wrong: Vec<String> = lines
        .into_iter()
        .filter(|l| !l.contains("path = ") && l.rsplit_once('#').is_none_or(|(_, reason)| reason.trim().len() < 5))
        .map(str::to_owned)
        .collect();
    none("a dependency without its reason as a comment", &wrong);
}

#[test]
fn versions_are_named_in_one_place() {
    let mut wrong = Vec::new();
    // tests/fuzz is no member of the workspace: it needs a nightly compiler, and nothing of it is shipped.
    for t in texts(&["Cargo.toml"]).iter().filter(|t| !["Cargo.toml", "tests/fuzz/Cargo.toml"].contains(&t.path.as_str())) {
        let manifest: toml::Table = t.text.parse().expect("a manifest is TOML");
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(kind).and_then(|v| v.as_table()).into_iter().flatten() {
                if value.get("workspace").and_then(|w| w.as_bool()) != Some(true) {
                    wrong.push(format!("{}: {name}", t.path));
                }
            }
        }
    }
    none("take the version from the root Cargo.toml (workspace = true)", &wrong);
}

/// Whether an SPDX expression is satisfied by the allowed licences. `/` is an old way to write OR.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (answer, rest) = either(&words, allowed);
    answer && rest.is_empty()
}

fn either<'a, 'w>(words: &'a [&'w str], allowed: &[String]) -> (bool, &'a [&'w str]) {
    let (mut answer, mut rest) = both(words, allowed);
    while let Some(("OR", after)) = rest.split_first().map(|(w, r)| (*w, r)) {
        let (right, left_over) = both(after, allowed);
        (answer, rest) = (answer || right, left_over);
    }
    (answer, rest)
}

fn both<'a, 'w>(words: &'a [&'w str], allowed: &[String]) -> (bool, &'a [&'w str]) {
    let (mut answer, mut rest) = one(words, allowed);
    while let Some(("AND", after)) = rest.split_first().map(|(w, r)| (*w, r)) {
        let (right, left_over) = one(after, allowed);
        (answer, rest) = (answer && right, left_over);
    }
    (answer, rest)
}

fn one<'a, 'w>(words: &'a [&'w str], allowed: &[String]) -> (bool, &'a [&'w str]) {
    match words {
        ["(", rest @ ..] => match either(rest, allowed) {
            (answer, [")", rest @ ..]) => (answer, rest),
            (_, rest) => (false, rest),
        },
        [licence, "WITH", exception, rest @ ..] => (allowed.iter().any(|a| *a == format!("{licence} WITH {exception}")), rest),
        [licence, rest @ ..] => (allowed.iter().any(|a| a == licence), rest),
        [] => (false, words),
    }
}

#[test]
fn an_expression_of_licences_is_read_as_it_is_meant() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
    for yes in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "MIT AND (ISC OR GPL-3.0)", "Apache-2.0 WITH LLVM-exception", "(MIT)"] {
        assert!(permits(yes, &allowed), "{yes}");
    }
    for no in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(MIT OR ISC) AND GPL-3.0", "", "(MIT", "MIT)"] {
        assert!(!permits(no, &allowed), "{no}");
    }
}
