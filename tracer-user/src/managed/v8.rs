//! Tells from a file which V8 it holds, and where that keeps what the kernel half reads. Pure; the bytes are hostile.
//!
//! V8 describes its objects for debuggers, in variables that begin with `v8dbg_`: all builds of Node have them, stripped or not, and those of one major
//! version of Node are the same. What they do not say is from V8's sources (`src/objects/scope-info.tq`), and was tried on Node 18.20, 20.20, 22.22
//! and 24.13.

use super::elf;
use crate::host::elf::{Elf, ElfError, Source, Symbol};
use object::elf::PF_X;
use std::ops::Range;
use tracer_common::managed::v8::V8;

/// What names of the variables begin with.
const PREFIX: &[u8] = b"v8dbg_";
/// Unused bits of a small number where pointers are not compressed.
const WIDE: u32 = 31;
/// V8's own machine code for JavaScript has no description in `.eh_frame`, and is by far the longest such piece: 1.4 MB in Node 18.
const LEAST_CODE: u64 = 256 << 10;

/// The V8 is none of those that are known. The words follow its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a V8 of unknown version (object type {0}) is not known to this version of memtrail: JavaScript has names by perf maps only")]
pub struct NotKnown(u32);

/// The V8 that a file holds; `None` if it holds none.
///
/// # Errors
/// It holds one that is not known.
pub fn recognise<S: Source + ?Sized>(elf: &Elf<'_, S>, symbols: &[Symbol]) -> Result<Option<V8>, NotKnown> {
    let Ok(Some((said, code))) = find(elf, symbols) else { return Ok(None) };
    with_scopes(said).map(|v8| Some(V8 { code_start: code.start, code_end: code.end, ..v8 }))
}

/// What the variables do not say: where in a scope its variable part begins, the type of a module's scope and what that has more there, and
/// whether flags are packed. By the type of what closures share.
fn with_scopes(said: V8) -> Result<V8, NotKnown> {
    let (scope_start, module_scope, module_more, is_packed) = match said.type_shared {
        // Node 18, and 20.
        257 | 262 => (32, 3, 0, 0),
        // 22.
        274 => (32, 3, 8, 0),
        // 24.
        282 => (48, 5, 8, 1),
        unknown => return Err(NotKnown(unknown)),
    };
    Ok(V8 { scope_start, module_scope, module_more, is_packed, ..said })
}

/// Whether a symbol of that name is looked at.
#[must_use]
pub fn wants(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

fn find<S: Source + ?Sized>(elf: &Elf<'_, S>, symbols: &[Symbol]) -> Result<Option<(V8, Range<u32>)>, ElfError> {
    // Types of members are a part of the name, and differ.
    let said = |name: &str| {
        let is_it = |symbol: &&Symbol| symbol.name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(name.as_bytes()));
        value(elf, symbols.iter().find(is_it)?)
    };
    if said("SmiShiftSize") != Some(WIDE) {
        return Ok(None);
    }
    let read = || {
        Some(V8 {
            with_function: [
                said("frametype_BuiltinFrame")?,
                said("frametype_JavaScriptBuiltinContinuationFrame")?,
                said("frametype_JavaScriptBuiltinContinuationWithCatchFrame")?,
            ],
            builtin_exit: said("frametype_BuiltinExitFrame")?,
            shared: said("class_JSFunction__shared__")?,
            shared_name: said("class_SharedFunctionInfo__name_or_scope_info__")?,
            shared_script: said("class_SharedFunctionInfo__script_")?,
            // Behind the flags.
            shared_literal: said("class_SharedFunctionInfo__flags__")?.checked_add(4)?,
            type_shared: said("type_SharedFunctionInfo__")?,
            type_scope: said("type_ScopeInfo__")?,
            type_script: said("type_Script__")?,
            type_debug: said("type_DebugInfo__")?,
            ..V8::default()
        })
    };
    Ok(read().zip(code(elf)?))
}

/// The value of a variable of 32 bits: where it has no bytes in the file, it is 0.
fn value<S: Source + ?Sized>(elf: &Elf<'_, S>, symbol: &Symbol) -> Option<u32> {
    let segment = elf.loaded().find(|segment| symbol.address.wrapping_sub(segment.address) < segment.in_memory)?;
    let at = symbol.address.wrapping_sub(segment.address);
    if at.checked_add(4)? > segment.in_file {
        return Some(0);
    }
    let start = segment.offset.checked_add(at)?;
    elf.bytes(start..start.checked_add(4)?).ok()?.try_into().ok().map(u32::from_le_bytes)
}

/// Offsets of V8's own machine code for JavaScript, and what stands before it and has a description.
fn code<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Result<Option<Range<u32>>, ElfError> {
    let starts = elf::described(elf)?;
    let longest = starts.windows(2).map(|pair| pair[0]..pair[1]).max_by_key(|gap| gap.end - gap.start);
    let Some(gap) = longest.filter(|gap| gap.end - gap.start >= LEAST_CODE) else { return Ok(None) };
    let start = elf.loaded().filter(|segment| segment.flags & PF_X != 0).find_map(|segment| segment.offset_of(gap.start));
    let range = |start: u64| Some(u32::try_from(start).ok()?..u32::try_from(start.checked_add(gap.end - gap.start)?).ok()?);
    Ok(start.and_then(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_whose_scopes_are_not_known_are_told() {
        let of_type = |type_shared| V8 { type_shared, ..V8::default() };
        assert!([257, 262, 274, 282].iter().all(|known| with_scopes(of_type(*known)).is_ok_and(|v8| v8.scope_start > 0)));
        assert_eq!(with_scopes(of_type(300)), Err(NotKnown(300)));
    }
}
