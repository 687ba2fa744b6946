//! Unsafe code lives in two rooms, and each use says why it holds.

use std::fs;

use cargo_metadata::TargetKind;

use crate::tree::{metadata, none, texts};

const ROOMS: &[&str] = &["hoidla-uring", "hoidla-tpm"];
const FOLDERS: &[&str] = &["crates/uring/", "crates/tpm/"];

#[test]
fn every_other_program_and_library_forbids_unsafe_code() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages().iter().filter(|p| !ROOMS.contains(&p.name.as_str())) {
        for target in &package.targets {
            let matters = target.kind.iter().any(|k| matches!(k, TargetKind::Lib | TargetKind::Bin));
            let text = fs::read_to_string(&target.src_path).unwrap_or_default();
            if matters && !text.contains("#![forbid(unsafe_code)]") {
                wrong.push(target.src_path.to_string());
            }
        }
    }
    none("begin these with #![forbid(unsafe_code)]", &wrong);
}

#[test]
fn unsafe_code_lives_in_two_rooms_only() {
    let wrong: Vec<String> = texts(&[".rs"])
        .iter()
        .filter(|t| !FOLDERS.iter().any(|f| t.path.starts_with(f)))
        .flat_map(|t| uses(&t.text).into_iter().map(|line| format!("{}:{line}", t.path)))
        .collect();
    none("unsafe code outside crates/uring and crates/tpm", &wrong);
}

#[test]
fn every_use_says_why_it_is_safe() {
    let mut wrong = Vec::new();
    for t in texts(&[".rs"]).iter().filter(|t| FOLDERS.iter().any(|f| t.path.starts_with(f))) {
        let lines: Vec<&str> = t.text.lines().collect();
        for line in uses(&t.text) {
            let before = &lines[line.saturating_sub(12)..line];
            if !before.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety")) {
                wrong.push(format!("{}:{line}", t.path));
            }
        }
    }
    none("no `// SAFETY:` reason above this", &wrong);
}

/// The lines (from 1) on which the word `unsafe` is code.
fn uses(source: &str) -> Vec<usize> {
    let code = without_comments_and_strings(source);
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = Vec::new();
    for (n, line) in code.lines().enumerate() {
        for (at, _) in line.match_indices("unsafe") {
            let attribute = line[at..].starts_with("unsafe(");
            if !attribute && !word(line[..at].chars().next_back()) && !word(line[at + 6..].chars().next()) {
                out.push(n + 1);
            }
        }
    }
    out
}

/// The source with comments and the insides of strings blanked; lines stay where they were.
fn without_comments_and_strings(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let open = rest.find('"').unwrap_or(0) + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |i| open + i + close.len())
        } else if c == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\'") {
            rest[1..].find('\'').map_or(1, |i| i + 2)
        } else {
            0
        };
        if skip == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            out.push(' ');
            rest = &rest[skip..];
        }
    }
    out
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn the_word_is_found_in_code_and_nowhere_else() {
    let no =
        "// unsafe\n/* unsafe */ let s = \"unsafe \\\" unsafe\"; let r = r#\"unsafe\"#; #![forbid(unsafe_code)]\nlet q = '\"'; // unsafe";
    assert_eq!(uses(no), Vec::<usize>::new());
    let yes = "let a = 1;\nlet b = unsafe { f() };\nunsafe impl Send for X {}\nunsafe fn g() {}\nlet q = '\"'; unsafe { h() }";
    assert_eq!(uses(yes), [2, 3, 4, 5]);
}
