//! Rows for unwinding, read from real files and compared with what readelf says of them, and from files that were spoilt.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use memtrail::unwind::rows::{self, Rows};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::Command,
};
use tracer_common::unwind::{Rule, kind, register, saved};

/// A file of this machine's C library, and a small program.
fn library() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("libc.so"))).unwrap().to_owned()
}

fn rule_at(rows: &Rows, offset: u32) -> Rule {
    let after = rows.rows.partition_point(|row| row.offset <= offset);
    after.checked_sub(1).map_or(Rule::default(), |at| rows.rules[usize::from(rows.rows[at].rule)])
}

/// Address less offset in the file, by loaded segment.
fn segments(path: &str) -> Vec<(u64, u64, u64)> {
    let output = Command::new("readelf").args(["-lW", path]).output().expect("readelf comes with the compiler");
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let loaded = text.lines().filter_map(|line| line.trim().strip_prefix("LOAD "));
    loaded
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (number(words[1]), number(words[4]), number(words[0]))
        })
        .collect()
}

/// The rows that readelf prints: by address the frame, the saved rbp and the return address, in its words.
fn by_readelf(path: &str) -> BTreeMap<u64, (String, String, String)> {
    let output = Command::new("readelf").args(["-wFW", path]).output().expect("readelf comes with the compiler");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut rows, mut columns, mut is_function) = (BTreeMap::new(), Vec::new(), false);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.contains(" FDE ") || line.contains(" CIE ") {
            is_function = line.contains(" FDE ");
            columns.clear();
        } else if words.first() == Some(&"LOC") {
            columns = words.iter().map(|word| (*word).to_owned()).collect();
        } else if is_function && words.len() == columns.len() && words.len() > 1 {
            let of = |name: &str| columns.iter().position(|column| column == name).map_or("u", |at| words[at]).to_owned();
            rows.insert(u64::from_str_radix(words[0], 16).unwrap(), (of("CFA"), of("rbp"), of("ra")));
        }
    }
    rows
}

/// Whether a rule says what readelf says.
fn agrees(rule: &Rule, (frame, bp, ra): &(String, String, String)) -> bool {
    if ra == "u" {
        return rule.kind == kind::ROOT;
    }
    if frame == "exp" {
        return [kind::MEMORY, kind::PLT, kind::PLT_AFTER_ENDBR, kind::SIGNAL, kind::REGISTER, kind::UNSUPPORTED].contains(&rule.kind);
    }
    if rule.kind == kind::UNSUPPORTED {
        // Return addresses in registers other than one that a rule can name.
        return !ra.starts_with("c-");
    }
    let (base, distance) = frame.split_once('+').unwrap();
    let base_is_right = match base {
        "rsp" => rule.base == register::SP,
        "rbp" => rule.base == register::BP,
        _ => rule.base != register::SP && rule.base != register::BP,
    };
    let bp_is_right = match bp.strip_prefix('c') {
        Some(offset) => rule.frame_pointer == saved::FROM_CFA && offset.parse() == Ok(rule.bp),
        None if bp == "u" || bp == "s" => rule.frame_pointer == saved::SAME,
        None => rule.frame_pointer == saved::FROM_BP || rule.frame_pointer == saved::LOST,
    };
    let ra_is_right = match ra.strip_prefix('c') {
        Some(offset) => rule.return_register == 0 && offset.parse() == Ok(rule.ra),
        None => rule.return_register != 0,
    };
    rule.kind == kind::REGISTER && base_is_right && distance.parse() == Ok(rule.cfa) && bp_is_right && ra_is_right
}

#[test]
fn rows_of_real_files_say_what_readelf_says() {
    for path in [library(), "/bin/true".to_owned(), "/usr/bin/env".to_owned()] {
        let path = fs::canonicalize(path).unwrap().to_str().unwrap().to_owned();
        let rows = rows::read(&File::open(&path).unwrap()).unwrap();
        let (expected, segments) = (by_readelf(&path), segments(&path));
        let (mut compared, mut wrong) = (0, Vec::new());
        for (address, expected) in &expected {
            let Some((start, _, offset)) = segments.iter().find(|(start, bytes, _)| address.wrapping_sub(*start) < *bytes) else {
                continue;
            };
            let rule = rule_at(&rows, u32::try_from(address - start + offset).unwrap());
            compared += 1;
            if !agrees(&rule, expected) {
                wrong.push(format!("{address:x}: {expected:?}, and not {rule:?}"));
            }
        }
        println!("{path}: {compared} rows of readelf, {} of ours, {} rules", rows.rows.len(), rows.rules.len());
        assert!(compared > 50 && wrong.is_empty(), "{path}: {} of {compared} are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
        assert_eq!(rows.unread, 0);
    }
}

fn is_in_order(rows: &Rows) {
    assert!(rows.rows.windows(2).all(|pair| pair[0].offset < pair[1].offset && pair[0].rule != pair[1].rule));
    assert!(rows.rows.iter().all(|row| usize::from(row.rule) < rows.rules.len()));
    assert!(rows.rules.iter().all(|rule| rule.kind <= kind::UNSUPPORTED && usize::from(rule.base) < register::COUNT));
}

/// Every byte of the descriptions, changed; every length of the file.
#[test]
fn spoilt_files_end_in_an_answer() {
    let whole = fs::read("/bin/true").unwrap();
    let good = rows::read(&whole[..]).unwrap();
    is_in_order(&good);
    let first = good.rows[0].offset;
    assert!(u64::from(first) < whole.len() as u64);
    let output = Command::new("readelf").args(["-SW", "/bin/true"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(" .eh_frame ")).unwrap();
    let words: Vec<&str> = line.split(" .eh_frame ").nth(1).unwrap().split_whitespace().collect();
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let (start, bytes) = (number(words[2]), number(words[3]));
    let mut changed = 0;
    for at in start..start + bytes {
        for value in [0, 0xff, whole[at] ^ 0x10] {
            let mut file = whole.clone();
            file[at] = value;
            if let Ok(rows) = rows::read(&file[..]) {
                is_in_order(&rows);
                changed += u32::from(rows != good);
            }
        }
    }
    assert!(changed > 500, "{changed} changes were seen");
    for length in (0..whole.len()).step_by(97) {
        if let Ok(rows) = rows::read(&whole[..length]) {
            is_in_order(&rows);
        }
    }
}

#[test]
fn what_is_no_program_has_no_rows_and_says_why() {
    assert_eq!(
        rows::read(&b"#!/bin/sh\nexit 0\n# and so on, to the size of a header\n"[..]).unwrap_err().to_string(),
        "is not a little-endian ELF file"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/tracer.bpf.o");
    assert_eq!(rows::read(&File::open(path).unwrap()).unwrap_err().to_string(), "has no .eh_frame, and is not of Go 1.18 or later");
}
