//! Imports run downward: this reads every `crate::`, `super::` and `self::` path of the sources and fails on one that runs from a lower room
//! to a higher one, on a circle of rooms, and on what the pure rooms must not touch. docs/architecture.md has the picture; this keeps it
//! true.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms from the ground up. A room may import those before it, and itself.
const ROOMS: [&str; 21] = [
    "text",
    "report",
    "host",
    "cgroup",
    "containers",
    "process",
    "region",
    "files",
    "kernel_half",
    "managed",
    "symbols",
    "unwind",
    "snapshot",
    "analyse",
    "trace",
    "recording",
    "output",
    "command",
    "serve",
    "top",
    "cli",
];

/// A path from one module to another, as the sources have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    file: PathBuf,
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 100, "the sources are not where this test looks for them");
    found.sort();
    found
}

fn is_test(file: &Path) -> bool {
    file.to_string_lossy().ends_with("_tests.rs")
}

/// The module of a file, as `a::b`; empty for the crate's root.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The code of a file: without comments, string contents and what is compiled for tests only.
fn code_of(text: &str) -> String {
    let production = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    production.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The words and signs of the code, without white space.
fn tokens_of(code: &str) -> Vec<&str> {
    let mut tokens: Vec<&str> = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

/// Every path that begins with `crate`, `super` or `self` in the code, groups in braces taken apart.
fn paths_of(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens_of(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = matches!(tokens[at], "crate" | "super" | "self") && tokens.get(at + 1) == Some(&"::");
        let continues = at > 0 && tokens[at - 1] == "::";
        if begins && !continues {
            at = tree(&tokens, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Takes one tree of a path apart and returns the index behind it.
fn tree(tokens: &[&str], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at = tree(tokens, at, &path, paths);
                    while matches!(tokens.get(at), Some(&("," | "as" | "_"))) {
                        at += if tokens[at] == "as" { 2 } else { 1 };
                    }
                }
                return at + 1;
            }
            Some(word) if word.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_') => path.push((*word).to_owned()),
            Some(&"*") => {
                paths.push(path);
                return at + 1;
            }
            _ => {
                paths.push(path);
                return at.max(1);
            }
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            paths.push(path);
            return at;
        }
        at += 1;
    }
}

/// Every path that begins with one of these names in the code: what is reached through a module that was imported by its name.
fn paths_from(code: &str, names: &BTreeMap<String, Vec<String>>) -> Vec<Vec<String>> {
    let tokens = tokens_of(code);
    let mut paths = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = tokens.get(at + 1) == Some(&"::") && (at == 0 || tokens[at - 1] != "::");
        let Some(module) = names.get(*token).filter(|_| begins) else { continue };
        let mut found = Vec::new();
        tree(&tokens, at, &[], &mut found);
        paths.extend(found.into_iter().map(|path| module.iter().chain(&path[1..]).cloned().collect()));
    }
    paths
}

/// From the path as written in a module to the path from the crate's root.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => module.iter().chain(&path[1..]).cloned().collect(),
        Some("super") => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            module[..module.len().saturating_sub(ups)].iter().chain(&path[ups..]).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// All imports between modules of the crate, tests left out.
fn imports() -> BTreeSet<Import> {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|(file, _)| module_of(file).join("::")).collect();
    let mut imports = BTreeSet::new();
    for (file, text) in sources.iter().filter(|(file, _)| !is_test(file)) {
        let module = module_of(file);
        let code = code_of(text);
        let direct: Vec<Vec<String>> = paths_of(&code).iter().map(|path| absolute(path, &module)).collect();
        let is_module = |path: &&Vec<String>| modules.contains(&path.join("::"));
        let named: BTreeMap<String, Vec<String>> =
            direct.iter().filter(is_module).filter_map(|path| Some((path.last()?.clone(), path.clone()))).collect();
        for target in direct.into_iter().chain(paths_from(&code, &named)) {
            // The longest beginning that is a module: the rest is an item in it.
            let known = (1..=target.len()).rev().map(|length| target[..length].join("::")).find(|name| modules.contains(name));
            if let Some(to) = known
                && to != module.join("::")
            {
                imports.insert(Import { from: module.join("::"), to, file: file.clone() });
            }
        }
    }
    assert!(imports.len() > 500, "only {} imports were found: this test reads them wrongly", imports.len());
    imports
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn floor(module: &str) -> Option<usize> {
    ROOMS.iter().position(|name| *name == room(module))
}

#[test]
fn every_folder_is_a_room() {
    for (file, _) in sources() {
        let module = module_of(&file).join("::");
        assert!(module.is_empty() || floor(&module).is_some(), "{}: no room of this name in ROOMS", file.display());
    }
}

#[test]
fn imports_run_downward() {
    let wrong: Vec<String> = imports()
        .into_iter()
        .filter(|import| !import.from.is_empty() && floor(&import.to) > floor(&import.from))
        .map(|import| format!("  {} -> {} ({})", import.from, import.to, import.file.display()))
        .collect();
    assert!(wrong.is_empty(), "{} imports run upward:\n{}", wrong.len(), wrong.join("\n"));
}

/// Modules that import one another in a circle. A module and those inside it are one subject: a child may use its parent's types, and a
/// parent wires its children.
#[test]
fn no_circle_of_modules() {
    let is_family = |a: &str, b: &str| a.starts_with(&format!("{b}::")) || b.starts_with(&format!("{a}::"));
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in imports().into_iter().filter(|import| !import.from.is_empty() && !is_family(&import.from, &import.to)) {
        arrows.entry(import.from).or_default().insert(import.to);
    }
    let circles = circles(&arrows);
    assert!(
        circles.is_empty(),
        "circles of modules:\n{}",
        circles.iter().map(|circle| format!("  {}", circle.join(", "))).collect::<Vec<_>>().join("\n")
    );
}

/// Sets of modules of which each reaches each other.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for to in arrows.get(module).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = arrows.keys().map(|module| (module, reach(module))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (module, others) in &reached {
        if others.contains(*module) && !circles.iter().flatten().any(|known| known == *module) {
            circles.push(
                reached
                    .iter()
                    .filter(|(other, back)| others.contains(**other) && back.contains(*module))
                    .map(|(other, _)| (*other).clone())
                    .collect(),
            );
        }
    }
    circles
}

