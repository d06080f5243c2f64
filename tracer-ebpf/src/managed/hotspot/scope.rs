//! Which methods a compiler put into each other at a place in code (src/hotspot/share/code/pcDesc.hpp, scopeDesc.hpp): for places at which the JVM may have to know,
//! a list says where in a stream the innermost scope is described, and each scope says its caller's.

use super::{super::fetch, super::state as managed, DONE, METHOD, code};
use crate::{maps::HOTSPOTS, unwind::state};
use core::hint::black_box;
use tracer_common::{
    layout::ABSENT,
    managed::{FAR, hotspot::LINES_WITHOUT_ZERO, hotspot::MOST_INLINED},
};

/// Bytes of an entry of the list: place in the code, place of the scope, and two others.
const ENTRY: u64 = 16;
/// Halvings of a list of the most places that are believed.
const MOST_HALVINGS: u64 = 18;
const MOST_ENTRIES: u64 = 1 << MOST_HALVINGS;
/// Bytes of three numbers.
const NUMBERS: u64 = 15;

/// Finds the scope of the place in the code that [`Managed::place`] says, into [`Managed::behind`]; 0 if it has none. A return address has one; of a place that was
/// interrupted the next one that has one is taken, as the JVM does itself (`CompiledMethod::pc_desc_near`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_scope() -> u64 {
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
    let (mut low, mut high) = (0, end.wrapping_sub(first) / ENTRY);
    if high > MOST_ENTRIES {
        return 0;
    }
    let entries = high;
    let mut halving = 0;
    while halving < MOST_HALVINGS {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        if !fetch(&raw mut m.word, 8, first + middle * ENTRY) {
            m.failed = 1;
            return 0;
        }
        // The first and the last entry lie outside of the code.
        if (m.word as i32 as i64) < m.place as i64 {
            low = middle + 1;
        } else {
            high = middle;
        }
        halving += 1;
    }
    if low >= entries {
        return 0;
    }
    if !fetch(&raw mut m.word, 8, first + low * ENTRY) {
        m.failed = 1;
        return 0;
    }
    let scope = (m.word >> 32) as i32;
    m.behind = if scope > 0 { scope as u64 } else { 0 };
    0
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
    if m.behind == 0 || s.java_code.count >= MOST_INLINED as u64 {
        return DONE;
    }
    // Behind the scopes stands more of the record than that.
    if !fetch(m.frame_words.as_mut_ptr(), NUMBERS as u32 + 1, m.filled + m.behind) {
        m.failed = 1;
        return DONE;
    }
    read_numbers();
    let (outer, method, bytecode) = (m.frame_words[4], m.frame_words[5], m.frame_words[6]);
    m.behind = outer;
    if method == 0 || !fetch(&raw mut m.object, 8, m.frame + 8 * (method - 1)) {
        m.failed = 1;
        return DONE;
    }
    // One more than the bytecode; 0 stands for the beginning.
    m.at = if bytecode == 0 { 0 } else { bytecode - 1 };
    if m.at > FAR {
        m.at = FAR;
    }
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
