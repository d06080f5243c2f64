//! Tells from a file which CPython it holds, and where that keeps what the kernel half reads. Pure; the bytes are hostile.
//!
//! Offsets were printed by gdb from the debug information of 3.9.2 and 3.9.18, 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.13.5 and 3.13.18, and 3.14
//! (Debian's builds and pyenv's). Within a minor version they have not changed. From 3.13 on the interpreter says some of them itself
//! (`_Py_DebugOffsets`, `Include/internal/pycore_debug_offsets.h`): where these do not agree, the build is not known.

use super::elf::described;
use crate::{
    host::elf::{Elf, ElfError, Source, Symbol},
    process::Loop,
};
use object::elf::PF_X;
use std::{collections::BTreeMap, ops::Range};
use tracer_common::{
    layout::ABSENT,
    managed::python::{Python, entry},
};

/// The interpreter's state, its version, and the function in which it runs code.
const RUNTIME: &[u8] = b"_PyRuntime";
const VERSION: &[u8] = b"Py_Version";
const LOOP: &[u8] = b"_PyEval_EvalFrameDefault";
/// Most bytes of that function: the largest has 58,000.
const MOST_BODY: u64 = 1 << 20;
/// Parts of it that are believed: compilers make one.
const MOST_PARTS: usize = 8;
/// Jumps into a part of it that lies elsewhere, at the least.
const FEWEST_JUMPS: u32 = 4;
/// In these versions the loop's function says where its frames are before it has written there. It does so in its first instructions: the last one
/// that was seen to was at 173, of 3.12.1.
const PUBLISHED_EARLY: [u32; 2] = [11, 12];
const MOST_BEGINNING: u64 = 192;
/// What `_Py_DebugOffsets` begins with.
const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");

/// Why an interpreter is not known. The words follow its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotKnown {
    /// Of another version.
    #[error("python {0} is not known to this version: its stacks have native frames only")]
    Version(String),
    /// A build whose threads run at once.
    #[error("python {0} is a free-threaded build, which is not known to this version: its stacks have native frames only")]
    FreeThreaded(String),
    /// A build that is laid out in another way.
    #[error("python {0} is laid out as no build that is known to this version: its stacks have native frames only")]
    Layout(String),
}

/// The interpreter that a file holds, with the code that runs its frames; `None` if it holds none.
///
/// # Errors
/// It holds one that is not known.
pub fn recognise<S: Source + ?Sized>(elf: &Elf<'_, S>, symbols: &[Symbol]) -> Result<Option<(Python, Loop)>, NotKnown> {
    let Ok(Some(found)) = find(elf, symbols) else { return Ok(None) };
    let name = || found.version.map_or_else(|| "3.10 or older, of this build,".to_owned(), |version| format!("3.{}", version >> 16 & 0xff));
    let minor = match found.version {
        Some(version) if version >> 24 == 3 => version >> 16 & 0xff,
        Some(version) => return Err(NotKnown::Version((version >> 24).to_string())),
        // The versions that do not say which they are differ in the size of their state.
        None => match found.runtime_bytes {
            656 => 9,
            672 => 10,
            _ => return Err(NotKnown::Version(name())),
        },
    };
    let Some(layout) = layout(minor) else { return Err(NotKnown::Version(name())) };
    if minor >= 13 {
        let told = found.told.ok_or_else(|| NotKnown::Layout(name()))?;
        if told.free_threaded {
            return Err(NotKnown::FreeThreaded(name()));
        }
        let expected = [layout.first_interpreter, layout.next_interpreter, layout.first_thread].map(u64::from);
        if told.offsets != expected {
            return Err(NotKnown::Layout(name()));
        }
    }
    let begins = if PUBLISHED_EARLY.contains(&minor) { MOST_BEGINNING } else { 0 };
    Ok(Some((Python { runtime: found.runtime, ..layout }, Loop { parts: found.code, begins })))
}