/// What a pure room must not name: it takes values and returns values.
const IMPURE: [&str; 12] = [
    "aya",
    "tokio",
    "libc",
    "rustix",
    "perf_event",
    "std::fs",
    "std::process",
    "std::net",
    "SystemTime::now",
    "Instant::now",
    "std::env::",
    "\"/proc",
];
/// The pure rooms.
const PURE: [&str; 5] = ["text", "report", "snapshot", "analyse", "top"];

#[test]
fn pure_rooms_touch_nothing() {
    let mut wrong = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test(file)) {
        let module = module_of(&file).join("::");
        if !PURE.contains(&room(&module)) {
            continue;
        }
        for (number, line) in code_of(&text).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                wrong.push(format!("  {}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "pure rooms that are not:\n{}", wrong.join("\n"));
}

/// Whether a line names this path, and no longer word that contains it.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_word(before) && (!word.ends_with(|c: char| c.is_alphanumeric()) || !is_word(after))
    })
}

#[test]
fn aya_ends_at_the_kernel_half() {
    let mut wrong = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test(file)) {
        if room(&module_of(&file).join("::")) != "kernel_half" && code_of(&text).lines().any(|line| names(line, "aya")) {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "aya is used outside the kernel half: {}", wrong.join(", "));
}

/// The rooms and their order as docs/architecture.md has them, and those that it calls pure.
#[test]
fn the_document_lists_these_rooms() {
    let text = include_str!("../../docs/architecture.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows: Vec<(&str, &str)> = rows.filter(|(name, _)| !name.contains('`')).collect();
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ROOMS);
    let pure: Vec<&str> = rows.iter().filter(|(_, row)| row.contains("(pure, tested)")).map(|(name, _)| *name).collect();
    assert_eq!(pure, PURE);
}

mod this_test {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        paths_of(&code_of(code)).iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn paths_are_found_in_uses_groups_and_expressions() {
        assert_eq!(
            paths("use crate::a::{b, c::{self, D}, e as f};"),
            ["crate::a::b", "crate::a::c::self", "crate::a::c::D", "crate::a::e"]
        );
        assert_eq!(paths("let x = crate::a::b(super::c::D); // crate::not"), ["crate::a::b", "super::c::D"]);
        assert_eq!(paths("fn x() {}\n#[cfg(test)]\nmod tests { use crate::a; }"), [""; 0]);
        assert_eq!(paths("use super::super::x::*;"), ["super::super::x"]);
    }

    #[test]
    fn what_is_reached_through_an_imported_module_is_found() {
        let names = BTreeMap::from([("regions".to_owned(), vec!["trace".to_owned(), "regions".to_owned()])]);
        let found = paths_from("let x = regions::ahead::Ahead::default(); other::regions::y; regions(1)", &names);
        assert_eq!(found.iter().map(|path| path.join("::")).collect::<Vec<_>>(), ["trace::regions::ahead::Ahead::default"]);
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let words = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(absolute(&words("super::x::Y"), &words("a::b")), words("a::x::Y"));
        assert_eq!(absolute(&words("super::super::x"), &words("a::b::c")), words("a::x"));
        assert_eq!(absolute(&words("self::x"), &words("a::b")), words("a::b::x"));
        assert_eq!(absolute(&words("crate::x"), &words("a::b")), words("x"));
    }

    #[test]
    fn a_circle_is_found_and_a_line_is_not() {
        let arrows = |pairs: &[(&str, &str)]| {
            let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in pairs {
                arrows.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            }
            arrows
        };
        assert!(circles(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
        assert_eq!(circles(&arrows(&[("a", "b"), ("b", "c"), ("c", "b")])), [["b", "c"]]);
    }

    #[test]
    fn a_word_inside_another_is_not_named() {
        assert!(names("use aya::maps;", "aya") && !names("use ayatollah;", "aya") && !names("x_aya::y", "aya"));
        assert!(names("fs(\"/proc/self\")", "\"/proc") && names("std::fs::read", "std::fs"));
    }
}
