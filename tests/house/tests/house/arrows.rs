//! Who may depend on whom. This table is the one place where the arrows are written.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::DependencyKind;

use crate::tree::{metadata, none};

/// A library and those it stands on; what those stand on is allowed as well.
const ARROWS: &[(&str, &[&str])] = &[
    ("hoidla-format", &[]),
    ("hoidla-crypto", &["hoidla-format"]),
    ("hoidla-log", &["hoidla-format"]),
    // A session's answers carry proofs of the log.
    ("hoidla-protocol", &["hoidla-format", "hoidla-log"]),
    ("hoidla-verify", &["hoidla-crypto", "hoidla-log"]),
    ("hoidla-quorum", &["hoidla-verify"]),
    ("hoidla-snapshot", &["hoidla-crypto"]),
    ("hoidla-store", &["hoidla-format", "hoidla-log"]),
    ("hoidla-door", &["hoidla-crypto", "hoidla-protocol"]),
    ("hoidla-cli", &["hoidla-crypto"]),
    ("hoidla-medium", &[]),
    // The only two rooms with unsafe code.
    ("hoidla-uring", &["hoidla-store"]),
    ("hoidla-tpm", &["hoidla-quorum"]),
];

/// What only the appliance, the bench and tests may link: hardware.
const HARDWARE: &[&str] = &["hoidla-uring", "hoidla-tpm"];

/// Packages that nothing but tests and the bench are made of.
const TESTING: &[&str] = &[
    "hoidla-bench",
    "hoidla-journey",
    "hoidla-simulation",
    "hoidla-house",
    "hoidla-hostile",
    "hoidla-papers",
    "hoidla-attacks",
    "hoidla-vm",
];

/// Every package of ours with those of ours it depends on; `tests` tells whether for tests only.
fn edges() -> Vec<(String, String, bool)> {
    let ours: BTreeSet<String> = metadata().workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let mut out = Vec::new();
    for package in metadata().workspace_packages() {
        for dependency in &package.dependencies {
            if ours.contains(&dependency.name) {
                out.push((package.name.to_string(), dependency.name.clone(), dependency.kind == DependencyKind::Development));
            }
        }
    }
    assert!(!out.is_empty());
    out
}

/// All that a library stands on, to the ground.
fn ground(library: &str) -> BTreeSet<&'static str> {
    let table: BTreeMap<&str, &'static [&'static str]> = ARROWS.iter().copied().collect();
    let mut todo: Vec<&str> = table.get(library).map_or_else(Vec::new, |d| d.to_vec());
    let mut out = BTreeSet::new();
    while let Some(next) = todo.pop() {
        let next = ARROWS.iter().map(|(n, _)| *n).find(|n| *n == next).expect("the table names only libraries of its own");
        if out.insert(next) {
            todo.extend(table[next]);
        }
    }
    out
}

#[test]
fn libraries_depend_only_along_the_arrows() {
    let libraries: BTreeSet<&str> = ARROWS.iter().map(|(n, _)| *n).collect();
    let wrong: Vec<String> = edges()
        .into_iter()
        .filter(|(from, to, tests)| libraries.contains(from.as_str()) && !tests && !ground(from).contains(to.as_str()))
        .map(|(from, to, _)| format!("{from} depends on {to}"))
        .collect();
    none("a library depends on one that the table of arrows does not allow", &wrong);
}

#[test]
fn every_library_stands_in_the_table() {
    let missing: Vec<String> = metadata()
        .workspace_packages()
        .iter()
        .filter(|p| p.manifest_path.components().any(|c| c.as_str() == "crates"))
        .map(|p| p.name.to_string())
        .filter(|n| !ARROWS.iter().any(|(a, _)| a == n))
        .collect();
    none("write the arrows of these into the table", &missing);
}

#[test]
fn only_the_appliance_and_tests_touch_hardware() {
    let wrong: Vec<String> = edges()
        .into_iter()
        .filter(|(from, to, tests)| {
            let may = from == "hoidlad" || TESTING.contains(&from.as_str()) || HARDWARE.contains(&from.as_str()) || *tests;
            HARDWARE.contains(&to.as_str()) && !may
        })
        .map(|(from, to, _)| format!("{from} depends on {to}"))
        .collect();
    none("only the appliance and tests may depend on uring and tpm", &wrong);
}

#[test]
fn a_tool_that_runs_on_a_laptop_needs_no_tpm_library() {
    let packages: BTreeMap<_, _> = metadata().packages.iter().map(|p| (p.id.clone(), p)).collect();
    let nodes: BTreeMap<_, _> = metadata().resolve.as_ref().expect("resolved").nodes.iter().map(|n| (n.id.clone(), n)).collect();
    let mut wrong = Vec::new();
    for tool in ["hoidla-agent", "hoidla-custodian", "hoidla-provision", "hoidla-verify-cli", "hoidla-image"] {
        let mut todo = vec![metadata().workspace_packages().iter().find(|p| p.name == tool).expect("the tool exists").id.clone()];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                let real = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind != DependencyKind::Development);
                todo.extend(nodes[&id].deps.iter().filter(real).map(|d| d.pkg.clone()));
            }
        }
        let linked = seen.iter().map(|id| packages[id].name.to_string()).filter(|n| n.starts_with("tss-esapi") || n == "io-uring");
        wrong.extend(linked.map(|n| format!("{tool} links {n}")));
    }
    none("laptops need no libtss2 and no io_uring", &wrong);
}
