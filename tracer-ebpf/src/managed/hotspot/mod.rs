//! Code that HotSpot has made, and its interpreter (see [`tracer_common::managed::hotspot`]): which methods a frame stands for, and how it leads to its
//! caller. Such code has neither a file nor a description, and often no frame pointer; but the JVM keeps a record of each piece.
//!
//! | module | what it does |
//! |---|---|
//! | [`process`] | where a process has its code |
//! | [`code`] | the record of the piece of code at an address |
//! | [`scope`] | which methods were put into each other there |
//! | [`method`] | the name, class, source and lines of a method |
//!
//! What was found for an address is remembered, so that a frame that was met before costs a look-up and the number of its compilation. Names stand in the
//! places of the frames at once: the walk goes over both.

mod code;
mod method;
mod process;
mod scope;

pub use process::{NO_JVM, UNASKED, note_process};

use super::{enter, fetch, function, leave, state as managed};
use crate::{
    loss,
    maps::{HOTSPOTS, JAVA_CODE, SCRATCH},
    unwind::{
        LEARN, STEP,
        frame::{advance, window},
        state,
    },
    values::Unwind,
};
use core::hint::black_box;
use tracer_common::{
    loss::Loss,
    managed::hotspot::{MOST_INLINED, interpreted},
    mix64,
    stack::MAX_FRAMES,
    unwind::{End, Memory as _, Rule, kind, register, saved},
};

/// No JVM that is known made the code: the walk goes on as if nothing were known.
const OTHER: u64 = End::Not as u64;
/// Methods of one frame that are learnt at the most, one turn each.
const TURNS: u64 = MOST_INLINED as u64 + 1;

/// There is a method, whose name is not looked up yet.
const METHOD: u64 = 1;
/// It is known, or never will be.
const NAMED: u64 = 2;
/// It is to be read.
const UNNAMED: u64 = 3;
/// It is no method, and its name is that of the piece of code.
const STUB: u64 = 4;
/// There is no other.
const DONE: u64 = 5;
/// A compiler has put methods into each other there.
const SCOPES: u64 = 6;

/// The key of an address in `JAVA_CODE`.
#[inline(always)]
fn key(s: &Unwind) -> u64 {
    mix64(s.java.process, s.java_pc)
}

/// Finds which methods stand for the frame at the walk's place, and records them, with the rule that leads to its caller: [`STEP`]. [`LEARN`] if they are to be
/// read first, or [`End::Not`] if a JVM has nothing to do with it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_code(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return OTHER };
    if s.java_state == UNASKED {
        process::load_process(slot);
    }
    if s.java_state == NO_JVM {
        return OTHER;
    }
    s.java_pc = s.registers.pc;
    s.java_method = 0;
    if s.java_pc.wrapping_sub(s.java.interpreter) < s.java.interpreter_bytes {
        return interpreted(s);
    }
    let key = key(s);
    let Some(known) = JAVA_CODE.get_ptr(key) else { return LEARN };
    // SAFETY: a map value. One that makes room for another meanwhile is written over, from its first word to its last.
    s.java_code = unsafe { *known };
    if s.java_code.key != key || s.java_code.check != key {
        return LEARN;
    }
    if s.java_code.compile_id != 0 {
        let Some(hotspot) = HOTSPOTS.get(s.java.build as u32) else { return OTHER };
        if !fetch(&raw mut s.word, 8, s.java_code.blob + hotspot.compile_id as u64) || s.word as u32 != s.java_code.compile_id {
            return LEARN;
        }
    }
    put_code(slot)
}

/// Reads the method of an interpreted frame, and at which bytecode it is.
#[inline(always)]
fn interpreted(s: &mut Unwind) -> u64 {
    if s.registers.bp_known == 0 {
        return OTHER;
    }
    let (frame, leaf) = (s.registers.bp, s.is_leaf);
    // The lowest of the frame's words first: what is read at once is what follows it.
    let Some(hotspot) = HOTSPOTS.get(s.java.build as u32) else { return OTHER };
    if !window(s).read(frame.wrapping_sub(hotspot.bytecode as u64)) {
        return OTHER;
    }
    // Of a frame that was interrupted the bytecode stands in r13.
    s.java_bytecode = if leaf != 0 { s.leaf[register::OF_DWARF[13] as usize] } else { s.word };
    if !window(s).read(frame.wrapping_add_signed(interpreted::METHOD)) {
        return OTHER;
    }
    s.java_method = s.word;
    s.java_code.count = 0;
    LEARN
}

