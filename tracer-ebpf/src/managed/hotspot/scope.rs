//! Which methods a compiler put into each other at a place in code (src/hotspot/share/code/pcDesc.hpp, scopeDesc.hpp): for places at which the JVM may have to know,
//! a list says where in a stream the innermost scope is described, and each scope says its caller's.

use super::{super::fetch, super::state as managed, DONE, METHOD, code};
use crate::{maps::HOTSPOTS, unwind::state};
use core::hint::black_box;
use tracer_common::{
    layout::ABSENT,
    managed::{FAR, NEAR, hotspot::LINES_WITHOUT_ZERO, hotspot::MOST_INLINED},
};

/// Bytes of an entry of the list: place in the code, place of the scope, and two others.
const ENTRY: u64 = 16;
/// Halvings of a list of the most places that are believed.
const MOST_HALVINGS: u64 = 18;
const MOST_ENTRIES: u64 = 1 << MOST_HALVINGS;
/// Bytes of three numbers.
const NUMBERS: u64 = 15;

/// Finds the scopes of the place in the code that [`Managed::place`] says, into [`Managed::scopes`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_scopes() -> u64 {
    let Some(m) = managed() else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(m.build as u32) else { return 0 };
    let mut base = m.object;
    if hotspot.immutable != ABSENT {
        base = code::full(m, hotspot.immutable);
    }
    let first = base + code::half(m, hotspot.places) as u64;
    let end = base + code::half(m, hotspot.places_end) as u64;
    m.filled = if hotspot.is_relative != 0 { base + code::half(m, hotspot.scopes) as u64 } else { code::full(m, hotspot.scopes) };
    m.frame = if hotspot.immutable != ABSENT {
        code::full(m, hotspot.metadata) + code::half(m, hotspot.relocation) as u64
    } else {
        m.object + code::half(m, hotspot.metadata) as u64
    };
    // The bounds stand in working memory: the verifier would follow each pair of them otherwise.
    (m.low, m.high) = (0, end.wrapping_sub(first) / ENTRY);
    if m.high > MOST_ENTRIES {
        return 0;
    }
    let entries = m.high;
    let mut halving = 0;
    while black_box(halving) < MOST_HALVINGS {
        if m.low >= m.high {
            break;
        }
        let middle = (m.low + m.high) / 2;
        if !fetch(&raw mut m.word, 8, first + middle * ENTRY) {
            m.failed = 1;
            return 0;
        }
        // The first and the last entry lie outside of the code.
        if (m.word as i32 as i64) < m.place as i64 {
            m.low = middle + 1;
        } else {
            m.high = middle;
        }
        halving += 1;
    }
    let low = m.low;
    if low >= entries {
        return 0;
    }
    if !fetch(&raw mut m.word, 8, first + low * ENTRY) {
        m.failed = 1;
        return 0;
    }
    m.scopes[0] = scope_of(m.word);
    // A return address has an entry of its own.
    if m.word as u32 as u64 == m.place || low == 0 {
        return 0;
    }
    if !fetch(&raw mut m.word, 8, first + (low - 1) * ENTRY) {
        m.failed = 1;
        return 0;
    }
    m.scopes[1] = scope_of(m.word);
    m.has_place = 0;
    0
}

/// Where the scope of an entry of the list is described.
#[inline(always)]
fn scope_of(entry: u64) -> u64 {
    let scope = (entry >> 32) as i32;
    if scope > 0 { scope as u64 } else { 0 }
}

/// Reads the methods of the first or the second scopes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_scopes(which: u64) -> u64 {
    let Some(m) = managed() else { return 0 };
    let list = (which & 1) as usize;
    let mut scope = m.scopes[list];
    let mut count = 0;
    while count < MOST_INLINED as u64 {
        if scope == 0 {
            break;
        }
        // Behind the scopes stands more of the record than that.
        if !fetch(m.frame_words.as_mut_ptr(), NUMBERS as u32 + 1, m.filled + scope) {
            m.failed = 1;
            break;
        }
        read_numbers();
        scope = m.frame_words[4];
        let at = (list * 2 * MOST_INLINED + (black_box(count) as usize & (MOST_INLINED - 1)) * 2) & LAST;
        m.scope_methods[at] = m.frame_words[5];
        // One more than the bytecode; 0 stands for the beginning.
        m.scope_methods[at | 1] = if m.frame_words[6] == 0 { 0 } else { m.frame_words[6] - 1 };
        count += 1;
    }
    m.scope_counts[list] = count;
    0
}

