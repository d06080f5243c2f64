//! Lines of Python's functions against what each version of the interpreter says itself of the functions of `make.py`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use memtrail::managed::lines::line;
use std::path::Path;

/// A range of instructions, and what the interpreter says of their line.
type Ranges = Vec<(u32, Option<u32>)>;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("digits")).collect()
}

/// The first line, the table, the ranges and the end of the code.
fn function(text: &str) -> (u32, Vec<u8>, Ranges, u32) {
    let mut words = text.split(' ');
    let first_line = words.next().and_then(|word| word.parse().ok()).expect("a first line");
    let table = words.next().map(|hex| if hex == "none" { Vec::new() } else { bytes(hex) }).expect("a table");
    let pairs: Vec<(&str, &str)> = words.map(|word| word.split_once(':').expect("a pair")).collect();
    let number = |text: &str| text.parse().expect("a number");
    let (end, ranges) = pairs.split_last().expect("an end");
    assert_eq!(end.1, "end");
    (first_line, table, ranges.iter().map(|(unit, line)| (number(unit), line.parse().ok())).collect(), number(end.0))
}

#[test]
fn every_instruction_has_the_line_that_the_interpreter_says() {
    let mut instructions = 0;
    for (version, format) in [("3.9", 9), ("3.10", 10), ("3.11", 11), ("3.12", 11), ("3.13", 11), ("3.14", 11)] {
        let path = Path::new("tests/fixtures/python_lines").join(format!("{version}.txt"));
        let text = std::fs::read_to_string(path).expect("a fixture");
        assert!(text.lines().count() > 10, "{version}");
        for (number, text) in text.lines().enumerate() {
            let (first_line, table, ranges, end) = function(text);
            let ends = ranges.iter().skip(1).map(|(unit, _)| *unit).chain([end]);
            for ((from, expected), to) in ranges.iter().zip(ends) {
                for unit in *from..to {
                    let found = line(format, &table, true, first_line, unit);
                    assert_eq!(found, *expected, "{version}, function {number}, instruction {unit}");
                    instructions += 1;
                }
            }
        }
    }
    assert!(instructions > 1000, "{instructions} instructions");
}

#[test]
fn of_a_table_that_was_cut_the_lines_before_are_known_and_no_others() {
    for (version, format) in [("3.9", 9), ("3.10", 10), ("3.11", 11), ("3.14", 11)] {
        let path = Path::new("tests/fixtures/python_lines").join(format!("{version}.txt"));
        let text = std::fs::read_to_string(path).expect("a fixture");
        for text in text.lines() {
            let (first_line, table, _, end) = function(text);
            for length in 0..table.len() {
                for unit in 0..end {
                    let (whole, cut) =
                        (line(format, &table, true, first_line, unit), line(format, &table[..length], false, first_line, unit));
                    assert!(cut.is_none() || cut == whole, "{version}: {text} cut to {length}: {cut:?}, and {whole:?} is right at {unit}");
                }
            }
        }
    }
}

#[test]
fn no_table_and_no_place_is_too_strange() {
    let mut state = 7_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    for _ in 0..2000 {
        let table: Vec<u8> = (0..40).map(|_| byte()).collect();
        for format in 8..13 {
            for unit in [0, 1, 77, u32::MAX / 2, u32::MAX] {
                let first = line(format, &table, true, u32::MAX, unit);
                assert_eq!(first, line(format, &table, true, u32::MAX, unit));
                assert!((9..=11).contains(&format) || first.is_none());
            }
        }
    }
}