/// What a file says of an interpreter in it.
struct Found {
    /// As `PY_VERSION_HEX`.
    version: Option<u32>,
    runtime: u64,
    runtime_bytes: u64,
    told: Option<Told>,
    code: Vec<Range<u64>>,
}

/// What it says of its layout.
#[derive(Clone, Copy)]
struct Told {
    free_threaded: bool,
    /// The first interpreter in the runtime, the next one and the first thread in an interpreter.
    offsets: [u64; 3],
}

/// Whether a symbol of that name is looked at.
#[must_use]
pub fn wants(name: &[u8]) -> bool {
    [RUNTIME, VERSION, LOOP].contains(&name)
}

fn find<S: Source + ?Sized>(elf: &Elf<'_, S>, symbols: &[Symbol]) -> Result<Option<Found>, ElfError> {
    let symbol = |name: &[u8]| symbols.iter().find(|symbol| symbol.name == name && symbol.address != 0);
    let (Some(runtime), Some(code)) = (symbol(RUNTIME), symbol(LOOP)) else { return Ok(None) };
    let text = elf.loaded().find(|segment| segment.flags & PF_X != 0 && segment.offset_of(code.address).is_some());
    let Some(text) = text else { return Ok(None) };
    let to_offset = |address: u64| address.wrapping_sub(text.address).wrapping_add(text.offset);
    let bytes_at = |symbol: &Symbol, bytes: u64| {
        let start = elf.offset_of(symbol.address)?;
        elf.bytes(start..start.checked_add(bytes)?).ok()
    };
    let version = symbol(VERSION).and_then(|symbol| bytes_at(symbol, 4)?.try_into().ok()).map(u32::from_le_bytes);
    let body = code.address..code.address.saturating_add(code.bytes.min(MOST_BODY));
    let apart = parts(elf, &body).unwrap_or_default();
    let in_file = |part: Range<u64>| to_offset(part.start)..to_offset(part.end);
    Ok(Some(Found {
        version,
        runtime: to_offset(runtime.address),
        runtime_bytes: runtime.bytes,
        told: bytes_at(runtime, 80).and_then(|bytes| told(&bytes)),
        code: std::iter::once(body).chain(apart).map(in_file).collect(),
    }))
}

/// Parts of a function that the compiler put elsewhere, as addresses: what profiles call cold has a description of its own in `.eh_frame` and no
/// symbol, and nothing but the function jumps into the middle of it. From 3.13 on, most of the loop is there in some builds.
fn parts<S: Source + ?Sized>(elf: &Elf<'_, S>, body: &Range<u64>) -> Result<Vec<Range<u64>>, ElfError> {
    let starts = described(elf)?;
    let Some(from) = elf.offset_of(body.start) else { return Ok(Vec::new()) };
    let code = elf.bytes(from..from.saturating_add(body.end - body.start))?;
    let mut jumps: BTreeMap<usize, u32> = BTreeMap::new();
    for at in 0..code.len().saturating_sub(6) {
        // jmp rel32, and jcc rel32. Bytes that are none lead anywhere, and not often to one place.
        let length = match code[at..] {
            [0xe9, ..] => 5,
            [0x0f, 0x80..=0x8f, ..] => 6,
            _ => continue,
        };
        let distance = i32::from_le_bytes([code[at + length - 4], code[at + length - 3], code[at + length - 2], code[at + length - 1]]);
        let target = body.start.wrapping_add((at + length) as u64).wrapping_add_signed(distance.into());
        let after = starts.partition_point(|start| *start <= target);
        let is_inside = after > 0 && after < starts.len() && starts[after - 1] < target;
        if is_inside && !body.contains(&target) {
            *jumps.entry(after - 1).or_default() += 1;
        }
    }
    let often = jumps.into_iter().filter(|(_, jumps)| *jumps >= FEWEST_JUMPS);
    Ok(often.take(MOST_PARTS).map(|(at, _)| starts[at]..starts[at + 1]).collect())
}