/// The last place in both lists of methods.
const LAST: usize = 4 * MOST_INLINED - 1;

/// Of a place between two that have scopes, marks what only the next one says ([`NEAR`]): all but the outermost methods, as far as both say the same ones at the same
/// bytecodes. Compilers keep no more, unless they are told to (`-XX:+DebugNonSafepoints`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mark_scopes() -> u64 {
    let Some(m) = managed() else { return 0 };
    let (here, before) = (m.scope_counts[0], m.scope_counts[1]);
    let (mut from_root, mut differ) = (0, 0);
    while from_root < MOST_INLINED as u64 {
        if black_box(from_root) >= here {
            break;
        }
        let at = ((here - 1 - from_root) * 2) as usize & LAST;
        let other = 2 * MOST_INLINED + ((before.wrapping_sub(1 + from_root) * 2) as usize & (2 * MOST_INLINED - 1));
        let is_same = from_root < before
            && m.scope_methods[at] == m.scope_methods[other & LAST]
            && m.scope_methods[at | 1] == m.scope_methods[(other | 1) & LAST];
        differ |= u64::from(!is_same);
        m.scope_methods[at | 1] |= differ * NEAR;
        from_root += 1;
    }
    0
}

/// Begins with the methods that were found; without any, with the one that was compiled.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_scopes(slot: u64) -> u64 {
    let Some(m) = managed() else { return DONE };
    if m.has_place == 0 {
        mark_scopes();
    }
    if m.scope_next >= m.scope_counts[0] {
        m.object = m.other;
        m.at = FAR;
        return METHOD;
    }
    next_method(slot)
}

/// Makes the next method of the frame the one to be looked at, after the one before was recorded: [`METHOD`], or [`DONE`] if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn next_method(slot: u64) -> u64 {
    let (Some(s), Some(m)) = (state(slot), managed()) else { return DONE };
    if m.known.number != 0 && s.java_code.count < MOST_INLINED as u64 {
        s.java_code.frames[s.java_code.count as usize & (MOST_INLINED - 1)] = m.marks;
        s.java_code.count += 1;
        m.known.number = 0;
    }
    if m.scope_next >= m.scope_counts[0] {
        return DONE;
    }
    let at = (m.scope_next * 2) as usize & LAST;
    m.scope_next += 1;
    let method = m.scope_methods[at];
    if method == 0 || !fetch(&raw mut m.object, 8, m.frame + 8 * (method - 1)) {
        m.failed = 1;
        return DONE;
    }
    let bytecode = m.scope_methods[at | 1];
    m.near = bytecode & NEAR;
    m.at = if bytecode & !NEAR > FAR { FAR } else { bytecode & !NEAR };
    METHOD
}

/// Decodes three numbers of the stream: digits of six bits, the lowest first, of which the last is below 192 or the fifth
/// (src/hotspot/share/utilities/unsigned5.hpp).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_numbers() -> u64 {
    let Some(m) = managed() else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(m.build as u32) else { return 0 };
    let excluded = if hotspot.lines == LINES_WITHOUT_ZERO { 1 } else { 0 };
    let (mut at, mut which, mut shift, mut number) = (0, 0, 0, 0_u64);
    while black_box(at) < NUMBERS {
        let byte = m.frame_words[(at / 8) as usize & 1] >> (at % 8 * 8) & 0xff;
        number += byte.wrapping_sub(excluded) << (shift & 31);
        shift += 6;
        if byte < 192 || shift == 30 {
            m.frame_words[(4 + which) as usize & 7] = number & 0xffff_ffff;
            number = 0;
            shift = 0;
            which = (which + 1) & 3;
        }
        at += 1;
        if which == 3 {
            break;
        }
    }
    0
}
