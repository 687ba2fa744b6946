//! Documents: every format has its page, every link leads somewhere.

use std::path::Path;

use crate::tree::{Text, none, root, texts};

fn format_pages() -> Vec<Text> {
    texts(&[".md"]).into_iter().filter(|t| t.path.starts_with("docs/formats/")).collect()
}

/// The code of a file, without its unit tests.
fn code(t: &Text) -> &str {
    t.text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// Every kind of statement, as its first line writes it: `grant/1`.
fn statement_kinds() -> Vec<String> {
    let mut out = Vec::new();
    for t in texts(&[".rs"]).iter().filter(|t| !t.path.starts_with("tests/")) {
        let listed = code(t).split_once("statements! {").and_then(|(_, l)| l.split_once("\n}")).map_or("", |(l, _)| l);
        let mine = listed.lines().filter_map(|l| l.split_once(": \"")?.1.split_once('"'));
        let single = code(t).lines().filter_map(|l| l.trim().strip_prefix("const KIND: &'static str = \"")?.split_once('"'));
        out.extend(mine.chain(single).map(|(kind, _)| format!("{kind}/")));
    }
    assert!(out.len() >= 17, "the statements were found: {out:?}");
    out
}

/// Every binary kind: name and number.
fn binary_kinds() -> Vec<(String, String)> {
    let codec = texts(&["codec.rs"]).into_iter().find(|t| t.path == "crates/format/src/codec.rs").expect("the codec exists");
    let list = codec.text.split_once("pub enum Kind {").and_then(|(_, l)| l.split_once("\n}")).expect("the enum is there").0.to_owned();
    let out: Vec<_> = list
        .lines()
        .filter_map(|l| l.trim().strip_suffix(',')?.split_once(" = "))
        .map(|(name, number)| (name.to_owned(), number.to_owned()))
        .collect();
    assert!(out.len() >= 13, "the kinds were found: {out:?}");
    out
}

#[test]
fn every_statement_has_a_page() {
    let pages = format_pages();
    let missing: Vec<String> = statement_kinds().into_iter().filter(|k| !pages.iter().any(|p| p.text.contains(k.as_str()))).collect();
    none("no page in docs/formats tells of these statements", &missing);
}

#[test]
fn every_binary_layout_has_a_page() {
    let pages = format_pages();
    let missing: Vec<String> = binary_kinds()
        .into_iter()
        .filter(|(name, number)| !pages.iter().any(|p| p.text.contains(name.as_str()) || p.text.contains(&format!("kind {number} "))))
        .map(|(name, number)| format!("{name} ({number})"))
        .collect();
    none("no page in docs/formats names these kinds", &missing);
}

#[test]
fn every_number_of_a_kind_is_given_once() {
    let mut numbers: Vec<String> = binary_kinds().into_iter().map(|(_, n)| n).collect();
    let all = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
}

#[test]
fn every_decision_stands_in_the_list() {
    let all: Vec<Text> = texts(&[".md"]).into_iter().filter(|t| t.path.starts_with("docs/decisions/")).collect();
    let list = all.iter().find(|t| t.path.ends_with("/README.md")).expect("docs/decisions/README.md exists");
    let missing: Vec<String> =
        all.iter().map(|t| t.path.replace("docs/decisions/", "")).filter(|name| name != "README.md" && !list.text.contains(name)).collect();
    none("add these to docs/decisions/README.md", &missing);
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for t in texts(&[".md"]) {
        let folder = root().join(Path::new(&t.path).parent().unwrap_or(Path::new("")));
        for target in links(&t.text) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{}: {target}", t.path));
            }
        }
    }
    none("links to nothing", &wrong);
}

/// Targets of inline links that lead within the repository; code blocks are no links.
fn links(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut out = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
            out.extend(targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:")));
        }
    }
    out
}

#[test]
fn links_are_found_where_they_are() {
    assert_eq!(links("a [b](c.md) [d](e/f.md#g) [h](https://i)\n```\n[x](y)\n```\n[k](#l)"), ["c.md", "e/f.md#g", "#l"]);
}
