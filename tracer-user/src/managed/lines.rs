//! From a place in a function's code to its line, by the tables that CPython keeps. Pure; the bytes are hostile, and what they do not say is not known.
//!
//! | since | table | source |
//! |---|---|---|
//! | 3.6 | `co_lnotab`: pairs of a step in bytes of code and a signed step in lines | CPython's `Objects/lnotab_notes.txt` |
//! | 3.10 | `co_linetable`: pairs of the bytes that a line has and a signed step in lines, -128 for none | the same, 3.10 |
//! | 3.11 | `co_linetable`: entries of a form, a length and a step in lines of 7 bits a byte | `Objects/locations.md` |

/// The line of the instruction at `unit`, which counts units of two bytes (in 3.9: bytes). `is_whole` says that the table has no more bytes. `None` if
/// the table does not say.
#[must_use]
pub fn line(format: u32, table: &[u8], is_whole: bool, first_line: u32, unit: u32) -> Option<u32> {
    match format {
        9 => pairs_of_steps(table, is_whole, first_line, unit),
        10 => pairs_of_lengths(table, first_line, unit.checked_mul(2)?),
        11 => entries(table, first_line, unit),
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