/// What `_Py_DebugOffsets` says, at the beginning of the runtime's state.
fn told(bytes: &[u8]) -> Option<Told> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(8 * at..8 * at + 8)?.try_into().ok()?));
    // cookie, version, free_threaded; of the runtime: size, finalizing, interpreters_head; of an interpreter: size, id, next, threads_head
    (word(0)? == COOKIE).then_some(())?;
    Some(Told { free_threaded: word(2)? != 0, offsets: [word(5)?, word(8)?, word(9)?] })
}

/// Where a minor version keeps things, but for its state.
fn layout(minor: u32) -> Option<Python> {
    let since_9 = Python {
        runtime: 0,
        first_interpreter: 32,
        next_interpreter: 0,
        first_thread: 8,
        next_thread: 8,
        thread_id: 176,
        thread_frame: 24,
        frame_in: ABSENT,
        frame_bytes: 112,
        frame_previous: 24,
        frame_code: 32,
        code_marks: 0,
        frame_place: 104,
        entry: entry::EACH,
        frame_entry: 0,
        entry_value: 0,
        code_bytes: 128,
        code_first: ABSENT,
        code_size: 48,
        code_first_line: 40,
        code_name: 112,
        code_file: 104,
        code_lines: 120,
        text_ascii: 6,
        text_kind: 2,
        text_state: 32,
        text_length: 16,
        text_data_ascii: 48,
        text_data: 72,
        bytes_length: 16,
        bytes_data: 32,
        lines: 9,
        reserved: 0,
    };
    let since_10 = Python { frame_place: 96, lines: 10, ..since_9 };
    let since_11 = Python {
        first_interpreter: 40,
        first_thread: 16,
        thread_id: 152,
        thread_frame: 56,
        frame_in: 8,
        frame_bytes: 72,
        frame_previous: 48,
        frame_code: 32,
        frame_place: 56,
        entry: entry::FLAG,
        frame_entry: 68,
        code_bytes: 144,
        code_first: 184,
        code_size: 16,
        code_first_line: 72,
        code_name: 128,
        code_file: 112,
        code_lines: 136,
        lines: 11,
        ..since_10
    };
    let since_12 = Python {
        first_thread: 72,
        thread_id: 136,
        frame_in: 0,
        frame_previous: 8,
        frame_code: 0,
        entry: entry::OWNER,
        frame_entry: 70,
        entry_value: 3,
        code_first: 192,
        code_first_line: 68,
        text_data_ascii: 40,
        text_data: 56,
        ..since_11
    };
    let since_13 = Python {
        first_interpreter: 632,
        next_interpreter: 7264,
        first_thread: 7344,
        thread_id: 152,
        thread_frame: 72,
        frame_in: ABSENT,
        code_first: 200,
        ..since_12
    };
    let since_14 = Python {
        first_interpreter: 808,
        next_interpreter: 7272,
        first_thread: 7344,
        frame_bytes: 80,
        code_marks: 3,
        frame_entry: 74,
        code_first: 208,
        ..since_13
    };
    Some(match minor {
        9 => since_9,
        10 => since_10,
        11 => since_11,
        12 => since_12,
        13 => since_13,
        14 => since_14,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::managed::python::PIECE_BYTES;

    #[test]
    fn what_is_looked_at_lies_in_what_is_read() {
        for minor in 9..=14 {
            let python = layout(minor).unwrap();
            let in_frame = [python.frame_previous, python.frame_code, python.frame_place, python.frame_entry / 8 * 8];
            let in_code = [python.code_size, python.code_first_line / 8 * 8, python.code_name, python.code_file, python.code_lines];
            assert!(in_frame.iter().all(|offset| offset + 8 <= python.frame_bytes), "3.{minor}");
            assert!(in_code.iter().all(|offset| offset + 8 <= python.code_bytes), "3.{minor}");
            assert!(python.frame_bytes.max(python.code_bytes) < PIECE_BYTES as u32);
        }
        assert!(layout(8).is_none() && layout(15).is_none());
    }
}
