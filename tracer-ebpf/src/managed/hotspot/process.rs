//! Where a process has the code that its JVM makes. The heaps of code are reserved once, and so is the interpreter.

use super::super::fetch;
use crate::{
    kernel::task,
    maps::{HOTSPOTS, JAVA_PROCESSES},
    unwind::state,
    values::Unwind,
};
use core::hint::black_box;
use tracer_common::{
    layout::ABSENT,
    managed::hotspot::{CODE_HEAPS, HotSpot},
};

/// The walk has not asked yet.
pub const UNASKED: u64 = 0;
/// The process has no JVM that is known.
pub const NO_JVM: u64 = 1;
/// It has, and where its code is is known.
const KNOWN: u64 = 2;

/// Learns where the process of the walk has its code.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_process(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    s.java_state = NO_JVM;
    let process = task::own_identity();
    s.java.process = process;
    if let Some(known) = JAVA_PROCESSES.get_ptr(process) {
        // SAFETY: a map value. One that makes room for another meanwhile is another's.
        s.java = unsafe { *known };
        if s.java.process != process || s.java.check != process {
            return 0;
        }
    } else if s.hotspot == 0 {
        return 0;
    } else {
        describe(s);
    }
    if s.java.heaps == 0 {
        read_heaps(slot);
    }
    if s.java.heaps != 0 {
        s.java_state = KNOWN;
    }
    0
}

/// The walk met a JVM: the next one of the process may begin in its code. 1 if nobody had met it before.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_process(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    s.java.process = task::own_identity();
    if JAVA_PROCESSES.get_ptr(s.java.process).is_some() {
        return 0;
    }
    describe(s);
    // Where there is no room the next walk notes it.
    u64::from(JAVA_PROCESSES.insert(s.java.process, &s.java, 0).is_ok())
}

#[inline(always)]
fn describe(s: &mut Unwind) {
    s.java.check = s.java.process;
    s.java.build = s.hotspot - 1;
    s.java.base = s.hotspot_base;
    s.java.heaps = 0;
}

/// Reads the heaps, if the JVM has them by now, and keeps them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_heaps(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(s.java.build as u32) else { return 0 };
    // The interpreter is made after the heaps.
    if !fetch(&raw mut s.word, 8, s.java.base.wrapping_add(hotspot.interpreter)) || s.word == 0 {
        return 0;
    }
    let queue = s.word;
    s.java.interpreter_bytes = 0;
    let read = fetch(&raw mut s.java.interpreter, 8, queue + hotspot.queue_start as u64)
        && fetch(&raw mut s.java.interpreter_bytes, 4, queue + hotspot.queue_bytes as u64);
    let (mut heaps, mut list) = (1, s.java.base.wrapping_add(hotspot.heaps));
    if hotspot.list_data != ABSENT {
        if !fetch(&raw mut s.java_pc, 8, list) {
            return 0;
        }
        s.word = 0;
        if !fetch(&raw mut s.word, 4, s.java_pc) {
            return 0;
        }
        heaps = s.word;
        if !fetch(&raw mut s.word, 8, s.java_pc + hotspot.list_data as u64) {
            return 0;
        }
        list = s.word;
    }
    if !read || heaps == 0 || heaps > CODE_HEAPS as u64 {
        return 0;
    }
    s.java_pc = list;
    let mut at = 0;
    while at < CODE_HEAPS as u64 {
        if at >= heaps {
            break;
        }
        if !read_heap(s, hotspot, black_box(at)) {
            return 0;
        }
        at += 1;
    }
    s.java.heaps = heaps;
    // Where there is no room they are read again.
    let _ = JAVA_PROCESSES.insert(s.java.process, &s.java, 0);
    0
}

/// Reads the heap with that number in the list at `java_pc`.
#[inline(always)]
fn read_heap(s: &mut Unwind, hotspot: &HotSpot, number: u64) -> bool {
    let at = (number & (CODE_HEAPS as u64 - 1)) as usize;
    if !fetch(&raw mut s.word, 8, s.java_pc + 8 * number) || s.word == 0 {
        return false;
    }
    let heap = s.word;
    s.java.shift[at] = 0;
    fetch(&raw mut s.java.low[at], 8, heap + hotspot.heap_low as u64)
        && fetch(&raw mut s.java.high[at], 8, heap + hotspot.heap_high as u64)
        && fetch(&raw mut s.java.segments[at], 8, heap + hotspot.heap_segments as u64)
        && fetch(&raw mut s.java.shift[at], 4, heap + hotspot.heap_shift as u64)
}
