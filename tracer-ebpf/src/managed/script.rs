//! Functions of JavaScript, in V8.
//!
//! Code of JavaScript has frames of the machine, whether it is interpreted or compiled: the walk over the stack has noted which may be of that kind,
//! with their frame pointers, where the closure stands. What a closure belongs to is checked by the type of what all its like share. The
//! numbers of functions come in the places of the frames.

use super::{LEARN, LENGTH, PLACE, enter, fetch, function, leave, object, state};
use crate::{
    kernel::task,
    maps::{FUNCTIONS, SCRATCH, V8S},
    values::WALK_SHIFT,
};
use tracer_common::{
    managed::{IN_PLACE, key_of_code, number, v8::SHARED_BYTES},
    mix64,
    stack::{DEEPEST, FAR, IN_FILE, INNERMOST, LEFT_OUT, MAX_FRAMES, OLDEST_SHIFT},
};

/// The frame has no function of JavaScript.
pub const NONE: u64 = 0;
/// It has, and its number is known.
pub const KNOWN: u64 = 1;

/// Puts functions in the places of frames that a walk found. Gives what the walk gave.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_scripts(slot: u64, walked: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return walked };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let scratch = unsafe { &mut *scratch };
    if scratch.unwind.v8 == 0 || walked & LENGTH == 0 {
        return walked;
    }
    let Some(m) = enter() else { return walked };
    m.build = scratch.unwind.v8 - 1;
    m.process = task::own_identity();
    let mut at = 0;
    while at < MAX_FRAMES as u64 {
        if at >= walked & LENGTH {
            break;
        }
        let mut found = look_at_script(slot, at, walked);
        if found == LEARN {
            function::clear_texts();
            object::read_function();
            object::read_text(0);
            object::take_other();
            object::read_text(0);
            function::clear_file();
            object::read_script();
            object::read_text(1);
            found = function::tell_script();
        }
        if found == KNOWN {
            put_script(slot, at);
        }
        at += 1;
    }
    leave();
    walked
}

/// Looks whether a frame that the walk noted has a function of JavaScript, and which. [`NONE`], [`KNOWN`] or [`LEARN`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_script(slot: u64, at: u64, walked: u64) -> u64 {
    const LAST: u64 = MAX_FRAMES as u64 - 1;
    let (Some(scratch), Some(m)) = (SCRATCH.get_ptr_mut(slot as u32), state()) else { return NONE };
    // SAFETY: as above.
    let (s, frames) = unsafe { (&(*scratch).unwind, &(*scratch).stack.frames) };
    let Some(v8) = V8S.get(m.build as u32) else { return NONE };
    let pointer = s.script_frames[(at & LAST) as usize];
    if pointer == 0 {
        return NONE;
    }
    // Code that makes no frame of its own runs with its caller's.
    let caller = caller_of(at, walked);
    if caller != 0 && s.script_frames[(caller & LAST) as usize] == pointer {
        return NONE;
    }
    let frame = frames[(at & LAST) as usize];
    let offset = frame & FAR;
    if frame == LEFT_OUT || frame & IN_FILE != 0 && (offset < v8.code_start as u64 || offset >= v8.code_end as u64) {
        return NONE;
    }
    // Bytecode offset, bytecode, arguments, function, context, the caller's frame pointer.
    if !fetch(m.frame_words.as_mut_ptr(), 48, pointer.wrapping_sub(40)) {
        return NONE;
    }
    let (mut closure, context) = (m.frame_words[3], m.frame_words[4]);
    if context & 1 == 0 {
        let kind = (context >> 1) as u32;
        if kind == v8.builtin_exit {
            if !fetch(&raw mut m.word, 8, pointer + 24) {
                return NONE;
            }
            closure = m.word;
        } else if kind != v8.with_function[0] && kind != v8.with_function[1] && kind != v8.with_function[2] {
            return NONE;
        }
    }
    if closure & 3 != 1 || !fetch(&raw mut m.object, 8, closure - 1 + v8.shared as u64) {
        return NONE;
    }
    object::learn_type();
    if m.object_type != v8.type_shared as u64 || !fetch(m.code_words.as_mut_ptr(), SHARED_BYTES as u32, m.object - 1) {
        return NONE;
    }
    m.code = m.object;
    m.at = 0;
    let names = mix64(super::frame::word(&m.code_words, v8.shared_name), super::frame::word(&m.code_words, v8.shared_script));
    m.known.check = mix64(names, super::frame::half(&m.code_words, v8.shared_literal) as u64);
    if let Some(known) = FUNCTIONS.get_ptr(key_of_code(m.process, m.code)) {
        // SAFETY: a map value. One that is being replaced meanwhile belongs to the same function or does not agree.
        let (check, number) = unsafe { ((*known).check, (*known).number) };
        if check == m.known.check {
            m.known.number = number;
            return KNOWN;
        }
    }
    LEARN
}

/// Where the frame stands that called the one at that place; 0 if it was left out or there is none.
#[inline(always)]
fn caller_of(at: u64, walked: u64) -> u64 {
    let oldest = walked >> (WALK_SHIFT + OLDEST_SHIFT) & PLACE;
    let next = at + 1;
    if oldest == 0 || next < INNERMOST as u64 {
        return if next < walked & LENGTH { next } else { 0 };
    }
    if next == INNERMOST as u64 {
        return 0;
    }
    // In the ring, which ends before the oldest.
    let next = if next == DEEPEST as u64 { INNERMOST as u64 } else { next };
    if next == INNERMOST as u64 + oldest - 1 { 0 } else { next }
}

/// Puts the function in the place of the frame.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn put_script(slot: u64, at: u64) -> u64 {
    let (Some(scratch), Some(m)) = (SCRATCH.get_ptr_mut(slot as u32), state()) else { return NONE };
    // SAFETY: as above.
    let frames = unsafe { &mut (*scratch).stack.frames };
    frames[(at & (MAX_FRAMES as u64 - 1)) as usize] = number(m.known.number, m.at) | IN_PLACE;
    0
}