/// Reads what the frame stands for, and records it: [`STEP`], or [`End::Not`] if it is not code of a JVM.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn_code(slot: u64) -> u64 {
    if begin_code(slot) == 0 {
        return OTHER;
    }
    let (mut turn, mut next) = (0, code::read_code(slot));
    let is_code = next != 0;
    if next == SCOPES {
        scope::find_scopes();
        scope::read_scopes(0);
        scope::read_scopes(1);
        next = scope::begin_scopes(slot);
    }
    while turn < TURNS {
        if next == METHOD {
            next = method::look_at_method();
        }
        if next == UNNAMED {
            function::clear_texts();
            method::read_class();
            method::read_method();
            next = method::tell_method();
        } else if next == STUB {
            function::clear_texts();
            next = method::tell_stub();
        }
        if next != NAMED {
            break;
        }
        next = scope::next_method(slot);
        turn += 1;
    }
    end_code(slot, u64::from(is_code));
    if is_code { put_code(slot) } else { OTHER }
}

/// Takes the working memory for the process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_code(slot: u64) -> u64 {
    let (Some(s), Some(m)) = (state(slot), enter()) else { return 0 };
    m.build = s.java.build;
    m.process = s.java.process;
    m.now_s = s.now_s;
    m.failed = 0;
    1
}

/// Gives the working memory back, and remembers what was learnt of compiled code, if all of it could be read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_code(slot: u64, is_code: u64) -> u64 {
    let (Some(s), Some(m)) = (state(slot), managed()) else { return 0 };
    if m.failed != 0 {
        loss::count(Loss::ManagedUnreadable, 0);
    } else if is_code != 0 && s.java_method == 0 && s.java_code.count != 0 {
        // Where there is no room it is learnt again.
        let key = key(s);
        s.java_code.key = key;
        s.java_code.check = key;
        let _ = JAVA_CODE.insert(key, &s.java_code, 0);
    }
    leave();
    0
}

/// Records the methods that stand for the frame, and makes the rule that leads out of it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn put_code(slot: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return OTHER };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let (s, frames) = unsafe { (&mut (*scratch).unwind, &mut (*scratch).stack.frames) };
    let mut at = 0;
    while at < MOST_INLINED as u64 {
        if at >= s.java_code.count {
            break;
        }
        frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = s.java_code.frames[black_box(at) as usize & (MOST_INLINED - 1)];
        s.script_frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = 0;
        advance(s);
        at += 1;
    }
    if s.java_code.count == 0 {
        frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = s.registers.pc;
        s.script_frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = 0;
        advance(s);
    }
    s.is_planted = 0;
    s.rule = if s.java_method != 0 {
        Rule { kind: kind::INTERPRETED, base: register::BP, ..NO_FRAME }
    } else if s.registers.returns == 0 && s.registers.pc < s.java_code.complete && !saves_frame_pointer(s) {
        NO_FRAME
    } else if s.java_code.frame_bytes == 0 {
        Rule { cfa: 16, bp: -16, base: register::BP, frame_pointer: saved::FROM_CFA, ..NO_FRAME }
    } else {
        Rule { cfa: s.java_code.frame_bytes as i32, bp: -16, frame_pointer: saved::FROM_CFA, ..NO_FRAME }
    };
    STEP
}

/// The rule of code that has made no frame yet.
const NO_FRAME: Rule =
    Rule { cfa: 8, bp: 0, ra: -8, then: 0, kind: kind::REGISTER, base: register::SP, frame_pointer: saved::SAME, return_register: 0 };

/// Whether the instruction at which code was interrupted stores the frame pointer in a frame that has all of its room already: `mov %rbp,N(%rsp)`. Before it
/// nothing but the check of the stack's room touches memory.
#[inline(always)]
fn saves_frame_pointer(s: &mut Unwind) -> bool {
    const NEAR: u64 = 0x24_6c_89_48;
    const FAR: u64 = 0x24_ac_89_48;
    s.word = 0;
    fetch(&raw mut s.word, 4, s.registers.pc) && (s.word == NEAR || s.word == FAR)
}
