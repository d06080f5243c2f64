//! The record of the piece of code at an address: of a compiled method, or of the JVM's own (src/hotspot/share/code/codeBlob.hpp, nmethod.hpp).

use super::{super::fetch, super::frame, super::state as managed, DONE, METHOD, SCOPES, STUB};
use crate::{
    maps::HOTSPOTS,
    unwind::state,
    values::{BLOB, Managed, Unwind},
};
use core::hint::black_box;
use tracer_common::{
    layout::ABSENT,
    managed::{
        FAR,
        hotspot::{BLOB_BYTES, CODE_HEAPS, HotSpot},
    },
};

/// Steps back to the beginning of a block: one leads over up to 254 segments of 128 bytes.
const MOST_STEPS: u64 = 24;
/// In the place of a step: nothing is there.
const UNUSED: u64 = 0xff;
/// The names of records of methods: compiled ones, and those that call native code.
const COMPILED: u64 = u64::from_le_bytes(*b"nmethod\0");
/// What the names of the JVM's own routines begin with.
const ROUTINES: u64 = u64::from_le_bytes(*b"StubRout");
const NATIVE: [u64; 2] = [u64::from_le_bytes(*b"native n"), u64::from_le_bytes(*b"method\0\0")];

/// A word of the record that was read, by its offset in bytes.
#[inline(always)]
pub fn full(m: &Managed, offset: u32) -> u64 {
    m.blob[(offset / 8) as usize & (BLOB - 1)]
}

/// Half a word, alike.
#[inline(always)]
pub fn half(m: &Managed, offset: u32) -> u32 {
    (full(m, offset) >> ((offset & 4) * 8)) as u32
}

/// Where a place of the record is: what it holds is an address, or an offset in it.
#[inline(always)]
fn place(m: &Managed, hotspot: &HotSpot, offset: u32) -> u64 {
    if hotspot.is_relative != 0 { m.object + half(m, offset) as u64 } else { full(m, offset) }
}

/// Reads what stands at the walk's address: [`METHOD`], [`SCOPES`], [`STUB`], or 0 if it is not code of the JVM's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_code(slot: u64) -> u64 {
    let (Some(s), Some(m)) = (state(slot), managed()) else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(s.java.build as u32) else { return 0 };
    // Nothing of another frame is left.
    s.java_code.count = 0;
    s.java_code.compile_id = 0;
    m.at = FAR;
    m.place = 0;
    m.scopes = [0; 2];
    m.has_place = 1;
    m.scope_counts = [0; 2];
    m.scope_next = 0;
    m.near = 0;
    m.known.number = 0;
    if s.java_method != 0 {
        m.object = s.java_method;
        m.start = s.java_bytecode;
        return METHOD;
    }
    m.object = find_block(slot);
    if m.object == 0 {
        return 0;
    }
    m.object += hotspot.block_bytes as u64;
    if !fetch(m.blob.as_mut_ptr(), BLOB_BYTES as u32, m.object) {
        return 0;
    }
    m.start = 0;
    s.java_code.blob = m.object;
    let frame_bytes = half(m, hotspot.blob_frame).wrapping_mul(8);
    s.java_code.frame_bytes = if frame_bytes > MOST_FRAME_BYTES { 0 } else { frame_bytes };
    let begins = place(m, hotspot, hotspot.blob_code);
    let complete = full(m, hotspot.blob_complete) >> ((hotspot.blob_complete & 7) * 8);
    s.java_code.complete = begins + (complete & hotspot.complete_mask as u64);
    // Its name tells what it is.
    m.code = full(m, hotspot.blob_name);
    if !fetch(m.frame_words.as_mut_ptr(), 16, m.code) {
        // Its frame is known all the same.
        m.failed = 1;
        return DONE;
    }
    if s.java_code.frame_bytes == 0 {
        // Of code without a frame the JVM's routines make one by the frame pointer at once; others make none.
        s.java_code.complete = if m.frame_words[0] == ROUTINES { 0 } else { u64::MAX };
    }
    let is_compiled = m.frame_words[0] == COMPILED;
    if !is_compiled && (m.frame_words[0] != NATIVE[0] || m.frame_words[1] & 0xff_ffff_ffff_ffff != NATIVE[1]) {
        return STUB;
    }
    s.java_code.compile_id = half(m, hotspot.compile_id);
    m.other = full(m, hotspot.method);
    // In its first instructions the method itself is all that there is.
    if is_compiled && (s.registers.returns != 0 || s.java_pc >= s.java_code.complete) {
        was_valid(s, m, hotspot);
        m.place = s.java_pc.wrapping_sub(begins);
        return SCOPES;
    }
    // Of native methods the method itself is known.
    m.object = m.other;
    METHOD
}

/// Frames are no larger than this: `-XX:MaxJavaStackTraceDepth` aside, compiled methods that need more are not compiled.
const MOST_FRAME_BYTES: u32 = 1 << 20;

/// Where a method goes on that is not valid any more, its frame says where it was.
#[inline(always)]
fn was_valid(s: &mut Unwind, m: &mut Managed, hotspot: &HotSpot) {
    let is_linked = hotspot.deoptimised_call != ABSENT && s.java_pc == place(m, hotspot, hotspot.deoptimised_call);
    if is_linked || s.java_pc == place(m, hotspot, hotspot.deoptimised) {
        let at = s.registers.sp.wrapping_add(half(m, hotspot.original) as u64);
        if fetch(&raw mut m.word, 8, at) {
            s.java_pc = m.word;
        } else {
            m.failed = 1;
        }
    }
}

/// The block with the walk's address, in one of the heaps of code; 0 if it is in none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_block(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    let (mut at, mut found) = (0, CODE_HEAPS);
    while black_box(at) < CODE_HEAPS {
        let heap = at & (CODE_HEAPS - 1);
        if (at as u64) < s.java.heaps && s.java_pc >= s.java.low[heap] && s.java_pc < s.java.high[heap] {
            found = heap;
        }
        at += 1;
    }
    if found >= CODE_HEAPS {
        return 0;
    }
    let (low, shift, segments) = (s.java.low[found], s.java.shift[found] & 63, s.java.segments[found]);
    let mut segment = (s.java_pc - low) >> shift;
    let mut step = 0;
    while step < MOST_STEPS {
        s.word = 0;
        if !fetch(&raw mut s.word, 1, segments.wrapping_add(segment)) || s.word == UNUSED {
            return 0;
        }
        if s.word == 0 {
            return low + (segment << shift);
        }
        segment = segment.wrapping_sub(s.word);
        step += 1;
    }
    0
}

/// A word of what was read of a method's constant part (see [`super::method`]).
#[inline(always)]
pub fn const_word(m: &Managed, offset: u32) -> u64 {
    frame::word(&m.code_words, offset)
}
