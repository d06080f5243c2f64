//! From a place in a function's code to its line, by the tables that CPython and HotSpot keep. Pure; the bytes are hostile, and what they do not say is not known.
//!
//! | since | table | source |
//! |---|---|---|
//! | 3.6 | `co_lnotab`: pairs of a step in bytes of code and a signed step in lines | CPython's `Objects/lnotab_notes.txt` |
//! | 3.10 | `co_linetable`: pairs of the bytes that a line has and a signed step in lines, -128 for none | the same, 3.10 |
//! | 3.11 | `co_linetable`: entries of a form, a length and a step in lines of 7 bits a byte | `Objects/locations.md` |
//!
//! and those of HotSpot, in which a byte has a step of 5 bits in bytecode and one of 3 bits in lines, or announces two numbers
//! (`CompressedLineNumberWriteStream` in src/hotspot/share/code/compressedStream.hpp, unsigned5.hpp).

use tracer_common::managed::hotspot::{LINES, LINES_WITHOUT_ZERO};

/// The line of the instruction at `unit`, which counts units of two bytes (in 3.9: bytes). `is_whole` says that the table has no more bytes. `None` if
/// the table does not say.
#[must_use]
pub fn line(format: u32, table: &[u8], is_whole: bool, first_line: u32, unit: u32) -> Option<u32> {
    match format {
        9 => pairs_of_steps(table, is_whole, first_line, unit),
        10 => pairs_of_lengths(table, first_line, unit.checked_mul(2)?),
        11 => entries(table, first_line, unit),
        LINES => pairs_of_java(table, 0, unit),
        LINES_WITHOUT_ZERO => pairs_of_java(table, 1, unit),
        _ => None,
    }
}

/// A line that steps lead to.
fn stepped(line: u32, step: i64) -> u32 {
    u32::try_from(i64::from(line).saturating_add(step)).unwrap_or(0)
}

fn pairs_of_steps(table: &[u8], is_whole: bool, first_line: u32, byte: u32) -> Option<u32> {
    let (mut at, mut line) = (0_u32, first_line);
    for pair in table.chunks_exact(2) {
        at = at.saturating_add(pair[0].into());
        if at > byte {
            return Some(line);
        }
        line = stepped(line, i64::from(pair[1].cast_signed()));
    }
    is_whole.then_some(line)
}

fn pairs_of_lengths(table: &[u8], first_line: u32, byte: u32) -> Option<u32> {
    const NONE: i8 = -128;
    let (mut end, mut line) = (0_u32, first_line);
    for pair in table.chunks_exact(2) {
        let step = pair[1].cast_signed();
        line = if step == NONE { line } else { stepped(line, step.into()) };
        end = end.saturating_add(pair[0].into());
        if byte < end {
            return (step != NONE).then_some(line);
        }
    }
    None
}

fn entries(table: &[u8], first_line: u32, unit: u32) -> Option<u32> {
    // Forms of entries (CPython's Include/cpython/code.h, _PyCodeLocationInfoKind).
    const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;
    const NO_COLUMNS: u8 = 13;
    const LONG: u8 = 14;
    const NONE: u8 = 15;
    let (mut bytes, mut end, mut line) = (table.iter().copied().peekable(), 0_u32, first_line);
    while let Some(head) = bytes.next() {
        let form = head >> 3 & 15;
        let step = match form {
            NO_COLUMNS | LONG => signed(&mut bytes)?,
            form if ONE_LINE.contains(&form) => i64::from(form - 10),
            _ => 0,
        };
        line = stepped(line, step);
        end = end.saturating_add(u32::from(head & 7) + 1);
        if unit < end {
            return (form != NONE).then_some(line);
        }
        // The first byte of an entry alone has its highest bit set.
        while bytes.next_if(|byte| byte & 0x80 == 0).is_some() {}
    }
    None
}

/// A number of six bits a byte, the lowest first; its lowest bit is the sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..60).step_by(6) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x3f) << shift;
        if byte & 0x40 == 0 {
            let value = (number >> 1).cast_signed();
            return Some(if number & 1 != 0 { -value } else { value });
        }
    }
    None
}

/// The line of a bytecode: that of the last pair that does not lie behind it. Pairs stand in the order in which the compiler wrote them, mostly that of
/// the code.
fn pairs_of_java(table: &[u8], excluded: u8, unit: u32) -> Option<u32> {
    const END: u8 = 0;
    const NUMBERS: u8 = 0xff;
    let (mut bytes, mut at, mut line) = (table.iter().copied(), 0_i64, 0_i64);
    let mut best: Option<(i64, i64)> = None;
    loop {
        // A table that was cut says nothing of what is behind it.
        let (code, lines) = match bytes.next()? {
            END => break,
            NUMBERS => (signed_of_java(&mut bytes, excluded)?, signed_of_java(&mut bytes, excluded)?),
            pair => (i64::from(pair >> 3), i64::from(pair & 7)),
        };
        at += code;
        line += lines;
        if at <= i64::from(unit) && best.is_none_or(|(before, _)| at >= before) {
            best = Some((at, line));
        }
    }
    u32::try_from(best?.1).ok()
}

/// A number of digits of six bits, the lowest first; of all but the last the two highest bits of the byte are set. Its lowest bit is the sign.
fn signed_of_java(bytes: &mut impl Iterator<Item = u8>, excluded: u8) -> Option<i64> {
    const MOST_DIGITS: u32 = 5;
    let mut number = 0_u32;
    for digit in 0..MOST_DIGITS {
        let byte = bytes.next()?;
        number = number.wrapping_add(u32::from(byte.wrapping_sub(excluded)) << (6 * digit));
        if byte < 192 {
            break;
        }
    }
    Some(i64::from((number >> 1).cast_signed() ^ -((number & 1).cast_signed())))
}

#[cfg(test)]
mod java_tests {
    use super::*;

    #[test]
    fn lines_of_java_are_found_in_pairs_and_numbers() {
        // At 0 line 12 (as numbers), 5 line 13, 9 line 13 + 7, 200 line 10 (both as numbers).
        let zigzag = |number: i32, excluded: u32| {
            let (mut left, mut bytes) = (((number << 1) ^ (number >> 31)).cast_unsigned(), Vec::new());
            while left >= 192 - excluded {
                bytes.push((192 + ((left - (192 - excluded)) & 63)) as u8);
                left = (left - (192 - excluded)) >> 6;
            }
            bytes.push((left + excluded) as u8);
            bytes
        };
        for (format, excluded) in [(LINES, 0), (LINES_WITHOUT_ZERO, 1)] {
            let mut table = vec![0xff];
            table.extend(zigzag(0, excluded));
            table.extend(zigzag(12, excluded));
            table.extend([5 << 3 | 1, 4 << 3 | 7, 0xff]);
            table.extend(zigzag(191, excluded));
            table.extend(zigzag(-10, excluded));
            let cut = table.clone();
            table.push(0);
            let lines: Vec<_> = [0, 4, 5, 8, 9, 199, 200, 60_000].iter().map(|unit| line(format, &table, true, 0, *unit)).collect();
            assert_eq!(lines, [12, 12, 13, 13, 20, 20, 10, 10].map(Some), "{format}");
            assert_eq!(line(format, &cut, false, 0, 0), None, "{format}: a table without its end");
            assert_eq!(line(format, &[0], true, 0, 0), None);
        }
    }
}
